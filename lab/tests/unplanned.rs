//! Failover that nobody planned, in one lab: by a hasty hand from an older point while the VM still runs, after a clean end
//! behind a cut link, and after a power cut. Each is taken back or reversed, and each time both hosts end alike.
//!
//! Property: the VM belongs to one host at the end, what was written on the host that lives on is there, what only the other host
//! had is kept aside, all that was refused changed nothing, and nothing is copied whole where both hosts know what changed.

use std::time::{Duration, Instant};

use lab::{HOSTS, Protected, disks_are_equal, is_normal, protected};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(150);
const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";
/// What travels when both sides know what changed: far less than the 128 MiB of data on the disk.
const SMALL_BYTES: u64 = 48 << 20;

/// Something happens to the primary's host, and is lived through to the end.
type Scene = fn(&mut Protected);

fn show(world: &Protected, host: &str) -> Value {
    world.product.json(&world.lab, host, &["show", VM]).unwrap()
}

fn wait(world: &Protected, host: &str, good: impl Fn(&Value) -> bool) -> Value {
    world.product.wait_show(&world.lab, host, VM, LIMIT, good).unwrap()
}

fn say(world: &Protected, host: &str, words: &[&str]) -> String {
    let (code, said) = world.product.attempt(&world.lab, host, words).unwrap();
    println!("{host}# virt-replica {}\n{said}", words.join(" "));
    assert_eq!(code, Some(0), "{words:?}: {said}");
    said
}

/// Refused with code 3, naming what and the cure, with nothing changed.
fn refused(world: &Protected, host: &str, words: &[&str], parts: &[&str]) {
    let before = HOSTS.map(|host| show(world, host)["state"].clone());
    let (code, said) = world.product.attempt(&world.lab, host, words).unwrap();
    println!("{host}# virt-replica {}\n{said}", words.join(" "));
    assert_eq!(code, Some(3), "{words:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{words:?} does not say {part:?}: {said}");
    }
    assert_eq!(HOSTS.map(|host| show(world, host)["state"].clone()), before, "{words:?}");
}

/// A file in the guest, on its disk before this returns.
fn mark(world: &Protected, host: &str, name: &str) {
    world.lab.host(host).guest_sh(VM, &format!("echo {name} > /data/{name}; sync")).unwrap();
}

fn marks(world: &Protected, host: &str) -> Vec<String> {
    let listed = world.lab.host(host).guest_sh(VM, "cd /data && ls | grep '^mark-' || true").unwrap();
    listed.lines().map(str::to_owned).collect()
}

/// Cycles as they are acknowledged from here on.
fn more_cycles(world: &Protected, host: &str, count: u64) {
    let done = |shown: &Value| shown["statistics"]["cycles_acknowledged"].as_u64().unwrap_or(0);
    let before = done(&show(world, host));
    wait(world, host, |shown| is_normal(shown, before + count));
}

fn reasons(shown: &Value) -> String {
    shown["reasons"].to_string()
}

fn state(world: &Protected, host: &str) -> String {
    world.lab.host(host).guest_state(VM).unwrap()
}

fn diverged(world: &Protected, host: &str) -> Vec<Value> {
    let listed = world.product.json(&world.lab, host, &["diverged", "list", VM]).unwrap();
    listed.as_array().unwrap().clone()
}

/// The recovery points that the replica's manifest offers, oldest first.
fn points(world: &Protected) -> Vec<String> {
    let directory = show(world, SECOND)["directory"].as_str().unwrap().to_owned();
    let manifest = world.lab.host(SECOND).path(format!("{directory}/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let points = manifest["points"].as_array().unwrap();
    points.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
}

fn shut_down(world: &Protected, host: &str) {
    world.lab.host(host).virsh(["shutdown", VM]).unwrap();
    world.lab.host(host).wait_guest_state(VM, "shut off", LIMIT).unwrap();
}

/// Turns the VM off on its primary, waits until the replica has the end, compares, and starts it again.
fn both_sides_are_equal(world: &Protected, primary: &str) {
    shut_down(world, primary);
    wait(world, primary, |shown| {
        shown["head"]["consistency"] == "powered off" && shown["health"] == "normal"
    });
    disks_are_equal(&world.lab, primary, VM).unwrap();
    world.lab.host(primary).virsh(["start", VM]).unwrap();
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
    world.lab.host(primary).wait_agent(VM, LIMIT).unwrap();
}

fn go_home(world: &Protected) {
    say(world, SECOND, &["planned-failover", VM, "--to", FIRST, "--yes"]);
    world.lab.host(FIRST).wait_agent(VM, LIMIT).unwrap();
    wait(world, FIRST, |shown| is_normal(shown, 1));
}

#[test]
fn a_vm_is_failed_over_without_its_host_and_both_hosts_end_alike() {
    let mut world = protected("unplanned").unwrap();
    world.lab.host(FIRST).wait_agent(VM, LIMIT).unwrap();
    say(&world, FIRST, &["set", VM, "--recovery-points", "3xall", "--yes"]);
    more_cycles(&world, FIRST, 2);
    let scenes: [(&str, Scene); 3] = [
        ("a hasty hand", a_hasty_hand),
        ("a clean end behind a cut link", a_clean_end),
        ("a power cut", a_power_cut),
    ];
    for (name, scene) in scenes {
        let begun = Instant::now();
        scene(&mut world);
        println!("── {name}: {:.1?}", begun.elapsed());
    }
    world.lab.down().unwrap();
}

/// The VM was never gone: both run for a while, both hosts say so, and the failover is taken back.
fn a_hasty_hand(world: &mut Protected) {
    refused(world, FIRST, &["failover", VM, "--yes"], &["belongs to this host"]);
    refused(world, SECOND, &["failover", VM, "--yes"], &["runs there", "--force", "planned-failover"]);
    refused(world, SECOND, &["cancel-failover", VM, "--yes"], &["no failover"]);
    refused(world, SECOND, &["complete-failover", VM, "--yes"], &["no failover"]);

    world.lab.cut_link().unwrap();
    mark(world, FIRST, "mark-hasty-first");
    let (code, said) = world.product.attempt(&world.lab, SECOND, &["failover", VM, "--dry-run"]).unwrap();
    assert!(code == Some(0) && said.contains("LOST") && said.contains("NOT KNOWN"), "{said}");
    let before = points(world);
    assert!(before.len() > 1, "the first is older than the newest");
    say(world, SECOND, &["failover", VM, "--point", &before[0], "--yes"]);
    world.lab.host(SECOND).wait_agent(VM, LIMIT).unwrap();
    assert_eq!(points(world), before, "none is given up until the failover is complete");
    assert!(!marks(world, SECOND).contains(&"mark-hasty-first".to_owned()), "it came after the point");
    mark(world, SECOND, "mark-hasty-second");
    let shown = show(world, SECOND);
    assert_eq!((&shown["state"], &shown["mode"]), (&"Failed over, not complete".into(), &"primary".into()));

    world.lab.heal_link().unwrap();
    for host in HOSTS {
        let shown = wait(world, host, |shown| reasons(shown).contains("split brain"));
        assert_eq!(shown["health"], "critical", "{shown:#}");
        assert!(state(world, host).starts_with("running"), "nothing is destroyed: {}", state(world, host));
    }
    refused(world, SECOND, &["reverse", VM, "--yes"], &["runs on", "never stops", "virsh shutdown"]);

    say(world, SECOND, &["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "60s", "--yes"]);
    wait(world, FIRST, |shown| is_normal(shown, 1));
    more_cycles(world, FIRST, 1);
    wait(world, SECOND, |shown| shown["health"] == "normal" && shown["state"] == "Receiving");
    assert_eq!(show(world, FIRST)["epoch"], show(world, SECOND)["epoch"]);
    assert!(marks(world, FIRST).contains(&"mark-hasty-first".to_owned()));
    let kept = diverged(world, SECOND);
    assert!(kept.len() == 1 && kept[0]["disks"][0]["bytes"].as_u64().unwrap() > 0, "{kept:#?}");
    say(world, SECOND, &["diverged", "list", VM]);
    say(world, SECOND, &["diverged", "remove", VM, kept[0]["id"].as_str().unwrap(), "--yes"]);
    assert!(diverged(world, SECOND).is_empty());
    both_sides_are_equal(world, FIRST);
}

/// Behind a cut link the VM is shut down; its host knows what it wrote last, and only that and what came after travels.
fn a_clean_end(world: &mut Protected) {
    more_cycles(world, FIRST, 1);
    world.lab.cut_link().unwrap();
    mark(world, FIRST, "mark-lost");
    shut_down(world, FIRST);
    say(world, SECOND, &["failover", VM, "--yes"]);
    world.lab.host(SECOND).wait_agent(VM, LIMIT).unwrap();
    mark(world, SECOND, "mark-kept");
    let (code, said) = world.product.attempt(&world.lab, SECOND, &["reverse", VM, "--yes"]).unwrap();
    assert_ne!(code, Some(0), "{said}");
    assert_eq!(show(world, SECOND)["state"], "Failed over, not complete", "{said}");

    world.lab.heal_link().unwrap();
    wait(world, FIRST, |shown| reasons(shown).contains("virt-replica reverse"));
    wait(world, SECOND, |shown| reasons(shown).contains("is back"));
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "a stale copy does not start");
    say(world, SECOND, &["reverse", VM, "--yes"]);
    let shown = wait(world, SECOND, |shown| is_normal(shown, 1));
    let sent = shown["statistics"]["maximum_bytes"].as_u64().unwrap_or(u64::MAX);
    assert!(sent < SMALL_BYTES, "{sent} bytes travelled: {shown:#}");
    let shown = wait(world, FIRST, |shown| shown["mode"] == "replica" && shown["health"] == "normal");
    assert_eq!(shown["epoch"], show(world, SECOND)["epoch"]);
    let begun = Instant::now();
    while diverged(world, FIRST).is_empty() {
        assert!(begun.elapsed() < LIMIT, "nothing was set aside");
        std::thread::sleep(Duration::from_millis(300));
    }
    say(world, FIRST, &["diverged", "list", VM]);
    both_sides_are_equal(world, SECOND);
    go_home(world);
    let there = marks(world, FIRST);
    assert!(there.contains(&"mark-kept".to_owned()) && !there.contains(&"mark-lost".to_owned()), "{there:?}");
}

/// The primary's host loses its power: nobody knows what it wrote last. The failover is made final.
fn a_power_cut(world: &mut Protected) {
    mark(world, FIRST, "mark-before");
    more_cycles(world, FIRST, 2);
    mark(world, FIRST, "mark-last");
    world.product.kill(FIRST).unwrap();
    world.lab.host_mut(FIRST).power_cut().unwrap();
    let newest = points(world).pop().unwrap();
    say(world, SECOND, &["failover", VM, "--point", &newest, "--yes"]);
    world.lab.host(SECOND).wait_agent(VM, LIMIT).unwrap();
    assert!(marks(world, SECOND).contains(&"mark-before".to_owned()));
    say(world, SECOND, &["complete-failover", VM, "--yes"]);
    let source = world.lab.host(SECOND).virsh(["domblklist", VM]).unwrap();
    let active = source.split_whitespace().find(|word| word.ends_with("active.qcow2")).unwrap().to_owned();
    let chain = world.lab.host(SECOND).exec(["qemu-img", "info", "-U", "--backing-chain", &active]).unwrap();
    assert_eq!(chain.matches("image: ").count(), 2, "{chain}");
    assert_eq!(points(world), [newest]);
    mark(world, SECOND, "mark-after");

    world.lab.power_on(FIRST).unwrap();
    world.product.start(world.lab.host(FIRST)).unwrap();
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "a stale copy does not start");
    say(world, SECOND, &["reverse", VM, "--yes"]);
    wait(world, SECOND, |shown| is_normal(shown, 1));
    more_cycles(world, SECOND, 1);
    both_sides_are_equal(world, SECOND);
    go_home(world);
    let there = marks(world, FIRST);
    assert!(
        there.contains(&"mark-after".to_owned()) && !there.contains(&"mark-last".to_owned()),
        "{there:?}"
    );
}

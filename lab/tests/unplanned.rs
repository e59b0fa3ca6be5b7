//! Failover that nobody planned, in one lab: by a hasty hand from an older point while the VM still runs, after a clean end
//! behind a cut link, and after a power cut. Each is taken back or reversed, and each time both hosts end alike.
//!
//! Property: the VM belongs to one host at the end, what was written on the host that lives on is there, what only the other host
//! had is kept aside, all that was refused changed nothing, and nothing is copied whole where both hosts know what changed.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold, LIMIT, Protected, disks_are_equal, is_normal, protected};
use serde_json::Value;

const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";
/// Data on the disk that does not compress and never changes: what travels when a disk is copied whole.
const BALLAST_MIB: u64 = 64;
/// What was written at home and is half-way to the replica when the power fails.
const HALF_MIB: u64 = 8;
/// More than a guest writes that boots and goes on for a while.
const OWN_MIB: u64 = 12;
/// What travels when both sides know what changed, the small cycles around it included.
const SMALL_BYTES: u64 = 24 << 20;

/// Something happens to the primary's host, and is lived through to the end.
type Scene = fn(&mut Protected);

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

/// The marks among the guest's files that were set aside, once these are listed.
fn marks_aside(world: &Protected, host: &str) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let kept = diverged(world, host);
        let disk = kept.last().map(|one| one["disks"][0].clone()).unwrap_or_default();
        if let Some(systems) = disk["file_systems"].as_array() {
            assert!(systems[0]["incomplete"].is_null(), "{systems:#?}");
            let paths =
                systems[0]["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap());
            return paths.filter_map(|path| path.strip_prefix("/mark-")).map(str::to_owned).collect();
        }
        assert!(begun.elapsed() < LIMIT, "no files were set aside: {kept:#?}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Turns the VM off on its primary, waits until the replica has the end, compares, and starts it again.
fn both_sides_are_equal(world: &Protected, primary: &str) {
    world.shut_down(primary);
    world.wait(primary, |shown| shown["head"]["consistency"] == "powered off" && shown["health"] == "normal");
    disks_are_equal(&world.lab, primary, VM).unwrap();
    world.lab.host(primary).virsh(["start", VM]).unwrap();
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
    world.wait_agent(primary);
}

/// `reverse` on a host, until the other one is a replica like any other: only what changed leaves the host.
fn reverse_moves_little(world: &Protected, host: &str) {
    let sent = || world.lab.host(host).sent_bytes().unwrap();
    let before = sent();
    world.say(host, &["reverse", VM, "--yes"]);
    world.wait(host, |shown| is_normal(shown, 1));
    let sent = sent() - before;
    println!("{sent} bytes left {host}");
    assert!(sent < SMALL_BYTES, "{sent} bytes left {host}");
}

fn go_home(world: &Protected) {
    world.say(SECOND, &["planned-failover", VM, "--to", FIRST, "--yes"]);
    world.wait_agent(FIRST);
    world.wait(FIRST, |shown| is_normal(shown, 1));
}

#[test]
fn a_vm_is_failed_over_without_its_host_and_both_hosts_end_alike() {
    let mut world = protected("unplanned").unwrap();
    world.wait_agent(FIRST);
    world.say(FIRST, &["set", VM, "--recovery-points", "3xall", "--yes"]);
    let before = world.lab.host(FIRST).sent_bytes().unwrap();
    world.guest.ask(&world.lab, |client| client.fill("ballast", BALLAST_MIB)).unwrap();
    world.more_cycles(FIRST, 2);
    let sent = world.lab.host(FIRST).sent_bytes().unwrap() - before;
    assert!(sent >= BALLAST_MIB << 20, "the ballast travels when it is copied: {sent} bytes");
    let scenes: [(&str, Scene); 5] = [
        ("a hasty hand", a_hasty_hand),
        ("a clean end behind a cut link", a_clean_end),
        ("the way home, just after a handover", homeward),
        ("a power cut", a_power_cut),
        ("a survivor that ended the relationship", a_survivor_that_ended_it),
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
    world.refused(FIRST, &["failover", VM, "--yes"], &["belongs to this host"]);
    world.refused(SECOND, &["failover", VM, "--yes"], &["runs there", "--force", "planned-failover"]);
    world.refused(SECOND, &["cancel-failover", VM, "--yes"], &["no failover"]);
    world.refused(SECOND, &["complete-failover", VM, "--yes"], &["no failover"]);
    a_person_who_vouches(world);

    world.lab.cut_link().unwrap();
    world.mark(FIRST, "hasty-first");
    let (code, said) = world.attempt(SECOND, &["failover", VM, "--dry-run"]);
    assert!(code == Some(0) && said.contains("LOST") && said.contains("NOT KNOWN"), "{said}");
    let before = world.points(SECOND);
    assert!(before.len() > 1, "the first is older than the newest");
    world.say(SECOND, &["failover", VM, "--point", &before[0], "--yes"]);
    world.wait_agent(SECOND);
    assert_eq!(world.points(SECOND), before, "none is given up until the failover is complete");
    assert!(!world.marks(SECOND).contains(&"hasty-first".to_owned()), "it came after the point");
    world.mark(SECOND, "hasty-second");
    let shown = world.show(SECOND);
    assert_eq!((&shown["state"], &shown["mode"]), (&"Failed over, not complete".into(), &"primary".into()));

    world.lab.heal_link().unwrap();
    for host in HOSTS {
        let shown = world.wait(host, |shown| reasons(shown).contains("split brain"));
        assert_eq!(shown["health"], "critical", "{shown:#}");
        assert!(state(world, host).starts_with("running"), "nothing is destroyed: {}", state(world, host));
    }
    world.refused(SECOND, &["reverse", VM, "--yes"], &["runs on", "never stops", "virsh shutdown"]);

    world.say(SECOND, &["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "60s", "--yes"]);
    world.wait(FIRST, |shown| is_normal(shown, 1));
    world.more_cycles(FIRST, 1);
    world.wait(SECOND, |shown| shown["health"] == "normal" && shown["state"] == "Receiving");
    assert_eq!(world.show(FIRST)["epoch"], world.show(SECOND)["epoch"]);
    assert!(world.marks(FIRST).contains(&"hasty-first".to_owned()));
    let kept = diverged(world, SECOND);
    assert!(kept.len() == 1 && kept[0]["disks"][0]["bytes"].as_u64().unwrap() > 0, "{kept:#?}");
    assert_eq!(marks_aside(world, SECOND), ["hasty-second"], "what was there before is not listed");
    world.say(SECOND, &["diverged", "list", VM]);
    world.say(SECOND, &["diverged", "remove", VM, kept[0]["id"].as_str().unwrap(), "--yes"]);
    assert!(diverged(world, SECOND).is_empty());
    both_sides_are_equal(world, FIRST);
}

/// A person says that it must be, although the VM runs there: it starts, both hosts say so, and it is taken back.
fn a_person_who_vouches(world: &mut Protected) {
    let plan = world.say(SECOND, &["failover", VM, "--force", "--dry-run"]);
    assert!(plan.contains("the VM RUNS there"), "{plan}");
    world.say(SECOND, &["failover", VM, "--force", "--yes"]);
    for host in HOSTS {
        world.wait(host, |shown| reasons(shown).contains("split brain"));
        assert!(state(world, host).starts_with("running"), "nothing is destroyed: {}", state(world, host));
    }
    let told = world.say(SECOND, &["events"]);
    assert!(told.contains("although hvhost01 answers"), "{told}");
    world.say(SECOND, &["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "1s", "--yes"]);
    world.wait(FIRST, |shown| is_normal(shown, 1));
    world.wait(SECOND, |shown| shown["health"] == "normal" && shown["state"] == "Receiving");
    let kept = diverged(world, SECOND);
    world.say(SECOND, &["diverged", "remove", VM, kept[0]["id"].as_str().unwrap(), "--yes"]);
}

/// Behind a cut link the VM is shut down; its host knows what it wrote last, and only that and what came after travels.
fn a_clean_end(world: &mut Protected) {
    world.more_cycles(FIRST, 1);
    world.lab.cut_link().unwrap();
    world.mark(FIRST, "lost");
    world.shut_down(FIRST);
    world.say(SECOND, &["failover", VM, "--yes"]);
    world.wait_agent(SECOND);
    world.mark(SECOND, "kept");
    let (code, said) = world.attempt(SECOND, &["reverse", VM, "--yes"]);
    assert_ne!(code, Some(0), "{said}");
    assert_eq!(world.show(SECOND)["state"], "Failed over, not complete", "{said}");

    world.lab.heal_link().unwrap();
    // At once: nobody has told that host yet.
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "a stale copy does not start");
    world.wait(FIRST, |shown| reasons(shown).contains("virt-replica reverse"));
    world.wait(SECOND, |shown| reasons(shown).contains("is back"));
    reverse_moves_little(world, SECOND);
    let shown = world.wait(FIRST, |shown| shown["mode"] == "replica" && shown["health"] == "normal");
    assert_eq!(shown["epoch"], world.show(SECOND)["epoch"]);
    assert!(marks_aside(world, FIRST).contains(&"lost".to_owned()));
    let said = world.say(FIRST, &["diverged", "list", VM]);
    assert!(said.contains("new") && said.contains("/mark-lost") && !said.contains("/mark-kept"), "{said}");
    both_sides_are_equal(world, SECOND);
    go_home(world);
    let there = world.marks(FIRST);
    assert!(there.contains(&"kept".to_owned()) && !there.contains(&"lost".to_owned()), "{there:?}");
}

/// The roles are swapped: the survivor is the VM's home, its newest recovery point is the hand over, and the other host's files
/// begin with that point, too. The failover is made final in the VM's own disk, and the old primary, away, still knows what it
/// wrote: little travels although the layers were merged.
fn homeward(world: &mut Protected) {
    world.say(FIRST, &["planned-failover", VM, "--to", SECOND, "--yes"]);
    let handed_over = world.points(FIRST).remove(0);
    world.lab.cut_link().unwrap();
    world.wait_agent(SECOND);
    world.mark(SECOND, "homeless");
    world.shut_down(SECOND);
    world.say(FIRST, &["failover", VM, "--point", &handed_over, "--yes"]);
    world.wait_agent(FIRST);
    world.mark(FIRST, "homeward");
    world.say(FIRST, &["complete-failover", VM, "--yes"]);

    world.lab.heal_link().unwrap();
    world.wait(FIRST, |shown| reasons(shown).contains("is back"));
    reverse_moves_little(world, FIRST);
    let begun = Instant::now();
    while diverged(world, SECOND).is_empty() {
        assert!(begun.elapsed() < LIMIT, "nothing was set aside");
        std::thread::sleep(Duration::from_millis(300));
    }
    both_sides_are_equal(world, FIRST);
    for (from, to) in [(FIRST, SECOND), (SECOND, FIRST)] {
        world.say(from, &["planned-failover", VM, "--to", to, "--yes"]);
        world.wait_agent(to);
        let there = world.marks(to);
        assert!(there.contains(&"homeward".to_owned()), "{to}: {there:?}");
        assert!(!there.contains(&"homeless".to_owned()), "{to}: {there:?}");
        world.wait(to, |shown| is_normal(shown, 1));
    }
}

/// The primary's host loses its power in the middle of a resynchronization: nobody knows what it wrote last. The failover is made final.
fn a_power_cut(world: &mut Protected) {
    world.mark(FIRST, "before");
    world.more_cycles(FIRST, 2);
    let points = cut_in_a_resynchronization(world);
    let newest = points.last().unwrap().clone();
    let bytes = bytes_of(world, &newest);
    world.say(SECOND, &["failover", VM, "--point", &newest, "--yes"]);
    world.wait_agent(SECOND);
    assert_eq!(world.points(SECOND), points, "half a delta takes no recovery point away, and makes none");
    assert_eq!(stands_on(world), bytes.0, "the VM's overlay stands on the point itself");
    assert_eq!(bytes_of(world, &newest), bytes, "of which not a byte has changed");
    let there = world.marks(SECOND);
    assert!(there.contains(&"before".to_owned()) && !there.contains(&"last".to_owned()), "{there:?}");
    world.say(SECOND, &["complete-failover", VM, "--yes"]);
    let source = world.lab.host(SECOND).virsh(["domblklist", VM]).unwrap();
    let active = source.split_whitespace().find(|word| word.ends_with("active.qcow2")).unwrap().to_owned();
    let chain = world.lab.host(SECOND).exec(["qemu-img", "info", "-U", "--backing-chain", &active]).unwrap();
    assert_eq!(chain.matches("image: ").count(), 2, "{chain}");
    assert_eq!(world.points(SECOND), [newest]);
    world.mark(SECOND, "after");

    world.lab.power_on(FIRST).unwrap();
    world.product.start(world.lab.host(FIRST)).unwrap();
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "a stale copy does not start");
    let stories = ["disagree", "hvhost01 is primary in epoch", "Unprotected", "virt-replica reverse"];
    world.refused(FIRST, &["resume", VM, "--yes"], &stories);
    let before_the_delta = Hold::arm(world.lab.host(SECOND), "cycle.agreed").unwrap();
    world.say(SECOND, &["reverse", VM, "--yes"]);
    before_the_delta.wait(LIMIT).unwrap();
    world.refused(FIRST, &["failover", VM, "--force", "--yes"], &["own last content", "virt-replica wait"]);
    let before = world.lab.host(SECOND).sent_bytes().unwrap();
    drop(before_the_delta);
    world.wait(SECOND, |shown| is_normal(shown, 1));
    only_what_differed_travelled(world, before);
    world.more_cycles(SECOND, 1);
    both_sides_are_equal(world, SECOND);
    go_home(world);
    let there = world.marks(FIRST);
    assert!(there.contains(&"after".to_owned()) && !there.contains(&"last".to_owned()), "{there:?}");
}

/// The primary's host loses its power while the delta of a resynchronization arrives; gives the recovery points that there are.
fn cut_in_a_resynchronization(world: &mut Protected) -> Vec<String> {
    world.guest.ask(&world.lab, |client| client.fill("half", HALF_MIB)).unwrap();
    let compares = Hold::arm(world.lab.host(FIRST), "compare.range").unwrap();
    world.say(FIRST, &["resynchronize", VM, "--no-wait", "--yes"]);
    compares.wait(LIMIT).unwrap();
    // From here on no cycle comes between.
    world.mark(FIRST, "last");
    let arrives = Hold::arm(world.lab.host(SECOND), "delta.begun").unwrap();
    drop(compares);
    arrives.wait(LIMIT).unwrap();
    let points = world.points(SECOND);
    world.product.kill(FIRST).unwrap();
    world.lab.host_mut(FIRST).power_cut().unwrap();
    drop(arrives);
    points
}

/// The file of a recovery point, and a digest of the disk that it shows.
fn bytes_of(world: &Protected, point: &str) -> (String, String) {
    let directory = world.show(SECOND)["directory"].as_str().unwrap().to_owned();
    let host = world.lab.host(SECOND);
    let manifest = host.path(format!("{directory}/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    let listed = manifest["points"].as_array().unwrap().iter().find(|it| it["id"] == point).unwrap().clone();
    let file = listed["files"]["vda"].as_str().unwrap().to_owned();
    let digest = "qemu-img convert -U -O raw";
    let digest =
        format!("{digest} {directory}/vda/{file} /run/bytes && md5sum < /run/bytes && rm /run/bytes");
    (file, host.sh(&digest).unwrap())
}

/// The file below the overlay that the VM writes to on the second host.
fn stands_on(world: &Protected) -> String {
    let disks = world.lab.host(SECOND).virsh(["domblklist", VM]).unwrap();
    let active = disks.split_whitespace().find(|word| word.ends_with("active.qcow2")).unwrap().to_owned();
    let info = world.lab.host(SECOND).exec(["qemu-img", "info", "-U", "--output=json", &active]).unwrap();
    let info: Value = serde_json::from_str(&info).unwrap();
    info["backing-filename"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
}

/// Both sides were compared: what left the host, and what the daemon says of it, is what differed and not the disk.
fn only_what_differed_travelled(world: &Protected, sent_before: u64) {
    let sent = world.lab.host(SECOND).sent_bytes().unwrap() - sent_before;
    println!("{sent} bytes left {SECOND}");
    assert!(sent < SMALL_BYTES, "{sent} bytes left {SECOND}");
    let told = resynchronized(world);
    let figures: Vec<f64> = told.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let (differed, disk) = (figures[0], figures[1]);
    assert!(0.0 < differed && differed < (HALF_MIB + OWN_MIB) as f64 && disk >= 256.0, "{told}");
}

/// What the second host says of its resynchronization, a moment after its delta was acknowledged.
fn resynchronized(world: &Protected) -> String {
    let begun = Instant::now();
    loop {
        let events = world.product.json(&world.lab, SECOND, &["events", "--vm", VM]).unwrap();
        let told = events.as_array().unwrap().iter().rfind(|event| event["number"] == 1401);
        if let Some(told) = told {
            return told["text"].as_str().unwrap().to_owned();
        }
        assert!(begun.elapsed() < LIMIT, "nothing was compared: {events:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The survivor gave its host up, which returns after all; then the old primary gives the survivor up, and nobody can reverse.
fn a_survivor_that_ended_it(world: &mut Protected) {
    world.product.kill(FIRST).unwrap();
    world.lab.host_mut(FIRST).power_cut().unwrap();
    world.say(SECOND, &["failover", VM, "--yes"]);
    world.wait_agent(SECOND);
    world.say(SECOND, &["remove", VM, "--this-host-only", "--yes"]);

    world.lab.power_on(FIRST).unwrap();
    world.product.start(world.lab.host(FIRST)).unwrap();
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "the VM lives where the relationship ended");
    world.wait(FIRST, |shown| {
        let told = reasons(shown);
        told.contains("ended the relationship") && told.contains(&format!("virt-replica remove {VM}"))
    });
    world.lab.host(FIRST).virsh(["autostart", VM]).unwrap();
    let plan = world.say(FIRST, &["remove", VM, "--yes"]);
    assert!(plan.contains("on hvhost01 is STALE"), "{plan}");
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "nor is it left to start there afterwards");
    assert!(world.lab.host(FIRST).virsh(["dominfo", VM]).unwrap().contains("Autostart:      disable"));
    world.lab.host(FIRST).virsh(["undefine", VM, "--checkpoints-metadata"]).unwrap();
    world.say(SECOND, &["enable", VM, "--peer", FIRST, "--frequency", "5s", "--yes"]);
    world.wait(SECOND, |shown| is_normal(shown, 1));

    world.lab.cut_link().unwrap();
    world.shut_down(SECOND);
    world.say(FIRST, &["failover", VM, "--yes"]);
    world.wait_agent(FIRST);
    world.mark(FIRST, "lost-for-good");

    // It is lost just when the old primary has changed its files and not its role: that one lives on, by the printed commands.
    world.lab.heal_link().unwrap();
    let hold = Hold::arm(world.lab.host(SECOND), "step down.demoted").unwrap();
    let mut reverse = world.product.command(&world.lab, FIRST, &["reverse", VM, "--yes"]).unwrap();
    let mut reverse = reverse.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    hold.wait(LIMIT).unwrap();
    world.lab.cut_link().unwrap();
    world.product.kill(SECOND).unwrap();
    drop(hold);
    let _ = reverse.kill();
    reverse.wait().unwrap();
    world.lab.host(FIRST).virsh(["destroy", VM]).unwrap();
    world.product.start(world.lab.host(SECOND)).unwrap();
    assert!(
        world.lab.host(SECOND).virsh(["start", VM]).is_err(),
        "it is stale as long as it belongs to FIRST"
    );
    world.say(SECOND, &["remove", VM, "--this-host-only", "--yes"]);
    world.lab.host(SECOND).virsh(["start", VM]).unwrap();
    world.wait_agent(SECOND);
    assert!(!world.marks(SECOND).contains(&"lost-for-good".to_owned()));

    world.lab.heal_link().unwrap();
    let (code, said) = world.attempt(FIRST, &["reverse", VM, "--yes"]);
    let told = ["ended the relationship", "virt-replica remove", "virt-replica enable"];
    assert!(code == Some(3) && told.iter().all(|part| said.contains(part)), "{code:?} {said}");
    world.wait(FIRST, |shown| reasons(shown).contains("ended the relationship"));
    assert!(state(world, FIRST).starts_with("shut off"));
}

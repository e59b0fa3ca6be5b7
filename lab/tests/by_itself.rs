//! What a failover does by itself when a person said so before, and how a person gets hold of one that hangs, in one lab.
//!
//! Property: each ends in the state that was chosen, with the VM on one host and its other host told; what the guest wrote on the
//! side that does not live on is kept aside; a paused primary hears of it like any other.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold, LIMIT, Protected, is_normal, protected};
use serde_json::Value;

const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";
/// One way in which a failover ends.
type Scene = fn(&mut Protected);

const STARTS: [&str; 2] = ["start.before", "confirm.before"];

fn is_receiving(shown: &Value) -> bool {
    shown["state"] == "Receiving" && shown["operation"].is_null()
}

/// A command that is left to itself.
fn begin(world: &Protected, words: &[&str]) -> Child {
    let mut command = world.product.command(&world.lab, SECOND, words).unwrap();
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The first host's VM is off, and the second cannot ask about it.
fn lose_the_primary(world: &Protected) {
    world.more_cycles(FIRST, 1);
    world.lab.cut_link().unwrap();
    world.shut_down(FIRST);
}

/// The second host is the replica again, and the first goes on as primary in the same epoch.
fn is_taken_back(world: &Protected) {
    world.wait(SECOND, is_receiving);
    assert!(world.lab.host(SECOND).guest_state(VM).unwrap().starts_with("shut off"));
    world.lab.heal_link().unwrap();
    let epoch = world.show(SECOND)["epoch"].clone();
    world.wait(FIRST, |shown| shown["epoch"] == epoch);
    world.lab.host(FIRST).virsh(["start", VM]).unwrap();
    world.wait_agent(FIRST);
    world.wait(FIRST, |shown| is_normal(shown, 1));
}

#[test]
fn a_failover_ends_by_itself_as_was_chosen_and_one_that_hangs_is_taken_back() {
    let mut world = protected("by-itself").unwrap();
    let scenes: [(&str, Scene); 7] = [
        ("it starts while a cycle asks", it_starts_while_a_cycle_asks),
        ("it does not boot in time", it_does_not_boot),
        ("it is not final before it has started", it_is_not_final_before_it_has_started),
        ("it is taken back after a time", it_is_taken_back),
        ("a copy stands in its way", a_copy_stands_in_its_way),
        ("it hangs", it_hangs),
        ("it becomes final after a time", it_becomes_final),
    ];
    for (name, scene) in scenes {
        let begun = Instant::now();
        scene(&mut world);
        println!("── {name}: {:.1?}", begun.elapsed());
    }
    world.lab.down().unwrap();
}

/// libvirt does not hear of an agent that comes while a backup is open, and so none is opened before it is there.
fn it_starts_while_a_cycle_asks(world: &mut Protected) {
    world.shut_down(FIRST);
    let first = world.lab.host(FIRST);
    let asks = Hold::arm(first, "cycle.agreed").unwrap();
    asks.wait(LIMIT).unwrap();
    first.virsh(["start", VM]).unwrap();
    let opened = Hold::arm(first, "cycle.frozen").unwrap();
    drop(asks);
    opened.wait(LIMIT).unwrap();
    world.wait_agent(FIRST);
}

/// No guest boots within a second here.
fn it_does_not_boot(world: &mut Protected) {
    lose_the_primary(world);
    let (code, said) = world.attempt(SECOND, &["failover", VM, "--roll-back-unless-boots", "1s", "--yes"]);
    assert!(code == Some(1) && said.contains("given up"), "{code:?} {said}");
    is_taken_back(world);
    let listed = world.product.json(&world.lab, SECOND, &["diverged", "list", VM]).unwrap();
    assert_eq!(
        listed.as_array().unwrap().len(),
        1,
        "what the guest wrote while it booted is kept: {listed:#}"
    );
}

/// The newer recovery points are the way out of a point that does not start: they are not given up for a VM that is off.
fn it_is_not_final_before_it_has_started(world: &mut Protected) {
    world.mark(FIRST, "newest");
    lose_the_primary(world);
    let points = world.points(SECOND);
    an_overlay_is_planted(world);
    world.say(SECOND, &["failover", VM, "--yes"]);
    world.wait_agent(SECOND);
    world.shut_down(SECOND);
    let cures = ["has not started", "virsh start testVM01", "virt-replica cancel-failover testVM01"];
    world.refused(SECOND, &["complete-failover", VM, "--yes"], &cures);
    world.refused(SECOND, &["complete-failover", VM, "--dry-run"], &cures);
    assert_eq!(world.points(SECOND), points, "every recovery point is still there");
    world.say(SECOND, &["cancel-failover", VM, "--yes"]);
    is_taken_back(world);
    assert!(world.marks(FIRST).contains(&"newest".to_owned()));
}

/// Somebody started the VM from the replica's files, before it was looked at or between the look and the deed: what was written there
/// is neither run nor lost.
fn an_overlay_is_planted(world: &Protected) {
    let directory = world.show(SECOND)["directory"].as_str().unwrap().to_owned();
    let active = format!("{directory}/vda/active.qcow2");
    let plant = format!(
        "cd {directory}/vda && qemu-img create -q -f qcow2 -F qcow2 -b $(ls [0-9]*.qcow2 | sort -V | tail -n 1) active.qcow2"
    );
    let second = world.lab.host(SECOND);
    let says = ["somebody started the VM from the replica's files", "active.qcow2", "mv FILE FILE.kept"];
    second.sh(&plant).unwrap();
    world.refused(SECOND, &["failover", VM, "--yes"], &says);
    second.sh(&format!("rm {active}")).unwrap();

    let hold = Hold::arm(second, "take over.before").unwrap();
    let mut failover = begin(world, &["failover", VM, "--yes"]);
    hold.wait(LIMIT).unwrap();
    second.sh(&plant).unwrap();
    let planted = second.sh(&format!("sha256sum {active}")).unwrap();
    drop(hold);
    assert!(!failover.wait().unwrap().success());
    let shown = world.wait(SECOND, is_receiving);
    assert_eq!(shown["mode"], "replica", "{shown:#}");
    let newest = world.product.newest_operation(&world.lab, SECOND).unwrap();
    assert!(newest.to_string().contains(says[0]), "{newest:#}");
    assert_eq!(newest["state"], "undone", "{newest:#}");
    assert!(world.lab.host(SECOND).guest_state(VM).unwrap().starts_with("shut off"));
    assert_eq!(second.sh(&format!("sha256sum {active}")).unwrap(), planted, "it is left as it is");
    second.sh(&format!("mv {active} {active}.kept")).unwrap();
}

/// The primary is paused: it makes no cycles, and hears of both all the same.
fn it_is_taken_back(world: &mut Protected) {
    world.more_cycles(FIRST, 1);
    world.say(FIRST, &["pause", VM, "--yes"]);
    world.lab.host(FIRST).guest_sh(VM, "dd if=/dev/urandom of=/data/waits bs=1M count=8 && sync").unwrap();
    let begun = Instant::now();
    while !world.attempt(SECOND, &["failover", VM, "--dry-run"]).1.contains("MiB waited on hvhost01") {
        assert!(begun.elapsed() < LIMIT, "what waits is not told");
        std::thread::sleep(Duration::from_secs(1));
    }
    world.shut_down(FIRST);
    world.say(SECOND, &["failover", VM, "--roll-back-after", "15s", "--yes"]);
    world.wait(FIRST, |shown| shown["reasons"].to_string().contains("belongs to"));
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "a stale copy does not start");
    world.wait(SECOND, is_receiving);
    let epoch = world.show(SECOND)["epoch"].clone();
    world.wait(FIRST, |shown| shown["epoch"] == epoch);
    world.say(FIRST, &["resume", VM, "--yes"]);
    is_taken_back(world);
}

/// A copy that is tried out reads the recovery points: these may not be given up, and a failover may be taken back past it.
fn a_copy_stands_in_its_way(world: &mut Protected) {
    world.say(SECOND, &["test-failover", VM, "--keep", "--yes"]);
    lose_the_primary(world);
    world.say(SECOND, &["failover", VM, "--complete-after", "1s", "--yes"]);
    let overdue = world.wait(SECOND, |shown| shown["reasons"].to_string().contains("its time is over"));
    assert!(overdue["reasons"].to_string().contains("stop-test-failover"), "{overdue:#}");
    world.say(SECOND, &["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "5s", "--yes"]);
    is_taken_back(world);
    lose_the_primary(world);
    world.say(SECOND, &["failover", VM, "--roll-back-after", "1s", "--yes"]);
    is_taken_back(world);
    let states = world.lab.host(SECOND).virsh(["list", "--name"]).unwrap();
    assert!(states.contains("Test"), "the copy stands: {states}");
    world.say(SECOND, &["stop-test-failover", VM, "--yes"]);
}

/// Before the VM starts, and while its guest is waited for.
fn it_hangs(world: &mut Protected) {
    for place in STARTS {
        lose_the_primary(world);
        let hold = Hold::arm(world.lab.host(SECOND), place).unwrap();
        let mut failover = begin(world, &["failover", VM, "--yes"]);
        hold.wait(LIMIT).unwrap();
        let mut cancel =
            begin(world, &["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "5s", "--yes"]);
        let begun = Instant::now();
        while world.product.newest_operation(&world.lab, SECOND).unwrap()["kind"] != "cancel failover" {
            assert!(begun.elapsed() < LIMIT, "{place}: the cancellation does not begin");
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(hold);
        assert!(cancel.wait().unwrap().success(), "{place}");
        let _ = failover.kill();
        failover.wait().unwrap();
        is_taken_back(world);
    }
}

fn it_becomes_final(world: &mut Protected) {
    lose_the_primary(world);
    world.say(SECOND, &["failover", VM, "--complete-after", "3s", "--yes"]);
    world.wait(SECOND, |shown| shown["state"] == "Unprotected" && shown["operation"].is_null());
    assert_eq!(world.points(SECOND).len(), 1, "the others are given up");
    world.lab.heal_link().unwrap();
    world.refused(SECOND, &["cancel-failover", VM, "--yes"], &["no failover"]);
    world.say(SECOND, &["reverse", VM, "--yes"]);
    world.wait(SECOND, |shown| is_normal(shown, 1));
    assert_eq!(world.show(FIRST)["mode"], "replica");
}

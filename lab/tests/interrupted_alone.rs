//! Interrupted anywhere, without the other host: the daemon is killed at every place of a failover, of its cancellation, of its
//! completion and of the old primary's stepping down, each in one operation that goes on after every restart.
//!
//! Property: each operation ends as it would have without a kill, no recovery point is lost before it is given up, and at the
//! end both hosts hold the same disks byte by byte.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold, Protected, disks_are_equal, is_normal, protected};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(150);
const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";

const FAILOVER: [&str; 8] = [
    "take over.before",
    "take over.after",
    "start.before",
    "start.after",
    "confirm.before",
    "confirm.after",
    "report.before",
    "end.before",
];
const CANCEL: [&str; 7] = [
    "shut down.before",
    "shut down.after",
    "give back.before",
    "give back.after",
    "set aside.before",
    "set aside.after",
    "end.before",
];
const COMPLETE: [&str; 7] = [
    "settle.before",
    "settle.stored",
    "settle.after",
    "merge.under way",
    "merge.merged",
    "merge.after",
    "end.before",
];

/// One way through the procedures.
type Part = fn(&mut Protected);

/// Runs a command on the second host whose daemon is killed at each of these places of this host, in turn, and started again.
fn killed_at(world: &mut Protected, victim: &str, places: &[&str], words: &[&str]) {
    let holds: Vec<Hold> =
        places.iter().map(|place| Hold::arm(world.lab.host(victim), place).unwrap()).collect();
    let mut command = world.product.command(&world.lab, SECOND, words).unwrap();
    let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for (hold, place) in holds.into_iter().zip(places) {
        let begun = Instant::now();
        hold.wait(LIMIT).unwrap_or_else(|error| {
            let logs = HOSTS.map(|host| world.lab.host(host).log("virtreplicad").unwrap_or_default());
            panic!("{place} is not reached: {error:#}\n{}\n{}", logs[0], logs[1])
        });
        world.product.kill(victim).unwrap();
        drop(hold);
        world.product.start(world.lab.host(victim)).unwrap();
        println!("{place:>20} on {victim}: {:.1?}", begun.elapsed());
    }
    let _ = command.kill();
    command.wait().unwrap();
}

/// Waits until no operation is open; gives the newest.
fn ended(world: &Protected) -> Value {
    world.wait(SECOND, |shown| shown["operation"].is_null());
    let newest = world.product.newest_operation(&world.lab, SECOND).unwrap();
    assert_eq!(newest["state"], "completed", "{newest:#}");
    newest
}

#[test]
fn every_place_of_a_procedure_of_one_host_survives_a_kill() {
    let mut world = protected("alone").unwrap();
    world.wait_agent(FIRST);
    let steps: [(&str, Part); 3] =
        [("cancelled", cancelled), ("completed and reversed", completed), ("reversed at once", reversed)];
    for (name, step) in steps {
        let begun = Instant::now();
        step(&mut world);
        println!("── {name}: {:.1?}", begun.elapsed());
    }
    world.lab.down().unwrap();
}

/// The VM runs on at home behind a cut link: the failover is taken back, and nobody there notices more than a pause.
fn cancelled(world: &mut Protected) {
    world.lab.cut_link().unwrap();
    let before = world.points(SECOND).len();
    killed_at(world, SECOND, &FAILOVER, &["failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "failover");
    world.wait_agent(SECOND);
    assert_eq!(world.points(SECOND).len(), before);
    killed_at(world, SECOND, &CANCEL, &["cancel-failover", VM, "--turn-off", "--yes"]);
    assert_eq!(ended(world)["kind"], "cancel failover");
    assert_eq!(world.points(SECOND).len(), before);
    world.lab.heal_link().unwrap();
    world.wait(FIRST, |shown| is_normal(shown, 1));
    equal(world, FIRST);
}

fn completed(world: &mut Protected) {
    lose_the_first(world);
    killed_at(world, SECOND, &COMPLETE, &["complete-failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "complete failover");
    assert_eq!(world.points(SECOND).len(), 1);
    world.lab.heal_link().unwrap();
    killed_at(world, FIRST, &["step down.measured"], &["reverse", VM, "--yes"]);
    killed_at(world, FIRST, &["step down.demoted"], &["reverse", VM, "--yes"]);
    home(world);
}

fn reversed(world: &mut Protected) {
    lose_the_first(world);
    world.lab.heal_link().unwrap();
    killed_at(world, SECOND, &["settle.stored"], &["reverse", VM, "--yes"]);
    home(world);
}

/// The VM ends at home behind a cut link, and goes on on the second host.
fn lose_the_first(world: &mut Protected) {
    world.lab.cut_link().unwrap();
    world.lab.host(FIRST).guest_sh(VM, "dd if=/dev/urandom of=/data/lost bs=64k count=40; sync").unwrap();
    world.lab.host(FIRST).virsh(["shutdown", VM]).unwrap();
    world.lab.host(FIRST).wait_guest_state(VM, "shut off", LIMIT).unwrap();
    world.say(SECOND, &["failover", VM, "--yes"]);
    world.wait_agent(SECOND);
    world.lab.host(SECOND).guest_sh(VM, "dd if=/dev/urandom of=/data/kept bs=64k count=40; sync").unwrap();
}

fn home(world: &mut Protected) {
    world.say(SECOND, &["reverse", VM, "--yes"]);
    world.wait(SECOND, |shown| is_normal(shown, 1));
    equal(world, SECOND);
    world.say(SECOND, &["planned-failover", VM, "--to", FIRST, "--yes"]);
    world.wait_agent(FIRST);
    world.wait(FIRST, |shown| is_normal(shown, 1));
}

/// Turns the VM off, waits until the replica has the end, compares, and starts it again.
fn equal(world: &Protected, primary: &str) {
    world.lab.host(primary).virsh(["shutdown", VM]).unwrap();
    world.lab.host(primary).wait_guest_state(VM, "shut off", LIMIT).unwrap();
    let off = |shown: &Value| shown["head"]["consistency"] == "powered off" && shown["health"] == "normal";
    world.wait(primary, off);
    disks_are_equal(&world.lab, primary, VM).unwrap();
    world.lab.host(primary).virsh(["start", VM]).unwrap();
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
    world.wait_agent(primary);
}

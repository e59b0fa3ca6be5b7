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

fn show(world: &Protected, host: &str) -> Value {
    world.product.json(&world.lab, host, &["show", VM]).unwrap()
}

fn wait(world: &Protected, host: &str, good: impl Fn(&Value) -> bool) -> Value {
    world.product.wait_show(&world.lab, host, VM, LIMIT, good).unwrap()
}

fn say(world: &Protected, host: &str, words: &[&str]) {
    let (code, said) = world.product.attempt(&world.lab, host, words).unwrap();
    assert_eq!(code, Some(0), "{words:?}: {said}");
}

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
    wait(world, SECOND, |shown| shown["operation"].is_null());
    let newest = world.product.newest_operation(&world.lab, SECOND).unwrap();
    assert_eq!(newest["state"], "completed", "{newest:#}");
    newest
}

fn points(world: &Protected) -> usize {
    let directory = show(world, SECOND)["directory"].as_str().unwrap().to_owned();
    let manifest = world.lab.host(SECOND).path(format!("{directory}/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
    manifest["points"].as_array().unwrap().len()
}

#[test]
fn every_place_of_a_procedure_of_one_host_survives_a_kill() {
    let mut world = protected("alone").unwrap();
    world.lab.host(FIRST).wait_agent(VM, LIMIT).unwrap();
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
    let before = points(world);
    killed_at(world, SECOND, &FAILOVER, &["failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "failover");
    world.lab.host(SECOND).wait_agent(VM, LIMIT).unwrap();
    assert_eq!(points(world), before);
    killed_at(world, SECOND, &CANCEL, &["cancel-failover", VM, "--turn-off", "--yes"]);
    assert_eq!(ended(world)["kind"], "cancel failover");
    assert_eq!(points(world), before);
    world.lab.heal_link().unwrap();
    wait(world, FIRST, |shown| is_normal(shown, 1));
    equal(world, FIRST);
}

fn completed(world: &mut Protected) {
    lose_the_first(world);
    killed_at(world, SECOND, &COMPLETE, &["complete-failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "complete failover");
    assert_eq!(points(world), 1);
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
    say(world, SECOND, &["failover", VM, "--yes"]);
    world.lab.host(SECOND).wait_agent(VM, LIMIT).unwrap();
    world.lab.host(SECOND).guest_sh(VM, "dd if=/dev/urandom of=/data/kept bs=64k count=40; sync").unwrap();
}

fn home(world: &mut Protected) {
    say(world, SECOND, &["reverse", VM, "--yes"]);
    wait(world, SECOND, |shown| is_normal(shown, 1));
    equal(world, SECOND);
    say(world, SECOND, &["planned-failover", VM, "--to", FIRST, "--yes"]);
    world.lab.host(FIRST).wait_agent(VM, LIMIT).unwrap();
    wait(world, FIRST, |shown| is_normal(shown, 1));
}

/// Turns the VM off, waits until the replica has the end, compares, and starts it again.
fn equal(world: &Protected, primary: &str) {
    world.lab.host(primary).virsh(["shutdown", VM]).unwrap();
    world.lab.host(primary).wait_guest_state(VM, "shut off", LIMIT).unwrap();
    let off = |shown: &Value| shown["head"]["consistency"] == "powered off" && shown["health"] == "normal";
    wait(world, primary, off);
    disks_are_equal(&world.lab, primary, VM).unwrap();
    world.lab.host(primary).virsh(["start", VM]).unwrap();
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
    world.lab.host(primary).wait_agent(VM, LIMIT).unwrap();
}

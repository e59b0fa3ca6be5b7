//! Interrupted anywhere, without the other host: the daemon is killed at every place of a failover, of its cancellation, of its
//! completion and of a reverse, on the survivor and on the old primary, each in one operation that goes on after every restart;
//! and the link is cut where one of them speaks to the other.
//!
//! Property: each operation ends as it would have without a fault, no recovery point is lost before it is given up, a stale copy
//! does not start, and at the end both hosts hold the same disks byte by byte.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold, LIMIT, Protected, disks_are_equal, is_normal, protected};
use serde_json::Value;

const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";
/// What the VM writes at home behind a cut link, and only there.
const LOST_BYTES: u64 = 40 << 16;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The daemon of the host that goes on with the VM.
    KillSurvivor,
    /// The daemon of the other.
    KillOther,
    KillBoth,
    CutLink,
}

impl Fault {
    const ALL: [Fault; 4] = [Fault::KillSurvivor, Fault::KillOther, Fault::KillBoth, Fault::CutLink];

    fn killed(self) -> &'static [&'static str] {
        match self {
            Fault::KillSurvivor => &[SECOND],
            Fault::KillOther => &[FIRST],
            Fault::KillBoth => &HOSTS,
            Fault::CutLink => &[],
        }
    }
}

const FAILOVER: [&str; 11] = [
    "take over.before",
    "take over.after",
    "start.before",
    "start.after",
    "confirm.before",
    "confirm.after",
    "redirect.before",
    "redirect.after",
    "report.before",
    "report.after",
    "end.before",
];
const CANCEL: [&str; 9] = [
    "shut down.before",
    "shut down.after",
    "give back.before",
    "give back.after",
    "set aside.before",
    "set aside.after",
    "report.before",
    "report.after",
    "end.before",
];
/// Once the settlement is stored it is done: nothing comes back to its end.
const COMPLETE: [&str; 8] = [
    "settle.before",
    "settle.stored",
    "merge.under way",
    "merge.merged",
    "merge.after",
    "report.before",
    "report.after",
    "end.before",
];
/// Where a reverse waits, and on which host: between the question and the deed; on the old primary before it has stepped down, and
/// when it has and nobody was told; when its answer has come and is not kept yet. Each try gets as far as the next place.
const REVERSE: [(&str, &str); 5] = [
    (SECOND, "settle.stored"),
    (FIRST, "step down.measured"),
    (FIRST, "step down.demoted"),
    (FIRST, "step down.stored"),
    (SECOND, "reverse.answered"),
];

/// One way through the procedures.
type Part = fn(&mut Protected);

/// Runs a command on the second host, and lets the fault happen at each of these places of this host, in turn.
fn interrupted_at(world: &mut Protected, fault: Fault, host: &str, places: &[&str], words: &[&str]) {
    let holds: Vec<Hold> =
        places.iter().map(|place| Hold::arm(world.lab.host(host), place).unwrap()).collect();
    let mut command = world.product.command(&world.lab, SECOND, words).unwrap();
    let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for (hold, place) in holds.into_iter().zip(places) {
        let begun = Instant::now();
        hold.wait(LIMIT).unwrap_or_else(|error| {
            let logs = HOSTS.map(|host| world.lab.host(host).log("virtreplicad").unwrap_or_default());
            let newest = world.product.newest_operation(&world.lab, SECOND);
            panic!("{place} is not reached: {error:#}\n{newest:#?}\n{}\n{}", logs[0], logs[1])
        });
        if fault == Fault::CutLink {
            world.lab.cut_link().unwrap();
        }
        for host in fault.killed() {
            world.product.kill(host).unwrap();
        }
        drop(hold);
        for host in fault.killed() {
            world.product.start(world.lab.host(host)).unwrap();
        }
        if fault == Fault::CutLink {
            if words[0] == "reverse" {
                // No operation that goes on when the link is back: it ends with the silence, unless all is said already.
                let done = command.wait().unwrap().success();
                assert_eq!(done, *place == "reverse.answered", "{place}");
            } else {
                // Long enough for whoever was held to run into the silence.
                std::thread::sleep(Duration::from_secs(2));
            }
            world.lab.heal_link().unwrap();
        }
        println!("{place:>20} on {host}: {fault:?} in {:.1?}", begun.elapsed());
    }
    let _ = command.kill();
    command.wait().unwrap();
}

fn killed_at(world: &mut Protected, places: &[&str], words: &[&str]) {
    interrupted_at(world, Fault::KillSurvivor, SECOND, places, words);
}

/// One try to reverse for each of these places, with its fault.
fn reverse_interrupted_at(world: &mut Protected, places: &[((&str, &str), Fault)]) {
    for ((host, place), fault) in places {
        interrupted_at(world, *fault, host, &[place], &["reverse", VM, "--yes"]);
    }
}

/// Waits until no operation is open; gives the newest.
fn ended(world: &Protected) -> Value {
    world.wait(SECOND, |shown| shown["operation"].is_null());
    let newest = world.product.newest_operation(&world.lab, SECOND).unwrap();
    assert_eq!(newest["state"], "completed", "{newest:#}");
    newest
}

#[test]
fn every_place_of_a_procedure_of_one_host_survives_a_fault() {
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

#[test]
#[ignore = "half an hour: cargo xtask test --long"]
fn every_place_of_a_procedure_of_one_host_survives_every_fault() {
    let mut world = protected("alone-all").unwrap();
    world.wait_agent(FIRST);
    for fault in Fault::ALL {
        let begun = Instant::now();
        there_and_back(&mut world, fault);
        for place in REVERSE {
            lose_the_first(&mut world);
            world.lab.heal_link().unwrap();
            reverse_interrupted_at(&mut world, &[(place, fault)]);
            home(&mut world);
        }
        println!("── {fault:?}: {:.1?}", begun.elapsed());
    }
    world.lab.down().unwrap();
}

/// The other host is there all the while, with its VM off: the fault at every place of each procedure.
fn there_and_back(world: &mut Protected, fault: Fault) {
    world.shut_down(FIRST);
    interrupted_at(world, fault, SECOND, &FAILOVER, &["failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "failover");
    is_stale(world);
    interrupted_at(world, fault, SECOND, &CANCEL, &["cancel-failover", VM, "--turn-off", "--yes"]);
    assert_eq!(ended(world)["kind"], "cancel failover");
    let epoch = world.show(SECOND)["epoch"].clone();
    world.wait(FIRST, |shown| shown["epoch"] == epoch);
    world.say(SECOND, &["failover", VM, "--yes"]);
    world.wait_agent(SECOND);
    interrupted_at(world, fault, SECOND, &COMPLETE, &["complete-failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "complete failover");
    assert_eq!(world.points(SECOND).len(), 1);
    home(world);
}

/// The VM runs on at home behind a cut link: the failover is taken back, and nobody there notices more than a pause.
fn cancelled(world: &mut Protected) {
    world.lab.cut_link().unwrap();
    let before = world.points(SECOND).len();
    killed_at(world, &FAILOVER, &["failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "failover");
    world.wait_agent(SECOND);
    assert_eq!(world.points(SECOND).len(), before);
    killed_at(world, &CANCEL, &["cancel-failover", VM, "--turn-off", "--yes"]);
    assert_eq!(ended(world)["kind"], "cancel failover");
    assert_eq!(world.points(SECOND).len(), before);
    world.lab.heal_link().unwrap();
    world.wait(FIRST, |shown| is_normal(shown, 1));
    equal(world, FIRST);
}

/// Either daemon is killed in the reverse. What the old primary wrote is set aside, although it is killed in the middle of that, too.
fn completed(world: &mut Protected) {
    lose_the_first(world);
    killed_at(world, &COMPLETE, &["complete-failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "complete failover");
    assert_eq!(world.points(SECOND).len(), 1);
    world.lab.heal_link().unwrap();
    let kill_the_one_there = |(host, place): (&'static str, &'static str)| {
        ((host, place), if host == SECOND { Fault::KillSurvivor } else { Fault::KillOther })
    };
    let keeps = Hold::arm(world.lab.host(FIRST), "copy.written").unwrap();
    reverse_interrupted_at(world, &REVERSE.map(kill_the_one_there));
    world.say(SECOND, &["reverse", VM, "--yes"]);
    keeps.wait(LIMIT).unwrap();
    world.product.kill(FIRST).unwrap();
    drop(keeps);
    world.product.start(world.lab.host(FIRST)).unwrap();
    goes_home(world);
    let kept = world.product.json(&world.lab, FIRST, &["diverged", "list", VM]).unwrap();
    assert!(kept[0]["disks"][0]["bytes"].as_u64().unwrap() >= LOST_BYTES, "{kept:#}");
}

/// The link is cut before the survivor has told the other host of it, and before the old primary answers that it has stepped down.
fn reversed(world: &mut Protected) {
    world.shut_down(FIRST);
    interrupted_at(world, Fault::CutLink, SECOND, &["start.before"], &["failover", VM, "--yes"]);
    assert_eq!(ended(world)["kind"], "failover");
    world.wait_agent(SECOND);
    is_stale(world);
    reverse_interrupted_at(world, &[(REVERSE[2], Fault::CutLink)]);
    home(world);
}

/// The first host has heard that its copy is stale, and nothing starts it.
fn is_stale(world: &Protected) {
    world.wait(FIRST, |shown| shown["reasons"].to_string().contains("belongs to"));
    assert!(world.lab.host(FIRST).virsh(["start", VM]).is_err(), "a stale copy does not start");
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

/// Reversed, if the last try to reverse was not answered, and handed over.
fn home(world: &mut Protected) {
    if world.show(SECOND)["state"] != "Replicating" {
        world.say(SECOND, &["reverse", VM, "--yes"]);
    }
    goes_home(world);
}

fn goes_home(world: &mut Protected) {
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

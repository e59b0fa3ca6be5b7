//! Interrupted anywhere: at every place of the handover and of a cycle a daemon is killed, or both, or the link is cut.
//!
//! Property: the operation ends the same way on both hosts, at no time two QEMUs of the VM live, not one acknowledged write is
//! lost or doubled, a repeated command is harmless, and at the end both hosts hold the same disks byte by byte.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{HOSTS, Hold, Judge, LIMIT, Protected, Sides, disks_are_equal, is_normal, protected};
use serde_json::Value;

/// The host on which a place lies, by its part when the operation begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Primary,
    Replica,
}

/// What makes the daemon come to the place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// Any cycle.
    Cycle,
    /// A planned failover.
    Failover,
    /// A planned failover that is cancelled before its final sync.
    Cancel,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    KillPrimary,
    KillReplica,
    KillBoth,
    CutLink,
}

const FAULTS: [Fault; 4] = [Fault::KillPrimary, Fault::CutLink, Fault::KillReplica, Fault::KillBoth];

#[rustfmt::skip]
const PLACES: [(Way, Side, &str); 40] = [
    (Way::Cycle,    Side::Primary, "cycle.frozen"),
    (Way::Cycle,    Side::Primary, "cycle.reading"),
    (Way::Cycle,    Side::Primary, "cycle.acknowledged"),
    (Way::Cycle,    Side::Primary, "cycle.kept"),
    (Way::Cycle,    Side::Replica, "delta.begun"),
    (Way::Cycle,    Side::Replica, "delta.sealed"),
    (Way::Cycle,    Side::Replica, "delta.listed"),
    (Way::Cycle,    Side::Replica, "delta.kept"),
    (Way::Failover, Side::Primary, "announce.before"),
    (Way::Failover, Side::Primary, "announce.after"),
    (Way::Failover, Side::Primary, "pre-sync.before"),
    (Way::Failover, Side::Primary, "pre-sync.after"),
    (Way::Failover, Side::Primary, "shut down.before"),
    (Way::Failover, Side::Primary, "shut down.after"),
    (Way::Failover, Side::Primary, "lock.before"),
    (Way::Failover, Side::Primary, "lock.after"),
    (Way::Failover, Side::Primary, "final sync.before"),
    (Way::Failover, Side::Primary, "final sync.after"),
    (Way::Failover, Side::Primary, "hand over.asking"),
    (Way::Failover, Side::Replica, "hand over.before"),
    (Way::Failover, Side::Replica, "hand over.after"),
    (Way::Failover, Side::Primary, "hand over.answered"),
    (Way::Failover, Side::Primary, "demote.before"),
    (Way::Failover, Side::Primary, "demote.after"),
    (Way::Failover, Side::Replica, "start.before"),
    (Way::Failover, Side::Replica, "start.after"),
    (Way::Failover, Side::Replica, "reverse.before"),
    (Way::Failover, Side::Replica, "reverse.after"),
    (Way::Failover, Side::Replica, "confirm.before"),
    (Way::Failover, Side::Replica, "confirm.after"),
    (Way::Failover, Side::Replica, "redirect.before"),
    (Way::Failover, Side::Replica, "redirect.after"),
    (Way::Failover, Side::Replica, "report.before"),
    (Way::Failover, Side::Replica, "report.after"),
    (Way::Failover, Side::Replica, "end.before"),
    (Way::Failover, Side::Primary, "end.before"),
    (Way::Cancel,   Side::Primary, "undo lock.before"),
    (Way::Cancel,   Side::Primary, "undo shut down.before"),
    (Way::Cancel,   Side::Primary, "undo shut down.after"),
    (Way::Cancel,   Side::Primary, "end.before"),
];

/// The pairs of place and fault that fit into continuous integration: every second place, the faults in turn.
fn is_usual(place: usize, fault: usize) -> bool {
    place.is_multiple_of(2) && place / 2 % FAULTS.len() == fault
}

#[test]
fn every_second_place_survives_a_fault() {
    walk("walk", is_usual);
}

#[test]
#[ignore = "half an hour: cargo xtask test --long"]
fn every_place_survives_every_other_fault() {
    walk("walk-all", |place, fault| !is_usual(place, fault));
}

fn walk(name: &str, chosen: impl Fn(usize, usize) -> bool) {
    let mut world = protected(name).unwrap();
    let judge = Judge::start(&world.lab, &world.guest, 1).unwrap();
    let sides = Sides::watch(&world.lab, &world.guest.name).unwrap();
    let only = std::env::var("WALK_ONLY").ok();
    let mut wrong = Vec::new();
    for (index, (way, side, place)) in PLACES.into_iter().enumerate() {
        for (number, fault) in FAULTS.into_iter().enumerate() {
            if !chosen(index, number) || only.as_deref().is_some_and(|only| !place.contains(only)) {
                continue;
            }
            let begun = Instant::now();
            let outcome = interrupt(&mut world, way, side, place, fault);
            println!("{place:>22} on the {side:?}: {fault:?} in {:.1?}: {outcome:?}", begun.elapsed());
            if let Err(error) = outcome {
                wrong.push(format!("{place} on the {side:?}, {fault:?}: {error:#}"));
                // What rests in an unknown state spoils every case after it.
                break;
            }
        }
        if !wrong.is_empty() {
            for host in HOSTS {
                println!("── {host}\n{}", world.lab.host(host).log("virtreplicad").unwrap_or_default());
            }
            panic!("{wrong:#?}");
        }
    }
    assert_eq!(sides.seen_on_both(), 0, "the VM ran on both hosts at once");
    drop(sides);
    judge.wait_more(1, LIMIT).unwrap();
    let verdict = judge.finish(&world.lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    the_disks_are_equal(&world).unwrap();
    world.lab.down().unwrap();
}

/// The host that is primary by both hosts' word.
fn primary(world: &Protected) -> Result<usize> {
    let shown: Vec<Value> = HOSTS
        .iter()
        .map(|host| world.product.json(&world.lab, host, &["show", &world.guest.name]))
        .collect::<Result<_>>()?;
    match (shown[0]["mode"].as_str(), shown[1]["mode"].as_str()) {
        (Some("primary"), Some("replica")) => Ok(0),
        (Some("replica"), Some("primary")) => Ok(1),
        modes => bail!("the modes are {modes:?}"),
    }
}

fn interrupt(world: &mut Protected, way: Way, side: Side, place: &str, fault: Fault) -> Result<&'static str> {
    let first = primary(world)?;
    let (from, to) = (HOSTS[first], HOSTS[1 - first]);
    let vm = world.guest.name.clone();
    let hold = Hold::arm(world.lab.host(if side == Side::Primary { from } else { to }), place)?;
    let command = match way {
        Way::Cycle => None,
        Way::Failover | Way::Cancel => {
            let early = (way == Way::Cancel)
                .then(|| Hold::arm(world.lab.host(from), "final sync.before"))
                .transpose()?;
            let words = ["planned-failover", &vm, "--to", to, "--yes"];
            let command = world
                .product
                .command(&world.lab, from, &words)?
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()?;
            if let Some(early) = early {
                early.wait(LIMIT)?;
                let open = world.product.newest_operation(&world.lab, from)?;
                let id = open["id"].as_str().context("an id")?.to_owned();
                let mut cancel =
                    world.product.command(&world.lab, from, &["operation", "cancel", &id, "--yes"])?;
                let mut cancel =
                    cancel.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
                while !cancelled(world, from)? && cancel.try_wait()?.is_none() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                drop(early);
                hold.wait(LIMIT)?;
                cancel.kill()?;
                cancel.wait()?;
            }
            Some(command)
        }
    };
    hold.wait(LIMIT)?;
    let killed: &[&str] = match fault {
        Fault::KillPrimary => &[from],
        Fault::KillReplica => &[to],
        Fault::KillBoth => &[from, to],
        Fault::CutLink => &[],
    };
    for host in killed {
        world.product.kill(host)?;
    }
    if fault == Fault::CutLink {
        world.lab.cut_link()?;
    }
    drop(hold);
    if fault == Fault::CutLink {
        // Long enough for whoever was held to run into the silence.
        std::thread::sleep(Duration::from_secs(2));
        world.lab.heal_link()?;
    }
    for host in killed {
        world.product.start(world.lab.host(host))?;
    }
    if let Some(mut command) = command {
        // The daemon that it followed may be gone; what it ends with is not the question here.
        let _ = command.kill();
        command.wait()?;
    }
    settle(world, way, first)
}

fn cancelled(world: &Protected, host: &str) -> Result<bool> {
    Ok(world.product.newest_operation(&world.lab, host)?["state"] == "undoing")
}

/// Waits until nothing is under way and the VM is protected again; tells how it ended.
fn settle(world: &Protected, way: Way, before: usize) -> Result<&'static str> {
    let (lab, product, vm) = (&world.lab, &world.product, &world.guest.name);
    let begun = Instant::now();
    let ended = |host: &str| -> Result<Option<String>> {
        let shown = product.json(lab, host, &["show", vm])?;
        Ok(shown["operation"].is_null().then(|| shown["state"].to_string()))
    };
    loop {
        let states: Vec<_> = HOSTS.iter().map(|host| ended(host)).collect::<Result<_>>()?;
        if states.iter().all(Option::is_some) {
            break;
        }
        if begun.elapsed() > LIMIT {
            let operations: Vec<_> =
                HOSTS.iter().map(|host| product.newest_operation(lab, host)).collect::<Result<_>>()?;
            bail!("not ended within {LIMIT:?}: {operations:#?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let now = primary(world)?;
    ensure!(way == Way::Failover || now == before, "the VM moved");
    product.wait_show(lab, HOSTS[now], vm, LIMIT, |shown| is_normal(shown, 1) && recent(shown))?;
    world.guest.wait_workload(lab, LIMIT)?;
    if way != Way::Cycle {
        let reports: Vec<Value> =
            HOSTS.iter().map(|host| product.newest_operation(lab, host)).collect::<Result<_>>()?;
        let state = |report: &Value| report["state"].to_string();
        ensure!(state(&reports[0]) == state(&reports[1]), "they ended differently: {reports:#?}");
        // Once more is no error and changes nothing.
        let id = reports[0]["id"].as_str().context("an id")?;
        let (code, said) = product.attempt(lab, HOSTS[now], &["operation", "resume", id, "--yes"])?;
        ensure!(code == Some(0) && primary(world)? == now, "resume once more: {code:?} {said}");
    }
    Ok(if now == before { "where it was" } else { "handed over" })
}

fn recent(shown: &Value) -> bool {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    shown["last_synchronized_at_ms"].as_u64().is_some_and(|at| u128::from(at) + 8_000 > now)
}

fn the_disks_are_equal(world: &Protected) -> Result<()> {
    let (now, vm) = (primary(world)?, &world.guest.name);
    world.lab.host(HOSTS[now]).virsh(["shutdown", vm])?;
    world.lab.host(HOSTS[now]).wait_guest_state(vm, "shut off", LIMIT)?;
    let off = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let synchronized = |shown: &Value| {
        shown["last_synchronized_at_ms"].as_u64().is_some_and(|at| u128::from(at) > off + 500)
    };
    world.product.wait_show(&world.lab, HOSTS[now], vm, LIMIT, synchronized)?;
    disks_are_equal(&world.lab, HOSTS[now], vm)
}

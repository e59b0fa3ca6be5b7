//! The ways out when the other host is lost for good, in one lab: in doubt, behind the hand over, and without a handover.
//!
//! Property: a person gets the VM to run protected again with the commands that were printed, nothing acknowledged is lost, the
//! VM never runs twice, and when the lost host comes back after all, it fits in.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold, Judge, LIMIT, Protected, Sides, is_normal, protected};
use serde_json::Value;

const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];

const VM: &str = "testVM01";

/// One loss, and the way out of it.
type Way = fn(&mut Protected);

/// The newest operation of a host, once it satisfies `good`.
fn operation(world: &Protected, host: &str, good: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let newest = world.product.newest_operation(&world.lab, host).unwrap();
        if good(&newest) {
            return newest;
        }
        assert!(begun.elapsed() < LIMIT, "{newest:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Begins a planned failover and loses the other host while the daemon of `host` is held at `place`.
fn lose_the_other_at(world: &mut Protected, host: &str, place: &str) {
    let other = HOSTS[usize::from(host == FIRST)];
    let hold = Hold::arm(world.lab.host(host), place).unwrap();
    let words = ["planned-failover", VM, "--to", SECOND, "--yes"];
    let mut command = world.product.command(&world.lab, FIRST, &words).unwrap();
    let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    hold.wait(LIMIT).unwrap();
    world.lab.cut_link().unwrap();
    world.product.kill(other).unwrap();
    let _ = command.kill();
    command.wait().unwrap();
}

fn find_again(world: &mut Protected, host: &str) {
    world.lab.heal_link().unwrap();
    world.product.start(world.lab.host(host)).unwrap();
}

fn guest_answers(world: &Protected) {
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
}

#[test]
fn a_host_that_is_lost_for_good_is_left_behind() {
    let mut world = protected("ways-out").unwrap();
    let judge = Judge::start(&world.lab, &world.guest, 1).unwrap();
    let sides = Sides::watch(&world.lab, &world.guest.name).unwrap();
    let ways: [(&str, Way); 3] = [
        ("in doubt", a_person_decides_in_doubt),
        ("a relationship ends on one host", a_relationship_ends_on_each_host_alone),
        ("behind the hand over", a_handover_is_finished_alone),
    ];
    for (name, way) in ways {
        let begun = Instant::now();
        way(&mut world);
        println!("{name}: {:.1?}", begun.elapsed());
    }
    assert_eq!(sides.seen_on_both(), 0, "the VM ran on both hosts at once");
    drop(sides);
    judge.wait_more(1, LIMIT).unwrap();
    let verdict = judge.finish(&world.lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    world.lab.down().unwrap();
}

fn a_person_decides_in_doubt(world: &mut Protected) {
    lose_the_other_at(world, FIRST, "hand over.asking");
    let advised = |operation: &Value| operation["next_command"].is_string();
    let resting = operation(world, FIRST, advised);
    let id = resting["id"].as_str().unwrap().to_owned();
    let command = format!("virt-replica operation cancel {id} --force");
    assert_eq!((&resting["state"], &resting["next_command"]), (&"in-doubt".into(), &command.into()));
    let state = world.lab.host(FIRST).guest_state(VM).unwrap();
    assert!(state.starts_with("shut off"), "in doubt it runs nowhere: {state}");
    world.say(FIRST, &["operation", "cancel", &id, "--force", "--yes"]);
    guest_answers(world);
    find_again(world, SECOND);
    let undone = |operation: &Value| operation["state"] == "undone";
    operation(world, SECOND, undone);
    operation(world, FIRST, undone);
    world.wait(FIRST, |shown| is_normal(shown, 1));
    assert_eq!(world.show(SECOND)["mode"], "replica");
}

fn a_relationship_ends_on_each_host_alone(world: &mut Protected) {
    world.lab.cut_link().unwrap();
    let (code, said) = world.attempt(FIRST, &["remove", VM, "--yes"]);
    assert!(code == Some(3) && said.contains("--this-host-only"), "{code:?} {said}");
    world.say(FIRST, &["remove", VM, "--this-host-only", "--yes"]);
    assert_eq!(world.attempt(FIRST, &["show", VM]).0, Some(4));
    assert_eq!(world.lab.host(FIRST).virsh(["checkpoint-list", VM, "--name"]).unwrap().trim(), "");
    guest_answers(world);
    world.lab.heal_link().unwrap();
    // The other host still believes in it, keeps its files, and does not let the copy start.
    let directory = world.show(SECOND)["directory"].as_str().unwrap().to_owned();
    let started = world.lab.host(SECOND).exec_raw(["virsh", "start", VM]).unwrap();
    assert!(!started.status.success());
    let (code, said) = world.attempt(SECOND, &["failover", VM, "--yes"]);
    let told = ["relationship no more", "virsh domstate", "--force"];
    assert!(code == Some(3) && told.iter().all(|part| said.contains(part)), "{code:?} {said}");
    let enable = ["enable", VM, "--peer", SECOND, "--frequency", "5s", "--yes"];
    let (code, said) = world.attempt(FIRST, &enable);
    // It names the VM as this host does: by its UUID.
    let told = said.split("virt-replica remove ").nth(1).and_then(|rest| rest.split(',').next());
    let told = told.filter(|_| code == Some(3)).unwrap_or_else(|| panic!("{code:?} {said}"));
    world.say(SECOND, &["remove", told, "--delete-replica", "--yes"]);
    assert!(!world.lab.host(SECOND).path(&directory).unwrap().exists());
    world.say(FIRST, &enable);
    world.say(FIRST, &["set", VM, "--missed-cycles-max", "100", "--yes"]);
    world.wait(FIRST, |shown| is_normal(shown, 2));
}

fn a_handover_is_finished_alone(world: &mut Protected) {
    lose_the_other_at(world, SECOND, "hand over.after");
    guest_answers(world);
    let finishing =
        operation(world, SECOND, |it| it["state"] == "finishing" && it["next_command"].is_string());
    let id = finishing["id"].as_str().unwrap().to_owned();
    let explanation = finishing["explanation"].as_str().unwrap();
    assert!(explanation.contains(&format!("virt-replica operation cancel {id} --force")), "{finishing:#}");
    world.say(SECOND, &["operation", "cancel", &id, "--force", "--yes"]);
    operation(world, SECOND, |operation| operation["state"] == "completed");
    let shown = world.show(SECOND);
    assert_eq!((&shown["state"], &shown["health"]), (&"Unprotected".into(), &"warning".into()), "{shown:#}");
    find_again(world, FIRST);
    world.wait(FIRST, |shown| shown["mode"] == "replica");
    operation(world, FIRST, |operation| operation["state"] == "completed");
    world.say(SECOND, &["reverse", VM, "--yes"]);
    world.wait(SECOND, |shown| is_normal(shown, 1));
}

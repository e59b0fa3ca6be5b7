//! The ways out when the other host is lost for good, in one lab: in doubt, behind the hand over, and without a handover.
//!
//! Property: a person gets the VM to run protected again with the commands that were printed, nothing acknowledged is lost, the
//! VM never runs twice, and when the lost host comes back after all, it fits in.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::{HOSTS, Hold, Judge, Protected, Sides, is_normal, protected};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(150);
const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];

struct World {
    world: Protected,
    vm: String,
}

/// One loss, and the way out of it.
type Way = fn(&mut World);

impl World {
    fn show(&self, host: &str) -> Value {
        self.world.product.json(&self.world.lab, host, &["show", &self.vm]).unwrap()
    }

    fn wait(&self, host: &str, good: impl Fn(&Value) -> bool) -> Value {
        self.world.product.wait_show(&self.world.lab, host, &self.vm, LIMIT, good).unwrap()
    }

    fn attempt(&self, host: &str, words: &[&str]) -> (Option<i32>, String) {
        self.world.product.attempt(&self.world.lab, host, words).unwrap()
    }

    fn say(&self, host: &str, words: &[&str]) {
        let (code, said) = self.attempt(host, words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
    }

    /// The newest operation of a host, once it satisfies `good`.
    fn operation(&self, host: &str, good: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let newest = self.world.product.newest_operation(&self.world.lab, host).unwrap();
            if good(&newest) {
                return newest;
            }
            assert!(begun.elapsed() < LIMIT, "{newest:#}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Begins a planned failover and loses the other host while the daemon of `host` is held at `place`.
    fn lose_the_other_at(&mut self, host: &str, place: &str) {
        let other = HOSTS[usize::from(host == FIRST)];
        let hold = Hold::arm(self.world.lab.host(host), place).unwrap();
        let words = ["planned-failover", &self.vm, "--to", SECOND, "--yes"];
        let mut command = self.world.product.command(&self.world.lab, FIRST, &words).unwrap();
        let mut command = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        hold.wait(LIMIT).unwrap();
        self.world.lab.cut_link().unwrap();
        self.world.product.kill(other).unwrap();
        let _ = command.kill();
        command.wait().unwrap();
    }

    fn find_again(&mut self, host: &str) {
        self.world.lab.heal_link().unwrap();
        self.world.product.start(self.world.lab.host(host)).unwrap();
    }

    fn guest_answers(&self) {
        self.world.guest.wait_workload(&self.world.lab, LIMIT).unwrap();
    }
}

#[test]
fn a_host_that_is_lost_for_good_is_left_behind() {
    let world = protected("ways-out").unwrap();
    let judge = Judge::start(&world.lab, &world.guest, 1).unwrap();
    let sides = Sides::watch(&world.lab, &world.guest.name).unwrap();
    let vm = world.guest.name.clone();
    let mut world = World { world, vm };
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
    let verdict = judge.finish(&world.world.lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    world.world.lab.down().unwrap();
}

fn a_person_decides_in_doubt(world: &mut World) {
    world.lose_the_other_at(FIRST, "hand over.asking");
    let advised = |operation: &Value| operation["next_command"].is_string();
    let resting = world.operation(FIRST, advised);
    let id = resting["id"].as_str().unwrap().to_owned();
    let command = format!("virt-replica operation cancel {id} --force");
    assert_eq!((&resting["state"], &resting["next_command"]), (&"in-doubt".into(), &command.into()));
    let state = world.world.lab.host(FIRST).guest_state(&world.vm).unwrap();
    assert!(state.starts_with("shut off"), "in doubt it runs nowhere: {state}");
    world.say(FIRST, &["operation", "cancel", &id, "--force", "--yes"]);
    world.guest_answers();
    world.find_again(SECOND);
    let undone = |operation: &Value| operation["state"] == "undone";
    world.operation(SECOND, undone);
    world.operation(FIRST, undone);
    world.wait(FIRST, |shown| is_normal(shown, 1));
    assert_eq!(world.show(SECOND)["mode"], "replica");
}

fn a_relationship_ends_on_each_host_alone(world: &mut World) {
    world.world.lab.cut_link().unwrap();
    let (code, said) = world.attempt(FIRST, &["remove", &world.vm, "--yes"]);
    assert!(code == Some(3) && said.contains("--this-host-only"), "{code:?} {said}");
    world.say(FIRST, &["remove", &world.vm, "--this-host-only", "--yes"]);
    assert_eq!(world.attempt(FIRST, &["show", &world.vm]).0, Some(4));
    assert_eq!(
        world.world.lab.host(FIRST).virsh(["checkpoint-list", &world.vm, "--name"]).unwrap().trim(),
        ""
    );
    world.guest_answers();
    world.world.lab.heal_link().unwrap();
    // The other host still believes in it, keeps its files, and does not let the copy start.
    let directory = world.show(SECOND)["directory"].as_str().unwrap().to_owned();
    let started = world.world.lab.host(SECOND).exec_raw(["virsh", "start", &world.vm]).unwrap();
    assert!(!started.status.success());
    let enable = ["enable", &world.vm, "--peer", SECOND, "--frequency", "5s", "--yes"];
    let (code, said) = world.attempt(FIRST, &enable);
    assert!(
        code == Some(3) && said.contains(&format!("virt-replica remove {}", world.vm)),
        "{code:?} {said}"
    );
    world.say(SECOND, &["remove", &world.vm, "--delete-replica", "--yes"]);
    assert!(!world.world.lab.host(SECOND).path(&directory).unwrap().exists());
    world.say(FIRST, &enable);
    world.say(FIRST, &["set", &world.vm, "--missed-cycles-max", "100", "--yes"]);
    world.wait(FIRST, |shown| is_normal(shown, 2));
}

fn a_handover_is_finished_alone(world: &mut World) {
    world.lose_the_other_at(SECOND, "hand over.after");
    world.guest_answers();
    let finishing =
        world.operation(SECOND, |it| it["state"] == "finishing" && it["next_command"].is_string());
    let id = finishing["id"].as_str().unwrap().to_owned();
    let explanation = finishing["explanation"].as_str().unwrap();
    assert!(explanation.contains(&format!("virt-replica operation cancel {id} --force")), "{finishing:#}");
    world.say(SECOND, &["operation", "cancel", &id, "--force", "--yes"]);
    world.operation(SECOND, |operation| operation["state"] == "completed");
    let shown = world.show(SECOND);
    assert_eq!((&shown["state"], &shown["health"]), (&"Unprotected".into(), &"warning".into()), "{shown:#}");
    world.find_again(FIRST);
    world.wait(FIRST, |shown| shown["mode"] == "replica");
    world.operation(FIRST, |operation| operation["state"] == "completed");
    world.say(SECOND, &["reverse", &world.vm, "--yes"]);
    world.wait(SECOND, |shown| is_normal(shown, 1));
}

//! Both sides compared, in one lab: after a bitmap was lost, with the link cut in the middle, when a person must begin it, in a
//! window of the day, after the VM's process or a daemon was killed, and to prove that the replica is equal, also when it is not,
//! also by a schedule.
//!
//! Property: little more than what differs travels, the VM runs on, the replica keeps a recovery point all the time, and both
//! sides are equal at the end.

#[path = "resynchronize/by_itself.rs"]
mod by_itself;
#[path = "resynchronize/killed.rs"]
mod killed;

use std::time::{Duration, Instant};

use lab::{GuestOptions, HOSTS, Hold, LIMIT, Lab, LabOptions, Product, disks_are_equal, is_normal};
use serde_json::Value;

const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";
const MIB: u64 = 1 << 20;
/// Incompressible data on the disk: what travelled when everything did.
const DATA_MIB: u64 = 160;
/// What may travel when little differs, digests and the small cycles around it included.
const LITTLE: u64 = 24 * MIB;

/// What happens, and what must come of it.
type Scene = fn(&mut World);

struct World {
    lab: Lab,
    product: Product,
    guest: lab::Guest,
    /// Events of the first host before this one have been looked at.
    seen: u64,
    /// When the schedule verified for the first time.
    verified_at_ms: u64,
}

impl World {
    fn show(&self, host: &str) -> Value {
        self.product.json(&self.lab, host, &["show", VM]).unwrap()
    }

    fn wait(&self, good: impl Fn(&Value) -> bool) -> Value {
        self.product.wait_show(&self.lab, FIRST, VM, LIMIT, good).unwrap()
    }

    fn attempt(&self, words: &[&str]) -> (Option<i32>, String) {
        let (code, said) = self.product.attempt(&self.lab, FIRST, words).unwrap();
        println!("{FIRST}# virt-replica {}\n{said}", words.join(" "));
        (code, said)
    }

    fn say(&self, words: &[&str]) -> String {
        let (code, said) = self.attempt(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    /// Waits for an event of the first host with this number and this text in it, after the last one that was waited for.
    fn event(&mut self, number: u64, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let since = self.seen.to_string();
            let words = ["events", "--vm", VM, "--since", &since];
            let events = self.product.json(&self.lab, FIRST, &words).unwrap();
            let found =
                events.as_array().unwrap().iter().find(|event| {
                    event["number"] == number && event["text"].as_str().unwrap().contains(text)
                });
            if let Some(found) = found {
                self.seen = found["sequence"].as_u64().unwrap();
                println!("{found}");
                return found["text"].as_str().unwrap().to_owned();
            }
            assert!(begun.elapsed() < LIMIT, "no event {number} {text:?}: {events:#}");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn fill(&self, name: &str, mib: u64) {
        self.guest.ask(&self.lab, |client| client.fill(name, mib)).unwrap();
    }

    fn own_checkpoint(&self) -> String {
        let names = self.lab.host(FIRST).virsh(["checkpoint-list", VM, "--name"]).unwrap();
        names.lines().rfind(|name| name.starts_with("vr-")).expect("a checkpoint of ours").trim().to_owned()
    }

    /// Behind our back; a cycle of ours may replace it just now.
    fn lose_the_bitmap(&self) {
        let begun = Instant::now();
        while self.lab.host(FIRST).virsh(["checkpoint-delete", VM, &self.own_checkpoint()]).is_err() {
            assert!(begun.elapsed() < LIMIT, "the checkpoint cannot be deleted");
        }
    }

    fn normal(&self) {
        self.wait(|shown| is_normal(shown, 1));
    }

    fn sent(&self) -> u64 {
        self.lab.host(FIRST).sent_bytes().unwrap()
    }

    fn manifest(&self) -> (String, Value) {
        let directory = self.show(SECOND)["directory"].as_str().unwrap().to_owned();
        let path = self.lab.host(SECOND).path(format!("{directory}/manifest.json")).unwrap();
        (directory, serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }
}

#[test]
fn only_what_differs_travels_and_what_is_wrong_is_found() {
    let mut lab = Lab::up(LabOptions::named("resynchronize")).unwrap();
    let product = Product::up(&mut lab).unwrap();
    let options = GuestOptions {
        name: VM.into(),
        disk_mib: 512,
        data_mib: DATA_MIB as usize,
        ..GuestOptions::default()
    };
    let guest = lab.define_guest(FIRST, &options).unwrap();
    lab.host(FIRST).virsh(["start", VM]).unwrap();
    guest.wait_workload(&lab, LIMIT).unwrap();
    product.run(&lab, FIRST, &["enable", VM, "--peer", SECOND, "--frequency", "5s", "--yes"]).unwrap();
    product.run(&lab, FIRST, &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();
    let mut world = World { lab, product, guest, seen: 0, verified_at_ms: 0 };
    world.normal();
    let scenes: [(&str, Scene); 14] = [
        ("a bitmap is lost", a_bitmap_is_lost),
        ("the link is cut in the middle", the_link_is_cut_in_the_middle),
        ("a person must begin it", a_person_must_begin_it),
        ("the replica is equal", the_replica_is_equal),
        ("a schedule verifies", by_itself::a_schedule_verifies),
        ("the window is closed", by_itself::the_window_is_closed),
        ("a daemon is killed in a comparison", killed::in_a_comparison),
        ("the schedule verifies again", by_itself::the_schedule_verifies_again),
        ("a daemon is killed in a verification", killed::in_a_verification),
        ("a block rots on the replica", a_block_rots),
        ("the replica begins from an existing copy", an_existing_copy),
        ("the first copy is carried by hand", carried_by_hand),
        ("one at a time", one_at_a_time),
        ("the VM's process is killed", the_process_is_killed),
    ];
    for (name, scene) in scenes {
        let begun = Instant::now();
        scene(&mut world);
        println!("── {name}: {:.1?}", begun.elapsed());
    }
    world.lab.down().unwrap();
}

fn a_bitmap_is_lost(world: &mut World) {
    let before = (world.sent(), world.manifest().0, world.show(FIRST)["head"]["id"].clone());
    world.fill("lost", 4);
    world.lose_the_bitmap();
    world.event(1103, "resynchronization");
    let manifest = world.manifest().1;
    assert!(!manifest["points"].as_array().unwrap().is_empty(), "a point at every moment: {manifest:#}");
    world.event(1401, "differed and travelled");
    let sent = world.sent() - before.0;
    println!("{sent} bytes left the host");
    assert!(sent < LITTLE, "{sent} bytes");
    world.normal();
    assert_eq!(world.manifest().0, before.1, "onto the same replica");
    assert!(world.guest.wait_workload(&world.lab, LIMIT).is_ok(), "the VM runs on");
}

fn the_link_is_cut_in_the_middle(world: &mut World) {
    let hold = Hold::arm(world.lab.host(FIRST), "compare.range").unwrap();
    world.say(&["resynchronize", VM, "--no-wait", "--yes"]);
    hold.wait(LIMIT).unwrap();
    let frozen = world.own_checkpoint();
    world.lab.cut_link().unwrap();
    drop(hold);
    world.wait(|shown| shown["reasons"].to_string().contains("last cycle failed"));
    assert_eq!(world.own_checkpoint(), frozen, "the frozen source is kept");
    world.lab.heal_link().unwrap();
    let text = world.event(1401, "differed and travelled");
    assert!(text.contains(frozen.trim_start_matches("vr-")), "it went on with {frozen}: {text}");
    world.normal();
}

fn a_person_must_begin_it(world: &mut World) {
    world.say(&["set", VM, "--resynchronize", "manual", "--yes"]);
    let head = world.show(FIRST)["head"]["id"].clone();
    world.lose_the_bitmap();
    let shown =
        world.wait(|shown| shown["reasons"].to_string().contains("virt-replica resynchronize testVM01"));
    assert_eq!((&shown["health"], &shown["state"]), (&"critical".into(), &"Resynchronizing".into()));
    let waiting = shown.pointer("/comparison/waiting").and_then(Value::as_str).unwrap();
    assert!(waiting.contains("manual"), "{waiting}");
    let refused = world.product.attempt(&world.lab, SECOND, &["resynchronize", VM, "--yes"]).unwrap();
    assert!(refused.0 == Some(3) && refused.1.contains("on hvhost01"), "{refused:?}");
    let said = world.say(&["resynchronize", VM, "--yes"]);
    assert!(said.contains("differed and travelled"), "{said}");
    world.normal();
    assert_ne!(world.show(FIRST)["head"]["id"], head);
    world.say(&["set", VM, "--resynchronize", "automatic", "--yes"]);
    world.event(1401, "");
}

fn the_replica_is_equal(world: &mut World) {
    world.fill("verified", 2);
    let before = world.sent();
    let said = world.say(&["verify", VM, "--yes"]);
    assert!(said.contains("is equal to the VM's disks"), "{said}");
    let sent = world.sent() - before;
    assert!(sent < LITTLE, "{sent} bytes");
    assert!(world.show(FIRST)["verified_at_ms"].is_u64());
    world.event(1402, "");
}

fn a_block_rots(world: &mut World) {
    world.say(&["set", VM, "--resynchronize", "manual", "--yes"]);
    let block = rot(world);
    let (code, said) = world.attempt(&["verify", VM, "--yes"]);
    assert!(code == Some(1) && said.contains("the replica differs"), "{code:?} {said}");
    // The host where somebody would fail over on the night when this one is gone knows it, too.
    let dry_run = || world.product.attempt(&world.lab, SECOND, &["failover", VM, "--dry-run"]).unwrap();
    let begun = Instant::now();
    while !(dry_run().0 == Some(3) && dry_run().1.contains("differ from the VM's disks")) {
        assert!(begun.elapsed() < LIMIT, "it is not told: {:?}", dry_run());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(dry_run().1.contains("DOUBTED"), "{:?}", dry_run());
    world.say(&["set", VM, "--resynchronize", "automatic", "--yes"]);
    let found = world.event(1403, "evidence: ");
    let path = found.rsplit_once("evidence: ").unwrap().1.trim_end_matches(')').to_owned();
    let evidence: Value =
        serde_json::from_slice(&std::fs::read(world.lab.host(FIRST).path(&path).unwrap()).unwrap()).unwrap();
    let blocks = evidence["disks"][0]["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), 1, "{evidence:#}");
    assert_eq!(blocks[0]["offset"], block, "{evidence:#}");
    assert_ne!(blocks[0]["primary"], blocks[0]["replica"]);
    world.event(1401, "differed and travelled");
    world.normal();
    let said = world.say(&["verify", VM, "--yes"]);
    assert!(said.contains("is equal"), "{said}");
    world.event(1402, "");
    let said = world.product.attempt(&world.lab, SECOND, &["failover", VM, "--dry-run"]).unwrap().1;
    assert!(!said.contains("DOUBTED"), "what repairs it is not doubted: {said}");
}

/// Writes over one block of guest data in the replica's files, below what any cycle of these seconds changes; gives its offset.
fn rot(world: &World) -> u64 {
    let (directory, manifest) = world.manifest();
    let second = world.lab.host(SECOND);
    let base = format!("{directory}/vda/{}", manifest["disks"][0]["base"].as_str().unwrap());
    let map = second.exec(["qemu-img", "map", "-U", "--output=json", &base]).unwrap();
    let map: Value = serde_json::from_str(&map).unwrap();
    let number = |extent: &Value, name: &str| extent[name].as_u64().unwrap();
    let data = map.as_array().unwrap().iter().filter(|extent| extent["data"] == true);
    let longest = data.max_by_key(|extent| number(extent, "length")).unwrap();
    let (block, skip) = (65536, number(longest, "length") / 2 / 65536 * 65536);
    let (offset, at) = (number(longest, "start") + skip, number(longest, "offset") + skip);
    assert_eq!((offset % block, at % block), (0, 0));
    let file = second.path(&base).unwrap();
    use std::os::unix::fs::FileExt;
    std::fs::File::options().write(true).open(file).unwrap().write_all_at(&[0x5a; 512], at + 4096).unwrap();
    offset
}

fn an_existing_copy(world: &mut World) {
    const SEEDS: &str = "/var/lib/virt-replica/replicas/seeds";
    world.say(&["remove", VM, "--delete-replica", "--yes"]);
    // As a backup that was taken while the VM ran: not even consistent.
    let (first, second) = (world.lab.host(FIRST), world.lab.host(SECOND));
    let disk = first.virsh(["domblklist", VM]).unwrap();
    let disk = disk.split_whitespace().find(|word| word.ends_with(".qcow2")).unwrap().to_owned();
    first
        .exec(["qemu-img", "convert", "-U", "-O", "qcow2", &disk, "/var/lib/virt-replica/old.qcow2"])
        .unwrap();
    second.exec(["mkdir", "-p", SEEDS]).unwrap();
    let (from, to) = (
        first.path("/var/lib/virt-replica/old.qcow2").unwrap(),
        second.path(format!("{SEEDS}/old.qcow2")).unwrap(),
    );
    std::fs::copy(from, to).unwrap();
    second.exec(["sync", "-f", SEEDS]).unwrap();
    world.fill("after-the-copy", 3);
    let enable = |file: &str| {
        let seed = format!("vda={file}");
        world.attempt(&["enable", VM, "--peer", SECOND, "--frequency", "5s", "--seed-from", &seed, "--yes"])
    };
    for (file, why) in
        [("/etc/passwd", "is not in"), ("../x", "is not in"), ("missing.qcow2", "missing.qcow2")]
    {
        let (code, said) = enable(file);
        assert!(code == Some(3) && said.contains(why), "{file}: {code:?} {said}");
    }
    let before = world.sent();
    let held = [(SECOND, "copy.written"), (FIRST, "compare.range")];
    let held = held.map(|(host, place)| Hold::arm(world.lab.host(host), place).unwrap());
    let (code, said) = enable("old.qcow2");
    assert_eq!(code, Some(0), "{said}");
    world.say(&["set", VM, "--missed-cycles-max", "100", "--yes"]);
    killed::in_a_seed(world, held);
    world.event(1401, "differed and travelled");
    let sent = world.sent() - before;
    println!("{sent} bytes left the host");
    assert!(sent < LITTLE, "{sent} bytes");
    world.normal();
    let kept = world.lab.host(SECOND).path(format!("{SEEDS}/old.qcow2")).unwrap();
    assert!(kept.exists(), "the copy is the user's");
    let said = world.say(&["verify", VM, "--yes"]);
    assert!(said.contains("is equal"), "{said}");
    world.event(1402, "");
}

fn carried_by_hand(world: &mut World) {
    const CARRIED: &str = "/var/lib/virt-replica/carried";
    world.say(&["remove", VM, "--delete-replica", "--yes"]);
    let enable = |directory: &str| {
        let words = ["enable", VM, "--peer", SECOND, "--frequency", "5s", "--export", directory, "--yes"];
        world.attempt(&words)
    };
    let (code, said) = enable("/nowhere");
    assert!(code == Some(3) && said.contains("no directory"), "{code:?} {said}");
    for host in HOSTS {
        world.lab.host(host).exec(["mkdir", "-p", CARRIED]).unwrap();
    }
    let before = world.sent();
    let (code, said) = enable(CARRIED);
    assert_eq!(code, Some(0), "{said}");
    world.say(&["set", VM, "--missed-cycles-max", "100", "--yes"]);
    world.event(1406, CARRIED);
    world.fill("while-it-is-carried", 3);
    world.wait(|shown| shown["reasons"].to_string().contains("virt-replica import DIRECTORY"));
    let (code, said) = world.product.attempt(&world.lab, SECOND, &["import", CARRIED, "--yes"]).unwrap();
    assert!(code == Some(3) && said.contains("no whole copy"), "{code:?} {said}");
    let [from, to] = HOSTS.map(|host| world.lab.host(host).path(CARRIED).unwrap());
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    killed::in_an_import(world, CARRIED);
    world.normal();
    let sent = world.sent() - before;
    println!("{sent} bytes left the host");
    assert!(sent < LITTLE, "{sent} bytes");
    let said = world.say(&["verify", VM, "--yes"]);
    assert!(said.contains("is equal"), "{said}");
    world.event(1402, "");
}

/// The host's configuration says how many; the second waits, and says for what.
fn one_at_a_time(world: &mut World) {
    const OTHER: &str = "testVM02";
    let file = world.lab.host(FIRST).path("/etc/virt-replica/virtreplicad.toml").unwrap();
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{config}resynchronizations_max = 1\n")).unwrap();
    world.product.kill(FIRST).unwrap();
    world.product.start(world.lab.host(FIRST)).unwrap();
    let options = GuestOptions { name: OTHER.into(), number: 51, disk_mib: 16, ..GuestOptions::default() };
    world.lab.define_guest(FIRST, &options).unwrap();
    world.say(&["enable", OTHER, "--peer", SECOND, "--frequency", "5s", "--yes"]);
    let wait = |world: &World, good: &dyn Fn(&Value) -> bool| {
        world.product.wait_show(&world.lab, FIRST, OTHER, LIMIT, good).unwrap()
    };
    wait(world, &|shown| is_normal(shown, 1));
    let hold = Hold::arm(world.lab.host(FIRST), "compare.range").unwrap();
    world.say(&["resynchronize", VM, "--no-wait", "--yes"]);
    hold.wait(LIMIT).unwrap();
    world.say(&["resynchronize", OTHER, "--no-wait", "--yes"]);
    let waiting =
        |shown: &Value| shown["comparison"]["waiting"].to_string().contains("1 others are under way");
    wait(world, &waiting);
    drop(hold);
    world.event(1401, "");
    wait(world, &|shown| is_normal(shown, 1) && shown["comparison"].is_null());
    let events = world.product.run(&world.lab, FIRST, &["events", "--vm", OTHER]).unwrap();
    assert!(events.contains("differed and travelled"), "{events}");
    world.say(&["remove", OTHER, "--delete-replica", "--yes"]);
}

fn the_process_is_killed(world: &mut World) {
    let before = world.sent();
    world.fill("killed", 4);
    world.lab.host(FIRST).sh(&format!("kill -9 $(cat /run/libvirt/qemu/{VM}.pid)")).unwrap();
    world.lab.host(FIRST).wait_guest_state(VM, "shut off", LIMIT).unwrap();
    world.event(1103, "resynchronization");
    world.event(1401, "differed and travelled");
    world.normal();
    let sent = world.sent() - before;
    println!("{sent} bytes left the host");
    assert!(sent < LITTLE, "{sent} bytes");
    disks_are_equal(&world.lab, FIRST, VM).unwrap();
    world.lab.host(FIRST).virsh(["start", VM]).unwrap();
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
    world.normal();
}

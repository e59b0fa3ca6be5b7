//! The hosts fail where it hurts: the replica's disk is slow, or full, the scratch directory is, the storage is not mounted, and two
//! persons with ten hands press the same button.
//!
//! Property: the guest never sees an error, the newest recovery point stays what it was, health says what is wrong and how it is
//! cured, and when the cause is gone replication goes on by itself, with both sides equal in the end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{
    GuestOptions, HOSTS, Hold, Judge, LIMIT, Lab, LabOptions, Product, Protected, disks_are_equal, is_normal,
};
use serde_json::Value;

const FIRST: &str = HOSTS[0];
const SECOND: &str = HOSTS[1];
const VM: &str = "testVM01";
const STORAGE: &str = "/var/lib/virt-replica/replicas";
const SCRATCH: &str = "/var/lib/virt-replica/scratch";
/// What the slow disk is given, and how long it takes at least: a write of a MiB or less waits a fifth of a second.
const SLOW_MIB: u64 = 64;
const SLOW_MIN: Duration = Duration::from_secs(10);
/// Longest wait of the guest for one write while its delta waits for the replica: what it takes beside it on a busy machine.
const STALL_MAX: Duration = Duration::from_secs(5);
/// What happens.
type Scene = fn(&mut Protected);

/// A file system of its own at `place`, in a file of the host.
fn mount(lab: &Lab, host: &str, place: &str, mib: u64) {
    let file = image(place);
    let make = format!(
        "mkdir -p {place} && truncate -s {mib}M {file} && mkfs.ext4 -q -m 0 {file} && mount -o loop {file} {place}"
    );
    lab.host(host).sh(&make).unwrap();
}

fn image(place: &str) -> String {
    format!("/var/lib/libvirt/{}.img", place.rsplit('/').next().unwrap())
}

#[test]
fn a_host_that_fails_harms_neither_guest_nor_replica_and_recovers_by_itself() {
    let mut lab = Lab::up(LabOptions::named("sabotage")).unwrap();
    mount(&lab, FIRST, SCRATCH, 96);
    mount(&lab, SECOND, STORAGE, 512);
    let product = Product::up(&mut lab).unwrap();
    let options = GuestOptions { name: VM.into(), disk_mib: 384, ..GuestOptions::default() };
    let guest = lab.define_guest(FIRST, &options).unwrap();
    lab.host(FIRST).virsh(["start", VM]).unwrap();
    lab.host(FIRST).wait_agent(VM, LIMIT).unwrap();
    product.run(&lab, FIRST, &["enable", VM, "--peer", SECOND, "--frequency", "5s", "--yes"]).unwrap();
    product.run(&lab, FIRST, &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();
    let mut world = Protected { lab, product, guest };
    world.wait(FIRST, |shown| is_normal(shown, 1));
    let scenes: [(&str, Scene); 6] = [
        ("the replica's disk is slow", the_replicas_disk_is_slow),
        ("the replica's disk is full", the_replicas_disk_is_full),
        ("the scratch directory fills up", the_scratch_directory_fills_up),
        ("the storage became read-only", the_storage_became_read_only),
        ("the storage is not mounted", the_storage_is_not_mounted),
        ("ten hands", ten_hands),
    ];
    for (name, scene) in scenes {
        let begun = Instant::now();
        scene(&mut world);
        println!("── {name}: {:.1?}", begun.elapsed());
    }
    world.lab.down().unwrap();
}

fn reasons(shown: &Value) -> String {
    shown["reasons"].to_string()
}

/// The guest has noticed nothing.
fn the_guest_is_well(world: &Protected, host: &str) {
    let said = world
        .lab
        .host(host)
        .guest_sh(VM, "dmesg | grep -E 'I/O error|EXT4-fs error|Remounting' || true")
        .unwrap();
    assert_eq!(said.trim(), "");
    world.lab.host(host).guest_sh(VM, "echo well >/data/well && sync").unwrap();
}

fn both_sides_are_equal(world: &Protected, primary: &str) {
    world.shut_down(primary);
    world.wait(primary, |shown| shown["head"]["consistency"] == "powered off" && shown["health"] == "normal");
    disks_are_equal(&world.lab, primary, VM).unwrap();
    world.lab.host(primary).virsh(["start", VM]).unwrap();
    world.wait_agent(primary);
}

/// Each write and sync of the replica's daemon takes a fifth of a second longer: the delta waits for the disk, and the guest for
/// nothing.
fn the_replicas_disk_is_slow(world: &mut Protected) {
    world.guest.wait_workload(&world.lab, LIMIT).unwrap();
    world.say(FIRST, &["pause", VM, "--yes"]);
    world.guest.ask(&world.lab, |client| client.fill("slow", SLOW_MIB)).unwrap();
    let daemon = world.product.daemon(SECOND).unwrap().pid().to_string();
    let late = "inject=pwrite64,fdatasync,fsync:delay_enter=200000";
    // From outside: the process id is that of the machine.
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=pwrite64,fdatasync,fsync",
            "-e",
            late,
            "-p",
            &daemon,
        ])
        .spawn()
        .unwrap();
    let judge = Judge::start(&world.lab, &world.guest, 1).unwrap();
    judge.wait_more(1, LIMIT).unwrap();
    let begun = Instant::now();
    world.say(FIRST, &["resume", VM, "--yes"]);
    world.more_cycles(FIRST, 1);
    let (took, waited) = (begun.elapsed(), judge.downtime_between(begun, Instant::now()));
    strace.kill().unwrap();
    strace.wait().unwrap();
    println!("the delta took {took:.1?}, the guest's longest wait for a write was {waited:.1?}");
    assert!(took > SLOW_MIN, "the disk was not slow: {took:?}");
    assert!(waited < STALL_MAX, "the guest waited {waited:?}");
    world.more_cycles(FIRST, 1);
    the_guest_is_well(world, FIRST);
    let verdict = judge.finish(&world.lab).unwrap();
    assert!(verdict.clean() && verdict.acknowledged > 0, "{verdict:?}");
    both_sides_are_equal(world, FIRST);
}

fn the_replicas_disk_is_full(world: &mut Protected) {
    let second = world.lab.host(SECOND);
    let fill = format!("fallocate -l $(($(stat -f -c '%a*%S' {STORAGE}) - 24*1024*1024)) {STORAGE}/filler");
    second.sh(&fill).unwrap();
    // No cycle takes a part of it, for which there would be room.
    world.say(FIRST, &["pause", VM, "--yes"]);
    let points = world.settled_points(SECOND);
    let much = "dd if=/dev/urandom of=/data/much bs=1M count=96 && sync";
    world.lab.host(FIRST).guest_sh(VM, much).unwrap();
    world.say(FIRST, &["resume", VM, "--yes"]);
    let shown = world.wait(FIRST, |shown| reasons(shown).contains("No space left"));
    assert!(reasons(&shown).contains("make room in the storage (df -h)"), "{shown:#}");
    assert_eq!(world.points(SECOND).last(), points.last(), "the newest point is the one from before");
    the_guest_is_well(world, FIRST);
    second.sh(&format!("rm {STORAGE}/filler")).unwrap();
    world.wait(FIRST, |shown| is_normal(shown, 1));
    world.more_cycles(FIRST, 1);
    both_sides_are_equal(world, FIRST);
}

/// The guest overwrites more than there is room to copy aside, while a cycle has its disk open.
fn the_scratch_directory_fills_up(world: &mut Protected) {
    let first = world.lab.host(FIRST);
    // Something to read is in the cycle that is met: one without a change needs nothing of the disk, and is acknowledged.
    world.say(FIRST, &["pause", VM, "--yes"]);
    world.mark(FIRST, "to be read");
    let hold = Hold::arm(first, "cycle.frozen").unwrap();
    world.say(FIRST, &["resume", VM, "--yes"]);
    hold.wait(LIMIT).unwrap();
    first.guest_sh(VM, "dd if=/dev/urandom of=/data/much bs=1M count=96 conv=notrunc && sync").unwrap();
    the_guest_is_well(world, FIRST);
    drop(hold);
    let shown = world.wait(FIRST, |shown| reasons(shown).contains("has too little room"));
    assert!(reasons(&shown).contains("scratch in /etc/virt-replica/virtreplicad.toml"), "{shown:#}");
    world.wait(FIRST, |shown| is_normal(shown, 1));
    the_guest_is_well(world, FIRST);
    both_sides_are_equal(world, FIRST);
}

/// As a kernel does that finds its file system damaged.
fn the_storage_became_read_only(world: &mut Protected) {
    let second = world.lab.host(SECOND);
    let begun = Instant::now();
    while second.sh(&format!("mount -o remount,ro {STORAGE}")).is_err() {
        assert!(begun.elapsed() < LIMIT, "it stays busy");
        std::thread::sleep(Duration::from_millis(200));
    }
    let points = world.points(SECOND);
    world.mark(FIRST, "read-only");
    world.wait(FIRST, |shown| reasons(shown).contains("Read-only file system"));
    assert_eq!(world.points(SECOND), points);
    the_guest_is_well(world, FIRST);
    second.sh(&format!("mount -o remount,rw {STORAGE}")).unwrap();
    world.wait(FIRST, |shown| is_normal(shown, 1));
    world.more_cycles(FIRST, 1);
    both_sides_are_equal(world, FIRST);
}

/// Its mount point is an ordinary directory: nothing is written into it.
fn the_storage_is_not_mounted(world: &mut Protected) {
    let second = world.lab.host(SECOND);
    let begun = Instant::now();
    while second.sh(&format!("umount {STORAGE}")).is_err() {
        assert!(begun.elapsed() < LIMIT, "it stays busy");
        std::thread::sleep(Duration::from_millis(200));
    }
    world.mark(FIRST, "meanwhile");
    let shown = world.wait(FIRST, |shown| reasons(shown).contains("last cycle failed"));
    assert!(reasons(&shown).contains("is the file system mounted? findmnt"), "{shown:#}");
    assert_eq!(
        second.sh(&format!("ls -A {STORAGE}")).unwrap().trim(),
        "",
        "nothing is written where nothing is mounted"
    );
    second.sh(&format!("mount -o loop {} {STORAGE}", image(STORAGE))).unwrap();
    world.wait(FIRST, |shown| is_normal(shown, 1));
    world.more_cycles(FIRST, 1);
    both_sides_are_equal(world, FIRST);
}

/// One handover comes of it, whoever pressed first.
fn ten_hands(world: &mut Protected) {
    let before = operations(world, FIRST);
    let press = |host: &&str| {
        let words = ["planned-failover", VM, "--to", SECOND, "--yes"];
        let mut command = world.product.command(&world.lab, host, &words).unwrap();
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let hands: Vec<_> = [FIRST, SECOND].iter().cycle().take(10).map(press).collect();
    let codes: Vec<_> = hands.into_iter().map(|mut hand| hand.wait().unwrap().code()).collect();
    println!("{codes:?}");
    assert!(codes.contains(&Some(0)), "{codes:?}");
    world.wait(SECOND, |shown| is_normal(shown, 1) && shown["mode"] == "primary");
    assert_eq!(operations(world, FIRST), before + 1);
    assert!(world.lab.host(FIRST).guest_state(VM).unwrap().starts_with("shut off"));
    world.wait_agent(SECOND);
    both_sides_are_equal(world, SECOND);
}

fn operations(world: &Protected, host: &str) -> usize {
    world.product.json(&world.lab, host, &["operation", "list"]).unwrap().as_array().unwrap().len()
}

//! Raw disks on the primary server, a file and a block device: behind wrappers they are replicated like any other, to qcow2
//! files on the other host, are failed over at home, and come home to the same disks.
//!
//! One lab, one story. What is judged: the content of both sides byte by byte, the raw disks themselves, and what is said.

use std::time::Duration;

use lab::{BlockDevice, GuestOptions, HOSTS, Hold, IMAGE_FOLDER, LIMIT, Lab, LabOptions, Product, Protected};
use lab::{disks_are_equal, is_normal};

const VM: &str = "testVM01";
const HOME: &str = HOSTS[0];
const AWAY: &str = HOSTS[1];
const MIB: u64 = 1 << 20;
/// What the guest was told to keep, on either host.
const MARKS: [&str; 4] = ["away", "for-good", "home", "one"];

/// `vda` is a raw file, `vdb` a block device.
fn with_raw_disks(lab: &Lab) -> (lab::Guest, BlockDevice) {
    let options = GuestOptions { second_disk_mib: Some(24), disk_mib: 64, ..GuestOptions::default() };
    let guest = lab.define_guest(HOME, &options).unwrap();
    let host = lab.host(HOME);
    for target in ["vda", "vdb"] {
        let file = format!("{IMAGE_FOLDER}/{VM}-{target}");
        host.sh(&format!("qemu-img convert -O raw {file}.qcow2 {file}.img && rm {file}.qcow2")).unwrap();
    }
    let device = BlockDevice::of(host, &format!("{IMAGE_FOLDER}/{VM}-vdb.img")).unwrap();
    let xml = host.virsh(["dumpxml", "--inactive", VM]).unwrap().replace("type='qcow2'", "type='raw'");
    let of = |target: &str| format!("<source file='{IMAGE_FOLDER}/{VM}-{target}.qcow2'/>");
    let (vda, vdb) = (of("vda"), of("vdb"));
    let begins = xml[..xml.find(&vdb).unwrap()].rfind("type='file'").unwrap();
    let xml = format!("{}type='block'{}", &xml[..begins], &xml[begins + "type='file'".len()..]);
    let xml = xml
        .replace(&vda, &vda.replace(".qcow2", ".img"))
        .replace(&vdb, &format!("<source dev='{}'/>", device.path().display()));
    std::fs::write(host.path("/run/raw.xml").unwrap(), xml).unwrap();
    host.virsh(["define", "/run/raw.xml"]).unwrap();
    (guest, device)
}

fn digest(world: &Protected, file: &str) -> String {
    world.lab.host(HOME).sh(&format!("sha256sum <{file}")).unwrap()
}

fn definition(world: &Protected) -> String {
    world.lab.host(HOME).virsh(["dumpxml", "--inactive", VM]).unwrap()
}

fn shut_down_and_compare(world: &Protected, at: &str) {
    world.shut_down(at);
    let before = world.show(at)["last_synchronized_at_ms"].as_u64();
    world.wait(at, |shown| shown["last_synchronized_at_ms"].as_u64() > before && shown["health"] == "normal");
    disks_are_equal(&world.lab, at, VM).unwrap();
}

#[test]
fn raw_disks_are_replicated_behind_wrappers_and_come_home_to_themselves() {
    let mut lab = Lab::up(LabOptions::named("raw")).unwrap();
    let product = Product::up(&mut lab).unwrap();
    let (guest, device) = with_raw_disks(&lab);
    let mut world = Protected { lab, product, guest };
    let raw_definition = definition(&world);
    let wrapped = wrap(&mut world, &device);
    enable(&world);
    crossings(&mut world, &wrapped, &device);
    grows_below(&world, &device);
    written_past(&world);
    unwrap(&world, &raw_definition);
    drop(device);
    world.lab.down().unwrap();
}

/// Refused with the cure until it is done; a crash between the wrappers and the definition is harmless; gives the definition.
fn wrap(world: &mut Protected, device: &BlockDevice) -> String {
    let (file, device) = (format!("{IMAGE_FOLDER}/{VM}-vda.img"), device.path().display().to_string());
    let enable = ["enable", VM, "--peer", AWAY, "--frequency", "5s", "--yes"];
    let (code, said) = world.attempt(HOME, &enable);
    assert_eq!(code, Some(3), "{said}");
    for part in ["vda is a raw file", "vdb is a block device", "virt-replica wrap-raw-disks testVM01"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    world.lab.host(HOME).virsh(["start", VM]).unwrap();
    let (code, said) = world.attempt(HOME, &["wrap-raw-disks", VM, "--yes"]);
    assert!(code == Some(3) && said.contains("virsh shutdown testVM01"), "{said}");
    world.lab.host(HOME).virsh(["destroy", VM]).unwrap();

    let hold = Hold::arm(world.lab.host(HOME), "wrap.made").unwrap();
    let raw = definition(world);
    let words = ["wrap-raw-disks", VM, "--yes"];
    let mut asked = world.product.command(&world.lab, HOME, &words).unwrap().spawn().unwrap();
    hold.wait(LIMIT).unwrap();
    world.product.kill(HOME).unwrap();
    drop(hold);
    assert!(!asked.wait().unwrap().success());
    assert_eq!(definition(world), raw, "the definition changes last");
    world.product.start(world.lab.host(HOME)).unwrap();
    let (_, planned) = world.attempt(HOME, &["wrap-raw-disks", VM, "--dry-run"]);
    assert!(planned.contains(&device) && planned.contains("vda.qcow2"), "{planned}");
    let before = [digest(world, &file), digest(world, &device)];
    world.say(HOME, &words);
    assert_eq!([digest(world, &file), digest(world, &device)], before, "the raw disks are as they were");
    let wrapped = definition(world);
    assert!(wrapped.contains("<dataStore") && wrapped.contains(&device), "{wrapped}");
    wrapped
}

fn enable(world: &Protected) {
    world.lab.host(HOME).virsh(["start", VM]).unwrap();
    world.wait_agent(HOME);
    world.say(HOME, &["enable", VM, "--peer", AWAY, "--frequency", "5s", "--yes"]);
    world.say(HOME, &["set", VM, "--missed-cycles-max", "100", "--yes"]);
    world.wait(HOME, |shown| is_normal(shown, 2));
    world.mark(HOME, "one");
    world.lab.host(HOME).guest_sh(VM, "dd if=/dev/urandom of=/dev/vdb bs=1M seek=3 count=2 && sync").unwrap();
    world.more_cycles(HOME, 1);
}

/// There and back, nothing lost, nothing doubled, nothing copied to turn round; the VM ends on the wrappers it began on.
fn crossings(world: &mut Protected, wrapped: &str, device: &BlockDevice) {
    cross(world, 0);
    world.mark(AWAY, "away");
    // The first of them may have begun before.
    world.more_cycles(AWAY, 2);
    fails_over_at_home(world, device);
    world.say(HOME, &["planned-failover", VM, "--to", AWAY, "--yes"]);
    world.wait_agent(AWAY);
    cross(world, 1);
    world.mark(HOME, "home");
    world.more_cycles(HOME, 1);
    assert_eq!(world.marks(HOME), MARKS);
    assert_eq!(sources(&definition(world)), sources(wrapped), "home again on what it had");
    shut_down_and_compare(world, HOME);
    world.lab.host(HOME).virsh(["start", VM]).unwrap();
    world.wait_agent(HOME);
}

/// One handover from this host, judged.
fn cross(world: &mut Protected, from: usize) {
    let first = (from as u64 + 1) * 1_000_000;
    let done = world.product.hand_over(&world.lab, &world.guest, HOSTS[from], first, &[]).unwrap();
    let judged = (done.lost_writes, done.doubled_writes, done.digests_equal, done.reverse_bytes);
    assert_eq!(judged, (0, 0, Some(true), Some(0)), "{done:?}");
    let to = HOSTS[1 - from];
    world.wait_agent(to);
    world.wait(to, |shown| is_normal(shown, 2));
}

/// The disks of a definition.
fn sources(definition: &str) -> Vec<String> {
    let lines = definition.lines().filter(|line| line.contains("<source ") || line.contains("<dataStore"));
    lines.map(str::to_owned).collect()
}

/// The other host is lost while the VM runs there: at home it writes to overlays above the wrappers. What it writes in a failover
/// that is taken back never reaches the raw disks; when a failover is final, they take in what came from the other host.
fn fails_over_at_home(world: &Protected, device: &BlockDevice) {
    world.lab.cut_link().unwrap();
    world.shut_down(AWAY);
    let point = newest_point_of_the_file(world);
    let raw_disks = || [format!("{IMAGE_FOLDER}/{VM}-vda.img"), device.path().display().to_string()];
    let digests = || raw_disks().map(|disk| digest(world, &disk));
    let write = |seek: u8| {
        let write = format!("dd if=/dev/urandom of=/dev/vdb bs=1M seek={seek} count=1 && sync");
        world.lab.host(HOME).guest_sh(VM, &write).unwrap();
    };
    let before = digests();
    world.say(HOME, &["failover", VM, "--yes"]);
    world.wait_agent(HOME);
    world.mark(HOME, "taken-back");
    write(20);
    world.say(HOME, &["cancel-failover", VM, "--turn-off", "--shutdown-timeout", "60s", "--yes"]);
    assert_eq!(digests(), before, "the raw disks know nothing of it");
    let listed = world.product.json(&world.lab, HOME, &["diverged", "list", VM]).unwrap();
    assert_eq!(listed[0]["disks"].as_array().unwrap().len(), 2, "{listed:#}");
    world.say(HOME, &["diverged", "remove", VM, listed[0]["id"].as_str().unwrap(), "--yes"]);

    world.say(HOME, &["failover", VM, "--yes"]);
    world.wait_agent(HOME);
    let there = world.marks(HOME);
    assert!(there.contains(&"away".to_owned()) && !there.contains(&"taken-back".to_owned()), "{there:?}");
    world.mark(HOME, "for-good");
    write(22);
    assert_eq!(digests(), before, "nothing is merged before it is final");
    world.say(HOME, &["complete-failover", VM, "--yes"]);
    assert_eq!(digests()[0], point, "the raw file is the recovery point, with nothing of the overlay");
    let active = world.lab.host(HOME).virsh(["domblklist", VM]).unwrap();
    for active in active.split_whitespace().filter(|word| word.ends_with("active.qcow2")) {
        let chain = ["qemu-img", "info", "-U", "--backing-chain", active];
        let chain = world.lab.host(HOME).exec(chain).unwrap();
        assert_eq!(chain.matches("image: ").count(), 2, "{chain}");
        assert!(chain.contains("data file: "), "{chain}");
    }

    world.lab.heal_link().unwrap();
    world.wait(HOME, |shown| shown["reasons"].to_string().contains("is back"));
    world.say(HOME, &["reverse", VM, "--yes"]);
    world.wait(HOME, |shown| is_normal(shown, 1));
    shut_down_and_compare(world, HOME);
    world.lab.host(HOME).virsh(["start", VM]).unwrap();
    world.wait_agent(HOME);
}

/// The digest of what the newest recovery point holds of the raw file's disk. Older layers are merged before in peace: from then on
/// nobody but the VM changes the raw disks.
fn newest_point_of_the_file(world: &Protected) -> String {
    let directory = world.show(HOME)["directory"].as_str().unwrap().to_owned();
    let path = world.lab.host(HOME).path(format!("{directory}/manifest.json")).unwrap();
    let begun = std::time::Instant::now();
    loop {
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let disks = manifest["disks"].as_array().unwrap();
        if disks.iter().all(|disk| disk["layers"].as_array().is_some_and(|layers| layers.len() <= 1)) {
            let point = manifest["points"].as_array().unwrap().last().unwrap();
            let head = format!("{directory}/vda/{}", point["files"]["vda"].as_str().unwrap());
            let convert = format!("qemu-img convert -O raw {head} {IMAGE_FOLDER}/point.raw");
            world.lab.host(HOME).sh(&convert).unwrap();
            return digest(world, &format!("{IMAGE_FOLDER}/point.raw"));
        }
        assert!(begun.elapsed() < LIMIT, "layers are not merged: {manifest:#}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The device grows, and its new part is not empty, as that of a logical volume.
fn grows_below(world: &Protected, device: &BlockDevice) {
    let host = world.lab.host(HOME);
    let file = format!("{IMAGE_FOLDER}/{VM}-vdb.img");
    host.sh(&format!("head -c {} /dev/urandom >>{file}", 8 * MIB)).unwrap();
    device.grow().unwrap();
    let cure = format!("virsh blockresize {VM} vdb {}B", 32 * MIB);
    world.wait(HOME, |shown| shown["reasons"].to_string().contains(&cure));
    let begun = std::time::Instant::now();
    while let Err(busy) = host.sh(&cure) {
        assert!(begun.elapsed() < LIMIT && format!("{busy:#}").contains("is busy"), "{busy:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let events = || world.product.run(&world.lab, HOME, &["events"]).unwrap();
    let begun = std::time::Instant::now();
    while !events().contains("the raw disk vdb grew") {
        assert!(begun.elapsed() < LIMIT, "{}", events());
        std::thread::sleep(Duration::from_millis(500));
    }
    world.wait(HOME, |shown| is_normal(shown, 1) && shown["comparison"]["cause"].is_null());
    world.more_cycles(HOME, 1);
    shut_down_and_compare(world, HOME);
}

/// Somebody writes to the raw file while the VM is off: no bitmap knows, and both sides are compared.
fn written_past(world: &Protected) {
    let file = format!("{IMAGE_FOLDER}/{VM}-vda.img");
    let past = format!("dd if=/dev/urandom of={file} bs=64k count=1 seek=700 conv=notrunc status=none");
    world.lab.host(HOME).sh(&past).unwrap();
    let events = || world.product.run(&world.lab, HOME, &["events"]).unwrap();
    let begun = std::time::Instant::now();
    while !events().contains("past its wrapper") {
        assert!(begun.elapsed() < LIMIT, "{}", events());
        std::thread::sleep(Duration::from_millis(500));
    }
    world.wait(HOME, |shown| is_normal(shown, 1));
    world.more_cycles(HOME, 1);
    disks_are_equal(&world.lab, HOME, VM).unwrap();
}

fn unwrap(world: &Protected, raw_definition: &str) {
    world.refused(
        HOME,
        &["unwrap-raw-disks", VM, "--yes"],
        &["is replicated", "virt-replica remove testVM01"],
    );
    world.say(HOME, &["remove", VM, "--yes"]);
    world.say(HOME, &["unwrap-raw-disks", VM, "--yes"]);
    assert_eq!(definition(world), raw_definition);
    let left = world.lab.host(HOME).sh("find /var/lib/virt-replica -name '*.qcow2*'").unwrap();
    assert_eq!(left.trim(), "", "no wrapper is left");
    world.lab.host(HOME).virsh(["start", VM]).unwrap();
    world.wait_agent(HOME);
    assert_eq!(world.marks(HOME), MARKS);
}

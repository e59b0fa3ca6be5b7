//! What is refused, with the real parts: each refusal names what, why and the command that cures it, and changes nothing.

mod refused;

use std::time::Duration;

use lab::{GuestOptions, HOSTS, LIMIT, Lab, LabOptions, Product, is_normal};
use refused::{Case, ends_with, is_refused};

/// Everything that a shell, XML, a URL or a file system could take amiss; only `/` is refused, by libvirt itself.
const AWKWARD: &str = "-Büro's \"VM\" <1> & $(reboot) %2F ✓ 数据库";

/// `text` with one part replaced, which must be there.
fn with(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in {text}");
    text.replacen(old, new, 1)
}

/// The definition with another device.
fn with_device(definition: &str, device: &str) -> String {
    with(definition, "</devices>", &format!("{device}</devices>"))
}

type Edit = fn(&str) -> String;

/// Definitions that cannot live on the other host.
const DEFINITIONS: [(Edit, Case<'_>); 9] = [
    (
        |vm| {
            with_device(
                vm,
                "<hostdev mode='subsystem' type='pci'><source>\
                 <address domain='0' bus='1' slot='0' function='0'/></source></hostdev>",
            )
        },
        Case {
            check: "No passthrough device or shared directory",
            says: &["pci device", "passed through", "virsh edit -- '-Büro"],
        },
    ),
    (
        |vm| {
            with_device(
                vm,
                "<filesystem type='mount' accessmode='mapped'><source dir='/srv/share'/><target dir='share'/></filesystem>",
            )
        },
        Case {
            check: "No passthrough device or shared directory",
            says: &["directory /srv/share", "shared with the VM", "virsh edit"],
        },
    ),
    (
        |vm| with_device(vm, &second_disk("file", "file='/var/lib/libvirt/images/raw.img'")),
        Case {
            check: "Disks can track changes",
            says: &["disk vdb is a raw file", "virt-replica wrap-raw-disks", "--exclude-disk vdb"],
        },
    ),
    (
        |vm| with_device(vm, &second_disk("block", "dev='/dev/vg0/data'")),
        Case {
            check: "Disks can track changes",
            says: &["disk vdb is a block device", "virt-replica wrap-raw-disks"],
        },
    ),
    (
        |vm| with(vm, "bridge='br-lan'", "bridge='br-away'"),
        Case {
            check: "Networks of the VM exist on the replica server",
            says: &["hvhost02 has no bridge \"br-away\"", "\"br-dr\"", "--network br-away=NAME"],
        },
    ),
    (
        |vm| {
            let vm = with(vm, "<interface type='bridge'>", "<interface type='network'>");
            with(&vm, "<source bridge='br-lan'/>", "<source network='office'/>")
        },
        Case {
            check: "Networks of the VM exist on the replica server",
            says: &["hvhost02 has no network \"office\"", "--network office=NAME"],
        },
    ),
    (
        |vm| with(vm, ">qemu64</model>", ">EPYC-Genoa</model>"),
        Case {
            check: "CPU model runs on the replica server",
            says: &["hvhost02", "EPYC-Genoa", "virsh domcapabilities"],
        },
    ),
    (
        |vm| {
            let loader = "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_AWAY.fd</loader>\
                <nvram>/var/lib/libvirt/qemu/nvram/away.fd</nvram>";
            with(vm, "<kernel>", &format!("{loader}<kernel>"))
        },
        Case {
            check: "Firmware is available on the replica server",
            says: &["/usr/share/OVMF/OVMF_CODE_AWAY.fd is not on hvhost02", "apt-get install ovmf"],
        },
    ),
    (
        |vm| {
            let vm = with(vm, ">196608</memory>", ">9000000000</memory>");
            with(&vm, ">196608</currentMemory>", ">9000000000</currentMemory>")
        },
        Case {
            check: "Enough memory on the replica server",
            says: &[
                "the VM needs 8789062 MiB",
                "hvhost02 has",
                "virsh setmaxmem --config --size SIZE --domain '-Büro",
            ],
        },
    ),
];

fn second_disk(kind: &str, source: &str) -> String {
    format!(
        "<disk type='{kind}' device='disk'><driver name='qemu' type='raw'/><source {source}/>\
         <target dev='vdb' bus='virtio'/></disk>"
    )
}

/// What the replica server lacks: a command that takes it away there, one that brings it back, and the refusal.
const PLACES: [(&str, &str, Case<'_>); 6] = [
    (
        "mv /var/lib/libvirt/boot/vmlinuz /run/vmlinuz",
        "mv /run/vmlinuz /var/lib/libvirt/boot/vmlinuz",
        Case {
            check: "Kernel and initrd of a direct boot exist on the replica server",
            says: &["hvhost02 has no /var/lib/libvirt/boot/vmlinuz", "copy them to hvhost02"],
        },
    ),
    (
        "mount -t tmpfs tmpfs /var/lib/virt-replica/replicas",
        "umount /var/lib/virt-replica/replicas",
        Case {
            check: "Enough disk space on the replica server",
            says: &["its file system is probably not mounted", "on hvhost02: mount"],
        },
    ),
    (
        "mount -t tmpfs -o size=64k tmpfs /var/lib/virt-replica/replicas
         touch /var/lib/virt-replica/replicas/.virt-replica-storage",
        "umount /var/lib/virt-replica/replicas",
        Case {
            check: "Enough disk space on the replica server",
            says: &["/var/lib/virt-replica/replicas on hvhost02 has 0 MiB free", "make room"],
        },
    ),
    (
        "chmod -x /etc/libvirt/hooks/qemu.d/virt-replica",
        "chmod +x /etc/libvirt/hooks/qemu.d/virt-replica",
        Case {
            check: "Start guard (libvirt hook) is in place",
            says: &["on hvhost02 is missing or cannot be run", "systemctl restart virtreplicad"],
        },
    ),
    (
        "virsh -q define /run/same-name.xml",
        "virsh -q undefine 11111111-2222-3333-4444-555555555555",
        Case {
            check: "VM's name and UUID are free on the replica server",
            says: &["the name", "is taken on hvhost02", "virsh undefine", "domrename"],
        },
    ),
    (
        "virsh -q define /run/same-uuid.xml",
        "virsh -q undefine another",
        Case {
            check: "VM's name and UUID are free on the replica server",
            says: &["the UUID", "is taken on hvhost02", "virsh undefine"],
        },
    ),
];

/// Two paired hosts with a VM of an awkward name on the first, shut off, in a bridge that is called otherwise over there.
fn unprotected(name: &str) -> (Lab, Product, String) {
    let mut lab = Lab::up(LabOptions::named(name)).unwrap();
    let product = Product::up(&mut lab).unwrap();
    let (first, second) = (lab.host(HOSTS[0]), lab.host(HOSTS[1]));
    first.sh("ip link add br-lan type bridge; ip link set br-lan up").unwrap();
    second.sh("ip link add br-dr type bridge; ip link set br-dr up").unwrap();
    lab.define_guest(HOSTS[0], &GuestOptions::default()).unwrap();
    first.virsh(["domrename", "--domain", "testVM01", "--new-name", AWKWARD]).unwrap();
    let id = first.virsh(["domuuid", "--domain", AWKWARD]).unwrap();
    let definition = first.virsh(["dumpxml", "--inactive", &id]).unwrap();
    define(&lab, &with(&definition, "bridge='br0'", "bridge='br-lan'"));
    let other = "<domain type='qemu'><memory>1024</memory><os><type>hvm</type></os>";
    let escaped = AWKWARD.replace('&', "&amp;").replace('<', "&lt;");
    let same_name =
        format!("{other}<name>{escaped}</name><uuid>11111111-2222-3333-4444-555555555555</uuid></domain>");
    std::fs::write(second.path("/run/same-name.xml").unwrap(), same_name).unwrap();
    let same_id = format!("{other}<name>another</name><uuid>{id}</uuid></domain>");
    std::fs::write(second.path("/run/same-uuid.xml").unwrap(), same_id).unwrap();
    (lab, product, id)
}

fn define(lab: &Lab, definition: &str) {
    let host = lab.host(HOSTS[0]);
    std::fs::write(host.path("/run/edited.xml").unwrap(), definition).unwrap();
    host.virsh(["define", "/run/edited.xml"]).unwrap();
}

#[test]
fn a_vm_that_cannot_live_on_the_other_host_is_not_taken_and_one_with_an_awkward_name_is() {
    let (lab, product, id) = unprotected("refuse-enable");
    let (first, second) = (lab.host(HOSTS[0]), lab.host(HOSTS[1]));
    let definition = first.virsh(["dumpxml", "--inactive", &id]).unwrap();
    let plain = ["enable", "--peer", HOSTS[1], "--", AWKWARD];
    let mapped = ["enable", "--peer", HOSTS[1], "--network", "br-lan=br-dr", "--", AWKWARD];

    for (edit, case) in DEFINITIONS {
        define(&lab, &edit(&definition));
        let networks = case.check.starts_with("Networks");
        is_refused(&lab, &product, HOSTS[0], if networks { &plain } else { &mapped }, case);
        define(&lab, &definition);
    }
    for (take_away, bring_back, case) in PLACES {
        second.sh(take_away).unwrap();
        is_refused(&lab, &product, HOSTS[0], &mapped, case);
        second.sh(bring_back).unwrap();
    }
    let unknown = ["enable", "--yes", "--peer", "hvhost09", "--", AWKWARD];
    ends_with(&lab, &product, HOSTS[0], &unknown, 4, &["\"hvhost09\"", "peer list", "peer invite"]);
    let stranger = ["enable", "--yes", "--peer", HOSTS[1], "nobody"];
    ends_with(&lab, &product, HOSTS[0], &stranger, 4, &["\"nobody\"", "virsh list --all"]);
    let no_disk = ["enable", "--yes", "--peer", HOSTS[1], "--disks", "vdz", "--", AWKWARD];
    ends_with(&lab, &product, HOSTS[0], &no_disk, 2, &["no disk \"vdz\"", "vda"]);

    // With the cures typed it works: the network is mapped, the raw disk is left out.
    first.sh("truncate -s 16M /var/lib/libvirt/images/raw.img").unwrap();
    define(&lab, &with_device(&definition, &second_disk("file", "file='/var/lib/libvirt/images/raw.img'")));
    first.virsh(["start", &id]).unwrap();
    first.wait_agent(&id, LIMIT).unwrap();
    let cured = ["enable", "--yes", "--peer", HOSTS[1], "--network", "br-lan=br-dr", "--exclude-disk", "vdb"];
    let cured = [&cured[..], &["--frequency", "1h", "--", AWKWARD]].concat();
    product.run(&lab, HOSTS[0], &cured).unwrap();
    product.run(&lab, HOSTS[0], &["wait", "--timeout", "90s", "--", AWKWARD]).unwrap();
    let replica = second.virsh(["dumpxml", "--inactive", &id]).unwrap();
    assert!(replica.contains("bridge='br-dr'") && replica.contains("dev='vdb'"), "{replica}");

    // The same again is no error; another relationship is.
    product.run(&lab, HOSTS[0], &cured).unwrap();
    let other = ["enable", "--yes", "--peer", HOSTS[1], "--frequency", "5m", "--", AWKWARD];
    ends_with(
        &lab,
        &product,
        HOSTS[0],
        &other,
        3,
        &["to hvhost02 already", "virt-replica set -- '-Büro", "remove"],
    );
    let back = ["enable", "--yes", "--peer", HOSTS[0], "--", AWKWARD];
    ends_with(
        &lab,
        &product,
        HOSTS[1],
        &back,
        3,
        &["replicated from hvhost01", "planned-failover -- '-Büro"],
    );
    let in_use = ["peer", "remove", "--yes", HOSTS[1]];
    ends_with(&lab, &product, HOSTS[0], &in_use, 3, &["virt-replica list"]);

    for from in HOSTS {
        let program = lab::binaries().unwrap().virt_replica.display().to_string();
        let words = ["timeout", "60", &program, "planned-failover", "--yes", "--", AWKWARD];
        let ended = lab.host(from).exec_raw(words).unwrap();
        assert!(ended.status.success(), "{}", product.newest_operation(&lab, from).unwrap());
    }
    let home = first.virsh(["dumpxml", "--inactive", &id]).unwrap();
    assert!(home.contains("bridge='br-lan'") && home.contains("raw.img"), "{home}");
    assert_eq!(first.virsh(["domstate", &id]).unwrap(), "running");
    lab.down().unwrap();
}

const VM: &str = "testVM01";
const HAND_OVER: [&str; 2] = ["planned-failover", VM];

#[test]
fn a_handover_is_refused_while_anything_is_wrong_and_a_deaf_guest_is_never_destroyed() {
    let mut lab = Lab::up(LabOptions::named("refuse-handover")).unwrap();
    let mut product = Product::up(&mut lab).unwrap();
    pairing(&lab, &product);
    let options = GuestOptions { name: VM.into(), deaf: true, ..GuestOptions::default() };
    let guest = lab.define_guest(HOSTS[0], &options).unwrap();
    let first = lab.host(HOSTS[0]);
    first.virsh(["start", VM]).unwrap();
    guest.wait_workload(&lab, LIMIT).unwrap();
    // So rarely that no cycle moves anything while a refusal is looked at.
    product.run(&lab, HOSTS[0], &["enable", VM, "--peer", HOSTS[1], "--frequency", "1h", "--yes"]).unwrap();
    product.run(&lab, HOSTS[0], &["wait", VM, "--timeout", "90s"]).unwrap();
    product.run(&lab, HOSTS[0], &["set", VM, "--missed-cycles-max", "100", "--yes"]).unwrap();

    held(&lab, &product);
    unreachable(&lab, &product);
    strange_times_and_faces(&lab, &mut product);
    another_version(&lab, &mut product);
    unknown_key(&lab);
    deaf(&lab, &product);

    first.virsh(["destroy", VM]).unwrap();
    let off = Case {
        check: "VM is running or was shut down cleanly",
        says: &["the VM is off, and was not shut down (turned off", "virsh start testVM01"],
    };
    for host in HOSTS {
        is_refused(&lab, &product, host, &HAND_OVER, off);
    }
    lab.down().unwrap();
}

fn invite(lab: &Lab, product: &Product, host: &str, valid: &str) -> (String, u64) {
    let made = product.json(lab, host, &["peer", "invite", "--valid", valid, "--yes"]).unwrap();
    let made = made.get("done").unwrap_or(&made);
    (made["token"].as_str().unwrap().to_owned(), made["expires_at_ms"].as_u64().unwrap())
}

/// Tokens that are not good, and a host that is not known over there.
fn pairing(lab: &Lab, product: &Product) {
    let (here, there) = (HOSTS[0], HOSTS[1]);
    let join = |token: &str, says: &[&str]| {
        ends_with(lab, product, here, &["peer", "join", "--yes", token], 3, says);
    };
    let (good, _) = invite(lab, product, there, "1h");
    join("rubbish", &["tokens begin with \"vr1\"", "virt-replica peer invite"]);
    let last = if good.ends_with('0') { "2" } else { "0" };
    let mistyped = format!("{}{last}", &good[..good.len() - 1]);
    join(&mistyped, &["typing error", "virt-replica peer invite"]);
    let (own, _) = invite(lab, product, here, "1h");
    join(&own, &["made on this very host", "use it on the other one"]);
    let (short, until) = invite(lab, product, there, "1s");
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    while now() <= u128::from(until) {
        std::thread::sleep(Duration::from_millis(50));
    }
    join(&short, &["has expired", "virt-replica peer invite"]);

    product.run(lab, here, &["peer", "join", "--yes", &good]).unwrap();
    product.run(lab, there, &["peer", "remove", "--yes", here]).unwrap();
    join(&good, &["was used already", "virt-replica peer invite"]);
    let closed =
        ["hvhost02 does not know this host's certificate", "virt-replica peer invite", "✗ Certificates"];
    ends_with(lab, product, here, &["peer", "test", there], 3, &closed);
    ends_with(lab, product, there, &["peer", "test", here], 4, &["\"hvhost01\"", "peer join"]);
    let (fresh, _) = invite(lab, product, there, "1h");
    product.run(lab, here, &["peer", "join", "--yes", &fresh]).unwrap();
    ends_with(lab, product, here, &["peer", "test", there], 0, &["✓ Certificates are valid"]);
    let peers = product.json(lab, here, &["peer", "list"]).unwrap();
    assert!(peers[0]["last_seen_at_ms"].is_u64(), "a peer that passed the test was seen: {peers}");
}

/// Replication that is held on either side, and a guest that does not run.
fn held(lab: &Lab, product: &Product) {
    for (host, word) in HOSTS.into_iter().zip(["primary", "replica"]) {
        let found = format!("Replication is paused on the {word} server");
        let cure = format!("on the {word} server: virt-replica resume testVM01");
        product.run(lab, host, &["pause", VM, "--yes"]).unwrap();
        let case = Case { check: "Replication health is Normal", says: &[&found, &cure] };
        is_refused(lab, product, HOSTS[0], &HAND_OVER, case);
        product.run(lab, host, &["resume", VM, "--yes"]).unwrap();
    }
    let first = lab.host(HOSTS[0]);
    first.virsh(["suspend", VM]).unwrap();
    let paused = Case {
        check: "VM is running or was shut down cleanly",
        says: &["the VM is paused", "virsh resume testVM01"],
    };
    is_refused(lab, product, HOSTS[0], &HAND_OVER, paused);
    first.virsh(["resume", VM]).unwrap();
    let never = ["reverse", VM, "--yes"];
    ends_with(
        lab,
        product,
        HOSTS[0],
        &never,
        3,
        &["nothing to reverse", "--no-reverse", "virt-replica show testVM01"],
    );
}

fn unreachable(lab: &Lab, product: &Product) {
    lab.cut_link().unwrap();
    let cure = "on hvhost02: systemctl start virtreplicad";
    let silent =
        Case { check: "Replica server is reachable", says: &["hvhost02", cure, "peer test hvhost02"] };
    // The other checks that need that host are not shown as if they held.
    is_refused(lab, product, HOSTS[0], &HAND_OVER, silent);
    for words in [&["set", VM, "--frequency", "30s", "--yes"][..], &["remove", VM, "--yes"]] {
        ends_with(lab, product, HOSTS[0], words, 3, &["hvhost02", cure, "nothing was changed"]);
    }
    let from_there = ["planned-failover", VM, "--yes"];
    ends_with(lab, product, HOSTS[1], &from_there, 3, &["hvhost01", "nothing was changed"]);
    lab.heal_link().unwrap();
}

/// A clock that is wrong, and a certificate that is not the pinned one.
fn strange_times_and_faces(lab: &Lab, product: &mut Product) {
    let second = lab.host(HOSTS[1]);
    let preload = "LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1";
    for (shift, case) in [
        (
            // A busy machine answers late, and what is certain of the difference is a little less.
            "FAKETIME=+3630s",
            Case {
                check: "Clocks of both hosts agree",
                says: &["the clock of hvhost02 is 1 h 00 min ahead of that of hvhost01", "chronyc makestep"],
            },
        ),
        (
            "FAKETIME=-30d",
            Case {
                check: "Certificates are valid",
                says: &["has expired or is not valid yet", "on both hosts: date"],
            },
        ),
    ] {
        product.kill(HOSTS[1]).unwrap();
        product.start_with(second, &[preload, shift, "FAKETIME_DONT_FAKE_MONOTONIC=1"]).unwrap();
        is_refused(lab, product, HOSTS[0], &HAND_OVER, case);
    }
    product.kill(HOSTS[1]).unwrap();
    second.sh("mv /var/lib/virt-replica/identity /var/lib/virt-replica/identity.kept").unwrap();
    product.start(second).unwrap();
    let other = Case {
        check: "Certificates are valid",
        says: &["hvhost02 shows a certificate that is not the pinned one", "virt-replica peer invite"],
    };
    is_refused(lab, product, HOSTS[0], &HAND_OVER, other);
    let stranger = ["hvhost01 does not know this host's certificate", "virt-replica peer invite"];
    ends_with(lab, product, HOSTS[1], &["peer", "test", HOSTS[0]], 3, &stranger);
    product.kill(HOSTS[1]).unwrap();
    second.sh("cd /var/lib/virt-replica && rm -r identity && mv identity.kept identity").unwrap();
    product.start(second).unwrap();
}

/// A daemon from the future answers in the place of the second host's.
fn another_version(lab: &Lab, product: &mut Product) {
    product.kill(HOSTS[1]).unwrap();
    let stand_in = refused::StandIn::speaking(lab, "9-9");
    let (code, said) = product.attempt(lab, HOSTS[0], &["planned-failover", VM, "--dry-run"]).unwrap();
    println!("{said}");
    assert_eq!(code, Some(3), "{said}");
    for words in [
        "✗ Both daemons speak the same protocol",
        "too new: it speaks protocol 9-9",
        "virtreplicad --version",
    ] {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
    drop(stand_in);
    product.start(lab.host(HOSTS[1])).unwrap();
    let too_old = refused::ask_as(lab, "9-9");
    assert!(
        too_old.contains("too old: it speaks protocol 1-1") && too_old.contains("on the other host"),
        "{too_old}"
    );
    ends_with(lab, product, HOSTS[0], &["planned-failover", VM, "--dry-run"], 0, &["✓ Both daemons speak"]);
}

fn unknown_key(lab: &Lab) {
    let host = lab.host(HOSTS[1]);
    let config = "/run/mistyped.toml";
    std::fs::write(host.path(config).unwrap(), "spool_max_mib = 64\nstorrage = \"/srv\"\n").unwrap();
    let daemon = lab::binaries().unwrap().virtreplicad;
    let daemon = daemon.to_str().unwrap();
    for words in [&[daemon, "--config", config][..], &[daemon, "--config", config, "--check-config"]] {
        let ended = host.exec_raw(words).unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        println!("{said}");
        assert!(!ended.status.success(), "{said}");
        for words in [config, "line 2", "storrage", "`storage`", "virtreplicad --check-config"] {
            assert!(said.contains(words), "{words:?} is not in:\n{said}");
        }
    }
}

/// A guest that hears neither agent nor power button is left alone; other changes wait meanwhile.
fn deaf(lab: &Lab, product: &Product) {
    let first = lab.host(HOSTS[0]);
    let alive = || (first.virsh(["domid", VM]).unwrap(), first.guest_state(VM).unwrap());
    let before = (alive(), product.json(lab, HOSTS[0], &["show", VM]).unwrap()["epoch"].clone());
    std::thread::scope(|scope| {
        let handover = scope.spawn(|| {
            let words = ["planned-failover", VM, "--shutdown-timeout", "10s", "--yes"];
            product.attempt(lab, HOSTS[0], &words).unwrap()
        });
        product.wait_show(lab, HOSTS[0], VM, LIMIT, |shown| !shown["operation"].is_null()).unwrap();
        for words in [
            &["pause", VM, "--yes"][..],
            &["set", VM, "--frequency", "30s", "--yes"],
            &["remove", VM, "--yes"],
            &["reverse", VM, "--yes"],
            &["planned-failover", VM, "--dry-run"],
        ] {
            let (code, said) = product.attempt(lab, HOSTS[0], words).unwrap();
            println!("$ {words:?}\n{said}");
            assert_eq!(code, Some(5), "{said}");
            assert!(said.contains("is under way") && said.contains("virt-replica operation show"), "{said}");
        }
        let (code, said) = handover.join().unwrap();
        println!("{said}");
        assert_eq!(code, Some(1), "{said}");
        for words in
            ["the guest did not shut down within 10 s; it runs on", "--shutdown-timeout 60s testVM01"]
        {
            assert!(said.contains(words), "{words:?} is not in:\n{said}");
        }
    });
    let shown = product.wait_show(lab, HOSTS[0], VM, LIMIT, |shown| is_normal(shown, 1)).unwrap();
    assert_eq!((alive(), shown["epoch"].clone()), before);
    assert!(shown["operation"].is_null(), "{shown}");
    let cycles = |shown: &serde_json::Value| shown["statistics"]["cycles_acknowledged"].as_u64();
    product.run(lab, HOSTS[0], &["set", VM, "--frequency", "5s", "--yes"]).unwrap();
    product.wait_show(lab, HOSTS[0], VM, LIMIT, |now| cycles(now) > cycles(&shown)).unwrap();
    product.run(lab, HOSTS[0], &["set", VM, "--frequency", "1h", "--yes"]).unwrap();
}

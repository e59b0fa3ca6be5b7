//! Definitions of all kinds, and those of a peer that wishes us ill.

use std::path::{Path, PathBuf};

use domain::DiskTarget;
use hypervisor::{DiskWrapper, Firmware, NicKind, Obstacle, Placement};

use super::tree::{Element, parse};
use super::{is_boot_file, is_firmware, place, read, same, unwrap, wrap};

/// As `virsh dumpxml --inactive` gives it.
const ORDINARY: &str = include_str!("tests/ordinary.xml");
/// Whatever names a thing of the host is evil, and contains that word or a path below `/etc`.
const HOSTILE: &str = include_str!("tests/hostile.xml");

fn placement() -> Placement {
    let disk = |name: &str| {
        let path = format!("/replicas/it's \"<ü>\" & more/{name}/active.qcow2");
        (DiskTarget::new(name).unwrap(), PathBuf::from(path))
    };
    Placement {
        vm: "11111111-2222-3333-4444-555555555555".parse().unwrap(),
        disks: vec![disk("vda"), disk("sdb")],
        strangers: Vec::new(),
        networks: vec![("br0".to_owned(), "br-dr".to_owned())],
        nvram: Some("/replicas/nvram.fd".into()),
        local_definition: None,
    }
}

#[test]
fn an_ordinary_vm_keeps_what_the_guest_sees() {
    let placed = place(ORDINARY, &placement()).unwrap();
    insta::assert_snapshot!(placed);
    assert_eq!(read(ORDINARY).unwrap().obstacles, []);
    assert!(
        same(&place(&placed, &placement_again()).unwrap(), &placed).unwrap(),
        "placing twice is placing once"
    );
}

#[test]
fn a_disk_without_a_copy_is_left_out_only_when_it_is_said_to_be_one() {
    let [known, stranger] = ["vda", "sdb"].map(|name| DiskTarget::new(name).unwrap());
    let without = |strangers| {
        let disks = placement().disks.into_iter().filter(|(target, _)| *target == known).collect();
        place(ORDINARY, &Placement { disks, strangers, ..placement() })
    };
    assert!(without(Vec::new()).is_err());
    let placed = read(&without(vec![stranger]).unwrap()).unwrap();
    assert_eq!(placed.disks.iter().map(|disk| &disk.target).collect::<Vec<_>>(), [&known]);
}

/// The second time the networks have our names already.
fn placement_again() -> Placement {
    Placement { networks: Vec::new(), ..placement() }
}

#[test]
fn nothing_of_a_hostile_definition_names_a_thing_of_this_host() {
    let placed = place(HOSTILE, &placement()).unwrap();
    insta::assert_snapshot!(placed);
    let placed = placed.replace(&Element::new("name").saying("../../etc/cron.d/evil'/><x").to_xml(), "");
    for word in ["evil", "/etc", "/dev/s", "qemu:", "commandline", "hostdev", "filesystem", "shmem"] {
        assert!(!placed.contains(word), "{word} is in {placed}");
    }
    // Whatever looks like a path is one of ours.
    let mut values = Vec::new();
    collect(&parse(&placed).unwrap(), &mut values);
    for value in values.iter().filter(|value| value.starts_with('/')) {
        let ours = value.starts_with("/replicas/") || value == "/dev/urandom";
        assert!(ours || is_boot_file(Path::new(value)) || is_firmware(Path::new(value)), "{value}");
    }
    insta::assert_debug_snapshot!(read(HOSTILE).unwrap().obstacles);
}

fn collect(element: &Element, values: &mut Vec<String>) {
    values.push(element.text());
    values.extend(element.attributes.iter().map(|(_, value)| value.clone()));
    element.children().for_each(|child| collect(child, values));
}

#[test]
fn facts_are_read() {
    let vm = read(ORDINARY).unwrap();
    assert_eq!(vm.name, "Büro's \"VM\" <1> & more");
    assert_eq!((vm.memory_bytes, vm.vcpus), (4 << 30, 4));
    assert_eq!((vm.kind.as_str(), vm.arch.as_str(), vm.machine.as_str()), ("kvm", "x86_64", "pc-q35-10.0"));
    let uefi = Firmware::Uefi {
        loader: Some("/usr/share/OVMF/OVMF_CODE_4M.fd".into()),
        nvram: Some("/var/lib/libvirt/qemu/nvram/vm_VARS.fd".into()),
    };
    assert_eq!(vm.firmware, uefi);
    let disks: Vec<_> = vm.disks.iter().map(|disk| (disk.target.as_str(), disk.format.as_str())).collect();
    assert_eq!(disks, [("vda", "qcow2"), ("sdb", "qcow2")]);
    assert_eq!(vm.nics.iter().map(|nic| nic.kind).collect::<Vec<_>>(), [NicKind::Bridge, NicKind::Network]);
    assert!(vm.has_agent && vm.cpu_xml.is_some());
    let tpm = "/var/lib/libvirt/swtpm/11111111-2222-3333-4444-555555555555/tpm2/tpm2-00.permall";
    assert_eq!(vm.tpm_state.as_deref(), Some(Path::new(tpm)));
}

#[test]
fn disks_without_a_bitmap_are_named_as_what_they_are() {
    let kinds = [
        (
            "<disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' cache",
            "<disk type='block' device='disk'>\n      <driver name='qemu' type='qcow2' cache",
            "block device with qcow2 in it",
        ),
        ("<target dev='vda'", "<shareable/><target dev='vda'", "disk shared between VMs"),
        ("<target dev='vda'", "<transient/><target dev='vda'", "disk that forgets its writes"),
        ("<target dev='vda'", "<encryption format='luks'/><target dev='vda'", "encrypted qcow2"),
        ("type='qcow2' cache", "type='vmdk' cache", "vmdk file"),
        ("<disk type='file' device='disk'>", "<disk type='network' device='disk'>", "disk of type network"),
        ("<disk type='file' device='disk'>", "<disk type='block' device='lun'>", "SCSI device of the host"),
    ];
    for (old, new, kind) in kinds {
        assert!(ORDINARY.contains(old), "{old}");
        let found = read(&ORDINARY.replacen(old, new, 1)).unwrap().obstacles;
        assert_eq!(found, [Obstacle::NoBitmap { target: "vda".to_owned(), kind: kind.to_owned() }]);
    }
}

/// One part more in a definition, and what is said of it; nothing: it is carried or belongs to the host.
#[test]
fn each_part_that_the_guest_would_miss_elsewhere_is_named() {
    let passthrough = |what: &str| Some(Obstacle::Passthrough(what.to_owned()));
    let unsupported = |what: &str| Some(Obstacle::Unsupported(what.to_owned()));
    let devices = [
        (
            "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>",
            passthrough("usb device 0x1"),
        ),
        (
            "<filesystem><driver type='virtiofs'/><source dir='/srv'/></filesystem>",
            Some(Obstacle::SharedDirectory("/srv".to_owned())),
        ),
        (
            "<interface type='direct'><source dev='eth0' mode='bridge'/></interface>",
            passthrough("network card of type direct eth0"),
        ),
        ("<interface type='user'/>", None),
        (
            "<interface type='bridge'><source bridge='br0'/><teaming type='persistent'/></interface>",
            unsupported("network card in a team"),
        ),
        (
            "<input type='evdev'><source dev='/dev/input/event1'/></input>",
            passthrough("input device of type evdev"),
        ),
        ("<input type='tablet' bus='usb'/>", None),
        ("<tpm><backend type='passthrough'/></tpm>", passthrough("TPM")),
        (
            "<tpm><backend type='emulator'><encryption secret='x'/></backend></tpm>",
            unsupported("TPM whose state is encrypted with a secret of this host"),
        ),
        (
            "<memory model='nvdimm'><source><path>/tmp/x</path></source></memory>",
            unsupported("memory device nvdimm"),
        ),
        ("<memory model='dimm'><target><size>1</size></target></memory>", None),
        (
            "<graphics type='egl-headless'><gl enable='yes'/></graphics>",
            passthrough("graphics card of the host (OpenGL)"),
        ),
        ("<smartcard mode='host'/>", passthrough("smart card")),
        ("<crypto model='virtio'><backend model='lkcf'/></crypto>", unsupported("crypto device")),
        ("<shmem name='x'/>", unsupported("device <shmem>")),
        ("<watchdog model='itco' action='reset'/>", None),
        ("<emulator>/usr/bin/qemu-system-x86_64</emulator>", None),
    ];
    let parts = [
        ("<launchSecurity type='sev'/>", unsupported("<launchSecurity>")),
        ("<sysinfo type='fwcfg'/>", unsupported("<sysinfo>")),
        ("<idmap/>", unsupported("<idmap>")),
        (
            "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'/>",
            unsupported("<qemu:commandline>"),
        ),
        ("<memtune><hard_limit>1</hard_limit></memtune>", None),
    ];
    let boot =
        [("<dtb>/x</dtb>", unsupported("<dtb> in <os>")), ("<shim>/x</shim>", unsupported("<shim> in <os>"))];
    let places = [("</devices>", &devices[..]), ("</domain>", &parts), ("</os>", &boot)];
    let before = read(ORDINARY).unwrap().obstacles;
    assert_eq!(before, []);
    for (end, cases) in places {
        for (part, expected) in cases {
            let found = read(&ORDINARY.replacen(end, &format!("{part}{end}"), 1)).unwrap().obstacles;
            assert_eq!(found, Vec::from_iter(expected.clone()), "{part}");
        }
    }
}

#[test]
fn what_cannot_be_placed_is_refused_with_a_reason() {
    let with = |old: &str, new: &str| {
        assert!(ORDINARY.contains(old), "{old}");
        ORDINARY.replacen(old, new, 1)
    };
    let cases = [
        ("no XML", "<domain".to_owned()),
        ("another root", "<network/>".to_owned()),
        ("another hypervisor", with("type='kvm'", "type='xen'")),
        ("two names", with("<uuid>", "<name>x</name><uuid>")),
        ("two targets", with("<target dev='vda'", "<target dev='sdb'/><target dev='vda'")),
        ("unknown disk", with("dev='vda'", "dev='vdz'")),
        ("host device as a disk", with("device='disk'", "device='lun'")),
        ("kernel elsewhere", with("<boot dev='hd'/>", "<kernel>/etc/shadow</kernel>")),
        (
            "kernel by a detour",
            with("<boot dev='hd'/>", "<kernel>/var/lib/libvirt/boot/../../../../etc/shadow</kernel>"),
        ),
        ("firmware elsewhere", with("/usr/share/OVMF/OVMF_CODE_4M.fd", "/tmp/evil.fd")),
        ("bridge with a path", with("bridge='br0'", "bridge='../br0'")),
        ("bridge without a name", with("bridge='br0'", "")),
    ];
    for (name, definition) in cases {
        let refused = place(&definition, &placement());
        assert!(refused.is_err(), "{name} was accepted: {}", refused.unwrap());
    }
}

#[test]
fn a_definition_of_another_vm_is_refused() {
    let other = ORDINARY.replace("<uuid>1", "<uuid>2");
    assert!(place(&other, &placement()).unwrap_err().to_string().contains("not that of VM"));
}

#[test]
fn a_vm_that_comes_home_finds_its_pinning_its_screen_and_its_medium() {
    let placed = place(ORDINARY, &placement()).unwrap();
    for word in ["vcpupin", "hugepages", "5905", "install.iso"] {
        assert!(ORDINARY.contains(word) && !placed.contains(word), "{word}");
    }
    let backend = "<backend type='emulator' version='2.0'><source type='dir' path='/srv/tpm'/></backend>";
    let local = ORDINARY.replace("<backend type='emulator' version='2.0'/>", backend);
    let home = Placement {
        vm: placement().vm,
        strangers: Vec::new(),
        disks: vec![
            (DiskTarget::new("vda").unwrap(), "/var/lib/libvirt/images/vm.qcow2".into()),
            (DiskTarget::new("sdb").unwrap(), "/var/lib/libvirt/images/data.qcow2".into()),
        ],
        networks: vec![("br-dr".to_owned(), "br0".to_owned())],
        nvram: Some("/var/lib/libvirt/qemu/nvram/vm_VARS.fd".into()),
        local_definition: Some(local),
    };
    let returned = place(&placed, &home).unwrap();
    assert_eq!(read(&returned).unwrap().tpm_state.as_deref(), Some(Path::new("/srv/tpm/tpm2-00.permall")));
    for word in ["vcpupin", "hugepages", "5905", "install.iso", "cpuset='0-3'", "bridge='br0'"] {
        assert!(returned.contains(word), "{word} is not in {returned}");
    }
    assert_eq!(read(&returned).unwrap().disks, read(ORDINARY).unwrap().disks);
}

#[test]
fn a_raw_disk_goes_behind_its_wrapper_comes_home_to_it_and_comes_out_again() {
    for (kind, attribute, is_device) in [("file", "file", false), ("block", "dev", true)] {
        let qcow2 = "<disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' cache";
        let raw = format!("<disk type='{kind}' device='disk'>\n      <driver name='qemu' type='raw' cache");
        let had = ORDINARY.replacen(qcow2, &raw, 1);
        let had =
            had.replacen("file='/var/lib/libvirt/images/vm.qcow2'", &format!("{attribute}='/dev/vg0/vm'"), 1);
        let raw = Obstacle::Raw { target: "vda".to_owned(), is_device };
        assert_eq!(read(&had).unwrap().obstacles, [raw]);
        let wrapper = DiskWrapper {
            target: DiskTarget::new("vda").unwrap(),
            file: "/srv/it's/vda.qcow2".into(),
            data: "/dev/vg0/vm".into(),
            is_device,
        };
        let wrapped = wrap(&had, &wrapper).unwrap();
        let facts = read(&wrapped).unwrap();
        assert!(facts.obstacles.is_empty(), "{:?}", facts.obstacles);
        assert_eq!((facts.disks[0].source.as_path(), &*facts.disks[0].format), (&*wrapper.file, "qcow2"));
        assert!(same(&unwrap(&wrapped, &wrapper).unwrap(), &had).unwrap());
        assert!(
            wrap(&wrapped, &wrapper).is_err() && unwrap(&had, &wrapper).is_err(),
            "not where it is said to be"
        );

        let elsewhere = place(&wrapped, &placement()).unwrap();
        assert!(!elsewhere.contains("dataStore"), "{elsewhere}");
        let disks = vec![
            (DiskTarget::new("vda").unwrap(), wrapper.file.clone()),
            (DiskTarget::new("sdb").unwrap(), "/var/lib/libvirt/images/data.qcow2".into()),
        ];
        let home = Placement { disks, local_definition: Some(wrapped.clone()), ..placement() };
        let returned = place(&elsewhere, &home).unwrap();
        assert!(returned.contains("dataStore") && returned.contains("/dev/vg0/vm"), "{returned}");
        let overlay = Placement {
            disks: home.disks.iter().map(|(disk, _)| (disk.clone(), "/srv/overlay".into())).collect(),
            ..home
        };
        assert!(!place(&elsewhere, &overlay).unwrap().contains("dataStore"), "an overlay has its own data");
    }
}

#[test]
fn a_disk_that_was_left_out_comes_home_to_what_it_is() {
    for (kind, source) in [("file", "file='/srv/scratch.img'"), ("block", "dev='/dev/vg0/scratch'")] {
        let qcow2 = "<disk type='file' device='disk'>\n      <driver name='qemu' type='qcow2' cache";
        let raw = format!("<disk type='{kind}' device='disk'>\n      <driver name='qemu' type='raw' cache");
        assert!(ORDINARY.contains(qcow2));
        let had =
            ORDINARY.replacen(qcow2, &raw, 1).replacen("file='/var/lib/libvirt/images/vm.qcow2'", source, 1);
        let path = source.split('\'').nth(1).unwrap();
        let home = Placement {
            disks: vec![
                (DiskTarget::new("vda").unwrap(), path.into()),
                (DiskTarget::new("sdb").unwrap(), "/var/lib/libvirt/images/data.qcow2".into()),
            ],
            local_definition: Some(had.clone()),
            ..placement()
        };
        let returned = place(&place(&had, &placement()).unwrap(), &home).unwrap();
        assert_eq!(read(&returned).unwrap().disks, read(&had).unwrap().disks);
        assert!(
            returned.contains(&format!("<disk type=\"{kind}\""))
                || returned.contains(&format!("<disk type='{kind}'"))
        );
    }
}

#[test]
fn spaces_and_order_of_attributes_are_no_difference_and_an_edit_is() {
    let spaced = ORDINARY
        .replace("><", ">\n <")
        .replace("offset='utc'", "offset=\"utc\" ")
        .replace("dev='vda' bus='virtio'", "bus='virtio' dev='vda'");
    assert!(same(ORDINARY, &spaced).unwrap());
    assert!(!same(ORDINARY, &ORDINARY.replace("placement='static'", "placement='auto'")).unwrap());
}

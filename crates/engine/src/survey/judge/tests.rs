//! One host, one VM, and one thing wrong at a time.

use domain::{DiskTarget, Verdict, VmId};
use hypervisor::{DiskFacts, NicFacts, ShutoffReason, VmState};
use uuid::Uuid;

use super::*;

fn host() -> HostFacts {
    HostFacts {
        hostname: "hvhost02".into(),
        libvirt_version: "11.3.0".into(),
        qemu_version: "10.0.0".into(),
        bridges: vec!["br0".into(), "br-dr".into()],
        networks: vec!["default".into()],
        machines: vec![("x86_64".into(), "pc-q35-10.0".into())],
        kinds: vec!["qemu".into(), "kvm".into()],
        tpm_emulator: true,
        loaders: vec!["/usr/share/OVMF/OVMF_CODE_4M.fd".into()],
        free_memory_bytes: Some(8 << 30),
    }
}

fn vm() -> VmFacts {
    let nic = |kind, source: &str| NicFacts { kind, source: source.into(), mac: String::new() };
    VmFacts {
        id: VmId(Uuid::nil()),
        name: "web 1".into(),
        state: VmState::ShutOff(ShutoffReason::Shutdown),
        memory_bytes: 4 << 30,
        vcpus: 1,
        kind: "kvm".into(),
        arch: "x86_64".into(),
        machine: "pc-q35-10.0".into(),
        cpu_xml: None,
        firmware: Firmware::Bios,
        boot_files: Vec::new(),
        disks: Vec::new(),
        configured: Vec::new(),
        nics: vec![nic(NicKind::Bridge, "br0"), nic(NicKind::Network, "default"), nic(NicKind::Other, "")],
        obstacles: Vec::new(),
        has_agent: false,
        tpm_state: None,
        autostart: false,
        definition: String::new(),
    }
}

fn requirements(bridges: &[&str], networks: &[&str], relationship: Option<Uuid>) -> Requirements {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Requirements {
        vm: Uuid::nil(),
        name: "web 1".into(),
        domain_xml: String::new(),
        memory_bytes: 4 << 30,
        disks: Vec::new(),
        bridges: names(bridges),
        networks: names(networks),
        relationship,
    }
}

#[track_caller]
fn refuses(check: Check, name: CheckName, found_says: &[&str], cure_says: &[&str]) {
    assert_eq!(check.name, name);
    let Verdict::Fail { found, cure } = check.verdict else { panic!("{name:?} holds") };
    for words in found_says {
        assert!(found.contains(words), "{words:?} is not in {found:?}");
    }
    for words in cure_says {
        assert!(cure.contains(words), "{words:?} is not in {cure:?}");
    }
}

#[test]
fn what_the_host_offers_is_accepted() {
    let (host, vm) = (host(), vm());
    assert!(networks(&host, &vm, &requirements(&["br0"], &["default"], None)).holds());
    assert!(networks(&host, &vm, &requirements(&["br-dr"], &["default"], None)).holds(), "mapped");
    assert!(machine(&host, &vm).holds() && cpu(&host, &vm, None).holds() && memory(&host, &vm).holds());
    assert!(firmware(&host, &vm, false).holds() && boot_files(&host, &[]).holds());
    let unknown = HostFacts { free_memory_bytes: None, ..host };
    assert!(memory(&unknown, &vm).holds(), "unknown is no reason to refuse");
}

#[test]
fn a_missing_network_is_named_with_the_option_that_maps_it() {
    let name = CheckName::NetworksPresent;
    let enabling = networks(&host(), &vm(), &requirements(&["br9"], &["default"], None));
    refuses(
        enabling,
        name,
        &["hvhost02 has no bridge \"br9\"", "\"br0\", \"br-dr\""],
        &["--network br0=NAME to the command"],
    );
    let both = networks(&host(), &vm(), &requirements(&["br9"], &["office"], None));
    refuses(
        both,
        name,
        &["bridge \"br9\"", "network \"office\""],
        &["--network br0=NAME --network default=NAME"],
    );
    // What is mapped already is named again: `set` replaces the whole map.
    let live = networks(&host(), &vm(), &requirements(&["br-dr"], &["office"], Some(Uuid::nil())));
    let set = "virt-replica set --network br0=br-dr --network default=NAME 'web 1'";
    refuses(live, name, &["network \"office\""], &[set]);
}

#[test]
fn a_machine_that_is_not_offered_is_named_and_so_is_missing_virtualization() {
    let name = CheckName::MachineTypeAvailable;
    let older = VmFacts { machine: "pc-q35-10.1".into(), ..vm() };
    refuses(
        machine(&host(), &older),
        name,
        &["hvhost02 (QEMU 10.0.0) has no machine type pc-q35-10.1"],
        &["virsh edit 'web 1'"],
    );
    let other = VmFacts { arch: "aarch64".into(), ..vm() };
    refuses(machine(&host(), &other), name, &["for aarch64"], &["qemu-system-aarch64 -machine help"]);
    let emulating = HostFacts { kinds: vec!["qemu".into()], ..host() };
    refuses(
        machine(&emulating, &vm()),
        name,
        &["of type kvm", "only \"qemu\""],
        &["BIOS", "modprobe kvm_intel"],
    );
}

#[test]
fn firmware_cpu_boot_files_and_memory_name_what_is_missing_and_where() {
    let uefi = |loader: Option<&str>| VmFacts {
        firmware: Firmware::Uefi { loader: loader.map(PathBuf::from), nvram: None },
        ..vm()
    };
    let name = CheckName::FirmwareAvailable;
    let named = uefi(Some("/usr/share/OVMF/X.fd"));
    assert!(firmware(&host(), &named, true).holds());
    refuses(
        firmware(&host(), &named, false),
        name,
        &["/usr/share/OVMF/X.fd is not on hvhost02"],
        &["apt-get install ovmf"],
    );
    assert!(firmware(&host(), &uefi(None), true).holds());
    let with_tpm = VmFacts { tpm_state: Some("/var/lib/libvirt/swtpm/x".into()), ..vm() };
    assert!(tpm(&host(), &with_tpm).holds());
    let without = HostFacts { tpm_emulator: false, ..host() };
    assert!(tpm(&without, &vm()).holds());
    refuses(tpm(&without, &with_tpm), CheckName::TpmAvailable, &["hvhost02"], &["apt-get install swtpm"]);
    let bare = HostFacts { loaders: Vec::new(), ..host() };
    refuses(
        firmware(&bare, &uefi(None), true),
        name,
        &["UEFI is not on hvhost02"],
        &["apt-get install ovmf"],
    );

    let why = cpu(&host(), &vm(), Some("the processor lacks avx512f".into()));
    refuses(why, CheckName::CpuCompatible, &["hvhost02", "avx512f"], &["virsh edit 'web 1'"]);
    let files = boot_files(&host(), &["/srv/vmlinuz".into()]);
    refuses(
        files,
        CheckName::BootFilesPresent,
        &["hvhost02 has no /srv/vmlinuz"],
        &["/var/lib/libvirt/boot"],
    );
    let small = HostFacts { free_memory_bytes: Some(1 << 30), ..host() };
    let cure = ["virsh setmaxmem", "--domain 'web 1'"];
    refuses(memory(&small, &vm()), CheckName::Memory, &["needs 4096 MiB", "hvhost02 has 1024 MiB"], &cure);
}

#[test]
fn what_exists_on_one_host_only_is_refused_each_with_its_own_way_out() {
    let check =
        |obstacle: Obstacle| own_vm(&VmFacts { obstacles: vec![obstacle], ..vm() }, &settings(&[])).remove(0);
    let name = CheckName::DefinitionMovable;
    let cases = [
        (
            Obstacle::Passthrough("pci device 01:00.0".into()),
            "pci device 01:00.0 of this host",
            "virsh edit 'web 1'",
        ),
        (Obstacle::SharedDirectory("/srv".into()), "directory /srv", "virsh edit 'web 1'"),
        (
            Obstacle::Unsupported("<qemu:commandline>".into()),
            "<qemu:commandline> would be missing",
            "virsh edit",
        ),
        (Obstacle::NotPersistent, "transient", "virsh dumpxml 'web 1' > vm.xml && virsh define vm.xml"),
    ];
    for (obstacle, found, cure) in cases {
        refuses(check(obstacle), name, &[found], &[cure]);
    }
}

fn settings(disks: &[(&str, DiskChoice)]) -> Settings {
    let disk = |(target, choice): &(&str, DiskChoice)| (DiskTarget::new(target).expect("a target"), *choice);
    Settings::of(disks.iter().map(disk).collect())
}

#[test]
fn a_disk_without_a_bitmap_is_refused_unless_it_is_left_out() {
    let obstacle = |kind: &str| match kind {
        "raw file" => Obstacle::Raw { target: "vdb".into(), is_device: false },
        _ => Obstacle::NoBitmap { target: "vdb".into(), kind: kind.into() },
    };
    let disk = DiskFacts {
        bus: "virtio".into(),
        target: DiskTarget::new("vdb").expect("a target"),
        source: "/srv/my disk.img".into(),
        format: "raw".into(),
    };
    let with = |kind: &str| VmFacts { obstacles: vec![obstacle(kind)], disks: vec![disk.clone()], ..vm() };
    let judged = |kind: &str, choice| own_vm(&with(kind), &settings(&[("vdb", choice)])).remove(1);
    let name = CheckName::DisksCarryBitmaps;
    let convert = "qemu-img convert -O qcow2 '/srv/my disk.img'";
    refuses(
        judged("raw file", DiskChoice::Replicated),
        name,
        &["disk vdb is a raw file"],
        &["shut down: virt-replica wrap-raw-disks", "--exclude-disk vdb"],
    );
    refuses(
        judged("vmdk file", DiskChoice::Replicated),
        name,
        &["disk vdb is a vmdk file"],
        &[convert, "virsh edit", "--exclude-disk vdb"],
    );
    let Verdict::Fail { cure, .. } = judged("disk shared between VMs", DiskChoice::Replicated).verdict else {
        panic!("a shared disk was accepted")
    };
    assert!(!cure.contains("convert") && cure.contains("--exclude-disk vdb"), "{cure}");
    assert!(judged("raw file", DiskChoice::Excluded).holds());
}

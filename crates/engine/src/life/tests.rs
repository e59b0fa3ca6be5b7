use domain::VmId;
use hypervisor::{DiskFacts, Firmware, ShutoffReason, VmState};
use uuid::Uuid;

use super::*;
use crate::seen::SeenDisk;

fn target(name: &str) -> DiskTarget {
    DiskTarget::new(name).expect("a target")
}

/// `vda vdb:sata`: a disk, and one on another bus than virtio. Its file is named after the letter that follows an `=`.
fn disks(text: &str) -> Vec<DiskFacts> {
    let disk = |word: &str| {
        let (word, file) = word.split_once('=').unwrap_or((word, word));
        let (name, bus) = word.split_once(':').unwrap_or((word, "virtio"));
        DiskFacts {
            target: target(name),
            source: format!("/{}", file.split(':').next().unwrap_or(file)).into(),
            format: "qcow2".into(),
            bus: bus.into(),
        }
    };
    text.split_whitespace().map(disk).collect()
}

/// A VM with these disks plugged in, and these in its definition.
fn vm(live: &str, configured: &str) -> VmFacts {
    VmFacts {
        id: VmId(Uuid::nil()),
        name: "web 1".into(),
        state: VmState::ShutOff(ShutoffReason::Shutdown),
        memory_bytes: 1 << 30,
        vcpus: 1,
        kind: "kvm".into(),
        arch: "x86_64".into(),
        machine: "pc-q35-10.0".into(),
        cpu_xml: None,
        firmware: Firmware::Bios,
        boot_files: Vec::new(),
        disks: disks(live),
        configured: disks(configured),
        nics: Vec::new(),
        obstacles: Vec::new(),
        has_agent: false,
        tpm_state: None,
        autostart: false,
        definition: String::new(),
    }
}

/// Settings for these disks; one in brackets is excluded.
fn settings(text: &str) -> Settings {
    let disk = |word: &str| match word.strip_prefix('(') {
        Some(name) => (target(name.trim_end_matches(')')), DiskChoice::Excluded),
        None => (target(word), DiskChoice::Replicated),
    };
    Settings::of(text.split_whitespace().map(disk).collect())
}

fn words(settings: &Settings) -> String {
    let word = |(target, choice): &(DiskTarget, DiskChoice)| match choice {
        DiskChoice::Replicated => target.to_string(),
        DiskChoice::Excluded => format!("({target})"),
    };
    settings.disks.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// What becomes of the settings; none: they stay.
fn check(live: &str, configured: &str, known: &str, expected: Option<&str>) {
    let (facts, settings) = (vm(live, configured), settings(known));
    let follows = Changes::of(&facts, &settings).apply(&facts, &settings);
    assert_eq!(follows.as_ref().map(words).as_deref(), expected, "{live} / {configured} / {known}");
}

#[test]
fn only_what_is_plugged_in_and_defined_counts() {
    check("vda", "vda", "vda", None);
    check("vda vdb", "vda vdb", "vda", Some("vda vdb"));
    check("vdb vda", "vdb vda", "vda", Some("vdb vda"));
    check("vda vdb", "vda", "vda", None);
    check("vda", "vda vdb", "vda", None);
    check("vda", "vda", "vda vdb", Some("vda"));
    check("vda vdb", "vda", "vda vdb", None);
    check("vda", "vda vdb", "vda vdb", None);
    check("vda vdc", "vda vdc", "vda vdb", Some("vda vdc"));
    check("vda vdb vdc", "vda vdc", "vda vdb", Some("vda vdc vdb"));
}

#[test]
fn an_excluded_disk_stays_excluded_and_the_last_replicated_one_is_never_given_up() {
    check("vda vdb vdc", "vda vdb vdc", "vda (vdb)", Some("vda (vdb) vdc"));
    check("vdb", "vdb", "vda (vdb)", None);
    check("", "", "vda", None);
}

/// `seen` is how the disks were, `now` how they are; the notice must have these words, and name the way to accept it.
fn check_moved(seen: &str, now: &str, expected: Option<(&str, &str)>) {
    let (facts, settings) = (vm(now, now), settings("vda"));
    let disk = |disk: DiskFacts| SeenDisk {
        target: disk.target.to_string(),
        file: disk.source,
        size_bytes: None,
        largest_bytes: None,
        bus: Some(disk.bus),
    };
    let before = Seen { disks: disks(seen).into_iter().map(disk).collect(), ..Seen::default() };
    let mut seen = Seen { disks: facts.disks.clone().into_iter().map(disk).collect(), ..Seen::default() };
    // However often it is looked at.
    for _ in 0..2 {
        keep_places(&before, &mut seen, &settings);
        let notices = moved_disks(&seen, &facts, &settings);
        assert_eq!(notices.len(), usize::from(expected.is_some()), "{notices:?}");
        for (notice, (what, cure)) in notices.iter().zip(expected) {
            assert!(notice.severity == Health::Critical && notice.what.contains(what), "{notice:?}");
            assert!(notice.cure.contains(cure), "{notice:?}");
        }
    }
}

#[test]
fn a_disk_on_another_bus_or_with_another_name_is_no_other_disk() {
    check_moved("vda", "vda", None);
    check_moved("vda", "vda:sata", Some(("was on bus virtio, and is on bus sata", "--add-disk vda")));
    check_moved("vda=a", "vdb=a", Some(("disk vda of VM \"web 1\" is called vdb now", "--add-disk vdb")));
    check_moved("vda=a", "vdb=b", None);
    check_moved("vdb", "vdb:sata", None);
}

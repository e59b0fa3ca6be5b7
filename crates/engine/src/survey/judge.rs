//! The judgement: what a host offers against what a VM needs. Pure; each failure names what, why and what to type.

use std::path::PathBuf;

use domain::{Check, CheckName, DiskChoice, Settings, shell_word, vm_argument};
use hypervisor::{Firmware, HostFacts, NicKind, Obstacle, VmFacts};
use wire::message::Requirements;

/// One bridge or network of the VM: what it is, its name where the VM runs, its name on the asked host.
type Plug<'a> = (&'static str, &'a str, &'a str);

/// Every bridge and network of the VM exists here, under its own or its mapped name.
pub(super) fn networks(host: &HostFacts, facts: &VmFacts, requirements: &Requirements) -> Check {
    let plugs: Vec<Plug<'_>> = plugs(facts, requirements);
    let offered = |kind: &str| if kind == "bridge" { &host.bridges } else { &host.networks };
    let is_there = |(kind, _, there): &Plug<'_>| offered(kind).iter().any(|name| name == there);
    let missing: Vec<&Plug<'_>> = plugs.iter().filter(|plug| !is_there(plug)).collect();
    Check::when(CheckName::NetworksPresent, missing.is_empty(), || {
        let words = missing.iter().map(|(kind, _, there)| {
            format!("{} has no {kind} {there:?} ({})", host.hostname, in_words(offered(kind)))
        });
        let found = words.collect::<Vec<_>>().join("; ") + ": the VM would start there without network";
        // `set --network` replaces the whole map, so what is mapped already is named again.
        let options = plugs.iter().filter_map(|plug| match (is_there(plug), plug) {
            (false, (_, here, _)) => Some(format!("--network {}=NAME", shell_word(here))),
            (true, (_, here, there)) if here != there => {
                Some(format!("--network {}={}", shell_word(here), shell_word(there)))
            }
            _ => None,
        });
        let mut options: Vec<String> = options.collect();
        options.dedup();
        let options = options.join(" ");
        let map = match requirements.relationship {
            Some(_) => format!("virt-replica set {options} {}", vm_argument(&requirements.name)),
            None => format!("add {options} to the command"),
        };
        (
            found,
            format!("make it on {} under that name, or map it to one that is there: {map}", host.hostname),
        )
    })
}

/// The requirements list the names over here in the order of the VM's cards.
fn plugs<'a>(facts: &'a VmFacts, requirements: &'a Requirements) -> Vec<Plug<'a>> {
    let of = |wanted: NicKind, word: &'static str, names: &'a [String]| {
        let cards = facts.nics.iter().filter(move |nic| nic.kind == wanted);
        cards.zip(names).map(move |(nic, there)| (word, nic.source.as_str(), there.as_str()))
    };
    of(NicKind::Bridge, "bridge", &requirements.bridges)
        .chain(of(NicKind::Network, "network", &requirements.networks))
        .collect()
}

fn in_words(names: &[String]) -> String {
    let named: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    if named.is_empty() { "none at all".to_owned() } else { format!("only {}", named.join(", ")) }
}

/// The virtualization and the machine type that the VM has.
pub(super) fn machine(host: &HostFacts, facts: &VmFacts) -> Check {
    let name = CheckName::MachineTypeAvailable;
    let (here, vm) = (&host.hostname, vm_argument(&facts.name));
    if !host.kinds.contains(&facts.kind) {
        let offered = host.kinds.join(", ");
        let found = format!("the VM is of type {}, {here} offers only {offered:?}", facts.kind);
        let cure = match facts.kind.as_str() {
            "kvm" => format!(
                "on {here}: switch virtualization on in the BIOS, then: modprobe kvm_intel || modprobe kvm_amd"
            ),
            _ => format!("on {here}: apt-get install qemu-system; systemctl restart libvirtd"),
        };
        return Check::fail(name, found, cure);
    }
    let offered =
        host.machines.iter().any(|(arch, machine)| *arch == facts.arch && *machine == facts.machine);
    Check::when(name, offered, || {
        let found = format!(
            "{here} (QEMU {}) has no machine type {} for {}",
            host.qemu_version, facts.machine, facts.arch
        );
        let cure = format!(
            "install the same QEMU version on {here}, or shut the VM down and choose a type that both hosts list \
             (qemu-system-{} -machine help): virsh edit {vm}",
            facts.arch
        );
        (found, cure)
    })
}

/// The processor; `why` it is not to be had here.
pub(super) fn cpu(host: &HostFacts, facts: &VmFacts, why: Option<String>) -> Check {
    Check::when(CheckName::CpuCompatible, why.is_none(), || {
        let found = format!("on {}: {}", host.hostname, why.unwrap_or_default());
        let cure = format!(
            "choose a CPU model that both hosts have (virsh domcapabilities), and restart the VM: virsh edit {}",
            vm_argument(&facts.name)
        );
        (found, cure)
    })
}

/// The VM's UEFI; `accepted`: the loader that it names exists here, in a folder for firmware.
pub(super) fn firmware(host: &HostFacts, facts: &VmFacts, accepted: bool) -> Check {
    let (available, wanted) = match &facts.firmware {
        Firmware::Bios => (true, String::new()),
        Firmware::Uefi { loader: None, .. } => (!host.loaders.is_empty(), "UEFI".to_owned()),
        Firmware::Uefi { loader: Some(loader), .. } => (accepted, loader.display().to_string()),
    };
    Check::when(CheckName::FirmwareAvailable, available, || {
        let found = format!("the VM's firmware {wanted} is not on {}", host.hostname);
        let cure = format!(
            "on {}: apt-get install ovmf (for aarch64: qemu-efi-aarch64); a file that belongs to no package is not \
             accepted: virsh edit {}",
            host.hostname,
            vm_argument(&facts.name)
        );
        (found, cure)
    })
}

/// The VM's TPM.
pub(super) fn tpm(host: &HostFacts, facts: &VmFacts) -> Check {
    let available = facts.tpm_state.is_none() || host.tpm_emulator;
    Check::when(CheckName::TpmAvailable, available, || {
        let found = format!("the VM has a TPM, and {} has no TPM emulator", host.hostname);
        let cure =
            format!("on {}: apt-get install swtpm swtpm-tools && systemctl restart libvirtd", host.hostname);
        (found, cure)
    })
}

/// Kernel and initrd of a direct boot.
pub(super) fn boot_files(host: &HostFacts, missing: &[PathBuf]) -> Check {
    Check::when(CheckName::BootFilesPresent, missing.is_empty(), || {
        let files: Vec<String> = missing.iter().map(|path| path.display().to_string()).collect();
        let cure = format!(
            "copy them to {} under the same path; only files below /var/lib/libvirt/boot are accepted",
            host.hostname
        );
        (format!("{} has no {}", host.hostname, files.join(", ")), cure)
    })
}

/// Memory to start the VM.
pub(super) fn memory(host: &HostFacts, facts: &VmFacts) -> Check {
    // Unknown is no reason to refuse: starting tells.
    let enough = host.free_memory_bytes.is_none_or(|free| free > facts.memory_bytes);
    Check::when(CheckName::Memory, enough, || {
        let mib = |bytes: u64| bytes >> 20;
        let free = host.free_memory_bytes.map_or(0, mib);
        let (needs, here) = (mib(facts.memory_bytes), &host.hostname);
        let found = format!("the VM needs {needs} MiB of memory, {here} has {free} MiB available");
        let cure = format!(
            "shut other VMs on {here} down, or give this one less: virsh setmaxmem --config --size SIZE --domain {}",
            shell_word(&facts.name)
        );
        (found, cure)
    })
}

/// What this host can judge about a VM of its own: nothing of it exists on this host only, and its disks can be tracked.
pub(crate) fn own_vm(facts: &VmFacts, settings: &Settings) -> Vec<Check> {
    let (disks, parts): (Vec<&Obstacle>, Vec<&Obstacle>) =
        facts.obstacles.iter().partition(|obstacle| obstacle.disk().is_some());
    // A disk that is left out needs no bitmap; one that nobody has chosen about does.
    let left_out = |disk: &str| {
        settings
            .disks
            .iter()
            .any(|(target, choice)| target.as_str() == disk && *choice == DiskChoice::Excluded)
    };
    let disks: Vec<&Obstacle> =
        disks.into_iter().filter(|it| it.disk().is_some_and(|(target, _)| !left_out(target))).collect();
    vec![
        Check::when(CheckName::DefinitionMovable, parts.is_empty(), || {
            let words: Vec<String> = parts.iter().map(|it| obstacle_words(it)).collect();
            let mut cures: Vec<String> = parts.iter().map(|it| obstacle_cure(it, &facts.name)).collect();
            cures.dedup();
            (words.join("; "), cures.join("; "))
        }),
        Check::when(CheckName::DisksCarryBitmaps, disks.is_empty(), || bitmaps_missing(facts, &disks)),
    ]
}

fn bitmaps_missing(facts: &VmFacts, obstacles: &[&Obstacle]) -> (String, String) {
    let disks: Vec<(&str, &str)> = obstacles.iter().filter_map(|it| it.disk()).collect();
    let words: Vec<String> = disks
        .iter()
        .map(|(target, kind)| {
            format!("disk {target} is a {kind}, which cannot track changes (no dirty bitmap)")
        })
        .collect();
    let names: Vec<&str> = disks.iter().map(|(target, _)| *target).collect();
    let leave_out = format!("leave it out: virt-replica enable --exclude-disk {}", names.join(","));
    let convertible = |it: &&&Obstacle| matches!(it, Obstacle::NoBitmap { kind, .. } if kind.ends_with("file") || kind.starts_with("disk of type"));
    let source = |target: &str| {
        let known = facts.disks.iter().find(|disk| disk.target.as_str() == target);
        known.map(|disk| shell_word(&disk.source.to_string_lossy())).unwrap_or_else(|| "OLD".to_owned())
    };
    let vm = vm_argument(&facts.name);
    let mut ways: Vec<String> = obstacles
        .iter()
        .filter(convertible)
        .filter_map(|it| it.disk())
        .map(|(target, _)| {
            format!("qemu-img convert -O qcow2 {} /var/lib/libvirt/images/NEW.qcow2", source(target))
        })
        .collect();
    if !ways.is_empty() {
        ways.push(format!("virsh edit {vm}"));
    }
    if obstacles.iter().any(|it| matches!(it, Obstacle::Raw { .. })) {
        ways.insert(0, format!("virt-replica wrap-raw-disks {vm}"));
    }
    let cure = match ways.is_empty() {
        true => leave_out,
        false => format!("with the VM shut down: {}; or {leave_out}", ways.join("; ")),
    };
    (words.join("; "), cure)
}

/// What keeps a VM from being replicated, in words.
#[must_use]
pub fn obstacle_words(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Passthrough(what) => format!("{what} of this host is passed through to the VM"),
        Obstacle::SharedDirectory(what) => format!("directory {what} of this host is shared with the VM"),
        Obstacle::Unsupported(what) => format!("{what} would be missing on another host"),
        Obstacle::NotPersistent => "the VM is transient: libvirt forgets it when it stops".to_owned(),
        disk @ (Obstacle::Raw { .. } | Obstacle::NoBitmap { .. }) => {
            let (target, kind) = disk.disk().unwrap_or_default();
            format!("disk {target} is a {kind}")
        }
    }
}

fn obstacle_cure(obstacle: &Obstacle, vm_name: &str) -> String {
    let vm = vm_argument(vm_name);
    match obstacle {
        Obstacle::NotPersistent => {
            format!("make it persistent: virsh dumpxml {vm} > vm.xml && virsh define vm.xml")
        }
        _ => format!(
            "it exists on this host only; take it out of the definition and restart the VM: virsh edit {vm}"
        ),
    }
}

#[cfg(test)]
mod tests;

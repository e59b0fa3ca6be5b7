//! Prerequisites: facts are gathered from both hosts, the judgement is a list of named checks with their cures.

use std::os::unix::fs::PermissionsExt;

use domain::{Check, CheckName, DiskTarget, VmId};
use hypervisor::{Firmware, HostFacts, NicKind, Obstacle, VmFacts};
use wire::message::{Answer, Request, Requirements};

use crate::{Engine, Refusal, Result, clock, replica};

/// Clocks that differ by more make schedules and reports misleading.
const CLOCK_SKEW_MS_MAX: u64 = 5_000;

/// What this host can judge about running a VM that comes from elsewhere.
pub(crate) async fn here(engine: &Engine, requirements: Requirements) -> Result<Vec<Check>> {
    let definition = requirements.domain_xml.clone();
    let vm = VmId(requirements.vm);
    let (host, facts, cpu, present) = engine
        .hypervisor(move |it| {
            let facts = it.read_definition(&definition)?;
            let missing: Vec<_> =
                facts.boot_files.iter().filter(|path| !it.boot_file_available(path)).cloned().collect();
            Ok((it.host_facts()?, (facts, missing), it.cpu_obstacle(&definition)?, it.vm(vm)?))
        })
        .await?;
    let (facts, missing_files) = facts;
    let mut checks = vec![networks(&host, &requirements), machine(&host, &facts), firmware(&host, &facts)];
    checks.push(match cpu {
        None => Check::pass(CheckName::CpuCompatible),
        Some(why) => {
            Check::fail(CheckName::CpuCompatible, why, "choose a CPU model that both hosts have: virsh edit")
        }
    });
    checks.push(Check::when(CheckName::BootFilesPresent, missing_files.is_empty(), || {
        (
            format!("{missing_files:?} is not on this host, or in no directory for boot files"),
            "copy it here under the same path",
        )
    }));
    checks.push(memory(&host, &facts));
    checks.push(disk_space(engine, &requirements));
    let ours = requirements.relationship.is_some_and(|id| engine.record(id.into()).is_ok());
    let free = ours || (present.is_none() && engine.find(&vm.to_string()).is_err());
    checks.push(Check::when(CheckName::NameFree, free, || {
        let found = format!(
            "VM {:?} ({vm}) exists on this host and is no replica of this relationship",
            requirements.name
        );
        (found, "virsh undefine it there, if it is not needed, or end its relationship: virt-replica remove")
    }));
    checks.push(hook(engine));
    Ok(checks)
}

fn networks(host: &HostFacts, requirements: &Requirements) -> Check {
    let bridges =
        requirements.bridges.iter().filter(|name| !host.bridges.contains(name)).map(|name| ("bridge", name));
    let networks =
        requirements.networks.iter().filter(|name| !host.networks.contains(name)).map(|it| ("network", it));
    let missing: Vec<String> =
        bridges.chain(networks).map(|(kind, name)| format!("{kind} {name:?}")).collect();
    Check::when(CheckName::NetworksPresent, missing.is_empty(), || {
        let found =
            format!("{} has no {}: the VM would start without network", host.hostname, missing.join(", "));
        (found, "make it there under the same name, or map it: virt-replica set VM --network HERE=THERE")
    })
}

fn machine(host: &HostFacts, facts: &VmFacts) -> Check {
    let kind = host.kinds.contains(&facts.kind);
    let machine =
        host.machines.iter().any(|(arch, machine)| *arch == facts.arch && *machine == facts.machine);
    Check::when(CheckName::MachineTypeAvailable, kind && machine, || {
        let found = format!(
            "{} does not offer {} machine {} ({})",
            host.hostname, facts.kind, facts.machine, facts.arch
        );
        (found, "install the same QEMU version there, or choose an older machine type: virsh edit")
    })
}

fn firmware(host: &HostFacts, facts: &VmFacts) -> Check {
    let available = match &facts.firmware {
        Firmware::Bios | Firmware::Uefi { loader: None, .. } => true,
        Firmware::Uefi { loader: Some(loader), .. } => host.loaders.contains(loader) || loader.exists(),
    };
    Check::when(CheckName::FirmwareAvailable, available, || {
        (
            format!("the VM's firmware {:?} is not on {}", facts.firmware, host.hostname),
            "apt-get install ovmf, on that host",
        )
    })
}

fn memory(host: &HostFacts, facts: &VmFacts) -> Check {
    let enough = host.free_memory_bytes.is_none_or(|free| free > facts.memory_bytes);
    Check::when(CheckName::Memory, enough, || {
        let mib = |bytes: u64| bytes >> 20;
        let free = host.free_memory_bytes.map_or(0, mib);
        let found = format!(
            "the VM needs {} MiB of memory, {} has {free} MiB free",
            mib(facts.memory_bytes),
            host.hostname
        );
        (found, "shut other VMs down there, or give the VM less memory")
    })
}

fn disk_space(engine: &Engine, requirements: &Requirements) -> Check {
    let name = CheckName::DiskSpace;
    let needed: u64 =
        requirements.disks.iter().filter(|it| it.replicated).filter_map(|it| it.allocated_bytes).sum();
    match replica::storage(engine).and_then(|storage| storage.free_bytes().map_err(Refusal::failed)) {
        Err(error) => Check::fail(name, error.detail, error.cure),
        Ok(free) => Check::when(name, free > needed, || {
            let found =
                format!("the disks take {} MiB, the storage has {} MiB free", needed >> 20, free >> 20);
            (found, format!("free space in {}", engine.config().storage.display()))
        }),
    }
}

/// Whether libvirt will ask us before it starts a replica.
pub(crate) fn hook(engine: &Engine) -> Check {
    let path = &engine.config().hook;
    let runs = std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    Check::when(CheckName::HookInPlace, runs, || {
        let found =
            format!("{} is missing or cannot be run: a replica could be started by hand", path.display());
        (found, "systemctl restart virtreplicad && systemctl restart libvirtd")
    })
}

/// What this host can judge about a VM of its own.
pub(crate) fn own_vm(facts: &VmFacts) -> Vec<Check> {
    let mut checks = Vec::new();
    let blocking = facts.obstacles.iter().filter(|it| !matches!(it, Obstacle::NoBitmap { .. }));
    let words: Vec<String> = blocking.map(obstacle_words).collect();
    checks.push(Check::when(CheckName::DefinitionMovable, words.is_empty(), || {
        (words.join("; "), "detach it (virsh detach-device --config): it exists on this host only")
    }));
    let disks: Vec<String> = facts
        .obstacles
        .iter()
        .filter(|it| matches!(it, Obstacle::NoBitmap { .. }))
        .map(obstacle_words)
        .collect();
    checks.push(Check::when(
        CheckName::DisksCarryBitmaps,
        disks.is_empty() && !facts.disks.is_empty(),
        || {
            (
                disks.join("; "),
                "convert it: qemu-img convert -O qcow2 OLD NEW.qcow2, then virsh edit; or --exclude-disk",
            )
        },
    ));
    checks
}

fn obstacle_words(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::Passthrough(what) => format!("{what} of this host is passed through"),
        Obstacle::SharedDirectory(what) => format!("directory {what} of this host is shared with the guest"),
        Obstacle::NoBitmap { target, kind } => {
            format!("disk {target} is a {kind}, which cannot carry a dirty bitmap")
        }
        Obstacle::Unsupported(what) => format!("{what} would be missing on another host"),
        Obstacle::NotPersistent => "the VM is transient: libvirt forgets it when it stops".to_owned(),
    }
}

/// What a VM of this host needs of another.
pub(crate) async fn requirements(
    engine: &Engine,
    facts: &VmFacts,
    settings: &domain::Settings,
    relationship: Option<uuid::Uuid>,
) -> Result<Requirements> {
    let mut disks = Vec::new();
    for disk in &facts.disks {
        let (path, in_use) = (disk.source.clone(), facts.state.is_active());
        let size = engine.hypervisor(move |it| it.image_size(&path, in_use)).await?;
        let replicated = settings.replicated_disks().any(|target: &DiskTarget| *target == disk.target);
        disks.push(wire::message::DiskRequirement {
            target: disk.target.as_str().to_owned(),
            virtual_size: size.virtual_bytes,
            allocated_bytes: Some(size.allocated_bytes),
            replicated,
        });
    }
    let mapped = |wanted: NicKind| -> Vec<String> {
        let nics = facts.nics.iter().filter(|nic| nic.kind == wanted);
        nics.map(|nic| settings.network_on_peer(&nic.source).to_owned()).collect()
    };
    Ok(Requirements {
        vm: facts.id.0,
        name: facts.name.clone(),
        domain_xml: facts.definition.clone(),
        memory_bytes: facts.memory_bytes,
        disks,
        bridges: mapped(NicKind::Bridge),
        networks: mapped(NicKind::Network),
        relationship,
    })
}

/// Reaches the other host: whether it answers, and whether its clock agrees.
pub async fn reach(engine: &Engine, peer: domain::HostId) -> Vec<Check> {
    match engine.ask(peer, &Request::Hello {}).await {
        Err(error) => vec![Check::fail(
            CheckName::ReplicaReachable,
            error.detail,
            "virt-replica peer test, on both hosts",
        )],
        Ok(Answer::Hello { clock_ms, .. }) => {
            let skew = clock::now().millis().abs_diff(clock_ms);
            let agree = Check::when(CheckName::ClocksAgree, skew <= CLOCK_SKEW_MS_MAX, || {
                (
                    format!("the clocks differ by {} s", skew / 1000),
                    "set up time synchronization (chrony) on both hosts",
                )
            });
            vec![Check::pass(CheckName::ReplicaReachable), agree]
        }
        Ok(_) => vec![Check::fail(
            CheckName::VersionsMatch,
            "the other host's answer is not understood",
            "install the same version on both hosts",
        )],
    }
}

/// Asks the other host to judge.
pub(crate) async fn there(
    engine: &Engine,
    peer: domain::HostId,
    requirements: Requirements,
) -> Result<Vec<Check>> {
    match engine.ask(peer, &Request::Survey { requirements }).await? {
        Answer::Survey { checks } => {
            Ok(checks.into_iter().map(Check::try_from).collect::<std::result::Result<_, _>>()?)
        }
        _ => Err(Refusal::failed("the other host answered something else than its checks")),
    }
}

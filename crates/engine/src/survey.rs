//! Prerequisites: facts are gathered from both hosts, the judgement is a list of named checks with their cures.

pub(crate) mod judge;

use domain::{Check, CheckName, DiskTarget, HostId, Phase, Verdict, VmId, shell_word, vm_argument};
use hypervisor::{Firmware, HostFacts, Hypervisor, HypervisorError, NicKind, Placement, VmFacts};
use store::Record;
use transport::TransportError;
use wire::message::{Answer, Request, Requirements};

pub(crate) use judge::own_vm;

use crate::intact::{self, Start};
use crate::peer::reach_cure;
use crate::{Code, Engine, Refusal, Result, clock, replica};

/// Clocks that differ by more make schedules and reports misleading.
const CLOCK_SKEW_MS_MAX: u64 = 5_000;

/// What this host can judge about running a VM that comes from elsewhere.
pub(crate) async fn here(engine: &Engine, requirements: Requirements) -> Result<Vec<Check>> {
    let asked = requirements.clone();
    let mut checks = engine.hypervisor(move |it| of_hypervisor(it, &asked)).await?;
    checks.push(disk_space(engine, &requirements));
    checks.push(name_free(engine, &requirements).await?);
    checks.push(engine.guard_check().await);
    if let Some(id) = requirements.relationship {
        checks.push(no_test(engine, id.into(), &requirements.name)?);
        if let Ok(record) = engine.record(id.into()) {
            checks.push(trusted(engine, &record).await?);
        }
    }
    Ok(checks)
}

/// Whether the VM can start from this replica's files, and would start from the newest recovery point.
async fn trusted(engine: &Engine, record: &Record) -> Result<Check> {
    let (name, here) = (CheckName::RecoveryPointTrusted, &engine.config().host_name);
    if record.relationship.phase != Phase::Receiving || record.directory.is_none() {
        return Ok(Check::pass(name));
    }
    let differs = engine.store().divergence(record.relationship.id).map_err(Refusal::failed)?.is_some();
    let untrusted = match differs {
        true => Err(Refusal::new(
            Code::Busy,
            "what it wrote as the old primary is not set aside yet",
            format!(
                "wait until it is, after the next cycle: virt-replica show {}",
                vm_argument(&record.relationship.vm_name)
            ),
        )),
        false => match replica::directory(record)?.manifest().points.last() {
            Some(newest) => {
                intact::expect_trusted(engine, record, newest.point.id, Start::PlannedFailover).await
            }
            None => replica::expect_untouched(record),
        },
    };
    Ok(match untrusted {
        Ok(()) => Check::pass(name),
        Err(error) => {
            Check::fail(name, format!("{here}: {}", error.detail), format!("on {here}: {}", error.cure))
        }
    })
}

/// A copy that is tried out stands on the files that a handover would write to.
pub(crate) fn no_test(engine: &Engine, id: domain::RelationshipId, name: &str) -> Result<Check> {
    let pins = engine.store().pins(id).map_err(Refusal::failed)?;
    Ok(Check::when(CheckName::NoOtherOperation, pins.is_empty(), || {
        let here = &engine.config().host_name;
        let found = format!("a test failover of the VM stands on {here}");
        (found, format!("on {here}: virt-replica stop-test-failover {}", vm_argument(name)))
    }))
}

/// Whether a VM has enough memory on this host.
pub(crate) fn memory(host: &hypervisor::HostFacts, facts: &VmFacts) -> Check {
    judge::memory(host, facts)
}

/// What the hypervisor of this host says about the definition.
fn of_hypervisor(
    hypervisor: &dyn Hypervisor,
    requirements: &Requirements,
) -> std::result::Result<Vec<Check>, HypervisorError> {
    let definition = requirements.domain_xml.as_str();
    let (host, facts) = (hypervisor.host_facts()?, hypervisor.read_definition(definition)?);
    let mut checks = of_host(hypervisor, &host, &facts, requirements);
    checks.push(judge::memory(&host, &facts));
    // libvirt can compare processors only for a machine that it has.
    if checks.iter().any(|check| check.name == CheckName::MachineTypeAvailable && check.holds()) {
        checks.push(judge::cpu(&host, &facts, hypervisor.cpu_obstacle(definition)?));
    }
    // Whatever else would be found only when the replica is made is found now, before anything is made.
    if checks.iter().all(Check::holds)
        && let Err(error) = hypervisor.place_definition(definition, &somewhere(&facts))
    {
        let cure =
            format!("change the definition on the primary server: virsh edit {}", vm_argument(&facts.name));
        checks.push(Check::fail(CheckName::DefinitionMovable, error.to_string(), cure));
    }
    Ok(checks)
}

/// What the facts of this host say, and the files that the VM boots from.
fn of_host(
    hypervisor: &dyn Hypervisor,
    host: &HostFacts,
    facts: &VmFacts,
    requirements: &Requirements,
) -> Vec<Check> {
    let missing: Vec<_> =
        facts.boot_files.iter().filter(|path| !hypervisor.boot_file_available(path)).cloned().collect();
    let loader_accepted = match &facts.firmware {
        Firmware::Uefi { loader: Some(loader), .. } => hypervisor.boot_file_available(loader),
        _ => true,
    };
    vec![
        judge::networks(host, facts, requirements),
        judge::machine(host, facts),
        judge::firmware(host, facts, loader_accepted),
        judge::tpm(host, facts),
        judge::boot_files(host, &missing),
    ]
}

/// What the VM of a replica needs that this host does not have, before it starts here alone. Nothing is asked that takes time: the VM is
/// off, and everybody waits.
pub(crate) fn unfit(
    hypervisor: &dyn Hypervisor,
    host: &HostFacts,
    facts: &VmFacts,
    settings: &domain::Settings,
) -> Vec<Check> {
    let checks = of_host(hypervisor, host, facts, &needs(facts, settings, Vec::new(), None));
    checks.into_iter().filter(|check| !check.holds()).map(alone).collect()
}

/// A cure for a host that is alone: the map of networks belongs to both.
fn alone(check: Check) -> Check {
    match check.verdict {
        Verdict::Fail { found, .. } if check.name == CheckName::NetworksPresent => {
            let cure = "make it on this host, under that name; virsh nodedev-list --cap net, virsh net-list --all: what is here";
            Check::fail(check.name, found, cure)
        }
        _ => check,
    }
}

/// A placement that is only tried out.
fn somewhere(facts: &VmFacts) -> Placement {
    let disks = facts.disks.iter().map(|disk| (disk.target.clone(), "/nowhere".into())).collect();
    Placement {
        vm: facts.id,
        disks,
        strangers: Vec::new(),
        networks: Vec::new(),
        nvram: Some("/nowhere".into()),
        local_definition: None,
    }
}

/// What has the name or the UUID is this host's own business, or another peer's: whoever asks hears that it is taken, and the log of this
/// host has the rest.
async fn name_free(engine: &Engine, requirements: &Requirements) -> Result<Check> {
    let here = &engine.config().host_name;
    let vm = VmId(requirements.vm);
    if requirements.relationship.is_some_and(|id| engine.record(id.into()).is_ok()) {
        return Ok(Check::pass(CheckName::NameFree));
    }
    let related = engine.find(&vm.to_string()).ok();
    let name = requirements.name.clone();
    let vms = engine.hypervisor(|it| it.names()).await?;
    let in_the_way = vms.into_iter().find(|(id, other)| *id == vm || *other == name);
    if let Some(record) = &related {
        let other = record.relationship.id;
        tracing::info!(%vm, relationship = %other, "a peer asks for a VM of another relationship");
    }
    if let Some((id, other)) = &in_the_way {
        tracing::info!(%vm, ?name, there = %id, called = ?other, "a peer asks for a VM that is in the way of one that is here");
    }
    let by_id = related.is_some() || in_the_way.as_ref().is_some_and(|(id, _)| *id == vm);
    Ok(Check::when(CheckName::NameFree, related.is_none() && in_the_way.is_none(), || {
        let look = format!("on {here}: virsh list --all, virt-replica list");
        // A UUID cannot be changed; a name can.
        match by_id {
            true => (
                format!("the UUID {vm} is taken on {here}"),
                format!(
                    "{look}; if what has it is not needed: virt-replica remove {vm}, or virsh undefine {vm} (its disks stay)"
                ),
            ),
            false => {
                let known = vm_argument(&name);
                (
                    format!("the name {name:?} is taken on {here}"),
                    format!(
                        "{look}; if what has it is not needed (its disks stay): virsh undefine {known}; if it is: virsh domrename {known} NEWNAME"
                    ),
                )
            }
        }
    }))
}

fn disk_space(engine: &Engine, requirements: &Requirements) -> Check {
    let (name, here) = (CheckName::DiskSpace, &engine.config().host_name);
    let storage = shell_word(&engine.config().storage.to_string_lossy());
    // The peer's numbers: they need not have a sum.
    let allocated = requirements.disks.iter().filter(|it| it.replicated).filter_map(|it| it.allocated_bytes);
    let needed = allocated.fold(0, u64::saturating_add);
    match replica::storage(engine).and_then(|storage| storage.free_bytes().map_err(Refusal::failed)) {
        Err(error) => Check::fail(name, error.detail, format!("on {here}: {}", error.cure)),
        Ok(free) => Check::when(name, free > needed, || {
            let (needed, free) = (needed >> 20, free >> 20);
            let found = format!("{needed} MiB are to be stored, {storage} on {here} has {free} MiB free");
            (found, format!("on {here}: make room in {storage} (df -h {storage}; du -sh {storage}/*)"))
        }),
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
        let (path, format) = (disk.source.clone(), disk.format.clone());
        let size = engine.hypervisor(move |it| it.image_size(&path, &format)).await?;
        let replicated = settings.replicated_disks().any(|target: &DiskTarget| *target == disk.target);
        disks.push(wire::message::DiskRequirement {
            target: disk.target.as_str().to_owned(),
            virtual_size: size.virtual_bytes,
            allocated_bytes: Some(size.allocated_bytes),
            replicated,
        });
    }
    Ok(needs(facts, settings, disks, relationship))
}

fn needs(
    facts: &VmFacts,
    settings: &domain::Settings,
    disks: Vec<wire::message::DiskRequirement>,
    relationship: Option<uuid::Uuid>,
) -> Requirements {
    let mapped = |wanted: NicKind| -> Vec<String> {
        let nics = facts.nics.iter().filter(|nic| nic.kind == wanted);
        nics.map(|nic| settings.network_on_peer(&nic.source).to_owned()).collect()
    };
    Requirements {
        vm: facts.id.0,
        name: facts.name.clone(),
        domain_xml: facts.definition.clone(),
        memory_bytes: facts.memory_bytes,
        disks,
        bridges: mapped(NicKind::Bridge),
        networks: mapped(NicKind::Network),
        relationship,
    }
}

/// Reaches the other host: whether it answers, is who it was, speaks our protocol, and whether its clock agrees.
pub async fn reach(engine: &Engine, peer: HostId) -> Vec<Check> {
    let asked = clock::now();
    let answer = engine.clock_of(peer).await;
    let answered = clock::now();
    let error = match answer {
        Ok(Some(theirs)) => {
            // Its clock was read between the question and the answer.
            let (behind, ahead) =
                (asked.millis().saturating_sub(theirs), theirs.saturating_sub(answered.millis()));
            return vec![
                Check::pass(CheckName::ReplicaReachable),
                Check::pass(CheckName::VersionsMatch),
                Check::pass(CheckName::CertificatesValid),
                clocks(engine, peer, behind, ahead),
            ];
        }
        Ok(None) => {
            let found = "the other host's answer is not understood";
            return vec![Check::fail(
                CheckName::VersionsMatch,
                found,
                "install the same version on both hosts",
            )];
        }
        Err(error) => error,
    };
    let name = engine.name_of(peer);
    let (here, there) = (shell_word(&engine.config().host_name), shell_word(&name));
    let pair_again = format!(
        "on {there}: virt-replica peer invite; here: virt-replica peer join TOKEN; if that is refused, first here: \
         virt-replica peer remove {there}, and on {there}: virt-replica peer remove {here}"
    );
    let (check, cure) = match &error {
        TransportError::Version(_) => (
            CheckName::VersionsMatch,
            "install the same version on both hosts; to compare: virtreplicad --version".to_owned(),
        ),
        TransportError::CertificateExpired { .. } | TransportError::OwnCertificateExpired { .. } => {
            (CheckName::CertificatesValid, format!("on both hosts: date; if the clocks agree, {pair_again}"))
        }
        TransportError::CertificateNotPinned { .. } | TransportError::NotAccepted { .. } => {
            (CheckName::CertificatesValid, pair_again)
        }
        _ => (CheckName::ReplicaReachable, reach_cure(&name)),
    };
    let failed = Check::fail(check, error.to_string(), cure);
    match check {
        CheckName::ReplicaReachable => vec![failed],
        _ => vec![Check::pass(CheckName::ReplicaReachable), failed],
    }
}

fn clocks(engine: &Engine, peer: HostId, behind_ms: u64, ahead_ms: u64) -> Check {
    let (skew, word) = if ahead_ms > 0 { (ahead_ms, "ahead of") } else { (behind_ms, "behind") };
    Check::when(CheckName::ClocksAgree, skew <= CLOCK_SKEW_MS_MAX, || {
        let (here, there) = (&engine.config().host_name, engine.name_of(peer));
        let apart = domain::words::duration(std::time::Duration::from_millis(skew));
        let found = format!("the clock of {there} is {apart} {word} that of {here}");
        (found, "on the host whose clock is wrong (date): apt-get install chrony; chronyc makestep")
    })
}

/// Asks the other host to judge.
pub(crate) async fn there(engine: &Engine, peer: HostId, requirements: Requirements) -> Result<Vec<Check>> {
    match engine.ask(peer, &Request::Survey { requirements }).await? {
        Answer::Survey { checks } => {
            Ok(checks.into_iter().map(Check::try_from).collect::<std::result::Result<_, _>>()?)
        }
        _ => Err(Refusal::failed("the other host answered something else than its checks")),
    }
}

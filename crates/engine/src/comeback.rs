//! The old primary comes back after its VM was failed over: how the survivor sees it, how it steps down when the survivor
//! reverses, and how what it wrote after the common recovery point is kept.
//!
//! ```text
//!   old primary                                    survivor
//!   runs nothing: the guard asks the survivor      "it is back": a notice; "it runs there too": split brain
//!   steps down ◀───────── reverse ──────────────── primary in the higher epoch
//!    │ what differs since the common point, from its bitmap, if that is whole
//!    ▼
//!   receives ◀─ delta: what either side changed ── or, when a bitmap is not whole, what a comparison finds
//!    │ the old content below that delta is set aside
//!    ▼
//!   a replica like any other
//! ```
//! Until the delta has arrived no recovery point of the diverged content is offered. Nothing is destroyed: a VM that runs here
//! is never stopped, and what it wrote is kept until a person removes it.

use std::time::Duration;

use domain::divergence::{Pieces, coarsen};
use domain::{
    DiskTarget, Divergence, Epoch, Health, Notice, Phase, RecoveryPoint, Role, Settings, vm_argument,
};
use extent::{Extent, ExtentSet};
use layer::ReplicaDirectory;
use store::Record;
use wire::message::form::DivergenceForm;

use crate::basis::Basis;
use crate::events::Number;
use crate::frames::CLUSTER;
use crate::notice::word;
use crate::protect::mismatches;
use crate::source::{self, Source, checkpoint_name, own_checkpoints};
use crate::{Code, Engine, Refusal, Result, blocking, clock, copy, guest_files, replica, standing};

/// Nobody waits longer for what is only shown.
const ASK_DEADLINE: Duration = Duration::from_millis(1500);

/// What a survivor shows of the other host, whose copy is stale.
pub(crate) async fn notices(engine: &Engine, record: &Record) -> Vec<Notice> {
    let relationship = &record.relationship;
    if !matches!(relationship.phase, Phase::FailedOver { .. } | Phase::Unprotected { .. }) {
        return Vec::new();
    }
    let Ok(beliefs) = engine.hear_peer(record, ASK_DEADLINE).await else { return Vec::new() };
    if !standing::is_primary(&beliefs) || beliefs.epoch >= relationship.epoch.number() {
        return Vec::new();
    }
    let (peer, name, vm) =
        (engine.peer_name(record), &relationship.vm_name, vm_argument(&relationship.vm_name));
    vec![match beliefs.vm_runs {
        Some(true) => Notice {
            severity: Health::Critical,
            what: format!(
                "split brain: VM {name:?} runs on this host and on {peer}, each with writes of its own"
            ),
            cure: format!(
                "decide which one is to live on. This one: on {peer} virsh shutdown {vm}, then here virt-replica reverse {vm}. \
                 That one: here virt-replica cancel-failover {vm}. What the other wrote is kept aside"
            ),
        },
        _ => Notice {
            severity: Health::Warning,
            what: format!("{peer} is back, and its copy of VM {name:?} is stale"),
            cure: format!(
                "virt-replica reverse {vm}: it becomes the replica, and what only it has is kept aside"
            ),
        },
    }]
}

/// This host was primary, and the survivor of a failover would make it the replica: why it will not.
pub(crate) async fn expect_can_step_down(
    engine: &Engine,
    record: &Record,
    common: &RecoveryPoint,
    settings: &Settings,
) -> Result<()> {
    let relationship = &record.relationship;
    engine.must_be_idle(record)?;
    if let Some(wrong) = mismatches(&relationship.settings, settings).into_iter().next() {
        return Err(Refusal::new(Code::Refused, wrong, "leave the parameter out: the original is filled in"));
    }
    if engine.vm_state(record).await?.is_some_and(hypervisor::VmState::is_active) {
        let (here, peer) = (&engine.config().host_name, engine.peer_name(record));
        let vm = vm_argument(&relationship.vm_name);
        let found = format!("the VM runs on {here}, too: this program never stops it");
        let cure = format!("on {here}: virsh shutdown {vm}; then on {peer}: virt-replica reverse {vm}");
        return Err(Refusal::new(Code::Refused, found, cure));
    }
    if known(engine, record, common)?.is_some_and(|known| known.lineage != common.lineage) {
        let found = format!("both hosts have recovery point {}, with different digests", common.id);
        return Err(Refusal::new(Code::InDoubt, found, "virt-replica show, on both hosts"));
    }
    Ok(())
}

fn known(engine: &Engine, record: &Record, common: &RecoveryPoint) -> Result<Option<RecoveryPoint>> {
    let points = engine.store().points(record.relationship.id).map_err(Refusal::failed)?;
    Ok(points.into_iter().find(|point| point.id == common.id))
}

/// Makes this host the replica, where [`expect_can_step_down`] has no objection.
pub(crate) async fn step_down(
    engine: &Engine,
    record: &Record,
    epoch: Epoch,
    common: &RecoveryPoint,
) -> Result<()> {
    let (relationship, peer) = (&record.relationship, engine.peer_name(record));
    let id = relationship.id;
    engine.give_up_transfer(id).await;
    let disks = match known(engine, record, common)? {
        Some(_) => written_since(engine, record, common).await,
        None => unknown(record),
    };
    let divergence = Divergence { since: common.id, at: clock::now(), disks, covered_by: None };
    engine.reach("step down.measured").await;
    let directory = replica::demote(engine, record, common, false).await?;
    engine.store().set_directory(id, &directory).map_err(Refusal::failed)?;
    engine.reach("step down.demoted").await;
    engine.store().step_down(id, epoch, common, &divergence).map_err(Refusal::failed)?;
    engine.reach("step down.stored").await;
    let words = match divergence.is_known() {
        true => format!("{} were written here after that", crate::operation::mib(divergence.known_bytes())),
        false => {
            "what was written here after that was not tracked to the end, and is found by comparison".into()
        }
    };
    let text = format!("this host is the replica of {peer} now, from recovery point {}; {words}", common.id);
    engine.event(Number::SteppedDown, &relationship.vm_name, text);
    Ok(())
}

fn unknown(record: &Record) -> Vec<(DiskTarget, Option<Pieces>)> {
    record.relationship.settings.replicated_disks().map(|target| (target.clone(), None)).collect()
}

/// What each disk's bitmaps say; a host that crashed has left them unusable, and then nothing is known.
async fn written_since(
    engine: &Engine,
    record: &Record,
    common: &RecoveryPoint,
) -> Vec<(DiskTarget, Option<Pieces>)> {
    match tracked_since(engine, record, common).await {
        Ok(disks) => disks.into_iter().map(|(target, pieces)| (target, Some(pieces))).collect(),
        Err(error) => {
            tracing::info!(%error, "what was written here since the failover is not known");
            unknown(record)
        }
    }
}

async fn tracked_since(
    engine: &Engine,
    record: &Record,
    common: &RecoveryPoint,
) -> Result<Vec<(DiskTarget, Pieces)>> {
    let relationship = &record.relationship;
    let checkpoints = own_checkpoints(engine, relationship.vm).await?;
    let since: Vec<String> =
        checkpoints.iter().skip_while(|it| **it != common.id).map(|it| checkpoint_name(*it)).collect();
    if since.is_empty() {
        return Err(Refusal::failed("there is no checkpoint of the common recovery point"));
    }
    let facts = engine.vm(record).await?.ok_or_else(|| Refusal::failed("the VM is not defined here"))?;
    let disks: Vec<DiskTarget> = relationship.settings.replicated_disks().cloned().collect();
    crate::seal::expect_one_bitmap(&facts, &disks).await?;
    let (held, basis) = (engine.slot(relationship.id).files.hold(), Basis::Since(common.id));
    let source = source::open_offline(engine, held, &facts, (&disks, &[]), &since, &basis).await?;
    let pieces = source
        .disks
        .iter()
        .map(|disk| {
            let changed = disk.data.union(&disk.zero);
            let pieces = changed.iter().map(|extent| (extent.offset(), extent.length())).collect();
            (disk.target.clone(), coarsen(pieces, DivergenceForm::PIECES_MAX))
        })
        .collect();
    source.close(engine).await;
    Ok(pieces)
}

/// Adds to a source what the replica's disks have that is no part of the common recovery point.
pub(crate) async fn cover(source: &mut Source, divergence: &Divergence) -> Result<()> {
    for disk in &mut source.disks {
        if disk.is_whole() {
            continue;
        }
        let told = divergence.disks.iter().find(|(target, _)| *target == disk.target);
        let Some((_, Some(pieces))) = told else {
            return Err(Refusal::failed(format!("nothing is known of how disk {} differs", disk.target)));
        };
        let size = disk.client.size();
        let theirs = extents(pieces)?.clipped(size).aligned_out(CLUSTER, size);
        disk.also(&theirs);
    }
    Ok(())
}

fn extents(pieces: &Pieces) -> Result<ExtentSet> {
    let mut set = ExtentSet::new();
    for (offset, length) in pieces {
        set.insert(Extent::new(*offset, *length).map_err(Refusal::failed)?);
    }
    Ok(set)
}

/// How far a guest's clock may be behind before what it wrote is missing from the list of files, seconds.
const CLOCK_SLACK_SECONDS: i64 = 600;

/// Keeps the old content below the delta that covered it, then this is a replica like any other. True when nothing is left to do.
pub(crate) async fn set_aside(engine: &Engine, record: &Record) -> Result<bool> {
    let relationship = &record.relationship;
    let Some(divergence) = engine.store().divergence(relationship.id).map_err(Refusal::failed)? else {
        return Ok(true);
    };
    let Some(covered_by) = divergence.covered_by else { return Ok(false) };
    if relationship.role() != Role::Replica {
        return Ok(false);
    }
    let directory = replica::directory(record)?;
    let listed = directory.manifest().points.iter().find(|listed| listed.point.id == covered_by);
    let listed = listed.ok_or_else(|| {
        Refusal::failed(format!(
            "what was written here cannot be set aside: recovery point {covered_by}, which lies over it, is gone"
        ))
    })?;
    let mut bytes = 0;
    // Whose clock counts is the guest's, which is rarely minutes off; what both sides have alike is left out anyway.
    let points = directory.manifest().points.iter().map(|listed| &listed.point);
    let common =
        points.filter(|point| Some(point.id) == listed.point.parent).map(|point| point.instant).next();
    let since = common.map_or(i64::MIN, |instant| (instant.millis() / 1000) as i64 - CLOCK_SLACK_SECONDS);
    for (target, file) in &listed.files {
        let known = divergence.disks.iter().find(|(known, _)| known == target);
        let pieces = known.and_then(|(_, pieces)| pieces.clone());
        bytes += keep_old_content(engine, &directory, target, file, pieces, divergence.at).await?;
        if let Some(below) = directory.file_below(target, file) {
            let folder = directory.disk_folder(target);
            let list = folder.join(layer::diverged_list_name(divergence.at).as_str());
            guest_files::list(engine, &below, &folder.join(file), since, &list).await;
        }
    }
    let (vm, mib) = (word(&relationship.vm_name), crate::operation::mib(bytes));
    let text = match divergence.is_known() {
        true => {
            format!(
                "what was written here after the failover is kept: {mib}; virt-replica diverged list {vm}"
            )
        }
        false => format!("what differed here is kept as it was: {mib}; virt-replica diverged list {vm}"),
    };
    engine.event(Number::SetAside, &relationship.vm_name, text);
    engine.store().forget_divergence(relationship.id).map_err(Refusal::failed)?;
    Ok(true)
}

/// Copies what one disk held below a layer, where that covers it; gives how many bytes of data that were.
async fn keep_old_content(
    engine: &Engine,
    directory: &ReplicaDirectory,
    target: &DiskTarget,
    layer: &str,
    pieces: Option<Pieces>,
    at: domain::Timestamp,
) -> Result<u64> {
    let folder = directory.disk_folder(target);
    let (name, delta) = (layer::diverged_name(at), folder.join(layer));
    let Some(below) = directory.file_below(target, layer) else { return Ok(0) };
    if folder.join(name.as_str()).exists() {
        return Ok(0); // a run that was cut has made it
    }
    let pieces = match pieces {
        Some(pieces) => pieces,
        None => blocking(move || layer::own_extents(&delta).map_err(Refusal::failed)).await?,
    };
    let socket = format!("{}-{target}.sock", directory.manifest().vm);
    copy::copy(engine, &below, Some(&extents(&pieces)?), (&folder, &name), &socket).await
}

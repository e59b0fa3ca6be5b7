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

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::divergence::{Pieces, coarsen};
use domain::{
    DiskTarget, Divergence, Epoch, Health, Notice, Phase, RecoveryPoint, Role, Settings, vm_argument,
};
use extent::{Extent, ExtentSet};
use layer::{ManifestPoint, ReplicaDirectory};
use store::Record;
use wire::message::form::DivergenceForm;

use crate::basis::Basis;
use crate::events::Number;
use crate::frames::CLUSTER;
use crate::hear::Heard;
use crate::notice::word;
use crate::protect::mismatches;
use crate::source::{self, Source, checkpoint_name, own_checkpoints};
use crate::{
    Code, Engine, Recovery, Refusal, Result, blocking, clock, copy, ended, guest_files, replica, standing,
};

/// Nobody waits longer for what is only shown.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What a survivor shows of the other host, whose copy is stale.
pub(crate) async fn notices(engine: &Engine, record: &Record) -> Vec<Notice> {
    let relationship = &record.relationship;
    if !matches!(relationship.phase, Phase::FailedOver { .. } | Phase::Unprotected { .. }) {
        return Vec::new();
    }
    let beliefs = match engine.hear(record, PATIENCE).await {
        Heard::Beliefs(beliefs) if !beliefs.ended => beliefs,
        Heard::Beliefs(beliefs) => return vec![ended::notice(engine, record, beliefs.vm_runs)],
        Heard::Unknown(_) => return vec![ended::notice(engine, record, None)],
        Heard::Unsure(why) => return vec![unsure(engine, record, &why)],
        Heard::Silent(_) => return Vec::new(),
    };
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

/// The other host is there, and does not say whether its copy runs.
fn unsure(engine: &Engine, record: &Record, why: &Refusal) -> Notice {
    let (peer, vm) = (engine.peer_name(record), vm_argument(&record.relationship.vm_name));
    let name = &record.relationship.vm_name;
    Notice {
        severity: Health::Warning,
        what: format!(
            "{peer} answers, and does not tell whether its stale copy of VM {name:?} runs: {}",
            why.detail
        ),
        cure: format!("on {peer}: virsh domstate {vm}, and virt-replica show {vm}"),
    }
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
    expect_off(engine, record).await?;
    if known(engine, record, common)?.is_some_and(|known| known.lineage != common.lineage) {
        let found = format!("both hosts have recovery point {}, with different digests", common.id);
        return Err(Refusal::new(Code::InDoubt, found, "virt-replica show, on both hosts"));
    }
    Ok(())
}

/// A VM that runs on what is to become a replica's base would write under the recovery points.
async fn expect_off(engine: &Engine, record: &Record) -> Result<()> {
    if !engine.vm_state(record).await?.is_some_and(hypervisor::VmState::is_active) {
        return Ok(());
    }
    let (here, peer) = (&engine.config().host_name, engine.peer_name(record));
    let vm = vm_argument(&record.relationship.vm_name);
    let found = format!("the VM runs on {here}, too: this program never stops it");
    let cure = format!("on {here}: virsh shutdown {vm}; then on {peer}: virt-replica reverse {vm}");
    Err(Refusal::new(Code::Refused, found, cure))
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
    // One that was let through before this copy was known to be stale may have come up since; it goes on as it is, and this side
    // stays what it was.
    expect_off(engine, record).await?;
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
    for kept in old_contents(&directory, listed, &divergence) {
        bytes += keep_old_content(engine, &directory, &kept, divergence.at).await?;
        let list =
            directory.disk_folder(&kept.target).join(layer::diverged_list_name(divergence.at).as_str());
        guest_files::list(engine, &kept.old, &kept.beside, since, &list).await;
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
    Recovery::SetAside.taken();
    engine.event(Number::SetAside, &relationship.vm_name, text);
    engine.store().forget_divergence(relationship.id).map_err(Refusal::failed)?;
    Ok(true)
}

/// What an old primary wrote to one disk, and where it is.
#[derive(PartialEq, Eq, Debug)]
struct OldContent {
    target: DiskTarget,
    /// The file through which its disk is read.
    old: PathBuf,
    /// The file through which the disk is read that goes on, or was there before.
    beside: PathBuf,
    /// What the bitmaps told; none: not known.
    pieces: Option<Pieces>,
    /// Whose extents hold all of it where nothing is known.
    extents_of: PathBuf,
}

/// Below the delta that covered it; of a disk that was removed from the VM before that delta, its newest layer. The user's own
/// file under a removed disk stays as it is.
fn old_contents(
    directory: &ReplicaDirectory,
    covered_by: &ManifestPoint,
    divergence: &Divergence,
) -> Vec<OldContent> {
    let told = |target: &DiskTarget| divergence.disks.iter().find(|(told, _)| told == target);
    let covered = covered_by.files.iter().filter_map(|(target, file)| {
        let (below, delta) = (directory.file_below(target, file)?, directory.disk_folder(target).join(file));
        let pieces = told(target).and_then(|(_, pieces)| pieces.clone());
        let (beside, extents_of) = (delta.clone(), delta);
        Some(OldContent { target: target.clone(), old: below, beside, pieces, extents_of })
    });
    let removed = divergence.disks.iter().filter_map(|(target, pieces)| {
        let newest = directory.manifest().disk(target)?.layers.last()?.as_str();
        let below =
            directory.file_below(target, newest).filter(|_| !covered_by.files.contains_key(target))?;
        let newest = directory.disk_folder(target).join(newest);
        let (old, extents_of) = (newest.clone(), newest);
        Some(OldContent { target: target.clone(), old, beside: below, pieces: pieces.clone(), extents_of })
    });
    covered.chain(removed).collect()
}

/// Copies what one disk held; gives how many bytes of data that were.
async fn keep_old_content(
    engine: &Engine,
    directory: &ReplicaDirectory,
    kept: &OldContent,
    at: domain::Timestamp,
) -> Result<u64> {
    let target = &kept.target;
    let (folder, name) = (directory.disk_folder(target), layer::diverged_name(at));
    let made = folder.join(name.as_str());
    if made.exists() {
        // By a run that was cut.
        return blocking(move || bytes_in(&made)).await;
    }
    let pieces = match kept.pieces.clone() {
        Some(pieces) => pieces,
        None => {
            let file = kept.extents_of.clone();
            blocking(move || layer::own_extents(&file).map_err(Refusal::failed)).await?
        }
    };
    let socket = format!("{}-{target}.sock", directory.manifest().vm);
    let owner = directory.owner(target);
    copy::copy(engine, &kept.old, Some(&extents(&pieces)?), (&folder, &name), owner, &socket).await
}

/// Bytes of guest data that a file which stands on nothing holds.
pub(crate) fn bytes_in(file: &Path) -> Result<u64> {
    let extents = layer::own_extents(file).map_err(Refusal::failed)?;
    Ok(extents.iter().map(|(_, length)| length).sum())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::fixture;
    use layer::{Backing, FileName, Manifest, ManifestDisk, Storage};
    use uuid::Uuid;

    use super::*;

    fn target(name: &str) -> DiskTarget {
        DiskTarget::new(name).expect("a target")
    }

    /// Two disks of ours and one whose file is the user's own; the old primary wrote to all of them.
    fn old_primary(root: &std::path::Path) -> ReplicaDirectory {
        let name = |name: &str| FileName::new(name).expect("a name");
        let disk = |target: DiskTarget| ManifestDisk {
            layers: vec![name("3-common.qcow2"), name("3-own.qcow2")],
            ..ManifestDisk::fresh(target, 4096)
        };
        let users = Backing::new("/images/vdc.qcow2", layer::BackingFormat::Qcow2).expect("a file");
        let manifest = Manifest {
            vm_name: "a VM".into(),
            vm: Uuid::from_u128(2).into(),
            relationship: Uuid::from_u128(3).into(),
            disks: vec![
                disk(target("vda")),
                disk(target("vdb")),
                ManifestDisk::on(target("vdc"), 4096, users),
            ],
            points: Vec::new(),
            autostart: false,
        };
        ReplicaDirectory::create(&Storage::initialise(root).expect("storage"), manifest).expect("a directory")
    }

    #[test]
    fn what_was_written_to_a_disk_that_the_covering_delta_lacks_is_kept_too() {
        let root = tempfile::tempdir().expect("a folder");
        let mut directory = old_primary(root.path());
        let delta = FileName::new("4-delta.qcow2").expect("a name");
        directory
            .update(|manifest| {
                // The survivor's VM has the first disk only.
                manifest.have_disks(&[target("vda")]);
                manifest.add_point(fixture::point(4), &[(target("vda"), delta)]);
            })
            .expect("a point");
        let listed = directory.manifest().points[0].clone();
        assert_eq!(listed.files, BTreeMap::from([(target("vda"), "4-delta.qcow2".to_owned())]));
        let pieces = |length| Some(vec![(0, length)]);
        let divergence = Divergence {
            since: fixture::point(3).id,
            at: domain::Timestamp(7),
            disks: vec![
                (target("vda"), pieces(512)),
                (target("vdb"), pieces(1024)),
                (target("vdc"), pieces(2048)),
            ],
            covered_by: Some(fixture::point(4).id),
        };
        let file = |disk: &str, name: &str| directory.disk_folder(&target(disk)).join(name);
        let expected = [
            OldContent {
                target: target("vda"),
                old: file("vda", "3-own.qcow2"),
                beside: file("vda", "4-delta.qcow2"),
                pieces: pieces(512),
                extents_of: file("vda", "4-delta.qcow2"),
            },
            OldContent {
                target: target("vdb"),
                old: file("vdb", "3-own.qcow2"),
                beside: file("vdb", "3-common.qcow2"),
                pieces: pieces(1024),
                extents_of: file("vdb", "3-own.qcow2"),
            },
        ];
        assert_eq!(old_contents(&directory, &listed, &divergence), expected);
    }

    #[test]
    fn what_a_run_that_was_cut_has_set_aside_counts_with_its_bytes() {
        let root = tempfile::tempdir().expect("a folder");
        let name = layer::diverged_name(domain::Timestamp(7));
        let spec = layer::LayerSpec { virtual_size: 1 << 30, backing: None, owner: None };
        let mut writer = layer::LayerWriter::create(root.path(), &name, spec).expect("a writer");
        for at in [0, 1 << 29] {
            writer.write(at, &[7; 2 * layer::CLUSTER_BYTES as usize]).expect("a write");
        }
        let made = writer.seal().expect("sealed").path;
        assert_eq!(bytes_in(&made).expect("counted"), 4 * layer::CLUSTER_BYTES);
    }
}

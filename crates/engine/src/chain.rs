//! The chain of files of a replica, kept as short as retention allows.
//!
//! ```text
//! owner ─▶ mind ─▶ shorten: forget what retention drops ─▶ merge a layer ─▶ its place in the chain ─▶ the next
//!                  └──── replica's lock, shortly ────┘    └ files only ┘   └ replica's lock, shortly ┘
//! ```
//! Deltas arrive while a layer is merged. Whoever needs the files as they are (a handover, a test failover) takes hold of the
//! chain, and a merge under way gives way; it is done again later. Not here: which files (`layer`), which points (`domain`).

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use choreography::{Procedure, Side};
use domain::retention::{LAYERS_MAX, LAYERS_RESERVED};
use domain::{
    DiskTarget, Phase, PointId, RecoveryPoint, Relationship, RelationshipId, Retention, Role, vm_argument,
};
use layer::{FoldStep, LayerError, Merge, ReplicaDirectory, Scope};
use store::Record;
use tokio::sync::MutexGuard;
use tokio::time::Instant;
use wire::message::{Answer, Request};

use crate::{Code, Engine, Refusal, Result, blocking, cycle, replica};

/// Longest chain that takes another layer. libvirt refuses to start a VM from 200 files, and a test failover adds one.
const LAYERS_HARD_MAX: usize = 180;
/// Pause between two looks whether the other host has merged.
const MERGE_POLL: Duration = Duration::from_millis(500);
/// A file that somebody has open for a moment is no failure yet.
const MERGE_PATIENCE: Duration = Duration::from_secs(15);

/// Who works on the files of a chain, and who waits for them.
#[derive(Default)]
pub(crate) struct Chain {
    files: tokio::sync::Mutex<()>,
    wanted: AtomicUsize,
    merging: AtomicBool,
    /// Who reads the files for long. Nothing is merged meanwhile; more may read.
    readers: AtomicUsize,
    /// A merge that was seen to its end and has yet to take its place.
    committed: Mutex<Option<Merge>>,
}

impl Chain {
    /// The files, which stay as they are while the guard lives. A merge under way gives way at once. Whoever needs the replica's
    /// lock too takes that first.
    pub(crate) async fn hold(&self) -> MutexGuard<'_, ()> {
        struct Wanted<'a>(&'a AtomicUsize);
        impl Drop for Wanted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.wanted.fetch_add(1, Ordering::SeqCst);
        let _wanted = Wanted(&self.wanted);
        self.files.lock().await
    }

    /// Nothing is merged while this lives. A merge under way gives way at once.
    pub(crate) async fn read(self: Arc<Chain>) -> Reading {
        let _files = self.hold().await;
        self.readers.fetch_add(1, Ordering::SeqCst);
        Reading(Arc::clone(&self))
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0
    }

    fn committed(&self) -> std::sync::MutexGuard<'_, Option<Merge>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who reads the files.
pub(crate) struct Reading(Arc<Chain>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Which points of a replica stay.
enum Keep {
    Retention(Retention),
    /// The VM comes home to its own file, and its guest waits: only the newest.
    Newest,
}

impl Keep {
    fn of(engine: &Engine, record: &Record) -> Result<Option<Keep>> {
        let relationship = &record.relationship;
        if relationship.phase != Phase::Receiving || record.directory.is_none() {
            return Ok(None);
        }
        // What only this host has is kept before anything is merged.
        if engine.store().divergence(relationship.id).map_err(Refusal::failed)?.is_some() {
            return Ok(None);
        }
        let open = engine.store().open_operation(relationship.id).map_err(Refusal::failed)?;
        Ok(match open {
            None => Some(Keep::Retention(relationship.settings.retention.clone())),
            Some((operation, _))
                if operation.procedure == Procedure::PlannedFailover
                    && operation.side == Side::NewPrimary
                    && record.home_definition.is_some() =>
            {
                Some(Keep::Newest)
            }
            Some(_) => None,
        })
    }

    fn points(&self, points: &[RecoveryPoint], pinned: &HashSet<PointId>) -> BTreeSet<PointId> {
        match self {
            Keep::Retention(retention) => retention.keep(points, pinned),
            Keep::Newest => pinned.iter().copied().collect(),
        }
    }
}

/// Lets a task shorten the chain of a replica, if none does already. What it cannot do now is tried again at the next look.
pub(crate) fn mind(engine: &Engine, id: RelationshipId) {
    let slot = engine.slot(id);
    if slot.chain.merging.swap(true, Ordering::SeqCst) {
        return;
    }
    let engine = engine.clone();
    tokio::spawn(async move {
        let done = shorten(&engine, id).await;
        slot.chain.merging.store(false, Ordering::SeqCst);
        match done {
            Ok(Looked::Yes) => *slot.fold_failure() = None,
            Ok(Looked::No) => {}
            // Shown in health: the chain grows until its cause is mended.
            Err(error) => *slot.fold_failure() = Some(error.detail),
        }
    });
}

/// Whether a chain was looked at, or is somebody else's now.
enum Looked {
    Yes,
    No,
}

/// Forgets and merges one step after the other, until nothing is left to do or somebody needs the files.
async fn shorten(engine: &Engine, id: RelationshipId) -> Result<Looked> {
    let slot = engine.slot(id);
    loop {
        // A delta that is arriving holds the lock; this can wait.
        let (Ok(_files), Ok(alone)) = (slot.chain.files.try_lock(), slot.replica.try_lock()) else {
            return Ok(Looked::No);
        };
        if slot.chain.readers.load(Ordering::SeqCst) > 0 {
            return Ok(Looked::No);
        }
        let record = engine.record(id)?;
        let Some(keep) = Keep::of(engine, &record)? else { return Ok(Looked::No) };
        let pinned: HashSet<PointId> =
            engine.store().pins(id).map_err(Refusal::failed)?.into_iter().collect();
        let mut directory = replica::directory(&record)?;
        let committed = slot.chain.committed().take();
        let (directory, next) = blocking(move || {
            let next = prepare(&mut directory, &keep, &pinned, committed).map_err(Refusal::failed)?;
            Ok((directory, next))
        })
        .await?;
        know_points(engine, id, &directory)?;
        drop(alone);
        let Some(merge) = next else { return Ok(Looked::Yes) };
        engine.reach("chain.merging").await;
        let (chain, committed) = (Arc::clone(&slot.chain), merge.clone());
        let merged = blocking(move || Ok(directory.commit(&merge, &|| chain.is_wanted()))).await?;
        engine.reach("chain.merged").await;
        match merged {
            Ok(()) => *slot.chain.committed() = Some(committed),
            Err(LayerError::GaveWay { .. }) => return Ok(Looked::No),
            Err(error) => return Err(Refusal::failed(error)),
        }
    }
}

/// Everything that is quick: forgets what does not stay, lets merged layers take their place; gives the next layer to merge.
fn prepare(
    directory: &mut ReplicaDirectory,
    keep: &Keep,
    pinned: &HashSet<PointId>,
    mut committed: Option<Merge>,
) -> std::result::Result<Option<Merge>, LayerError> {
    let points: Vec<RecoveryPoint> = directory.manifest().points.iter().map(|it| it.point.clone()).collect();
    let stay = keep.points(&points, pinned);
    directory.forget_points(|id| stay.contains(&id))?;
    directory.drop_retired()?;
    let targets: Vec<DiskTarget> =
        directory.manifest().disks.iter().map(|disk| disk.target.clone()).collect();
    for target in targets {
        let committed = committed.take_if(|merge| *merge.target() == target);
        let mut fold = directory.begin_fold(&target, Scope::BelowHead, pinned)?.after(committed);
        while let Some(step) = fold.next()? {
            if let FoldStep::Commit(merge) = step {
                return Ok(Some(merge));
            }
            fold.step()?;
        }
    }
    Ok(None)
}

/// The store's rows follow the files.
pub(crate) fn know_points(engine: &Engine, id: RelationshipId, directory: &ReplicaDirectory) -> Result<()> {
    let listed: Vec<RecoveryPoint> =
        directory.manifest().points.iter().map(|listed| listed.point.clone()).collect();
    let known = engine.store().points(id).map_err(Refusal::failed)?;
    if known == listed {
        return Ok(());
    }
    engine.store().set_points(id, &listed).map_err(Refusal::failed)
}

/// Merges everything into the file at the bottom of each disk, for a VM that starts from it. The caller holds the chain.
pub(crate) async fn merge_all(record: &Record) -> Result<()> {
    let mut directory = replica::directory(record)?;
    blocking(move || {
        let none = HashSet::new();
        directory.forget_points(|_| false).map_err(Refusal::failed)?;
        let targets: Vec<DiskTarget> =
            directory.manifest().disks.iter().map(|disk| disk.target.clone()).collect();
        targets
            .iter()
            .try_for_each(|target| directory.fold(target, Scope::All, &none).map_err(Refusal::failed))
    })
    .await
}

/// Whether a chain takes the layers of another delta.
pub(crate) fn expect_room(record: &Record, directory: &ReplicaDirectory, tagged: bool) -> Result<()> {
    let layers = directory.manifest().disks.iter().map(|disk| disk.layers.len()).max().unwrap_or(0);
    if layers >= LAYERS_HARD_MAX {
        let vm = vm_argument(&record.relationship.vm_name);
        let found = format!(
            "a disk's chain has {layers} layers, and no VM starts from a much longer one: recovery points are not merged"
        );
        let cure = format!(
            "on the replica server: virt-replica show {vm} says why; a test failover that stands keeps what it reads: \
             virt-replica stop-test-failover {vm}"
        );
        return Err(Refusal::new(Code::Refused, found, cure));
    }
    if tagged {
        expect_points(&record.relationship, &record.relationship.settings.retention, tags(directory) + 1)?;
    }
    Ok(())
}

/// How many points have a tag.
pub(crate) fn tags(directory: &ReplicaDirectory) -> usize {
    directory.manifest().points.iter().filter(|listed| listed.point.tag.is_some()).count()
}

/// Whether a chain bears so many tagged points beside those that stay by themselves.
pub(crate) fn expect_points(relationship: &Relationship, retention: &Retention, tags: usize) -> Result<()> {
    let (kept, max) = (retention.points_max(), LAYERS_MAX - LAYERS_RESERVED);
    if tags == 0 || kept + tags <= max {
        return Ok(());
    }
    let vm = vm_argument(&relationship.vm_name);
    let found = format!(
        "{tags} tagged recovery points and {kept} that stay by themselves are more than the {max} that a disk's chain of files bears"
    );
    let cure = format!(
        "virt-replica point list {vm}; virt-replica point remove {vm} POINT; or let fewer stay: \
         virt-replica set {vm} --recovery-points N"
    );
    Err(Refusal::new(Code::Refused, found, cure))
}

/// Bytes that files take on disk, by their names in the folder of a disk.
pub(crate) fn file_bytes(folder: &Path, file: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::metadata(folder.join(file)).ok()?.blocks() * 512)
}

impl Engine {
    /// Layers that this host has still to merge before the VM can come home to its own file without making its guest wait; and why
    /// that does not go on.
    pub(crate) fn left_to_merge(&self, record: &Record) -> Result<(usize, Option<String>)> {
        if record.home_definition.is_none() || record.relationship.role() != Role::Replica {
            return Ok((0, None));
        }
        mind(self, record.relationship.id);
        let directory = replica::directory(record)?;
        let layers = directory.manifest().disks.iter().map(|disk| disk.layers.len().saturating_sub(1)).sum();
        Ok((layers, self.slot(record.relationship.id).fold_failure().clone()))
    }
}

/// Rounds after which a merge that does not keep up with the cycles is not waited for any longer.
const ROUNDS_MIN: usize = 3;

/// Whether waiting makes the downtime no shorter: all is merged but what came while it was waited for, and that has been so for some
/// rounds. Each round makes a layer of each disk.
fn is_as_short_as_it_gets(layers: usize, rounds: usize, disks: usize) -> bool {
    layers == 0 || rounds >= ROUNDS_MIN && layers <= rounds * disks
}

/// On the primary, in pre-sync: the guest runs until the other host, when it is the VM's home, has merged all recovery points but
/// the newest into the VM's own disk. What is left to merge while the guest is off is as small as the last delta.
pub(crate) async fn wait_until_short(engine: &Engine, record: &Record) -> Result<()> {
    let relationship = &record.relationship;
    let (id, epoch) = (relationship.id.0, relationship.epoch.number());
    let disks = relationship.settings.replicated_disks().count();
    let (mut synchronized, mut merged, mut rounds) = (Instant::now(), Instant::now(), 0);
    loop {
        let (layers, failure) =
            match engine.ask(relationship.peer, &Request::LeftToMerge { relationship: id, epoch }).await {
                Ok(Answer::LeftToMerge { layers, failure }) => (layers, failure),
                Err(silent) if silent.code == Code::Unavailable => return Err(silent),
                // A daemon that does not know the question merges when the VM starts.
                _ => return Ok(()),
            };
        match failure {
            _ if is_as_short_as_it_gets(layers, rounds, disks) => return Ok(()),
            None => merged = Instant::now(),
            Some(why) if merged.elapsed() > MERGE_PATIENCE => {
                let found =
                    format!("the other host cannot merge recovery points into the VM's own disk: {why}");
                return Err(Refusal::new(
                    Code::Refused,
                    found,
                    "make room there, or mend the file that is named",
                ));
            }
            Some(_) => {}
        }
        tokio::time::sleep(MERGE_POLL).await;
        // What the guest writes meanwhile must not pile up for the downtime.
        if synchronized.elapsed() > relationship.settings.frequency.duration() {
            cycle::run(engine, &engine.record(relationship.id)?).await?;
            (synchronized, rounds) = (Instant::now(), rounds + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Settings, fixture};
    use layer::{FileName, Manifest, ManifestDisk, Storage};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_merge_is_waited_for_unless_it_never_catches_up_with_the_cycles() {
        assert!(is_as_short_as_it_gets(0, 0, 2));
        assert!(!is_as_short_as_it_gets(1, 0, 1), "it is being merged");
        assert!(!is_as_short_as_it_gets(24, 5, 1), "old points are left");
        assert!(!is_as_short_as_it_gets(1, 1, 1), "it may still catch up");
        assert!(
            is_as_short_as_it_gets(3, 3, 1) && is_as_short_as_it_gets(8, 4, 2),
            "only what came since is left"
        );
    }

    fn record(retention: &str) -> Record {
        let retention = retention.parse().expect("a retention");
        let settings = Settings { retention, ..Settings::of(Vec::new()) };
        let vm_name = "a VM".into();
        Record::new(Relationship { vm_name, settings, ..fixture::relationship(Phase::Receiving) })
    }

    fn directory(root: &Path, layers: u64, tags: u64) -> ReplicaDirectory {
        let point = |ordinal: u64| RecoveryPoint {
            tag: (ordinal <= tags).then(|| "a tag".to_owned()),
            ..fixture::point(ordinal)
        };
        let layer = |ordinal: u64| FileName::new(&format!("{ordinal}.qcow2")).expect("a name");
        let disk = ManifestDisk {
            layers: (1..=layers).map(layer).collect(),
            ..ManifestDisk::fresh(fixture::vda(), 1 << 20)
        };
        let mut manifest = Manifest {
            vm_name: "a VM".into(),
            vm: Uuid::from_u128(1).into(),
            relationship: Uuid::from_u128(2).into(),
            disks: vec![disk],
            points: Vec::new(),
            autostart: false,
        };
        (1..=layers).for_each(|ordinal| manifest.add_point(point(ordinal), &[]));
        ReplicaDirectory::create(&Storage::initialise(root).expect("storage"), manifest).expect("a directory")
    }

    /// `words` are what the refusal says; none: there is room.
    fn check(retention: &str, (layers, tags): (u64, u64), tagged: bool, words: &[&str]) {
        let root = tempfile::tempdir().expect("a folder");
        let found = expect_room(&record(retention), &directory(root.path(), layers, tags), tagged);
        match found {
            Ok(()) => assert!(words.is_empty(), "nothing was refused"),
            Err(refusal) => {
                let text = refusal.to_string();
                assert!(!words.is_empty() && words.iter().all(|word| text.contains(word)), "{text}");
            }
        }
    }

    #[test]
    fn a_chain_that_no_vm_would_start_from_takes_no_layer() {
        check("24", (179, 0), false, &[]);
        check("24", (180, 0), false, &["180 layers", "virt-replica stop-test-failover 'a VM'"]);
    }

    #[test]
    fn tags_are_refused_when_the_chain_bears_no_more() {
        check("latest", (119, 116), true, &[]);
        check("latest", (119, 117), true, &["118 tagged", "virt-replica point remove 'a VM' POINT"]);
        check("latest", (119, 117), false, &[]);
        check("97", (30, 19), true, &[]);
        check("98", (30, 19), true, &["20 tagged", "99 that stay", "--recovery-points"]);
        assert!(expect_points(&record("24").relationship, &"117".parse().expect("most"), 0).is_ok());
    }
}

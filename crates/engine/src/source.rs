//! What a cycle reads from: the backup job of a running VM, or the files of one that is off. One instant for all disks.

use std::path::PathBuf;
use std::time::Duration;

use domain::{DiskTarget, PointId, RelationshipId, VmId};
use extent::ExtentSet;
use hypervisor::{BackupRequest, CHECKPOINT_PREFIX, OpenBackup, VmFacts};
use nbd::{ALLOCATION, Client, Deadlines, OfflineDisk, OfflineExport};
use store::Record;

use crate::basis::Basis;
use crate::frames::CLUSTER;
use crate::let_go::Held;
use crate::quiesce::{self, Begun, Moment};
use crate::{Code, Engine, Refusal, Result, scratch};

/// How often, and how soon again, it is looked for what a killed daemon was just starting.
const LATE_LOOKS: u32 = 3;
const LATE_PAUSE: Duration = Duration::from_secs(2);

/// A source that is open.
pub(crate) struct Source {
    pub(crate) disks: Vec<SourceDisk>,
    exports: Vec<OfflineExport>,
    /// The VM whose backup job must be ended.
    job: Option<VmId>,
    /// Of a VM that is off; after the exports, which have the files open.
    _held: Option<Held>,
    /// Of a VM that runs.
    _room: Option<scratch::Watch>,
}

/// One disk of it.
pub(crate) struct SourceDisk {
    pub(crate) target: DiskTarget,
    pub(crate) client: Client,
    /// What is no hole, in whole clusters.
    pub(crate) allocated: ExtentSet,
    /// What is read.
    pub(crate) data: ExtentSet,
    /// What is known to be zero and must be said.
    pub(crate) zero: ExtentSet,
}

impl SourceDisk {
    /// Whether every byte of it travels.
    pub(crate) fn is_whole(&self) -> bool {
        self.data.total() + self.zero.total() == self.client.size()
    }
}

/// The name of the checkpoint of a point.
pub(crate) fn checkpoint_name(point: PointId) -> String {
    format!("{CHECKPOINT_PREFIX}{point}")
}

/// The points whose checkpoints exist on this host, oldest first; foreign checkpoints are not ours to see.
pub(crate) async fn own_checkpoints(engine: &Engine, vm: VmId) -> Result<Vec<PointId>> {
    let names = engine.hypervisor(move |it| it.checkpoints(vm)).await?;
    Ok(names.iter().filter_map(|name| name.strip_prefix(CHECKPOINT_PREFIX)?.parse().ok()).collect())
}

/// Opens the job of a running VM, with a checkpoint for `point` at the same instant.
pub(crate) async fn open_live(
    engine: &Engine,
    (record, freeze): (&Record, bool),
    facts: &VmFacts,
    (disks, whole): (&[DiskTarget], &[DiskTarget]),
    point: PointId,
    basis: &Basis,
) -> Result<(Source, Moment)> {
    let config = engine.config();
    let since = match basis {
        Basis::Since(since) => Some(checkpoint_name(*since)),
        Basis::Initial | Basis::Compare { .. } => None,
    };
    let request = BackupRequest {
        checkpoint: Some(checkpoint_name(point)),
        since,
        disks: disks.to_vec(),
        whole: whole.to_vec(),
        scratch_dir: config.scratch.clone(),
        socket: socket(engine, point),
    };
    scratch::expect_room(engine)?;
    let Begun { open, moment } = quiesce::begin(engine, record, facts, request, freeze).await?;
    let whose = (record.relationship.id, facts.id);
    Ok((connect(engine, whose, &open, basis).await?, moment))
}

/// Connects again to the job of a first copy that outlived this daemon; fails when the job is not open any more.
pub(crate) async fn reopen_live(
    engine: &Engine,
    (id, vm): (RelationshipId, VmId),
    point: PointId,
    basis: &Basis,
) -> Result<Source> {
    let open = engine.hypervisor(move |it| it.open_backup(vm)).await?;
    let open = open.filter(|open| open.socket == socket(engine, point));
    let open = open.ok_or_else(|| Refusal::failed("its backup job is not open any more"))?;
    connect(engine, (id, vm), &open, basis).await
}

/// Ends what a killed daemon has left of its exports: they hold images from which a VM could not start.
pub(crate) async fn end_orphans(engine: &Engine) {
    let Ok(entries) = std::fs::read_dir(&engine.config().sockets) else { return };
    for socket in entries.flatten().map(|entry| entry.path()) {
        if socket.extension().is_some_and(|extension| extension == "sock") {
            nbd::end_orphan(&socket).await;
        }
    }
}

/// One that was just being started opens its socket a little later.
pub(crate) async fn end_late_orphans(engine: Engine) {
    for _ in 0..LATE_LOOKS {
        tokio::time::sleep(LATE_PAUSE).await;
        end_orphans(&engine).await;
    }
}

fn socket(engine: &Engine, point: PointId) -> PathBuf {
    engine.config().sockets.join(format!("{point}.sock"))
}

async fn connect(
    engine: &Engine,
    (id, vm): (RelationshipId, VmId),
    open: &OpenBackup,
    basis: &Basis,
) -> Result<Source> {
    let room = Some(scratch::Watch::over(engine, id, vm));
    let mut source =
        Source { disks: Vec::new(), exports: Vec::new(), job: Some(vm), _held: None, _room: room };
    for disk in &open.disks {
        let contexts: Vec<&str> = std::iter::once(ALLOCATION).chain(disk.dirty_context.as_deref()).collect();
        let client = Client::connect_unix(&open.socket, &disk.export, &contexts, Deadlines::default()).await;
        let connected = match client {
            Ok(client) => mapped(client, disk.target.clone(), &contexts[1..], basis).await,
            Err(error) => Err(error.into()),
        };
        match connected {
            Ok(disk) => source.disks.push(disk),
            Err(error) => {
                source.close(engine).await;
                return Err(error);
            }
        }
    }
    Ok(source)
}

/// Opens the files of a VM that is off. `bitmaps` are those from the basis on; their union is what changed.
pub(crate) async fn open_offline(
    engine: &Engine,
    held: Held,
    facts: &VmFacts,
    (disks, whole): (&[DiskTarget], &[DiskTarget]),
    bitmaps: &[String],
    basis: &Basis,
) -> Result<Source> {
    let mut source =
        Source { disks: Vec::new(), exports: Vec::new(), job: None, _held: Some(held), _room: None };
    let contexts: Vec<String> = bitmaps.iter().map(|bitmap| nbd::dirty_context(bitmap)).collect();
    let contexts: Vec<&str> =
        std::iter::once(ALLOCATION).chain(contexts.iter().map(String::as_str)).collect();
    for target in disks {
        let file = source_file(facts, target)?;
        let socket = engine.config().sockets.join(format!("{}-{target}.sock", facts.id));
        let (contexts, bitmaps) =
            if whole.contains(target) { (&contexts[..1], &[][..]) } else { (&contexts[..], bitmaps) };
        let disk = OfflineDisk { file: &file, bitmaps };
        let export = OfflineExport::start(disk, &socket).await?;
        let client = export.connect(contexts, Deadlines::default()).await?;
        source.exports.push(export);
        source.disks.push(mapped(client, target.clone(), &contexts[1..], basis).await?);
    }
    Ok(source)
}

pub(crate) fn source_file(facts: &VmFacts, target: &DiskTarget) -> Result<PathBuf> {
    let disk = facts.disks.iter().find(|disk| disk.target == *target);
    let disk = disk.ok_or_else(|| {
        let found = format!("disk {target} of VM {:?} is gone", facts.name);
        Refusal::new(Code::Refused, found, "attach it again, or remove and enable replication anew")
    })?;
    Ok(disk.source.clone())
}

async fn mapped(client: Client, target: DiskTarget, dirty: &[&str], basis: &Basis) -> Result<SourceDisk> {
    let size = client.size();
    let allocated = client.allocated().await.map_err(Refusal::failed)?.aligned_out(CLUSTER, size);
    let (data, zero) = match basis {
        Basis::Initial => (allocated.clone(), ExtentSet::new()),
        // Known when it has been compared.
        Basis::Compare { .. } => (ExtentSet::new(), ExtentSet::new()),
        Basis::Since(_) if !dirty.is_empty() => {
            let mut changed = ExtentSet::new();
            for context in dirty {
                changed = changed.union(&client.dirty(context).await.map_err(Refusal::failed)?);
            }
            let changed = changed.aligned_out(CLUSTER, size);
            (changed.intersection(&allocated), changed.difference(&allocated))
        }
        // Plugged in since: there is no bitmap for it, and all of it travels.
        Basis::Since(_) => {
            let zero = ExtentSet::whole(size).difference(&allocated);
            (allocated.clone(), zero)
        }
    };
    Ok(SourceDisk { target, client, allocated, data, zero })
}

impl SourceDisk {
    /// These blocks travel too, as data or as zeroes.
    pub(crate) fn also(&mut self, extents: &ExtentSet) {
        self.data = self.data.union(&extents.intersection(&self.allocated));
        self.zero = self.zero.union(&extents.difference(&self.allocated));
    }
}

impl Source {
    /// Bytes that will be read.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.data.total()).sum()
    }

    /// Whether it is the job of a running VM, which stays open as long as it is wanted.
    pub(crate) fn is_live(&self) -> bool {
        self.job.is_some()
    }

    /// Ends the job or the exports; the guest pays for an open job, so this comes as soon as everything was read.
    pub(crate) async fn close(self, engine: &Engine) {
        for disk in self.disks {
            disk.client.disconnect().await;
        }
        for export in self.exports {
            export.stop().await;
        }
        if let Some(vm) = self.job
            && let Err(error) = engine.hypervisor(move |it| it.end_backup(vm)).await
        {
            tracing::warn!(%vm, %error, "the backup job could not be ended");
        }
    }
}

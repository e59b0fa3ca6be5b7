//! One round of replication: compare beliefs, freeze one instant, read what changed, send it, and only when the replica has
//! sealed it let go of what it stood on. If anything fails, the new checkpoint goes and the next cycle covers more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Compression, Consistency, DiskTarget, Epoch, Lineage, Phase, PointId, RecoveryPoint, Settings};
use futures_util::{StreamExt, stream};
use hypervisor::{VmFacts, VmState};
use store::Record;
use transport::DeltaOptions;
use uuid::Uuid;
use wire::codec::Adaptive;
use wire::delta::DeltaDisk;
use wire::frame::{FRAME_DATA_MAX, end_frame};
use wire::message::form::consistency_name;
use wire::message::{Answer, Beliefs, Request};
use wire::{DeltaDigest, DeltaHeader, DeltaTrailer};

use crate::basis::{self, Basis};
use crate::events::Number;
use crate::files::FileIdentity;
use crate::frames::{Ready, frames_of, zeroes};
use crate::peer::refusal_of;
use crate::source::{self, Source, checkpoint_name, own_checkpoints, source_file};
use crate::spool::{SpoolWriter, spool};
use crate::{Code, Engine, Refusal, Result, Slot, clock};

/// Reads in flight; more than four of 1 MiB gain nothing on a local socket.
const READS_IN_FLIGHT: usize = 4;

/// What a cycle achieved.
#[derive(Clone, Debug)]
pub(crate) struct Synchronized {
    /// The head that both sides have.
    pub(crate) head: RecoveryPoint,
    /// The replica's own lineage of it.
    pub(crate) replica_lineage: Lineage,
    /// Bytes of guest data that travelled now; zero when nothing had changed.
    pub(crate) bytes: u64,
}

/// What the replica says when it has sealed a delta.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct SealedAnswer {
    pub(crate) lineage: String,
}

/// Runs one cycle of a primary.
pub(crate) async fn run(engine: &Engine, record: &Record) -> Result<Synchronized> {
    let relationship = &record.relationship;
    let beliefs = beliefs(engine, record).await?;
    let their_head = beliefs.head.map(RecoveryPoint::try_from).transpose()?;
    let vm = relationship.vm;
    let facts = engine.hypervisor(move |it| it.vm(vm)).await?.ok_or_else(|| {
        let found = format!("VM {:?} is not defined on this host any more", relationship.vm_name);
        Refusal::new(
            Code::Refused,
            found,
            "define it again (virsh define), or end its replication: virt-replica remove",
        )
    })?;
    check_disks(&facts, &relationship.settings)?;
    let disks: Vec<DiskTarget> = relationship.settings.replicated_disks().cloned().collect();

    let history = engine.store().points(relationship.id).map_err(Refusal::failed)?;
    let checkpoints = own_checkpoints(engine, vm).await?;
    let their_epoch =
        Epoch::new(beliefs.epoch).ok_or_else(|| Refusal::failed("the other host sent epoch 0"))?;
    let decision =
        basis::decide((relationship.epoch, their_epoch), &history, their_head.as_ref(), &checkpoints);
    let decision = decision
        .map_err(|error| Refusal::new(Code::InDoubt, error.to_string(), "virt-replica show on both hosts"))?;
    if let Some(adopted) = &decision.adopt {
        engine.store().add_point(relationship.id, adopted, clock::now()).map_err(Refusal::failed)?;
    }
    let mut attempt = Attempt { engine, record, facts, disks, their_head, basis: decision.basis };
    if let (Basis::Whole { cause }, true) = (&attempt.basis, relationship.phase == Phase::Replicating) {
        announce_resynchronization(engine, record, cause)?;
    }
    match attempt.synchronize(&checkpoints).await {
        // Tracking turned out to be unusable: everything travels, onto the replica's head, and no point is lost.
        Err(error) if attempt.tracking_is_lost(&error) => {
            announce_resynchronization(engine, record, &error.detail)?;
            attempt.basis = Basis::Whole { cause: error.detail };
            attempt.synchronize(&checkpoints).await
        }
        other => other,
    }
}

async fn beliefs(engine: &Engine, record: &Record) -> Result<Beliefs> {
    let relationship = &record.relationship;
    let request = Request::Beliefs { relationship: relationship.id.0, epoch: relationship.epoch.number() };
    let Answer::Beliefs(beliefs) = engine.ask(relationship.peer, &request).await? else {
        return Err(Refusal::failed("the other host answered something else than its beliefs"));
    };
    engine.store().set_paused_on_peer(relationship.id, beliefs.paused).map_err(Refusal::failed)?;
    if beliefs.paused {
        let cure = format!("on the replica server: virt-replica resume {}", relationship.vm_name);
        return Err(Refusal::new(Code::Refused, "replication is paused on the replica server", cure));
    }
    if !beliefs.receives {
        let found = format!("the replica server does not receive: it is in state \"{}\"", beliefs.phase);
        return Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
    }
    Ok(beliefs)
}

fn announce_resynchronization(engine: &Engine, record: &Record, cause: &str) -> Result<()> {
    let relationship = &record.relationship;
    // In a handover the side stays locked: the final delta carries everything, and the lock is not ours to lift.
    if relationship.phase == Phase::Yielding {
        return Ok(());
    }
    let phase = Phase::Resynchronizing { cause: cause.to_owned() };
    engine.store().set_phase(relationship.id, &phase).map_err(Refusal::failed)?;
    engine.event(
        Number::ResynchronizationRequired,
        &relationship.vm_name,
        format!("resynchronization: {cause}"),
    );
    Ok(())
}

/// A disk that came, went or became something else is noticed before any byte moves.
fn check_disks(facts: &VmFacts, settings: &Settings) -> Result<()> {
    let known = |target: &DiskTarget| settings.disks.iter().any(|(known, _)| known == target);
    if let Some(new) = facts.disks.iter().find(|disk| !known(&disk.target)) {
        let found = format!("disk {} was added to the VM after replication was enabled", new.target);
        return Err(Refusal::new(Code::Refused, found, "detach it, or remove and enable replication anew"));
    }
    settings.replicated_disks().try_for_each(|target| source_file(facts, target).map(drop))
}

struct Attempt<'a> {
    engine: &'a Engine,
    record: &'a Record,
    facts: VmFacts,
    disks: Vec<DiskTarget>,
    their_head: Option<RecoveryPoint>,
    basis: Basis,
}

impl Attempt<'_> {
    fn tracking_is_lost(&self, error: &Refusal) -> bool {
        let words = ["bitmap", "checkpoint"];
        matches!(self.basis, Basis::Since(_))
            && error.code != Code::Unavailable
            && words.iter().any(|word| error.detail.to_lowercase().contains(word))
    }

    async fn synchronize(&self, checkpoints: &[PointId]) -> Result<Synchronized> {
        if self.facts.state.is_active() {
            self.live(checkpoints).await
        } else {
            self.offline(checkpoints).await
        }
    }

    async fn live(&self, checkpoints: &[PointId]) -> Result<Synchronized> {
        let (engine, vm) = (self.engine, self.facts.id);
        let base = match &self.basis {
            Basis::Since(base) => Some(*base),
            _ => None,
        };
        // A job or a checkpoint of ours that a crash left behind.
        engine.hypervisor(move |it| it.end_backup(vm)).await?;
        self.drop_checkpoints(checkpoints.iter().copied().filter(|it| Some(*it) != base)).await;
        let point = PointId(Uuid::now_v7());
        let source = source::open_live(engine, &self.facts, &self.disks, point, &self.basis).await;
        let sent = match source {
            Ok(source) => self.send(source, point, Consistency::Crash).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(synchronized) => {
                self.drop_checkpoints(base.into_iter()).await;
                Ok(synchronized)
            }
            Err(error) => {
                let _ = engine.hypervisor(move |it| it.end_backup(vm)).await;
                self.drop_checkpoints(std::iter::once(point)).await;
                Err(error)
            }
        }
    }

    /// Of a VM that is off: the bitmaps stay as they are. They hold at least what changed, and no write adds to them.
    async fn offline(&self, checkpoints: &[PointId]) -> Result<Synchronized> {
        let (engine, id) = (self.engine, self.record.relationship.id);
        let point = PointId(Uuid::now_v7());
        let bitmaps: Vec<String> = match &self.basis {
            Basis::Since(base) => {
                if let Some(head) = self.unchanged_since_last_time()? {
                    engine.store().set_synchronized(id, clock::now()).map_err(Refusal::failed)?;
                    let replica_lineage =
                        self.their_head.as_ref().map_or(head.lineage, |theirs| theirs.lineage);
                    return Ok(Synchronized { head, replica_lineage, bytes: 0 });
                }
                checkpoints.iter().skip_while(|it| *it != base).map(|it| checkpoint_name(*it)).collect()
            }
            Basis::Initial | Basis::Whole { .. } => {
                // Tracking begins before the first byte is read; the image lock keeps the VM off meanwhile.
                self.drop_checkpoints(checkpoints.iter().copied()).await;
                let (vm, name, disks) = (self.facts.id, checkpoint_name(point), self.disks.clone());
                engine.hypervisor(move |it| it.create_checkpoint_offline(vm, &name, &disks)).await?;
                Vec::new()
            }
        };
        let source = source::open_offline(engine, &self.facts, &self.disks, &bitmaps, &self.basis).await?;
        let head = engine.store().points(id).map_err(Refusal::failed)?.pop();
        let synchronized = match (source.is_empty(), head, &self.their_head) {
            (true, Some(head), Some(theirs))
                if matches!(self.basis, Basis::Since(_)) && head.id == theirs.id =>
            {
                source.close(engine).await;
                engine.store().set_synchronized(id, clock::now()).map_err(Refusal::failed)?;
                Synchronized { head, replica_lineage: theirs.lineage, bytes: 0 }
            }
            _ => self.send(source, point, self.consistency_of_off()).await?,
        };
        let seal = serde_json::to_string(&self.identities()?).map_err(Refusal::failed)?;
        engine.store().set_offline_seal(id, Some(&seal)).map_err(Refusal::failed)?;
        Ok(synchronized)
    }

    fn consistency_of_off(&self) -> Consistency {
        match self.facts.state {
            VmState::ShutOff(hypervisor::ShutoffReason::Shutdown) => Consistency::PoweredOff,
            _ => Consistency::Crash,
        }
    }

    fn identities(&self) -> Result<Vec<FileIdentity>> {
        let files = self.disks.iter().map(|target| source_file(&self.facts, target));
        files.map(|file| FileIdentity::of(&file?).map_err(Refusal::failed)).collect()
    }

    fn unchanged_since_last_time(&self) -> Result<Option<RecoveryPoint>> {
        let seal: Option<Vec<FileIdentity>> =
            self.record.offline_seal.as_deref().and_then(|seal| serde_json::from_str(seal).ok());
        let head = self.engine.store().points(self.record.relationship.id).map_err(Refusal::failed)?.pop();
        let same_head = head.as_ref().map(|head| head.id) == self.their_head.as_ref().map(|theirs| theirs.id);
        Ok(if same_head && seal == Some(self.identities()?) { head } else { None })
    }

    async fn drop_checkpoints(&self, points: impl Iterator<Item = PointId>) {
        for point in points {
            let (vm, name) = (self.facts.id, checkpoint_name(point));
            if let Err(error) = self.engine.hypervisor(move |it| it.delete_checkpoint(vm, &name)).await {
                // It only costs a little memory; a checkpoint that cannot go must not stop replication.
                tracing::warn!(%point, %error, "a checkpoint could not be deleted");
            }
        }
    }

    async fn send(&self, source: Source, id: PointId, consistency: Consistency) -> Result<Synchronized> {
        let (engine, relationship) = (self.engine, &self.record.relationship);
        let slot = engine.slot(relationship.id);
        slot.limiter.set(relationship.settings.rate_limit_bytes_per_second);
        let mut point = RecoveryPoint {
            id,
            parent: self.their_head.as_ref().map(|head| head.id),
            ordinal: self.their_head.as_ref().map_or(1, |head| head.ordinal + 1),
            epoch: relationship.epoch,
            instant: clock::now(),
            consistency,
            lineage: Lineage::ORIGIN,
            delta_bytes: 0,
        };
        let parent = self.their_head.as_ref().map_or(Lineage::ORIGIN, |head| head.lineage);
        let header = self.header(&source, &point);
        slot.total_bytes.store(source.data_bytes(), Ordering::Relaxed);
        slot.done_bytes.store(0, Ordering::Relaxed);
        slot.begun_ms.store(clock::now().millis(), Ordering::Relaxed);
        let (writer, reader) =
            spool(&engine.config().scratch, engine.config().spool_bytes_max).map_err(Refusal::failed)?;
        let queued = reader.queued();
        let body = stream::unfold(reader, |reader| async move {
            match reader.pop().await {
                Ok(Some(piece)) => Some((Ok(piece), reader)),
                Ok(None) => None,
                Err(error) => Some((Err(error.into()), reader)),
            }
        });
        let options = DeltaOptions {
            limiters: vec![engine.limiter().clone(), slot.limiter.clone()],
            ..DeltaOptions::default()
        };
        let client = engine.client(relationship.peer);
        let sending = async { client.send_delta(body, options).await.map_err(refusal_of) };
        let skip_zeroes = self.basis == Basis::Initial;
        let compression = relationship.settings.compression;
        let pumping =
            pump(engine, &slot, source, header, writer, Pump { parent, skip_zeroes, compression, queued });
        let outcome = tokio::try_join!(pumping, sending);
        slot.begun_ms.store(0, Ordering::Relaxed);
        let ((lineage, bytes), answer) = outcome?;
        let answer: SealedAnswer = serde_json::from_slice(&answer.body).map_err(Refusal::failed)?;
        let replica_lineage = Lineage::from_hex(&answer.lineage);
        let replica_lineage =
            replica_lineage.ok_or_else(|| Refusal::failed("the other host sent no digest"))?;
        if replica_lineage != lineage {
            let found = format!("the digests differ: {} here, {} there", lineage.to_hex(), answer.lineage);
            return Err(Refusal::new(Code::InDoubt, found, "virt-replica show, on both hosts"));
        }
        (point.lineage, point.delta_bytes) = (lineage, bytes);
        engine.store().add_point(relationship.id, &point, clock::now()).map_err(Refusal::failed)?;
        Ok(Synchronized { head: point, replica_lineage, bytes })
    }

    fn header(&self, source: &Source, point: &RecoveryPoint) -> DeltaHeader {
        let disk = |disk: &source::SourceDisk| DeltaDisk {
            target: disk.target.as_str().to_owned(),
            virtual_size: disk.client.size(),
        };
        DeltaHeader {
            relationship: self.record.relationship.id.0,
            epoch: point.epoch.number(),
            point: point.id.0,
            parent: point.parent.map(|parent| parent.0),
            ordinal: point.ordinal,
            instant_ms: point.instant.millis(),
            consistency: consistency_name(point.consistency).to_owned(),
            disks: source.disks.iter().map(disk).collect(),
            resume_at: None,
            domain_xml: self.facts.definition.clone(),
            attachments: crate::replica::attachments(&self.facts),
            expected_bytes: source.data_bytes(),
        }
    }
}

struct Pump {
    parent: Lineage,
    skip_zeroes: bool,
    compression: Compression,
    queued: Arc<AtomicU64>,
}

/// Reads everything into the spool at local speed, and ends the source before the last byte has travelled.
async fn pump(
    engine: &Engine,
    slot: &Slot,
    source: Source,
    header: DeltaHeader,
    writer: SpoolWriter,
    how: Pump,
) -> Result<(Lineage, u64)> {
    let (mut digest, mut data_bytes, mut adaptive) = (DeltaDigest::default(), 0, Adaptive::default());
    let broken = |_| Refusal::unavailable("the transfer ended before everything was sent", "");
    let result = async {
        writer.push(header.to_bytes()).await.map_err(broken)?;
        for (index, disk) in source.disks.iter().enumerate() {
            let index = u16::try_from(index).map_err(Refusal::failed)?;
            let data = disk.data.iter().flat_map(|it| it.pieces(FRAME_DATA_MAX)).map(|it| (it, true));
            let mut pieces: Vec<_> = data.chain(disk.zero.iter().map(|it| (it, false))).collect();
            pieces.sort_unstable();
            let reads = pieces.into_iter().map(|(piece, is_data)| {
                let compress = match how.compression {
                    Compression::On => true,
                    Compression::Off => false,
                    Compression::Adaptive => adaptive.compress(how.queued.load(Ordering::Relaxed)),
                };
                let (client, skip_zeroes) = (disk.client.clone(), how.skip_zeroes);
                async move {
                    if !is_data {
                        return Ok(vec![zeroes(index, piece.offset(), piece.length())]);
                    }
                    let chunks = client.read(piece).await.map_err(Refusal::failed)?;
                    let frames = move || frames_of(index, piece, chunks, skip_zeroes, compress);
                    tokio::task::spawn_blocking(frames).await.map_err(Refusal::failed)
                }
            });
            let mut frames = stream::iter(reads).buffered(READS_IN_FLIGHT);
            while let Some(ready) = frames.next().await {
                for Ready { header, head, payload } in ready? {
                    digest.take(&header);
                    if !payload.is_empty() {
                        data_bytes += header.length;
                        slot.done_bytes.store(data_bytes, Ordering::Relaxed);
                    }
                    writer.push(head).await.map_err(broken)?;
                    if !payload.is_empty() {
                        writer.push(payload).await.map_err(broken)?;
                    }
                }
            }
        }
        let lineage = digest.lineage(how.parent);
        let hex = Lineage(digest.0).to_hex();
        let trailer = DeltaTrailer { digest: hex, lineage: lineage.to_hex(), data_bytes };
        writer.push(end_frame(&trailer.to_json())).await.map_err(broken)?;
        Ok((lineage, data_bytes))
    }
    .await;
    if result.is_err() {
        writer.fail();
    }
    drop(writer);
    source.close(engine).await;
    result
}

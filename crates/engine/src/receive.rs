//! The replica's side of a cycle: a delta arrives, is verified frame by frame, sealed as one layer per disk, and only then
//! becomes a recovery point and is acknowledged. A delta that breaks stays as partial files, and goes on or gives way to the next.

use std::time::Duration;

use bytes::Bytes;
use choreography::Procedure;
use domain::{
    Attachment, DiskTarget, Epoch, Lineage, Phase, PointId, RecoveryPoint, RelationshipId, Timestamp,
};
use layer::{ManifestDisk, ReplicaDirectory};
use store::Record;
use tokio::sync::mpsc;
use transport::{DeltaBody, PeerRecord};
use wire::message::form::{consistency_from_name, tag_from};
use wire::message::{Partial, Unfinished};
use wire::{DeltaHeader, FrameDecoder, FrameKind, Item};

use crate::compare::serve;
use crate::incoming::{Incoming, Written, arrived};
use crate::transfer::SealedAnswer;
use crate::{Code, Engine, Refusal, Result, Slot, attachments, blocking, chain, clock, replica, visible};

/// Frames between the network and the disk; each holds up to 1 MiB.
const FRAMES_WAITING: usize = 8;
/// Longest wait for a transfer that gives way, or for a merge.
const ALONE_MAX: Duration = Duration::from_secs(10);

/// Takes one delta and answers when it is sealed.
pub(crate) async fn receive(engine: &Engine, peer: PeerRecord, mut body: DeltaBody) -> Result<Bytes> {
    let mut decoder = FrameDecoder::new();
    let header = loop {
        match decoder.next().map_err(Refusal::failed)? {
            Some(Item::Header(json)) => break DeltaHeader::from_json(&json).map_err(Refusal::failed)?,
            Some(Item::Frame(_)) => return Err(Refusal::failed("a delta without a header")),
            None => decoder.feed(&next_piece(&mut body).await?),
        }
    };
    let record = engine.record(RelationshipId(header.relationship))?;
    authorize(engine, &record, &peer, &header)?;
    let slot = engine.slot(record.relationship.id);
    let _alone = alone(&slot).await?;
    // Whoever asks for the lock from here on is heard, also while nobody waits for that.
    let superseded = slot.superseded.notified();
    // What was true before the wait may not be any more: a hand over may have come between.
    let record = engine.record(record.relationship.id)?;
    serve::close(&slot).await;
    replica::catch_up(engine, &record)?;
    let head = authorize(engine, &record, &peer, &header)?;
    if let Some(head) = head.as_ref().filter(|head| head.id.0 == header.point) {
        return answer(head.lineage);
    }
    engine.reach("delta.begun").await;
    let directory = replica::directory(&record)?;
    chain::expect_room(&record, &directory, header.tag.is_some())?;
    let from = goes_on_from(&directory, &header)?;
    let sizes = header.disks.iter().map(|disk| disk.virtual_size).collect();
    decoder.expect_disks(sizes, header.resume_at.unwrap_or_default());

    let around = Around::of(engine, &record, &directory, &header).await?;
    let (frames, waiting) = mpsc::channel(FRAMES_WAITING);
    let incoming = Incoming::plan(&directory, &header)?;
    let writing = blocking(move || incoming.write(from, waiting));
    // The reader owns the channel: when it ends, for whatever reason, the writer ends too.
    let (decoder, pieces) = (&mut decoder, &mut body);
    let reading = async move {
        loop {
            match decoder.next().map_err(Refusal::failed)? {
                Some(Item::Frame(frame)) => {
                    let last = frame.header.kind == FrameKind::End;
                    // A writer that failed says why itself.
                    if frames.send(frame).await.is_err() || last {
                        return Ok(());
                    }
                }
                Some(Item::Header(_)) => return Err(Refusal::failed("a second header in a delta")),
                None => decoder.feed(&next_piece(pieces).await?),
            }
        }
    };
    // Given up, it drops the channel, whether it waits for the link or for the disk.
    let reading = async move {
        tokio::select! {
            read = reading => read,
            () = superseded => Err(Refusal::unavailable("the replica server was wanted for something else meanwhile", "")),
        }
    };
    let (read, written): (Result<()>, _) = tokio::join!(reading, writing);
    read?;
    let written = written?;
    engine.reach("delta.sealed").await;
    // The sender's stream ends after the trailer; anything more would be an error of the stream.
    while body.next().await.map_err(Refusal::failed)?.is_some() {}
    commit(engine, &record, directory, &header, head, around, written).await
}

/// What comes with the disks, read and judged before a byte of them is written.
struct Around {
    definition: String,
    /// The definition as it is shown here.
    placed: String,
    files: Vec<(Attachment, Vec<u8>)>,
}

impl Around {
    async fn of(
        engine: &Engine,
        record: &Record,
        directory: &ReplicaDirectory,
        header: &DeltaHeader,
    ) -> Result<Around> {
        let definition = header.domain_xml.clone();
        let files = attachments::unpack(&header.attachments)?;
        let placed = replica::replica_definition(engine, record, directory, &definition).await?;
        Ok(Around { definition, placed, files })
    }
}

/// Waits for whoever works on the replica. A transfer that hangs (its link may be gone without a word) gives way at once.
pub(crate) async fn alone(slot: &Slot) -> Result<tokio::sync::MutexGuard<'_, ()>> {
    slot.superseded.notify_waiters();
    let alone = tokio::time::timeout(ALONE_MAX, slot.replica.lock()).await;
    alone.map_err(|_| {
        let cure = "again in a moment; what keeps its disk busy: iostat -x 1, there";
        Refusal::new(Code::Busy, "the replica server still works on the delta before", cure)
    })
}

/// Where a transfer goes on that says so; what others left behind goes.
fn goes_on_from(directory: &ReplicaDirectory, header: &DeltaHeader) -> Result<Option<Partial>> {
    let Some(at) = header.resume_at else {
        directory.discard_partials().map_err(Refusal::from)?;
        return Ok(None);
    };
    let kept = arrived(directory, header.point, header.ordinal)?;
    let kept = kept.filter(|kept| (kept.disk, kept.offset) == at);
    kept.map(Some)
        .ok_or_else(|| Refusal::unavailable("the transfer cannot go on there: ask again how far it is", ""))
}

/// How far this side is with a delta that broke.
pub(crate) async fn partial(
    engine: &Engine,
    record: &Record,
    unfinished: &Unfinished,
) -> Result<Option<Partial>> {
    let slot = engine.slot(record.relationship.id);
    let _alone = alone(&slot).await?;
    let (directory, point, ordinal) = (replica::directory(record)?, unfinished.point, unfinished.ordinal);
    blocking(move || arrived(&directory, point, ordinal)).await
}

async fn next_piece(body: &mut DeltaBody) -> Result<Bytes> {
    // However the stream breaks, what has come is kept, and it goes on.
    let piece = body.next().await.map_err(|error| Refusal::unavailable(error, ""))?;
    piece.ok_or_else(|| Refusal::unavailable("the delta ended before its trailer", ""))
}

fn answer(lineage: Lineage) -> Result<Bytes> {
    let answer = SealedAnswer { lineage: lineage.to_hex() };
    Ok(Bytes::from(serde_json::to_vec(&answer).map_err(Refusal::failed)?))
}

/// Whether this peer may send this delta now; gives the head that it must stand on.
fn authorize(
    engine: &Engine,
    record: &Record,
    peer: &PeerRecord,
    header: &DeltaHeader,
) -> Result<Option<RecoveryPoint>> {
    let relationship = &record.relationship;
    let refuse = |found: String| Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
    if relationship.peer != peer.host {
        return refuse(format!("{} is not the primary server of this relationship", peer.name));
    }
    if Epoch::new(header.epoch) != Some(relationship.epoch) {
        return refuse(format!(
            "epoch {} was sent, this host is in epoch {}",
            header.epoch, relationship.epoch
        ));
    }
    if relationship.phase != Phase::Receiving || relationship.paused_since.is_some() {
        return refuse(format!("this side does not receive: {}", relationship.phase.words()));
    }
    let open = engine.store().open_operation(relationship.id).map_err(Refusal::failed)?;
    if open.is_some_and(|(operation, _)| operation.procedure == Procedure::Failover) {
        // It may be undone, and what was read for this delta is worth keeping until then.
        return Err(Refusal::unavailable("a failover is under way on the replica server", ""));
    }
    let head = engine.store().points(relationship.id).map_err(Refusal::failed)?.pop();
    let known = head.as_ref().map(|head| head.id.0);
    if known != header.parent && known != Some(header.point) {
        return refuse(format!("the delta stands on {:?}, the head here is {known:?}", header.parent));
    }
    let mut expected: Vec<&str> = relationship.settings.replicated_disks().map(DiskTarget::as_str).collect();
    let mut sent: Vec<&str> = header.disks.iter().map(|disk| disk.target.as_str()).collect();
    expected.sort_unstable();
    sent.sort_unstable();
    if expected != sent {
        return refuse(format!("the delta carries disks {sent:?}, replicated are {expected:?}"));
    }
    Ok(head)
}

/// The layers are sealed: the manifest learns of the point, then the store, then the primary.
async fn commit(
    engine: &Engine,
    record: &Record,
    mut directory: ReplicaDirectory,
    header: &DeltaHeader,
    parent: Option<RecoveryPoint>,
    around: Around,
    written: Written,
) -> Result<Bytes> {
    let lineage = written.digest.lineage(parent.map_or(Lineage::ORIGIN, |parent| parent.lineage));
    if written.trailer.lineage != lineage.to_hex() {
        let found = "the primary server and this host remember different histories of this VM";
        return Err(Refusal::new(Code::InDoubt, found, "virt-replica show, on both hosts"));
    }
    let point = RecoveryPoint {
        id: PointId(header.point),
        parent: header.parent.map(PointId),
        ordinal: header.ordinal,
        epoch: record.relationship.epoch,
        instant: Timestamp(header.instant_ms),
        consistency: consistency_from_name(&header.consistency)?,
        lineage,
        delta_bytes: written.data_bytes,
        tag: tag_from(header.tag.clone()),
    };
    let sizes: Vec<(String, u64)> =
        header.disks.iter().map(|disk| (disk.target.clone(), disk.virtual_size)).collect();
    let (known, layers) = (point.clone(), written.layers);
    let autostart = header.autostart;
    let has: Vec<DiskTarget> =
        record.relationship.settings.disks.iter().map(|(target, _)| target.clone()).collect();
    let Around { definition, placed, files } = around;
    // How libvirt shows the replica must not stop the bytes: kept as it was, the definition is tried again with the next.
    let shown = visible::show(engine, record, &directory, &placed).await;
    let shown =
        shown.inspect_err(|error| tracing::warn!(%error, "libvirt does not take the replica's definition"));
    blocking(move || {
        if shown.is_ok() {
            directory.write_definition(&placed).map_err(Refusal::from)?;
        }
        directory.write_primary_definition(&definition).map_err(Refusal::from)?;
        attachments::keep(&directory, &files)?;
        let kept = directory.keep_belongings(known.id, &definition, &files).map_err(Refusal::from)?;
        let grown = |manifest: &mut layer::Manifest| {
            let id = known.id;
            manifest.have_disks(&has);
            manifest.autostart = autostart.unwrap_or(manifest.autostart);
            for (target, _) in &layers {
                if manifest.disk(target).is_none() {
                    manifest.disks.push(ManifestDisk::fresh(target.clone(), 0));
                }
            }
            manifest.add_point(known, &layers);
            manifest.note_belongings(id, kept);
            for disk in &mut manifest.disks {
                let now = sizes.iter().find(|(target, _)| target == disk.target.as_str());
                disk.virtual_size = now.map_or(disk.virtual_size, |(_, size)| *size);
            }
        };
        directory.update(grown).map_err(Refusal::from)
    })
    .await?;
    engine.reach("delta.listed").await;
    engine.store().add_point(record.relationship.id, &point, clock::now()).map_err(Refusal::failed)?;
    engine.reach("delta.kept").await;
    engine.wake(record.relationship.id);
    answer(lineage)
}

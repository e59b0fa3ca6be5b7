//! The replica's side of a cycle: a delta arrives, is verified frame by frame, sealed as one layer per disk, and only then
//! becomes a recovery point and is acknowledged. A delta that breaks leaves nothing but partial files, which the next removes.

use std::path::PathBuf;

use bytes::Bytes;
use domain::{DiskTarget, Epoch, Lineage, Phase, PointId, RecoveryPoint, RelationshipId, Timestamp};
use layer::{Backing, FileName, LayerSpec, LayerWriter, ReplicaDirectory};
use store::Record;
use tokio::sync::mpsc;
use transport::{DeltaBody, PeerRecord};
use wire::message::form::consistency_from_name;
use wire::{DeltaDigest, DeltaHeader, DeltaTrailer, Frame, FrameDecoder, FrameKind, Item};

use crate::cycle::SealedAnswer;
use crate::{Code, Engine, Refusal, Result, blocking, clock, replica};

/// Frames between the network and the disk; each holds up to 1 MiB.
const FRAMES_WAITING: usize = 8;

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
    let head = authorize(engine, &record, &peer, &header)?;
    if let Some(head) = head.as_ref().filter(|head| head.id.0 == header.point) {
        return answer(head.lineage);
    }
    let slot = engine.slot(record.relationship.id);
    let _alone = slot.replica.lock().await;
    let directory = replica::directory(&record)?;
    let sizes = header.disks.iter().map(|disk| disk.virtual_size).collect();
    decoder.expect_disks(sizes, (0, 0));

    let (frames, waiting) = mpsc::channel(FRAMES_WAITING);
    let plan = Plan::new(&directory, &header)?;
    let writing = blocking(move || plan.write(waiting));
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
    let (read, written): (Result<()>, _) = tokio::join!(reading, writing);
    read?;
    let written = written?;
    // The sender's stream ends after the trailer; anything more would be an error of the stream.
    while body.next().await.map_err(Refusal::failed)?.is_some() {}
    commit(engine, &record, directory, &header, head, written).await
}

async fn next_piece(body: &mut DeltaBody) -> Result<Bytes> {
    let piece = body.next().await.map_err(Refusal::failed)?;
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

/// Where each disk of a delta is written.
struct Plan {
    disks: Vec<PlannedDisk>,
    parent: Lineage,
}

struct PlannedDisk {
    target: DiskTarget,
    folder: PathBuf,
    name: FileName,
    spec: LayerSpec,
}

/// What came of it.
struct Written {
    layers: Vec<(DiskTarget, FileName)>,
    digest: DeltaDigest,
    trailer: DeltaTrailer,
    data_bytes: u64,
}

impl Plan {
    fn new(directory: &ReplicaDirectory, header: &DeltaHeader) -> Result<Plan> {
        let disks = header.disks.iter().map(|disk| {
            let target = DiskTarget::new(&disk.target).map_err(Refusal::failed)?;
            let known = directory.manifest().disk(&target);
            let known = known
                .ok_or_else(|| Refusal::failed(format!("disk {target} is not in the replica directory")))?;
            if known.virtual_size != disk.virtual_size {
                let found = format!(
                    "disk {target} has {} bytes now and had {} when replication was enabled",
                    disk.virtual_size, known.virtual_size
                );
                return Err(Refusal::new(
                    Code::Refused,
                    found,
                    "resize it back, or remove and enable replication anew",
                ));
            }
            let first =
                header.parent.is_none() && known.base == Backing::beside(&ReplicaDirectory::base_name());
            let (name, spec) = if first {
                (ReplicaDirectory::base_name(), LayerSpec { virtual_size: disk.virtual_size, backing: None })
            } else {
                let name = ReplicaDirectory::layer_name(header.ordinal, PointId(header.point));
                (name, directory.next_layer(&target).map_err(Refusal::failed)?)
            };
            let folder = directory.disk_folder(&target);
            Ok(PlannedDisk { target, folder, name, spec })
        });
        Ok(Plan { disks: disks.collect::<Result<_>>()?, parent: Lineage::ORIGIN })
    }

    /// Verifies and writes until the trailer; then seals. On any failure nothing that was written counts.
    fn write(self, mut frames: mpsc::Receiver<Frame>) -> Result<Written> {
        debug_assert_eq!(self.parent, Lineage::ORIGIN);
        let mut writers = self.disks.iter().map(create).collect::<Result<Vec<_>>>()?;
        let (mut digest, mut data_bytes) = (DeltaDigest::default(), 0);
        let ended = loop {
            let Some(frame) = frames.blocking_recv() else {
                break Err(Refusal::unavailable("the delta broke before its trailer", ""));
            };
            let content = match frame.open() {
                Ok(content) => content,
                Err(error) => break Err(Refusal::failed(error)),
            };
            let head = frame.header;
            if head.kind == FrameKind::End {
                break DeltaTrailer::from_json(&content).map_err(Refusal::failed);
            }
            let writer = &mut writers[usize::from(head.disk)];
            let done = match head.kind {
                FrameKind::Zero => writer.zero(head.offset, head.length),
                _ => writer.write(head.offset, &content),
            };
            if let Err(error) = done {
                break Err(Refusal::failed(error));
            }
            digest.take(&head);
            data_bytes += content.len() as u64;
        };
        let trailer = match ended {
            Ok(trailer) if trailer.digest == Lineage(digest.0).to_hex() => trailer,
            ended => {
                for writer in writers {
                    // What cannot be removed now is removed before the next delta is written.
                    let _ = writer.abandon();
                }
                return Err(ended
                    .err()
                    .unwrap_or_else(|| Refusal::failed("the delta does not have its digest")));
            }
        };
        for writer in writers {
            writer.seal().map_err(Refusal::failed)?;
        }
        let layers = self.disks.into_iter().map(|disk| (disk.target, disk.name)).collect();
        Ok(Written { layers, digest, trailer, data_bytes })
    }
}

/// Opens the writer of a disk; what an earlier attempt left under these names is no point and goes.
fn create(disk: &PlannedDisk) -> Result<LayerWriter> {
    layer::discard(&disk.folder, &disk.name).map_err(Refusal::failed)?;
    layer::remove_sealed(&disk.folder, &disk.name).map_err(Refusal::failed)?;
    LayerWriter::create(&disk.folder, &disk.name, disk.spec.clone()).map_err(Refusal::failed)
}

/// The layers are sealed: the manifest learns of the point, then the store, then the primary.
async fn commit(
    engine: &Engine,
    record: &Record,
    mut directory: ReplicaDirectory,
    header: &DeltaHeader,
    parent: Option<RecoveryPoint>,
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
    };
    let (definition, attachments) = (header.domain_xml.clone(), header.attachments.clone());
    let (known, layers) = (point.clone(), written.layers);
    let placed = replica::replica_definition(engine, record, &directory, &definition).await?;
    blocking(move || {
        directory.write_definition(&placed).map_err(Refusal::failed)?;
        replica::keep_primary_definition(&directory, &definition)?;
        replica::keep_attachments(&directory, &attachments)?;
        directory.add_point(known, &layers).map_err(Refusal::failed)
    })
    .await?;
    engine.store().add_point(record.relationship.id, &point, clock::now()).map_err(Refusal::failed)?;
    engine.wake(record.relationship.id);
    answer(lineage)
}

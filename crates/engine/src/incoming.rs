//! A delta on its way onto the disk: one layer writer per disk, durable every now and then, sealed at the end.
//!
//! How far it came is kept beside the layers ([`Partial`]), so that a transfer that broke goes on where it stopped, also
//! after a crash of either daemon. NOT aware of the network: frames come out of a channel, and its end is the break.

use std::path::PathBuf;
use std::time::Duration;

use domain::{DiskTarget, Lineage, PointId, vm_argument};
use layer::{Backing, FileName, LayerError, LayerSpec, LayerWriter, ReplicaDirectory};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;
use wire::message::Partial;
use wire::{DeltaDigest, DeltaHeader, DeltaTrailer, Frame, FrameKind};

use crate::{Code, Refusal, Result};

/// After this many bytes of content everything so far is made durable: what a crash may cost on a fast link.
const DURABLE_BYTES: u64 = 256 << 20;
/// And after this time: what it may cost on a slow one.
const DURABLE_AFTER: Duration = Duration::from_secs(2);

/// Where each disk of a delta is written.
pub(crate) struct Incoming {
    disks: Vec<IncomingDisk>,
    point: Uuid,
}

struct IncomingDisk {
    target: DiskTarget,
    folder: PathBuf,
    name: FileName,
    spec: LayerSpec,
}

/// What came of it.
pub(crate) struct Written {
    pub(crate) layers: Vec<(DiskTarget, FileName)>,
    pub(crate) digest: DeltaDigest,
    pub(crate) trailer: DeltaTrailer,
    pub(crate) data_bytes: u64,
}

/// How far a transfer of this point came that broke; none when it must begin at the beginning.
pub(crate) fn arrived(directory: &ReplicaDirectory, point: Uuid, ordinal: u64) -> Result<Option<Partial>> {
    if directory.manifest().points.iter().any(|listed| listed.point.id.0 == point) {
        return Ok(None);
    }
    let mut furthest: Option<Partial> = None;
    let first = directory.manifest().points.is_empty();
    for disk in &directory.manifest().disks {
        let (name, spec) = layer_of(directory, &disk.target, first, ordinal, point)?;
        let Ok(kept) = LayerWriter::kept_state(&directory.disk_folder(&disk.target), &name, &spec) else {
            continue;
        };
        let partial = serde_json::from_slice::<Partial>(&kept).ok().filter(|it| it.point == point);
        furthest = furthest.into_iter().chain(partial).max_by_key(|it| (it.disk, it.offset));
    }
    Ok(furthest)
}

/// The file that a delta writes for a disk: the base if there is no point yet, else a layer over the head.
fn layer_of(
    directory: &ReplicaDirectory,
    target: &DiskTarget,
    first: bool,
    ordinal: u64,
    point: Uuid,
) -> Result<(FileName, LayerSpec)> {
    let Some(known) = directory.manifest().disk(target) else {
        // Plugged in since the last delta. The manifest learns of it with the point.
        return Ok((ReplicaDirectory::base_name(), directory.first_layer(target, 0)));
    };
    if first && known.base == Backing::beside(&ReplicaDirectory::base_name()) {
        return Ok((ReplicaDirectory::base_name(), directory.first_layer(target, known.virtual_size)));
    }
    let name = ReplicaDirectory::layer_name(ordinal, PointId(point));
    if known.layers.contains(&name) {
        return Err(Refusal::failed(format!("recovery point {point} is sealed already")));
    }
    Ok((name, directory.next_layer(target).map_err(Refusal::failed)?))
}

impl Incoming {
    /// Plans the files of a delta.
    pub(crate) fn plan(directory: &ReplicaDirectory, header: &DeltaHeader) -> Result<Incoming> {
        let disks = header.disks.iter().map(|disk| {
            let target = DiskTarget::new(&disk.target).map_err(Refusal::failed)?;
            let first = header.parent.is_none();
            let (name, spec) = layer_of(directory, &target, first, header.ordinal, header.point)?;
            // A disk that grew reads as zeroes behind its old end, on both sides. One that shrank has lost bytes that the
            // layers below still have, and would show them again if it grew.
            if spec.virtual_size > disk.virtual_size {
                let (was, now) = (spec.virtual_size, disk.virtual_size);
                let vm = vm_argument(&directory.manifest().vm_name);
                let found = format!(
                    "disk {target} has {now} bytes on the primary server and {was} in its replica: it shrank there, or grew here \
                     before this host became the replica"
                );
                let cure = format!(
                    "on the primary server: virsh blockresize {vm} {target} {was}B; or virt-replica remove {vm}, then virt-replica \
                     enable {vm}"
                );
                return Err(Refusal::new(Code::Refused, found, cure));
            }
            let spec = LayerSpec { virtual_size: disk.virtual_size, ..spec };
            directory.prepare_disk(&target).map_err(Refusal::from)?;
            Ok(IncomingDisk { folder: directory.disk_folder(&target), target, name, spec })
        });
        Ok(Incoming { disks: disks.collect::<Result<_>>()?, point: header.point })
    }

    /// Verifies and writes from the beginning, or from where it broke, until the trailer; then seals. When it breaks, what
    /// has come stays for the next try; when the digest is wrong, nothing of it counts.
    pub(crate) fn write(self, from: Option<Partial>, mut frames: mpsc::Receiver<Frame>) -> Result<Written> {
        // It broke in a disk that this delta does not have: the settings have changed in between.
        if from.as_ref().is_some_and(|partial| usize::from(partial.disk) >= self.disks.len()) {
            return Err(Refusal::failed("the delta goes on in a disk that it does not have"));
        }
        let mut writers = self.open(from.as_ref())?;
        let mut so_far = match from {
            Some(partial) => SoFar::at(partial)?,
            None => SoFar::beginning(self.point),
        };
        let ended = loop {
            let Some(frame) = frames.blocking_recv() else {
                break Err(Refusal::unavailable("the delta broke before its trailer", ""));
            };
            match so_far.take(&frame, &mut writers) {
                Ok(None) => {}
                Ok(Some(trailer)) => break Ok(trailer),
                Err(error) => break Err(error),
            }
        };
        let trailer = match ended {
            Ok(trailer) if trailer.digest == Lineage(so_far.digest.0).to_hex() => trailer,
            Ok(_) => {
                cov_mark::hit!(a_delta_with_a_wrong_digest_counts_for_nothing);
                // What cannot be removed now is removed before the next delta is written.
                writers.into_iter().for_each(|writer| drop(writer.abandon()));
                return Err(Refusal::failed("the delta does not have its digest"));
            }
            Err(error) => {
                // If not even this can be kept, the next try begins at an earlier place.
                drop(so_far.make_durable(&mut writers));
                return Err(error);
            }
        };
        writers.into_iter().try_for_each(|writer| writer.seal().map(drop)).map_err(Refusal::from)?;
        let layers = self.disks.into_iter().map(|disk| (disk.target, disk.name)).collect();
        Ok(Written { layers, digest: so_far.digest, trailer, data_bytes: so_far.data_bytes })
    }

    fn open(&self, from: Option<&Partial>) -> Result<Vec<LayerWriter>> {
        let begun = from.map_or(0, |partial| usize::from(partial.disk) + 1);
        let open = |(index, disk): (usize, &IncomingDisk)| {
            let writer = if index < begun { disk.go_on() } else { disk.begin() };
            writer.map_err(Refusal::from)
        };
        self.disks.iter().enumerate().map(open).collect()
    }
}

impl IncomingDisk {
    /// What an earlier attempt left under this name is no point and goes.
    fn begin(&self) -> std::result::Result<LayerWriter, LayerError> {
        layer::discard(&self.folder, &self.name)?;
        layer::remove_sealed(&self.folder, &self.name)?;
        LayerWriter::create(&self.folder, &self.name, self.spec.clone())
    }

    fn go_on(&self) -> std::result::Result<LayerWriter, LayerError> {
        LayerWriter::resume(&self.folder, &self.name, &self.spec).map(|resumed| resumed.writer)
    }
}

/// What has been taken; with the writers it is the whole state of a delta that is arriving.
struct SoFar {
    point: Uuid,
    disk: u16,
    offset: u64,
    digest: DeltaDigest,
    data_bytes: u64,
    durable: (Instant, u64),
}

impl SoFar {
    fn beginning(point: Uuid) -> SoFar {
        let (digest, durable) = (DeltaDigest::default(), (Instant::now(), 0));
        SoFar { point, disk: 0, offset: 0, digest, data_bytes: 0, durable }
    }

    fn at(partial: Partial) -> Result<SoFar> {
        let Partial { point, disk, offset, data_bytes, .. } = partial;
        let digest = Lineage::from_hex(&partial.digest);
        let digest = digest.ok_or_else(|| Refusal::failed("what was kept of the transfer has no digest"))?;
        let durable = (Instant::now(), data_bytes);
        Ok(SoFar { point, disk, offset, digest: DeltaDigest(digest.0), data_bytes, durable })
    }

    /// Takes one frame; gives the trailer when it was the last.
    fn take(&mut self, frame: &Frame, writers: &mut [LayerWriter]) -> Result<Option<DeltaTrailer>> {
        let content = frame.open().map_err(Refusal::failed)?;
        let head = frame.header;
        if head.kind == FrameKind::End {
            return DeltaTrailer::from_json(&content).map(Some).map_err(Refusal::failed);
        }
        if head.disk > self.disk {
            self.finish_disks_before(head.disk, writers)?;
        }
        let writer = &mut writers[usize::from(head.disk)];
        match head.kind {
            FrameKind::Zero => writer.zero(head.offset, head.length),
            _ => writer.write(head.offset, &content),
        }
        .map_err(Refusal::from)?;
        self.digest.take(&head);
        self.offset = head.offset + head.length;
        self.data_bytes += content.len() as u64;
        let (since, bytes) = self.durable;
        if self.data_bytes - bytes >= DURABLE_BYTES || since.elapsed() >= DURABLE_AFTER {
            self.make_durable_soon(writers)?;
        }
        Ok(None)
    }

    /// To go on in a later disk, each before it must be known as complete, also one that no frame was for.
    fn finish_disks_before(&mut self, disk: u16, writers: &mut [LayerWriter]) -> Result<()> {
        while self.disk < disk {
            cov_mark::hit!(a_disk_is_complete_before_the_next_begins);
            self.make_durable(writers)?;
            (self.disk, self.offset) = (self.disk + 1, 0);
        }
        Ok(())
    }

    /// What has come so far, without waiting for the disk.
    fn make_durable_soon(&mut self, writers: &mut [LayerWriter]) -> Result<()> {
        let state = self.state()?;
        writers[usize::from(self.disk)].make_durable_soon(&state).map_err(Refusal::from)?;
        self.durable = (Instant::now(), self.data_bytes);
        Ok(())
    }

    fn make_durable(&mut self, writers: &mut [LayerWriter]) -> Result<()> {
        let state = self.state()?;
        writers[usize::from(self.disk)].make_durable(&state).map_err(Refusal::from)
    }

    fn state(&self) -> Result<Vec<u8>> {
        let partial = Partial {
            point: self.point,
            disk: self.disk,
            offset: self.offset,
            digest: Lineage(self.digest.0).to_hex(),
            data_bytes: self.data_bytes,
        };
        serde_json::to_vec(&partial).map_err(Refusal::failed)
    }
}

#[cfg(test)]
mod tests;

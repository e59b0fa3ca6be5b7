//! The replica's side of a comparison: it reads its head, read-only, and digests what it is asked for.
//!
//! The head stays open between two questions, and is closed when nobody asks any more, when a delta comes, and before this
//! side becomes primary. While it is open nothing below it is merged.

use std::time::Duration;

use domain::{DiskTarget, Epoch, Phase, PointId};
use extent::{Extent, ExtentSet};
use nbd::{ALLOCATION, Client, Deadlines, OfflineDisk, OfflineExport};
use store::Record;
use tokio::time::Instant;
use wire::digests::{BLOCK_BYTES, DigestsForm, RANGE_BYTES_MAX};

use super::blocks;
use crate::chain::Reading;
use crate::frames::CLUSTER;
use crate::receive::alone;
use crate::{Code, Engine, Refusal, Result, Slot, blocking, replica, seed};

/// A head that nobody asks for is closed after this.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A head that is open.
pub(crate) struct OpenHead {
    head: Option<PointId>,
    disks: Vec<OpenDisk>,
    asked: Instant,
    /// Nothing below it is merged. After the disks, which have the files open.
    _reading: Reading,
}

struct OpenDisk {
    target: DiskTarget,
    /// None: nothing of it is here yet, as it was added to the VM, or lies beside disks that began from an existing copy.
    file: Option<OpenFile>,
}

struct OpenFile {
    client: Client,
    allocated: ExtentSet,
    export: OfflineExport,
}

/// What a peer asks for.
pub(crate) struct Question {
    /// The newest point that it means.
    pub(crate) point: Option<PointId>,
    pub(crate) disk: String,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Digests of a range of the head.
pub(crate) async fn digests(engine: &Engine, record: &Record, question: Question) -> Result<DigestsForm> {
    let id = record.relationship.id;
    let (target, range) = checked(&question)?;
    let slot = engine.slot(id);
    let _alone = alone(&slot).await?;
    // What was true before the wait may not be any more.
    let record = engine.record(id)?;
    replica::catch_up(engine, &record)?;
    expect_receiving(engine, &record, record.relationship.epoch, &question)?;
    let mut open = slot.open_head.lock().await;
    if open.as_ref().is_some_and(|open| open.head != question.point) {
        *open = None;
    }
    if open.is_none() {
        let reading = slot.chain.clone().read().await;
        let (disks, asked) = (Vec::new(), Instant::now());
        *open = Some(OpenHead { head: question.point, disks, asked, _reading: reading });
        tokio::spawn(close_when_idle(engine.clone(), id));
    }
    let Some(head) = open.as_mut() else { return Err(Refusal::failed("the head is closed")) };
    head.asked = Instant::now();
    if !head.disks.iter().any(|disk| disk.target == target) {
        head.disks.push(open_disk(engine, &record, &target).await?);
    }
    let disk = head.disks.iter().find(|disk| disk.target == target);
    let disk = disk.ok_or_else(|| Refusal::failed("the disk is not open"))?;
    let digests = disk.digests(range).await?;
    head.asked = Instant::now();
    Ok(DigestsForm::pack(&digests))
}

fn checked(question: &Question) -> Result<(DiskTarget, Extent)> {
    let target = DiskTarget::new(&question.disk).map_err(Refusal::failed)?;
    let range = Extent::new(question.offset, question.length).map_err(Refusal::failed)?;
    if range.length() > RANGE_BYTES_MAX || range.offset() % BLOCK_BYTES != 0 {
        let (offset, length) = (range.offset(), range.length());
        return Err(Refusal::failed(format!("{length} bytes at offset {offset} are not blocks to compare")));
    }
    Ok((target, range))
}

fn expect_receiving(engine: &Engine, record: &Record, epoch: Epoch, question: &Question) -> Result<()> {
    let relationship = &record.relationship;
    let refuse = |found: String| Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
    if relationship.epoch != epoch || relationship.phase != Phase::Receiving {
        return refuse(format!("this side does not receive: {}", relationship.phase.words()));
    }
    let head = engine.store().points(relationship.id).map_err(Refusal::failed)?.pop().map(|head| head.id);
    if head != question.point {
        return refuse(format!("{:?} is to be compared, the head here is {head:?}", question.point));
    }
    if !relationship.settings.replicated_disks().any(|target| target.as_str() == question.disk) {
        return refuse(format!("disk {:?} is not replicated", question.disk));
    }
    Ok(())
}

async fn open_disk(engine: &Engine, record: &Record, target: &DiskTarget) -> Result<OpenDisk> {
    let directory = replica::directory(record)?;
    let of_target = target.clone();
    let file = blocking(move || {
        // Added to the VM since: it comes with the next point.
        let Some(disk) = directory.manifest().disk(&of_target) else { return Ok(None) };
        let file = disk.head().resolve(&directory.disk_folder(&of_target));
        if seed::is_seeded(&directory) && !file.exists() {
            return Ok(None);
        }
        directory.check_chain(&of_target).map_err(Refusal::failed)?;
        Ok(Some(file))
    })
    .await?;
    let Some(file) = file else { return Ok(OpenDisk { target: target.clone(), file: None }) };
    let socket = engine.config().sockets.join(format!("compare-{}-{target}.sock", record.relationship.id));
    let disk = OfflineDisk { file: &file, bitmaps: &[] };
    let export = OfflineExport::start(disk, &socket).await.map_err(Refusal::failed)?;
    let client = export.connect(&[ALLOCATION], Deadlines::default()).await.map_err(Refusal::failed)?;
    let allocated = client.allocated().await.map_err(Refusal::failed)?.aligned_out(CLUSTER, client.size());
    let file = Some(OpenFile { client, allocated, export });
    Ok(OpenDisk { target: target.clone(), file })
}

impl OpenDisk {
    /// What lies behind the end of this disk reads as zeroes: the primary's has grown.
    async fn digests(&self, range: Extent) -> Result<Vec<wire::digests::BlockDigest>> {
        let Some(file) = &self.file else { return Ok(vec![None; blocks::count(range)]) };
        let here = ExtentSet::whole(file.client.size()).within(range).iter().next();
        let mut digests = match here {
            // A short last block differs from a longer one of the other side by its length, unless both are zeroes.
            Some(here) => blocks::digests(&file.client, &file.allocated, here).await?,
            None => Vec::new(),
        };
        digests.resize(blocks::count(range), None);
        Ok(digests)
    }

    async fn close(self) {
        if let Some(file) = self.file {
            file.client.disconnect().await;
            file.export.stop().await;
        }
    }
}

/// Closes the head, if it is open. For whoever holds the replica's lock and is going to change files.
pub(crate) async fn close(slot: &Slot) {
    let Some(mut open) = slot.open_head.lock().await.take() else { return };
    for disk in open.disks.drain(..) {
        disk.close().await;
    }
}

async fn close_when_idle(engine: Engine, id: domain::RelationshipId) {
    let slot = engine.slot(id);
    loop {
        let rest = {
            let open = slot.open_head.lock().await;
            let Some(open) = open.as_ref() else { return };
            IDLE_MAX.saturating_sub(open.asked.elapsed())
        };
        if rest.is_zero() {
            close(&slot).await;
            engine.wake(id);
            return;
        }
        tokio::time::sleep(rest).await;
    }
}

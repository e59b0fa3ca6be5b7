//! Comparing instead of copying: both hosts digest their blocks, and only blocks that differ travel.
//!
//! ```text
//!   primary                                            replica
//!   frozen source ──▶ blocks ─┐        Digests ──────▶ serve: head, read-only ──▶ blocks
//!                             ├─▶ what differs ◀────── digests of a range
//!   delta of that ◀───────────┘
//! ```
//! Each side digests its own range while the other does, and the next range is on the way meanwhile. A hole costs nothing on
//! either side. What is *not* here: when a comparison is made (`cycle`, `basis`), and how a delta travels (`transfer`).

mod blocks;
pub(crate) mod doubt;
pub(crate) mod policy;
pub(crate) mod serve;
pub(crate) mod verify;

use std::sync::atomic::{AtomicBool, Ordering};

use domain::{DiskTarget, PointId};
use extent::{Extent, ExtentSet};
use futures_util::{StreamExt, TryFutureExt, stream};
use store::Record;
use wire::digests::{BLOCK_BYTES, RANGE_BYTES_MAX};
use wire::message::{Answer, Request};

use crate::source::{Source, SourceDisk};
use crate::{Code, Engine, Refusal, Result};

/// What is asked for at once. Short enough that both sides begin at once and a slow disk keeps the deadline of a question.
const RANGE_BYTES: u64 = 32 << 20;
/// Ranges on the way: the replica digests the next one while the answer to this one travels and is compared.
const RANGES_IN_FLIGHT: usize = 2;

/// Of blocks that differ, as many are kept with both digests for each disk.
const EVIDENCE_MAX: usize = 1024;

/// How far a comparison is, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ComparisonProgress {
    /// Bytes of the disks that have been compared.
    pub compared_bytes: u64,
    /// Bytes of the disks in all.
    pub total_bytes: u64,
    /// Bytes of those compared that differ.
    pub differing_bytes: u64,
}

/// A comparison of a frozen source with a replica's head. It outlives a broken link, and goes on where it was.
#[derive(Default)]
pub(crate) struct Comparison {
    /// For each disk of the source, in its order.
    disks: Vec<Compared>,
    /// It ended because the replica cannot be read, and not this side, the road between them, or what changed meanwhile.
    replica_failed: bool,
}

#[derive(Default)]
struct Compared {
    /// Everything before it has been compared.
    until: u64,
    differs: ExtentSet,
    /// The first of the blocks that differ, with both digests.
    evidence: Vec<blocks::Difference>,
}

impl Comparison {
    /// Compares everything that has not been compared yet with the head `point` of the replica.
    pub(crate) async fn run(
        &mut self,
        engine: &Engine,
        record: &Record,
        point: Option<PointId>,
        source: &Source,
    ) -> Result<()> {
        self.disks.resize_with(source.disks.len(), Compared::default);
        let slot = engine.slot(record.relationship.id);
        let total_bytes = source.disks.iter().map(|disk| disk.client.size()).sum();
        *slot.comparison() = Some(self.progress(total_bytes));
        let replica_failed = AtomicBool::new(false);
        let replica_failed = &replica_failed;
        for (disk, compared) in source.disks.iter().enumerate() {
            let from = self.disks[disk].until;
            let ranges = ranges(compared, from);
            let differing = ranges.into_iter().map(|range| async move {
                let theirs = theirs(engine, record, point, &compared.target, range).inspect_err(|error| {
                    replica_failed.fetch_or(error.code == Code::Failed, Ordering::SeqCst);
                });
                let ours = blocks::digests(&compared.client, &compared.allocated, range);
                let (ours, theirs) = tokio::try_join!(ours, theirs)?;
                Ok::<_, Refusal>((range, blocks::differing(range, &ours, &theirs)))
            });
            let mut differing = stream::iter(differing).buffered(RANGES_IN_FLIGHT);
            while let Some(found) = differing.next().await {
                self.replica_failed = replica_failed.load(Ordering::SeqCst);
                let (range, differs) = found?;
                engine.reach("compare.range").await;
                let known = &mut self.disks[disk];
                let room = EVIDENCE_MAX.saturating_sub(known.evidence.len());
                known.evidence.extend(differs.iter().take(room));
                known.differs = known.differs.union(&differs.iter().map(|it| it.block).collect());
                known.until = range.end();
                *slot.comparison() = Some(self.progress(total_bytes));
            }
        }
        Ok(())
    }

    /// What differs on each disk, in the order of the source.
    pub(crate) fn differing(&self) -> impl Iterator<Item = &ExtentSet> {
        self.disks.iter().map(|disk| &disk.differs)
    }

    fn progress(&self, total_bytes: u64) -> ComparisonProgress {
        ComparisonProgress {
            compared_bytes: self.disks.iter().map(|disk| disk.until).sum(),
            total_bytes,
            differing_bytes: self.differing().map(ExtentSet::total).sum(),
        }
    }
}

/// The rest of a disk in ranges; long ones where this side has a hole.
fn ranges(disk: &SourceDisk, from: u64) -> Vec<Extent> {
    let size = disk.client.size();
    let mut ranges = Vec::new();
    let mut at = from;
    while at < size {
        let long = Extent::new(at, RANGE_BYTES_MAX.min(size - at)).ok();
        let empty = long.filter(|range| disk.allocated.within(*range).is_empty());
        let range = empty.or_else(|| Extent::new(at, RANGE_BYTES.min(size - at)).ok());
        let Some(range) = range else { break };
        at = range.end();
        ranges.push(range);
    }
    ranges
}

async fn theirs(
    engine: &Engine,
    record: &Record,
    point: Option<PointId>,
    disk: &DiskTarget,
    range: Extent,
) -> Result<Vec<wire::digests::BlockDigest>> {
    let relationship = &record.relationship;
    let request = Request::Digests {
        relationship: relationship.id.0,
        epoch: relationship.epoch.number(),
        point: point.map(|point| point.0),
        disk: disk.to_string(),
        offset: range.offset(),
        length: range.length(),
    };
    let Answer::Digests(form) = engine.ask(relationship.peer, &request).await? else {
        return Err(Refusal::failed("the other host answered something else than digests"));
    };
    form.unpack(blocks::count(range)).map_err(Refusal::failed)
}

const _: () = assert!(BLOCK_BYTES == crate::frames::CLUSTER, "what differs is what travels");

//! A delta on its way to the other host, which outlives a broken link.
//!
//! ```text
//!   source ──read──▶ spool ──▶ link ──▶ the replica, which keeps how far it is
//!   what changed:    kept ◀── rewound to where the replica is; the source is closed as soon as everything was read
//!   first copies:    read again from there; the source stays open, for everything does not fit a spool
//! ```
//! What is *not* here: which delta is sent, and what becomes of checkpoints (`cycle`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::{Compression, Lineage, PointId};
use futures_util::{StreamExt, stream};
use store::Record;
use tokio::time::Instant;
use transport::{BoxError, DeltaAnswer, DeltaOptions, TransferProgress};
use wire::codec::Adaptive;
use wire::frame::{FRAME_DATA_MAX, end_frame};
use wire::message::Partial;
use wire::{DeltaDigest, DeltaHeader, DeltaTrailer};

use crate::basis::Basis;
use crate::compare::Comparison;
use crate::export;
use crate::frames::{Ready, frames_of, zeroes};
use crate::peer::refusal_of;
use crate::source::Source;
use crate::spool::{END, Position, SpoolReader, SpoolWriter, spool};
use crate::{Code, Engine, Refusal, Result, Slot, clock, scratch};

/// Reads in flight; more than four of 1 MiB gain nothing on a local socket.
const READS_IN_FLIGHT: usize = 4;
/// An open backup job costs the guest, so a first copy waits for the other host no longer than this.
const OPEN_SOURCE_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What the replica says when it has sealed a delta.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct SealedAnswer {
    pub(crate) lineage: String,
}

/// A delta that is sent, or broke and can go on.
pub(crate) struct Transfer {
    pub(crate) header: DeltaHeader,
    pub(crate) basis: Basis,
    /// Lineage of the point that it stands on.
    pub(crate) parent: Lineage,
    source: Option<Source>,
    /// What must be compared before anything is read; none: nothing, or it has been.
    comparison: Option<Comparison>,
    /// Everything, read and kept; none: the source is read (again).
    read: Option<Kept>,
    /// The source stays open when it was read: what it was sent to is verified.
    verifies: bool,
    broke: Option<Instant>,
}

/// A delta that was read to its end.
#[derive(Clone)]
struct Kept {
    spool: SpoolReader,
    /// Where it was begun to be read.
    start: Position,
    total: Total,
}

/// What a whole delta adds up to.
#[derive(Clone, Copy, Default)]
struct Total {
    digest: DeltaDigest,
    data_bytes: u64,
}

/// A delta that the replica has sealed.
pub(crate) struct Acknowledged {
    pub(crate) lineage: Lineage,
    pub(crate) replica_lineage: Lineage,
    pub(crate) bytes: u64,
    /// Bytes that went over the link, since it went on last.
    pub(crate) sent_bytes: u64,
}

impl Transfer {
    pub(crate) fn new(header: DeltaHeader, basis: Basis, parent: Lineage, source: Source) -> Transfer {
        let comparison = matches!(basis, Basis::Compare { .. }).then(Comparison::default);
        Transfer {
            header,
            basis,
            parent,
            source: Some(source),
            comparison,
            read: None,
            verifies: false,
            broke: None,
        }
    }

    /// The same, and its source stays open until [`Transfer::kept_source`] takes it.
    pub(crate) fn verifying(self, verifies: bool) -> Transfer {
        Transfer { verifies, ..self }
    }

    /// The source that was kept to be verified.
    pub(crate) fn kept_source(&mut self) -> Option<Source> {
        self.source.take()
    }

    /// Whether its source stays open when the daemon ends: a first copy of a running VM.
    pub(crate) fn outlives_the_daemon(&self) -> bool {
        !matches!(self.basis, Basis::Since(_)) && self.source.as_ref().is_some_and(Source::is_live)
    }

    /// Whether this broke off in a way that another try mends, and everything for it is still here.
    pub(crate) fn can_go_on(&self, error: &Refusal) -> bool {
        error.code == Code::Unavailable
            && (self.read.is_some() || self.source.as_ref().is_some_and(Source::is_live))
    }

    /// Whether it waited so long that the guest has paid enough for it.
    pub(crate) fn is_stale(&self) -> bool {
        self.source.is_some() && self.broke.is_some_and(|broke| broke.elapsed() > OPEN_SOURCE_PATIENCE)
    }

    /// Gives up: ends whatever is open.
    pub(crate) async fn close(self, engine: &Engine) {
        if let Some(source) = self.source {
            source.close(engine).await;
        }
    }

    /// Sends it, from the beginning or from where the replica is.
    pub(crate) async fn send(
        &mut self,
        engine: &Engine,
        record: &Record,
        from: Option<&Partial>,
    ) -> Result<Acknowledged> {
        let slot = engine.slot(record.relationship.id);
        slot.limiter.set(record.relationship.settings.rate_limit_bytes_per_second);
        slot.total_bytes.store(self.header.expected_bytes, Ordering::Relaxed);
        let sent_before = from.map_or(0, |from| from.data_bytes);
        slot.done_bytes.store(sent_before, Ordering::Relaxed);
        slot.sent_before_bytes.store(sent_before, Ordering::Relaxed);
        slot.begun_ms.store(clock::now().millis(), Ordering::Relaxed);
        self.broke = None;
        let compared = self.compare(engine, record, &slot).await;
        let sent = match (compared, self.read.clone()) {
            (Err(error), _) => Err(error),
            (Ok(()), Some(kept)) => {
                self.send_again(engine, record, &kept, from).await.map(|it| (kept.total, it))
            }
            (Ok(()), None) => self.read_and_send(engine, record, &slot, from).await,
        };
        slot.stop_progress();
        match sent {
            Ok((total, answer)) => {
                if let Some(source) = self.source.take_if(|_| !self.verifies) {
                    source.close(engine).await;
                }
                self.judge(total, &answer)
            }
            Err(error) => {
                self.broke.get_or_insert_with(Instant::now);
                Err(error)
            }
        }
    }

    /// Finds out what differs, or goes on finding out; then that is what the source carries.
    async fn compare(&mut self, engine: &Engine, record: &Record, slot: &Slot) -> Result<()> {
        let (Some(comparison), Some(source)) = (self.comparison.as_mut(), self.source.as_mut()) else {
            return Ok(());
        };
        let point = self.header.parent.map(PointId);
        let compared = comparison.run(engine, record, point, source).await;
        *slot.comparison() = None;
        compared?;
        for (disk, differs) in source.disks.iter_mut().zip(comparison.differing()) {
            disk.also(differs);
        }
        self.header.expected_bytes = source.data_bytes();
        slot.total_bytes.store(self.header.expected_bytes, Ordering::Relaxed);
        self.comparison = None;
        Ok(())
    }

    fn judge(&self, total: Total, answer: &DeltaAnswer) -> Result<Acknowledged> {
        let sent_bytes = answer.sent_bytes;
        let answer: SealedAnswer = serde_json::from_slice(&answer.body).map_err(Refusal::failed)?;
        let replica_lineage = Lineage::from_hex(&answer.lineage);
        let replica_lineage =
            replica_lineage.ok_or_else(|| Refusal::failed("the other host sent no digest"))?;
        let lineage = total.digest.lineage(self.parent);
        if replica_lineage != lineage {
            let found = format!("the digests differ: {} here, {} there", lineage.to_hex(), answer.lineage);
            return Err(Refusal::new(Code::InDoubt, found, "virt-replica show, on both hosts"));
        }
        Ok(Acknowledged { lineage, replica_lineage, bytes: total.data_bytes, sent_bytes })
    }

    /// Writes it into a directory instead of sending it.
    pub(crate) async fn export(&mut self, engine: &Engine, record: &Record, directory: &Path) -> Result<()> {
        let slot = engine.slot(record.relationship.id);
        let source = self.source.as_ref().ok_or_else(|| Refusal::failed("the source is closed"))?;
        slot.total_bytes.store(self.header.expected_bytes, Ordering::Relaxed);
        slot.sent_before_bytes.store(0, Ordering::Relaxed);
        slot.begun_ms.store(clock::now().millis(), Ordering::Relaxed);
        let (writer, reader) = spool(&engine.config().scratch, 0, false).map_err(Refusal::failed)?;
        let pump = Pump {
            source,
            slot: &slot,
            parent: self.parent,
            compression: record.relationship.settings.compression,
            queued: reader.queued(),
            progress: Arc::default(),
            engine,
        };
        let writing = async {
            let written = export::write(directory, &self.header, reader.clone()).await;
            // Nobody takes what is read any more.
            written.inspect_err(|_| reader.abandon())
        };
        let (read, written) = tokio::join!(pump.run(writer, None), writing);
        slot.stop_progress();
        written.and(read.map(drop))
    }

    /// Everything is in the spool: nothing is read again.
    async fn send_again(
        &self,
        engine: &Engine,
        record: &Record,
        kept: &Kept,
        from: Option<&Partial>,
    ) -> Result<DeltaAnswer> {
        let at = position(from);
        if at < kept.start || !kept.spool.rewind(at) {
            return Err(Refusal::failed("what was read is not kept any more: the next cycle covers it"));
        }
        let options = options(engine, &engine.slot(record.relationship.id));
        put(engine, record, self.header_at(at), kept.spool.clone(), options).await
    }

    fn header_at(&self, at: Position) -> DeltaHeader {
        DeltaHeader { resume_at: (at != (0, 0)).then_some(at), ..self.header.clone() }
    }

    /// Reads at local speed and sends at the link's.
    async fn read_and_send(
        &mut self,
        engine: &Engine,
        record: &Record,
        slot: &Slot,
        from: Option<&Partial>,
    ) -> Result<(Total, DeltaAnswer)> {
        let source =
            self.source.take().ok_or_else(|| Refusal::failed("the source of the delta is closed"))?;
        let keeps = self.basis != Basis::Initial && !self.verifies;
        // A first copy is as long as its transfer, whatever is spooled.
        let file_bytes_max = if keeps { scratch::spool_bytes_max(engine) } else { 0 };
        let (writer, reader) =
            spool(&engine.config().scratch, file_bytes_max, keeps).map_err(Refusal::failed)?;
        let start = position(from);
        let options = options(engine, slot);
        let progress = Arc::clone(&options.progress);
        let sending = put(engine, record, self.header_at(start), reader.clone(), options);
        tokio::pin!(sending);
        let ended = {
            let pump = Pump {
                source: &source,
                slot,
                parent: self.parent,
                compression: record.relationship.settings.compression,
                queued: reader.queued(),
                progress,
                engine,
            };
            let reading = pump.run(writer, from);
            tokio::pin!(reading);
            tokio::select! {
                read = &mut reading => Ended::Read(read),
                sent = &mut sending => match sent {
                    Ok(answer) => {
                        // Nobody takes what is read any more.
                        reader.abandon();
                        Ended::Answered(answer, reading.await)
                    }
                    Err(error) if keeps && error.code == Code::Unavailable => {
                        // The job ends as soon as everything was read, also when nobody listens now.
                        reader.abandon();
                        Ended::Broke(error, reading.await.ok())
                    }
                    Err(error) => Ended::Broke(error, None),
                },
            }
        };
        match ended {
            Ended::Read(Ok(total)) if keeps => {
                source.close(engine).await;
                self.read = Some(Kept { spool: reader, start, total });
                sending.await.map(|answer| (total, answer))
            }
            Ended::Read(read) => {
                self.source = Some(source);
                let total = read?;
                sending.await.map(|answer| (total, answer))
            }
            Ended::Answered(answer, read) => {
                self.source = Some(source);
                read.map(|total| (total, answer))
            }
            Ended::Broke(error, Some(total)) => {
                source.close(engine).await;
                self.read = Some(Kept { spool: reader, start, total });
                Err(error)
            }
            Ended::Broke(error, None) => {
                self.source = Some(source);
                Err(error)
            }
        }
    }
}

/// Which of the two ended first.
enum Ended {
    /// Everything was read, or reading failed; sending goes on.
    Read(Result<Total>),
    /// The replica answered before everything was read: it has this point already.
    Answered(DeltaAnswer, Result<Total>),
    /// The link broke; everything was read nevertheless, or not.
    Broke(Refusal, Option<Total>),
}

/// The limits of the host and of the VM, and a progress of its own.
fn options(engine: &Engine, slot: &Slot) -> DeltaOptions {
    DeltaOptions { limiters: vec![engine.limiter().clone(), slot.limiter.clone()], ..DeltaOptions::default() }
}

async fn put(
    engine: &Engine,
    record: &Record,
    header: DeltaHeader,
    spool: SpoolReader,
    options: DeltaOptions,
) -> Result<DeltaAnswer> {
    let first: std::result::Result<Bytes, BoxError> = Ok(header.to_bytes());
    let rest = stream::unfold(spool, |spool| async move {
        match spool.pop().await {
            Ok(Some(piece)) => Some((Ok(piece), spool)),
            Ok(None) => None,
            Err(error) => Some((Err(error.into()), spool)),
        }
    });
    let body = stream::iter([first]).chain(rest);
    let answer = engine.client(record.relationship.peer).send_delta(body, options).await;
    answer.map_err(refusal_of)
}

fn position(from: Option<&Partial>) -> Position {
    from.map_or((0, 0), |from| (from.disk, from.offset))
}

/// What reads a source into a spool.
struct Pump<'a> {
    source: &'a Source,
    slot: &'a Slot,
    parent: Lineage,
    compression: Compression,
    queued: Arc<AtomicU64>,
    progress: Arc<TransferProgress>,
    engine: &'a Engine,
}

impl Pump<'_> {
    async fn run(&self, writer: SpoolWriter, from: Option<&Partial>) -> Result<Total> {
        let total = self.frames(&writer, from).await;
        if total.is_err() {
            writer.fail();
        }
        total
    }

    async fn frames(&self, writer: &SpoolWriter, from: Option<&Partial>) -> Result<Total> {
        let mut total = match from {
            None => Total::default(),
            Some(from) => {
                let digest = Lineage::from_hex(&from.digest);
                let digest = digest.ok_or_else(|| Refusal::failed("the other host sent no digest"))?;
                Total { digest: DeltaDigest(digest.0), data_bytes: from.data_bytes }
            }
        };
        let (first, mut adaptive) = (position(from), Adaptive::default());
        for (index, disk) in self.source.disks.iter().enumerate() {
            let index = u16::try_from(index).map_err(Refusal::failed)?;
            let from_offset = match index.cmp(&first.0) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => first.1,
                std::cmp::Ordering::Greater => 0,
            };
            let (data, zero) = (disk.data.from_offset(from_offset), disk.zero.from_offset(from_offset));
            let data = data.iter().flat_map(|it| it.pieces(FRAME_DATA_MAX)).map(|it| (it, true));
            let mut pieces: Vec<_> = data.chain(zero.iter().map(|it| (it, false))).collect();
            pieces.sort_unstable();
            let reads = pieces.into_iter().map(|(piece, is_data)| {
                let compress = match self.compression {
                    Compression::On => true,
                    Compression::Off => false,
                    Compression::Adaptive => {
                        adaptive.compress(self.queued.load(Ordering::Relaxed), self.link())
                    }
                };
                let client = disk.client.clone();
                async move {
                    if !is_data {
                        return Ok(vec![zeroes(index, piece.offset(), piece.length())]);
                    }
                    let chunks = client.read(piece).await.map_err(Refusal::failed)?;
                    let frames = move || frames_of(index, piece, chunks, compress);
                    tokio::task::spawn_blocking(frames).await.map_err(Refusal::failed)
                }
            });
            let mut frames = stream::iter(reads).buffered(READS_IN_FLIGHT);
            while let Some(ready) = frames.next().await {
                for frame in ready? {
                    self.engine.reach("cycle.reading").await;
                    self.push(writer, frame, &mut total).await?;
                }
            }
        }
        let (digest, lineage) =
            (Lineage(total.digest.0).to_hex(), total.digest.lineage(self.parent).to_hex());
        let trailer = DeltaTrailer { digest, lineage, data_bytes: total.data_bytes };
        writer.push(end_frame(&trailer.to_json()), Some(END)).await.map_err(broken)?;
        Ok(total)
    }

    /// What the link takes, a limit of ours included, in bytes per second.
    fn link(&self) -> Option<f64> {
        let limits = [self.engine.limiter(), &self.slot.limiter];
        let limits = limits.into_iter().filter_map(|it| it.bytes_per_second()).map(|bytes| bytes as f64);
        limits.chain(self.progress.link_bytes_per_second()).reduce(f64::min)
    }

    async fn push(&self, writer: &SpoolWriter, frame: Ready, total: &mut Total) -> Result<()> {
        let Ready { header, head, payload } = frame;
        total.digest.take(&header);
        writer.push(head, Some((header.disk, header.offset))).await.map_err(broken)?;
        if !payload.is_empty() {
            total.data_bytes += header.length;
            self.slot.done_bytes.store(total.data_bytes, Ordering::Relaxed);
            writer.push(payload, None).await.map_err(broken)?;
        }
        Ok(())
    }
}

fn broken(error: std::io::Error) -> Refusal {
    Refusal::unavailable(format!("the transfer ended before everything was read: {error}"), "")
}

//! The client: a cheap handle on a connection, with a deadline for every wait.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use extent::{Extent, ExtentSet};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::connection::{Connection, Driver, Failure};
use crate::error::NbdError;
use crate::handshake;
use crate::reply::{Answer, Asked, Chunk};

/// Largest read; what every server serves (doc/proto.md, "Size constraints").
pub const READ_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// A good length of a read: long enough that its overhead is nothing, short enough that many are on the way.
pub const READ_BYTES: u64 = 1024 * 1024;
/// Range of one status request: large, so that few round trips map a disk, and a multiple of every block size.
const STATUS_BYTES: u64 = 1 << 31;
/// Most round trips for one map, so that a server cannot keep us here; QEMU needs one per 8 GiB of the worst disk.
const STATUS_ROUNDS_MAX: usize = 1 << 20;
/// Most ranges in a map (64 MiB of memory). Of a disk in more pieces the rest is taken as one, which is right if costly.
const MAP_RANGES_MAX: usize = 1 << 22;
const STATE_DIRTY: u32 = 1;
const STATE_ZERO: u32 = 2;

/// How long to wait for a server before it counts as gone.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the connection and the handshake, and for the goodbye.
    pub connect: Duration,
    /// For the answer to one request, once it is on the way.
    pub request: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { connect: Duration::from_secs(10), request: Duration::from_secs(60) }
    }
}

/// A connection to one export. Clones share it.
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
    contexts: Arc<[(String, u32)]>,
    size: u64,
    deadlines: Deadlines,
    _driver: Arc<Driver>,
}

impl Client {
    /// Connects to `export` behind a unix socket; every one of `contexts` must be there.
    pub async fn connect_unix(
        socket: &Path,
        export: &str,
        contexts: &[&str],
        deadlines: Deadlines,
    ) -> Result<Client, NbdError> {
        let connect = async {
            let doing = "connecting";
            let mut stream =
                UnixStream::connect(socket).await.map_err(|source| NbdError::Connection { doing, source })?;
            let agreement = handshake::shake(&mut stream, export, contexts).await?;
            Ok::<_, NbdError>((stream, agreement))
        };
        let silent = |_| NbdError::Silent { doing: "connecting", waited: deadlines.connect };
        let (stream, agreement) =
            tokio::time::timeout(deadlines.connect, connect).await.map_err(silent)??;
        let names = contexts.iter().map(|context| (*context).to_owned());
        let contexts = names.zip(agreement.context_ids).collect();
        let (connection, driver) = Connection::start(stream);
        Ok(Client { connection, contexts, size: agreement.size, deadlines, _driver: Arc::new(driver) })
    }

    /// Size of the export, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads a range of at most [`READ_BYTES_MAX`]; the chunks cover it in order. Many reads may be on the way: bytes
    /// beyond a fixed sum wait for their turn. A read that is dropped does no harm to the others.
    pub async fn read(&self, range: Extent) -> Result<Vec<Chunk>, NbdError> {
        if range.length() > READ_BYTES_MAX {
            return Err(self.beyond(range));
        }
        match self.request(Asked::Read(range), "reading").await? {
            Answer::Read(chunks) => Ok(chunks),
            Answer::Status(_) => unreachable!("an answer is of the kind of what was asked"),
        }
    }

    /// The ranges that are dirty in a bitmap's context (one of those that were asked for when connecting).
    pub async fn dirty(&self, context: &str) -> Result<ExtentSet, NbdError> {
        self.map(context, |flags| flags & STATE_DIRTY != 0).await
    }

    /// The ranges that hold data: neither holes nor known zeroes. Needs [`crate::ALLOCATION`].
    pub async fn allocated(&self) -> Result<ExtentSet, NbdError> {
        self.map(crate::ALLOCATION, |flags| flags & STATE_ZERO == 0).await
    }

    /// Ranges with their flags in a context, from the beginning of `range` on: at least one, perhaps not all of it.
    pub async fn block_status(&self, context: &str, range: Extent) -> Result<Vec<(Extent, u32)>, NbdError> {
        let known = self.contexts.iter().find(|(name, _)| name == context);
        let (_, id) = known.ok_or_else(|| NbdError::NotAgreed { context: context.to_owned() })?;
        let asked = Extent::new(range.offset(), range.length().min(STATUS_BYTES));
        let asked = asked.expect("a part of a range is a range");
        let Answer::Status(status) = self.request(Asked::Status(asked, *id), "mapping").await? else {
            unreachable!("an answer is of the kind of what was asked")
        };
        let mut at = asked.offset();
        let ranges = status.into_iter().map_while(|(length, flags)| {
            // The last range may tell more than was asked for.
            let range = Extent::new(at, u64::from(length).min(asked.end() - at)).ok()?;
            at = range.end();
            Some((range, flags))
        });
        Ok(ranges.collect())
    }

    /// Says goodbye and waits, within the deadline, for the server to hang up. Other handles are of no use afterwards.
    pub async fn disconnect(self) {
        let _ = tokio::time::timeout(self.deadlines.connect, self.connection.goodbye()).await;
    }

    async fn map(&self, context: &str, wanted: impl Fn(u32) -> bool) -> Result<ExtentSet, NbdError> {
        let mut map = Map::default();
        let mut rest = Extent::new(0, self.size).ok();
        for _ in 0..STATUS_ROUNDS_MAX {
            let Some(range) = rest else { return Ok(map.0.into_iter().collect()) };
            let mut at = range.offset();
            for (extent, flags) in self.block_status(context, range).await? {
                at = extent.end();
                if wanted(flags) {
                    map.push(extent);
                }
            }
            rest = Extent::new(at, self.size - at).ok();
        }
        Err(NbdError::Protocol { what: "a map in too many parts" })
    }

    async fn request(&self, asked: Asked, doing: &'static str) -> Result<Answer, NbdError> {
        let range = asked.extent();
        if range.end() > self.size {
            return Err(self.beyond(range));
        }
        let room = self.room(asked, doing).await?;
        let answer = self.connection.ask(asked, room).map_err(|ending| ending.error(doing))?;
        match tokio::time::timeout(self.deadlines.request, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(Failure::Server { errno, message }))) => {
                Err(NbdError::Server { offset: range.offset(), length: range.length(), errno, message })
            }
            Ok(Ok(Err(Failure::Ended(ending)))) => Err(ending.error(doing)),
            Ok(Err(_)) => Err(self.gone(doing)),
            Err(_) => Err(self.silent(doing)),
        }
    }

    /// Waits for room. Others may be before us for long, so only a server that answers nobody counts as silent.
    async fn room(&self, asked: Asked, doing: &'static str) -> Result<OwnedSemaphorePermit, NbdError> {
        let room = self.connection.room(asked);
        tokio::pin!(room);
        loop {
            let begin = tokio::time::Instant::now();
            match tokio::time::timeout(self.deadlines.request, &mut room).await {
                Ok(Some(room)) => return Ok(room),
                Ok(None) => return Err(self.gone(doing)),
                Err(_) if self.connection.answered() < begin => return Err(self.silent(doing)),
                Err(_) => {}
            }
        }
    }

    /// A server that was silent once is not asked again: a late answer would be taken for another's.
    fn silent(&self, doing: &'static str) -> NbdError {
        self.connection.end(crate::connection::Ending::Silent(self.deadlines.request)).error(doing)
    }

    fn gone(&self, doing: &'static str) -> NbdError {
        let aborted = crate::connection::Ending::Broken(std::io::ErrorKind::ConnectionAborted);
        self.connection.ended().unwrap_or(aborted).error(doing)
    }

    fn beyond(&self, range: Extent) -> NbdError {
        NbdError::Beyond { offset: range.offset(), length: range.length(), size: self.size }
    }
}

/// Ranges in the order of the disk; those that touch are one.
#[derive(Default)]
struct Map(Vec<Extent>);

impl Map {
    fn push(&mut self, extent: Extent) {
        let full = self.0.len() >= MAP_RANGES_MAX;
        match self.0.last_mut() {
            Some(last) if full || last.end() == extent.offset() => {
                let length = extent.end() - last.offset();
                *last = Extent::new(last.offset(), length).expect("it ends where a range ends");
            }
            _ => self.0.push(extent),
        }
    }
}

//! The client: a cheap handle; one task reads all replies and hands each to the request that waits for it.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use extent::{Extent, ExtentSet};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;

use crate::error::NbdError;
use crate::handshake;
use crate::reply::{Answer, Arriving, Asked, Chunk};

/// Largest read; what every server serves (doc/proto.md, "Size constraints").
pub const READ_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Range of one status request: large, so that few round trips map a disk, and a multiple of every block size.
const STATUS_BYTES: u64 = 1 << 31;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const COMMAND_READ: u16 = 0;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_BLOCK_STATUS: u16 = 7;
const FLAG_DONE: u16 = 1;
const STATE_DIRTY: u32 = 1;
const STATE_ZERO: u32 = 2;

/// How long to wait for a server before it counts as gone.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the connection and the handshake.
    pub connect: Duration,
    /// For the answer to one request.
    pub request: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines { connect: Duration::from_secs(10), request: Duration::from_secs(60) }
    }
}

type Reply = oneshot::Sender<Result<Answer, NbdError>>;

struct Waiting {
    answer: Arriving,
    reply: Reply,
}

struct Shared {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next_cookie: AtomicU64,
    contexts: Vec<(String, u32)>,
    size: u64,
    deadlines: Deadlines,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to one export.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _reader: Arc<AbortOnDrop>,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
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
        let (reader, writer) = stream.into_split();
        let names = contexts.iter().map(|context| (*context).to_owned());
        let shared = Arc::new(Shared {
            writer: tokio::sync::Mutex::new(writer),
            waiting: Mutex::new(HashMap::new()),
            next_cookie: AtomicU64::new(1),
            contexts: names.zip(agreement.context_ids).collect(),
            size: agreement.size,
            deadlines,
        });
        let reading = tokio::spawn(read_replies(reader, Arc::clone(&shared)));
        Ok(Client { shared, _reader: Arc::new(AbortOnDrop(reading)) })
    }

    /// Size of the export, bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.shared.size
    }

    /// Reads a range of at most [`READ_BYTES_MAX`]; the chunks cover it in order. Many reads may be in flight.
    pub async fn read(&self, range: Extent) -> Result<Vec<Chunk>, NbdError> {
        if range.length() > READ_BYTES_MAX || range.end() > self.shared.size {
            return Err(NbdError::Protocol { what: "we asked for more than the server serves" });
        }
        match self.request(COMMAND_READ, Asked::Read(range), "reading").await? {
            Answer::Read(chunks) => Ok(chunks),
            Answer::Status(_) => Err(NbdError::Protocol { what: "a status for a read" }),
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

    async fn map(&self, context: &str, wanted: impl Fn(u32) -> bool) -> Result<ExtentSet, NbdError> {
        let known = self.shared.contexts.iter().find(|(name, _)| name == context);
        let (_, id) =
            known.ok_or(NbdError::Protocol { what: "we asked for a context that was not agreed upon" })?;
        let size = self.shared.size;
        let mut extents = Vec::new();
        let mut at = 0;
        // Every round moves `at` forward: a status has at least one range and no range is empty.
        while at < size {
            let Ok(range) = Extent::new(at, STATUS_BYTES.min(size - at)) else { break };
            let Answer::Status(status) =
                self.request(COMMAND_BLOCK_STATUS, Asked::Status(range, *id), "mapping").await?
            else {
                return Err(NbdError::Protocol { what: "data for a status" });
            };
            for (length, flags) in status {
                let length = u64::from(length).min(size - at);
                if wanted(flags) {
                    extents.extend(Extent::new(at, length));
                }
                at += length;
            }
        }
        Ok(extents.into_iter().collect())
    }

    /// Says goodbye; the server may close. Other handles of this client are of no use afterwards.
    pub async fn disconnect(self) {
        let mut writer = self.shared.writer.lock().await;
        let _ = writer.write_all(&request_bytes(COMMAND_DISCONNECT, 0, 0, 0)).await;
        let _ = writer.shutdown().await;
    }

    async fn request(&self, command: u16, asked: Asked, doing: &'static str) -> Result<Answer, NbdError> {
        let cookie = self.shared.next_cookie.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.shared.waiting().insert(cookie, Waiting { answer: Arriving::new(asked), reply });
        let range = asked.extent();
        let length = u32::try_from(range.length()).unwrap_or(u32::MAX);
        let request = request_bytes(command, cookie, range.offset(), length);
        let exchange = async {
            let broken = |source| NbdError::Connection { doing, source };
            self.shared.writer.lock().await.write_all(&request).await.map_err(broken)?;
            answer.await.unwrap_or_else(|_| Err(broken(io::ErrorKind::ConnectionAborted.into())))
        };
        let waited = self.shared.deadlines.request;
        let result = tokio::time::timeout(waited, exchange).await;
        self.shared.waiting().remove(&cookie);
        result.unwrap_or(Err(NbdError::Silent { doing, waited }))
    }
}

fn request_bytes(command: u16, cookie: u64, offset: u64, length: u32) -> Bytes {
    let mut bytes = BytesMut::with_capacity(28);
    bytes.put_u32(REQUEST_MAGIC);
    bytes.put_u16(0);
    bytes.put_u16(command);
    bytes.put_u64(cookie);
    bytes.put_u64(offset);
    bytes.put_u32(length);
    bytes.freeze()
}

/// Reads replies until the connection ends, then fails every request that still waits.
async fn read_replies(reader: OwnedReadHalf, shared: Arc<Shared>) {
    // Small: headers only go through it, payloads larger than it are read past it.
    let mut reader = BufReader::with_capacity(4096, reader);
    let reason = loop {
        if let Err(error) = read_reply(&mut reader, &shared).await {
            break error;
        }
    };
    tracing::debug!(%reason, "the NBD connection ended");
    // Dropping the senders tells every waiting request; a request made later times out on a closed socket's error.
    shared.waiting().clear();
}

async fn read_reply(reader: &mut BufReader<OwnedReadHalf>, shared: &Shared) -> Result<(), NbdError> {
    let broken = |source| NbdError::Connection { doing: "waiting for a reply", source };
    let mut head = [0; 20];
    reader.read_exact(&mut head[..4]).await.map_err(broken)?;
    match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
        STRUCTURED_REPLY_MAGIC => {
            reader.read_exact(&mut head[4..]).await.map_err(broken)?;
            let mut head = &head[4..];
            let (flags, kind, cookie, length) =
                (head.get_u16(), head.get_u16(), head.get_u64(), head.get_u32());
            let length_max = shared.waiting().get(&cookie).map(|waiting| waiting.answer.payload_max(kind));
            let length_max = length_max.ok_or(NbdError::Protocol { what: "a reply to nothing" })?;
            if u64::from(length) > length_max {
                return Err(NbdError::Protocol { what: "a chunk longer than the request" });
            }
            let mut payload = BytesMut::with_capacity(length as usize);
            let mut limited = reader.take(u64::from(length));
            while payload.len() < length as usize {
                if limited.read_buf(&mut payload).await.map_err(broken)? == 0 {
                    return Err(broken(io::ErrorKind::UnexpectedEof.into()));
                }
            }
            take_chunk(shared, cookie, flags & FLAG_DONE != 0, kind, payload.freeze())
        }
        SIMPLE_REPLY_MAGIC => {
            reader.read_exact(&mut head[4..16]).await.map_err(broken)?;
            let mut head = &head[4..16];
            let (errno, cookie) = (head.get_u32(), head.get_u64());
            let mut message = BytesMut::new();
            message.put_u32(errno);
            message.put_u16(0);
            take_chunk(shared, cookie, true, crate::reply::kind::ERROR_BIT | 1, message.freeze())
        }
        _ => Err(NbdError::Protocol { what: "a reply without a magic number" }),
    }
}

fn take_chunk(shared: &Shared, cookie: u64, done: bool, kind: u16, payload: Bytes) -> Result<(), NbdError> {
    let mut all = shared.waiting();
    let nothing = NbdError::Protocol { what: "a reply to nothing" };
    all.get_mut(&cookie).ok_or(nothing)?.answer.take(kind, payload)?;
    if let Some(waiting) = done.then(|| all.remove(&cookie)).flatten() {
        // Nobody waits any more when the request was given up: its answer is dropped.
        let _ = waiting.reply.send(waiting.answer.finish());
    }
    Ok(())
}

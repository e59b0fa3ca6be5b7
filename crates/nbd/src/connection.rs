//! One connection: a table of requests that wait, and one task that writes requests and reads replies.
//!
//! A request is put into the table and on the way without waiting in between, so a caller may give up at any instant and
//! neither the stream nor the accounts are hurt. NOT here: what an answer means (`reply`), and deadlines (`client`).

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::error::NbdError;
use crate::reply::{Answer, Arriving, Asked, kind};

/// Answers on the way at any time, bytes: one largest read, which is plenty to keep a local server busy.
pub(crate) const IN_FLIGHT_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// What the smallest request counts, so that no more than 512 are on the way.
const REQUEST_COST_MIN: u32 = 64 * 1024;
/// Requests written to the socket at once.
const REQUESTS_PER_WRITE: usize = 32;
const REQUEST_BYTES: usize = 28;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
const COMMAND_READ: u16 = 0;
const COMMAND_DISCONNECT: u16 = 2;
const COMMAND_BLOCK_STATUS: u16 = 7;
const FLAG_DONE: u16 = 1;
/// Read ahead for headers. Small: what is read past it goes straight into the answer's own memory.
const HEADER_BUFFER_BYTES: usize = 4096;

/// Why a connection is over; every request that waits, and every later one, is told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    Broken(io::ErrorKind),
    Lie(&'static str),
    Silent(Duration),
}

impl Ending {
    pub(crate) fn error(self, doing: &'static str) -> NbdError {
        match self {
            Ending::Broken(kind) => NbdError::Connection { doing, source: kind.into() },
            Ending::Lie(what) => NbdError::Protocol { what },
            Ending::Silent(waited) => NbdError::Silent { doing, waited },
        }
    }
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        Ending::Broken(error.kind())
    }
}

/// What the handles and the task of a connection share.
pub(crate) struct Connection {
    table: Mutex<Table>,
    /// Bytes that may still be asked for.
    budget: Arc<Semaphore>,
    /// Bounded by `budget`: what is in here is in the table.
    outgoing: mpsc::UnboundedSender<[u8; REQUEST_BYTES]>,
    over: Notify,
}

struct Table {
    waiting: HashMap<u64, Waiting>,
    cookie: u64,
    ended: Option<Ending>,
    answered: Instant,
}

struct Waiting {
    arriving: Arriving,
    reply: oneshot::Sender<Result<Answer, Failure>>,
    /// Given back when the answer is complete, even if nobody waits for it any more.
    _budget: OwnedSemaphorePermit,
}

/// Why one request has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server could not serve it; the connection lives on.
    Server { errno: u32, message: String },
    /// The connection is over.
    Ended(Ending),
}

/// Stops the task of the connection when the last handle is gone.
pub(crate) struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Takes over a stream after the handshake.
    pub(crate) fn start(stream: UnixStream) -> (Arc<Connection>, Driver) {
        let (outgoing, requests) = mpsc::unbounded_channel();
        let table = Table { waiting: HashMap::new(), cookie: 1, ended: None, answered: Instant::now() };
        let budget = Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX as usize));
        let connection =
            Arc::new(Connection { table: Mutex::new(table), budget, outgoing, over: Notify::new() });
        let driver = tokio::spawn(drive(stream, requests, Arc::clone(&connection)));
        (connection, Driver(driver))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the last answer was complete.
    pub(crate) fn answered(&self) -> Instant {
        self.table().answered
    }

    /// Why the connection is over, if it is.
    pub(crate) fn ended(&self) -> Option<Ending> {
        self.table().ended
    }

    /// Waits until the answer to `asked` may be on the way; fails when the connection is over.
    pub(crate) async fn room(&self, asked: Asked) -> Option<OwnedSemaphorePermit> {
        let cost = asked.cost().clamp(REQUEST_COST_MIN, IN_FLIGHT_BYTES_MAX);
        Arc::clone(&self.budget).acquire_many_owned(cost).await.ok()
    }

    /// Sends a request.
    pub(crate) fn ask(
        &self,
        asked: Asked,
        room: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<Result<Answer, Failure>>, Ending> {
        let (reply, answer) = oneshot::channel();
        let mut table = self.table();
        if let Some(ending) = table.ended {
            return Err(ending);
        }
        let cookie = table.cookie;
        table.cookie += 1;
        table.waiting.insert(cookie, Waiting { arriving: Arriving::new(asked), reply, _budget: room });
        let range = asked.extent();
        let command = match asked {
            Asked::Read(_) => COMMAND_READ,
            Asked::Status(..) => COMMAND_BLOCK_STATUS,
        };
        // Refused only when the connection is over; then the table says so to whoever waits.
        let length = u32::try_from(range.length()).expect("the client asks for less than 4 GiB at once");
        let _ = self.outgoing.send(request_bytes(command, cookie, range.offset(), length));
        Ok(answer)
    }

    /// Says goodbye and waits until the connection is over.
    pub(crate) async fn goodbye(&self) {
        let _ = self.outgoing.send(request_bytes(COMMAND_DISCONNECT, 0, 0, 0));
        self.outgoing.closed().await;
    }

    /// Ends the connection; the first reason stays.
    pub(crate) fn end(&self, ending: Ending) -> Ending {
        let (ending, waiting) = {
            let mut table = self.table();
            (*table.ended.get_or_insert(ending), std::mem::take(&mut table.waiting))
        };
        for waiting in waiting.into_values() {
            let _ = waiting.reply.send(Err(Failure::Ended(ending)));
        }
        self.budget.close();
        self.over.notify_one();
        ending
    }

    /// Looks at one request that waits.
    fn with<T>(&self, cookie: u64, look: impl FnOnce(&mut Arriving) -> T) -> Result<T, Ending> {
        let mut table = self.table();
        let waiting = table.waiting.get_mut(&cookie).ok_or(Ending::Lie("a reply to nothing"))?;
        Ok(look(&mut waiting.arriving))
    }

    fn complete(&self, cookie: u64) -> Result<(), Ending> {
        let mut table = self.table();
        table.answered = Instant::now();
        let waiting = table.waiting.remove(&cookie).ok_or(Ending::Lie("a reply to nothing"))?;
        drop(table);
        let (answer, ending) = match waiting.arriving.finish() {
            Ok(answer) => (Ok(answer), Ok(())),
            Err(Failure::Ended(ending)) => (Err(Failure::Ended(ending)), Err(ending)),
            Err(failure) => (Err(failure), Ok(())),
        };
        // Nobody waits any more when the request was given up.
        let _ = waiting.reply.send(answer);
        ending
    }
}

fn request_bytes(command: u16, cookie: u64, offset: u64, length: u32) -> [u8; REQUEST_BYTES] {
    let mut bytes = [0; REQUEST_BYTES];
    let mut to = &mut bytes[..];
    to.put_u32(REQUEST_MAGIC);
    to.put_u16(0);
    to.put_u16(command);
    to.put_u64(cookie);
    to.put_u64(offset);
    to.put_u32(length);
    bytes
}

async fn drive(
    stream: UnixStream,
    requests: mpsc::UnboundedReceiver<[u8; REQUEST_BYTES]>,
    connection: Arc<Connection>,
) {
    let (reader, writer) = stream.into_split();
    let ending = tokio::select! {
        ending = read_replies(reader, &connection) => ending,
        ending = write_requests(writer, requests) => ending,
        () = connection.over.notified() => Ending::Broken(io::ErrorKind::ConnectionAborted),
    };
    let ending = connection.end(ending);
    tracing::debug!(?ending, "the NBD connection is over");
}

async fn write_requests(
    mut writer: OwnedWriteHalf,
    mut requests: mpsc::UnboundedReceiver<[u8; REQUEST_BYTES]>,
) -> Ending {
    let mut batch = Vec::with_capacity(REQUESTS_PER_WRITE);
    while requests.recv_many(&mut batch, REQUESTS_PER_WRITE).await > 0 {
        if let Err(error) = writer.write_all(batch.as_flattened()).await {
            return error.into();
        }
        batch.clear();
    }
    Ending::Broken(io::ErrorKind::ConnectionAborted)
}

async fn read_replies(reader: OwnedReadHalf, connection: &Connection) -> Ending {
    let mut reader = BufReader::with_capacity(HEADER_BUFFER_BYTES, reader);
    loop {
        if let Err(ending) = read_reply(&mut reader, connection).await {
            return ending;
        }
    }
}

async fn read_reply(reader: &mut BufReader<OwnedReadHalf>, connection: &Connection) -> Result<(), Ending> {
    match reader.read_u32().await? {
        STRUCTURED_REPLY_MAGIC => {
            let (flags, kind) = (reader.read_u16().await?, reader.read_u16().await?);
            let (cookie, length) = (reader.read_u64().await?, reader.read_u32().await?);
            read_chunk(reader, connection, cookie, kind, length).await?;
            if flags & FLAG_DONE != 0 { connection.complete(cookie) } else { Ok(()) }
        }
        SIMPLE_REPLY_MAGIC => {
            let (errno, cookie) = (reader.read_u32().await?, reader.read_u64().await?);
            connection.with(cookie, |arriving| arriving.simple(errno))??;
            connection.complete(cookie)
        }
        _ => Err(Ending::Lie("a reply without a magic number")),
    }
}

/// Every length and place is judged before memory is taken for it.
async fn read_chunk(
    reader: &mut BufReader<OwnedReadHalf>,
    connection: &Connection,
    cookie: u64,
    kind: u16,
    length: u32,
) -> Result<(), Ending> {
    connection.with(cookie, |arriving| arriving.expect(kind, length))??;
    if kind == kind::DATA {
        let offset = reader.read_u64().await?;
        let length = length - 8; // `expect` has seen that there is at least one byte of data
        connection.with(cookie, |arriving| arriving.place(offset, length))??;
        let data = read_payload(reader, length).await?;
        connection.with(cookie, |arriving| arriving.data(offset, data.freeze()))
    } else {
        let payload = read_payload(reader, length).await?;
        connection.with(cookie, |arriving| arriving.take(kind, payload.freeze()))?
    }
}

/// Reads straight into the memory that is handed out; it is never filled with zeroes first.
async fn read_payload(reader: &mut (impl AsyncRead + Unpin), length: u32) -> Result<BytesMut, Ending> {
    let mut payload = BytesMut::with_capacity(length as usize);
    let mut limited = reader.take(u64::from(length));
    while payload.len() < length as usize {
        if limited.read_buf(&mut payload).await? == 0 {
            return Err(Ending::Broken(io::ErrorKind::UnexpectedEof));
        }
    }
    debug_assert_eq!(payload.remaining(), length as usize);
    Ok(payload)
}

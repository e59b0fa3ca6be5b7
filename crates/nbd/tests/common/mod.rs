//! A server of our own that says whatever a test wants it to say.

use std::path::PathBuf;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Size of its export, bytes.
pub const SIZE: u64 = 1 << 20;
/// The id it gives to its only context, [`nbd::ALLOCATION`].
pub const CONTEXT_ID: u32 = 7;
/// Chunk flag: the last one of an answer.
pub const DONE: u16 = 1;

/// A request as it came.
pub struct Request {
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

/// A listening server; its directory lives as long as it does.
pub struct Server {
    _directory: tempfile::TempDir,
    pub socket: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens for one connection and gives it to `serve`.
pub fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(UnixStream) -> F + Send + 'static,
) -> Server {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        serve(stream).await;
    });
    Server { _directory: directory, socket, task }
}

/// An honest greeting.
pub fn greeting() -> Vec<u8> {
    let mut bytes = b"NBDMAGICIHAVEOPT".to_vec();
    bytes.put_u16(3);
    bytes
}

/// A reply to an option.
pub fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u64(0x0003_e889_0455_65a9);
    bytes.put_u32(option);
    bytes.put_u32(kind);
    bytes.put_u32(data.len() as u32);
    bytes.put_slice(data);
    bytes
}

/// A chunk of a structured reply.
pub fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = chunk_head(flags, kind, cookie, payload.len() as u32);
    bytes.put_slice(payload);
    bytes
}

/// The head of a chunk, with a length that may be a lie.
pub fn chunk_head(flags: u16, kind: u16, cookie: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.put_u32(0x668e_33ef);
    bytes.put_u16(flags);
    bytes.put_u16(kind);
    bytes.put_u64(cookie);
    bytes.put_u32(length);
    bytes
}

/// A data chunk of `length` bytes at `offset`.
pub fn data(flags: u16, cookie: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut payload = offset.to_be_bytes().to_vec();
    payload.resize(8 + length, 5);
    chunk(flags, 1, cookie, &payload)
}

/// Says `bytes`; a client that has hung up by then does not matter.
pub async fn say(stream: &mut UnixStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
}

/// Shakes hands as an honest server would.
pub async fn shake(stream: &mut UnixStream) {
    say(stream, &greeting()).await;
    stream.read_u32().await.expect("client flags");
    loop {
        stream.read_u64().await.expect("an option's magic");
        let option = stream.read_u32().await.expect("an option");
        let length = stream.read_u32().await.expect("a length");
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.expect("an option's data");
        if option == 10 {
            let context = [&CONTEXT_ID.to_be_bytes()[..], nbd::ALLOCATION.as_bytes()].concat();
            say(stream, &option_reply(option, 4, &context)).await;
        }
        if option == 7 {
            let info = [&[0, 0][..], &SIZE.to_be_bytes(), &[0, 1]].concat();
            say(stream, &option_reply(option, 3, &info)).await;
        }
        say(stream, &option_reply(option, 1, &[])).await;
        if option == 7 {
            return;
        }
    }
}

/// The next request.
pub async fn request(stream: &mut UnixStream) -> Option<Request> {
    stream.read_u64().await.ok()?;
    let cookie = stream.read_u64().await.ok()?;
    Some(Request { cookie, offset: stream.read_u64().await.ok()?, length: stream.read_u32().await.ok()? })
}

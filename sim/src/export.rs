//! An NBD server over one moment of a disk, as QEMU's backup job has it: fixed newstyle, structured replies, two contexts.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::image::{CLUSTER, CLUSTERS, Content, bytes_of};
use crate::outside::Outside;

/// A moment of a disk.
pub(crate) struct Export {
    pub(crate) content: Content,
    /// The contexts of what changed, and what did.
    pub(crate) dirty: Vec<(String, BTreeSet<usize>)>,
}

/// A server; dropped, it is gone with its connections and its socket.
pub(crate) struct Server {
    socket: PathBuf,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) fn start(outside: &Outside, socket: &Path, export: Export) -> io::Result<Server> {
        let _here = outside.handle.enter();
        let (listener, export) = (UnixListener::bind(socket)?, Arc::new(export));
        let moving = outside.clone();
        let serving = outside.handle.spawn(async move {
            // Dropped with this task, and its connections with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (export, outside) = (Arc::clone(&export), moving.clone());
                connections.spawn(async move { drop(serve(stream, &export, &outside).await) });
            }
        });
        Ok(Server { socket: socket.to_owned(), serving })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const ALLOCATION: &str = "base:allocation";

async fn serve(mut stream: UnixStream, export: &Export, outside: &Outside) -> io::Result<()> {
    // The contexts that are told of, by their numbers; 0 is that of allocation, the others are the bitmaps.
    let mut contexts: Vec<usize> = Vec::new();
    stream.write_all(&[b"NBDMAGIC", OPTION_MAGIC.to_be_bytes().as_slice(), &[0, 3]].concat()).await?;
    stream.read_u32().await?;
    loop {
        stream.read_u64().await?;
        let option = stream.read_u32().await?;
        let mut data = vec![0; stream.read_u32().await? as usize];
        stream.read_exact(&mut data).await?;
        let reply = |kind: u32, data: &[u8]| {
            let head = [option.to_be_bytes(), kind.to_be_bytes(), (data.len() as u32).to_be_bytes()].concat();
            [REPLY_MAGIC.to_be_bytes().as_slice(), &head, data].concat()
        };
        let mut replies = Vec::new();
        match option {
            8 => replies.extend(reply(1, &[])),
            10 => {
                contexts.clear();
                let dirty = export.dirty.iter().map(|(name, _)| name.as_str());
                for (id, name) in std::iter::once(ALLOCATION).chain(dirty).enumerate() {
                    if data.windows(name.len()).any(|part| part == name.as_bytes()) {
                        replies.extend(reply(4, &[&(id as u32).to_be_bytes(), name.as_bytes()].concat()));
                        contexts.push(id);
                    }
                }
                replies.extend(reply(1, &[]));
            }
            7 => {
                let size = (CLUSTERS * CLUSTER) as u64;
                replies.extend(reply(3, &[[0, 0].as_slice(), &size.to_be_bytes(), &[0, 1]].concat()));
                replies.extend(reply(1, &[]));
            }
            _ => replies.extend(reply(0x8000_0001, &[])),
        }
        stream.write_all(&replies).await?;
        outside.moved();
        if option == 7 {
            return transmit(stream, export, outside, &contexts).await;
        }
    }
}

async fn transmit(
    mut stream: UnixStream,
    export: &Export,
    outside: &Outside,
    contexts: &[usize],
) -> io::Result<()> {
    loop {
        stream.read_exact(&mut [0; 6]).await?;
        let command = stream.read_u16().await?;
        let (cookie, offset) = (stream.read_u64().await?, stream.read_u64().await?);
        let length = u64::from(stream.read_u32().await?);
        let chunk = |is_last: bool, kind: u16, data: &[u8]| {
            let mut chunk = 0x668e_33ef_u32.to_be_bytes().to_vec();
            chunk.extend(u16::from(is_last).to_be_bytes());
            chunk.extend(kind.to_be_bytes());
            chunk.extend(cookie.to_be_bytes());
            chunk.extend((data.len() as u32).to_be_bytes());
            chunk.extend(data);
            chunk
        };
        let pieces = pieces(offset as usize, (offset + length) as usize);
        let mut answer = Vec::new();
        match command {
            0 => {
                let mut data = offset.to_be_bytes().to_vec();
                for (cluster, from, to) in pieces {
                    data.extend(&bytes_of(export.content[cluster])[from..to]);
                }
                answer.extend(chunk(true, 1, &data));
            }
            7 => {
                for (place, id) in contexts.iter().enumerate() {
                    let mut data = (*id as u32).to_be_bytes().to_vec();
                    for (cluster, from, to) in pieces.clone() {
                        let flags: u32 = match id.checked_sub(1) {
                            Some(bitmap) => u32::from(export.dirty[bitmap].1.contains(&cluster)),
                            None if export.content[cluster] == 0 => 3,
                            None => 0,
                        };
                        data.extend(((to - from) as u32).to_be_bytes());
                        data.extend(flags.to_be_bytes());
                    }
                    answer.extend(chunk(place + 1 == contexts.len(), 5, &data));
                }
            }
            _ => return Ok(()),
        }
        stream.write_all(&answer).await?;
        outside.moved();
    }
}

/// The clusters of a range: which, and from where to where within it.
fn pieces(begin: usize, end: usize) -> impl Iterator<Item = (usize, usize, usize)> + Clone {
    (begin / CLUSTER..end.div_ceil(CLUSTER)).map(move |cluster| {
        let first = cluster * CLUSTER;
        (cluster, begin.max(first) - first, end.min(first + CLUSTER) - first)
    })
}

//! An NBD server over one moment of a disk, as QEMU's backup job has it: fixed newstyle, structured replies, two contexts.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::image::{CLUSTER, CLUSTERS, Content, bytes_of};

/// A moment of a disk.
pub(crate) struct Export {
    pub(crate) content: Content,
    /// The context of what changed, and what did.
    pub(crate) dirty: Option<(String, BTreeSet<usize>)>,
}

/// A server; dropped, it is gone with its connections and its socket.
pub(crate) struct Server {
    pub(crate) socket: PathBuf,
    streams: Arc<Mutex<Vec<UnixStream>>>,
    listener: UnixListener,
}

impl Server {
    pub(crate) fn start(socket: &Path, export: Export) -> io::Result<Server> {
        let listener = UnixListener::bind(socket)?;
        let streams: Arc<Mutex<Vec<UnixStream>>> = Arc::default();
        let (accepting, known, export) = (listener.try_clone()?, Arc::clone(&streams), Arc::new(export));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (Ok(kept), export) = (stream.try_clone(), Arc::clone(&export)) else { return };
                known.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                std::thread::spawn(move || drop(serve(stream, &export)));
            }
        });
        Ok(Server { socket: socket.to_owned(), streams, listener })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the thread that accepts.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for stream in self.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const ALLOCATION: &str = "base:allocation";

fn serve(mut stream: UnixStream, export: &Export) -> io::Result<()> {
    let mut contexts: Vec<(u32, bool)> = Vec::new();
    stream.write_all(&[b"NBDMAGIC", OPTION_MAGIC.to_be_bytes().as_slice(), &[0, 3]].concat())?;
    number(&mut stream, 4)?;
    loop {
        number(&mut stream, 8)?;
        let option = number(&mut stream, 4)? as u32;
        let mut data = vec![0; number(&mut stream, 4)? as usize];
        stream.read_exact(&mut data)?;
        let mut reply = |kind: u32, data: &[u8]| {
            let mut reply = REPLY_MAGIC.to_be_bytes().to_vec();
            reply.extend(option.to_be_bytes());
            reply.extend(kind.to_be_bytes());
            reply.extend((data.len() as u32).to_be_bytes());
            reply.extend(data);
            stream.write_all(&reply)
        };
        match option {
            8 => reply(1, &[])?,
            10 => {
                let asked = |name: &str| data.windows(name.len()).any(|part| part == name.as_bytes());
                contexts.clear();
                if asked(ALLOCATION) {
                    reply(4, &[&1_u32.to_be_bytes(), ALLOCATION.as_bytes()].concat())?;
                    contexts.push((1, false));
                }
                if let Some((name, _)) = export.dirty.as_ref().filter(|(name, _)| asked(name)) {
                    reply(4, &[&2_u32.to_be_bytes(), name.as_bytes()].concat())?;
                    contexts.push((2, true));
                }
                reply(1, &[])?;
            }
            7 => {
                let size = (CLUSTERS * CLUSTER) as u64;
                reply(3, &[[0, 0].as_slice(), &size.to_be_bytes(), &[0, 1]].concat())?;
                reply(1, &[])?;
                break;
            }
            _ => reply(0x8000_0001, &[])?,
        }
    }
    transmit(stream, export, &contexts)
}

fn transmit(mut stream: UnixStream, export: &Export, contexts: &[(u32, bool)]) -> io::Result<()> {
    loop {
        number(&mut stream, 6)?;
        let command = number(&mut stream, 2)?;
        let cookie = number(&mut stream, 8)?;
        let offset = number(&mut stream, 8)?;
        let length = number(&mut stream, 4)?;
        let mut chunk = |is_last: bool, kind: u16, data: &[u8]| {
            let mut chunk = 0x668e_33ef_u32.to_be_bytes().to_vec();
            chunk.extend(u16::from(is_last).to_be_bytes());
            chunk.extend(kind.to_be_bytes());
            chunk.extend(cookie.to_be_bytes());
            chunk.extend((data.len() as u32).to_be_bytes());
            chunk.extend(data);
            stream.write_all(&chunk)
        };
        let (begin, end) = (offset as usize, (offset + length) as usize);
        match command {
            0 => {
                let mut data = offset.to_be_bytes().to_vec();
                let mut at = begin;
                while at < end {
                    let stop = ((at / CLUSTER + 1) * CLUSTER).min(end);
                    let cluster = bytes_of(export.content[at / CLUSTER]);
                    data.extend(&cluster[at % CLUSTER..at % CLUSTER + stop - at]);
                    at = stop;
                }
                chunk(true, 1, &data)?;
            }
            7 => {
                for (place, (id, is_dirty)) in contexts.iter().enumerate() {
                    let mut data = id.to_be_bytes().to_vec();
                    let mut at = begin;
                    while at < end {
                        let (stop, cluster) = (((at / CLUSTER + 1) * CLUSTER).min(end), at / CLUSTER);
                        let marked = export.dirty.as_ref().is_some_and(|(_, all)| all.contains(&cluster));
                        let flags: u32 = match is_dirty {
                            true => u32::from(marked),
                            false if export.content[cluster] == 0 => 3,
                            false => 0,
                        };
                        data.extend(((stop - at) as u32).to_be_bytes());
                        data.extend(flags.to_be_bytes());
                        at = stop;
                    }
                    chunk(place + 1 == contexts.len(), 5, &data)?;
                }
            }
            _ => return Ok(()),
        }
    }
}

fn number(stream: &mut UnixStream, bytes: usize) -> io::Result<u64> {
    let mut buffer = [0; 8];
    stream.read_exact(&mut buffer[8 - bytes..])?;
    Ok(u64::from_be_bytes(buffer))
}

//! Structured replies: what comes back for one request, checked against what was asked.
//!
//! Pure: no socket, no clock. A server that answers for ever, answers twice or answers something else is caught here.

use bytes::{Buf, Bytes};
use extent::Extent;

use crate::connection::{Ending, Failure};

/// Chunks beyond one per [`SECTOR`] that an answer may have.
const CHUNKS_EXTRA: u64 = 16;
/// No server splits an answer finer.
const SECTOR: u64 = 512;
/// Most ranges in one status. QEMU sends 128 Ki at most.
const STATUS_RANGES_MAX: u64 = 1 << 20;
/// Longest error message, with the numbers around it.
const ERROR_BYTES_MAX: u64 = 4096 + 14;

/// One part of what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// Bytes at an offset of the disk.
    Data {
        /// First byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A range that reads as zeroes.
    Hole(Extent),
}

impl Chunk {
    fn span(&self) -> (u64, u64) {
        match self {
            Chunk::Data { offset, bytes } => (*offset, offset + bytes.len() as u64),
            Chunk::Hole(extent) => (extent.offset(), extent.end()),
        }
    }
}

/// What a request asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    /// The bytes of a range.
    Read(Extent),
    /// The status of a range in the context of this id.
    Status(Extent, u32),
}

impl Asked {
    pub(crate) fn extent(self) -> Extent {
        match self {
            Asked::Read(extent) | Asked::Status(extent, _) => extent,
        }
    }

    /// Bytes that the answer may take.
    pub(crate) fn cost(self) -> u32 {
        let bytes = match self {
            Asked::Read(extent) => extent.length(),
            Asked::Status(extent, _) => status_bytes_max(extent),
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

fn status_bytes_max(asked: Extent) -> u64 {
    4 + 8 * (asked.length() / SECTOR + 1).min(STATUS_RANGES_MAX)
}

/// A complete answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Chunks in order that cover the range exactly.
    Read(Vec<Chunk>),
    /// (length, flags) from the beginning of the range on; at least one.
    Status(Vec<(u32, u32)>),
}

/// An answer that is still arriving.
#[derive(Debug)]
pub(crate) struct Arriving {
    asked: Asked,
    chunks_left: u64,
    /// Bytes of the range that no chunk has covered yet.
    bytes_left: u64,
    chunks: Vec<Chunk>,
    status: Vec<(u32, u32)>,
    error: Option<(u32, String)>,
}

/// Kinds of chunks (doc/proto.md, "Structured reply types").
pub(crate) mod kind {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const DATA: u16 = 1;
    pub(crate) const HOLE: u16 = 2;
    pub(crate) const STATUS: u16 = 5;
    pub(crate) const ERROR_BIT: u16 = 1 << 15;
}

impl Arriving {
    pub(crate) fn new(asked: Asked) -> Arriving {
        let bytes = asked.extent().length();
        let chunks_left = match asked {
            Asked::Read(_) => bytes / SECTOR + CHUNKS_EXTRA,
            Asked::Status(..) => CHUNKS_EXTRA,
        };
        let (chunks, status) = (Vec::new(), Vec::new());
        Arriving { asked, chunks_left, bytes_left: bytes, chunks, status, error: None }
    }

    /// Judges the header of a chunk, before its payload is read.
    pub(crate) fn expect(&mut self, kind: u16, length: u32) -> Result<(), Ending> {
        let asked = self.asked.extent();
        let (length_min, length_max) = match (kind, self.asked) {
            (kind::NONE, _) => (0, 0),
            (kind::DATA, Asked::Read(_)) => (9, 8 + asked.length()),
            (kind::HOLE, Asked::Read(_)) => (12, 12),
            (kind::STATUS, Asked::Status(..)) => (12, status_bytes_max(asked)),
            (kind, _) if kind & kind::ERROR_BIT != 0 => (6, ERROR_BYTES_MAX),
            _ => return Err(Ending::Lie("a chunk that does not answer the request")),
        };
        if !(length_min..=length_max).contains(&u64::from(length)) {
            return Err(Ending::Lie("a chunk of a length that does not fit the request"));
        }
        self.chunks_left = self.chunks_left.checked_sub(1).ok_or(Ending::Lie("an answer without end"))?;
        Ok(())
    }

    /// Judges the place of a data or hole chunk, before its bytes are read.
    pub(crate) fn place(&mut self, offset: u64, length: u32) -> Result<Extent, Ending> {
        let asked = self.asked.extent();
        let chunk = Extent::new(offset, u64::from(length)).ok();
        let chunk = chunk
            .filter(|chunk| chunk.offset() >= asked.offset() && chunk.end() <= asked.end())
            .ok_or(Ending::Lie("a chunk outside the request"))?;
        self.bytes_left =
            self.bytes_left.checked_sub(chunk.length()).ok_or(Ending::Lie("an answer with an overlap"))?;
        Ok(chunk)
    }

    /// Takes data whose place was judged.
    pub(crate) fn data(&mut self, offset: u64, bytes: Bytes) {
        self.chunks.push(Chunk::Data { offset, bytes });
    }

    /// Takes the payload of any other chunk, whose header was judged.
    pub(crate) fn take(&mut self, kind: u16, mut payload: Bytes) -> Result<(), Ending> {
        match (kind, self.asked) {
            (kind::HOLE, _) => {
                let (offset, length) = (payload.get_u64(), payload.get_u32());
                let hole = self.place(offset, length)?;
                self.chunks.push(Chunk::Hole(hole));
            }
            (kind::STATUS, Asked::Status(_, id)) => {
                // The server answers for every context of the connection; only one was asked for here.
                if payload.get_u32() != id {
                    return Ok(());
                }
                if !self.status.is_empty() || !payload.len().is_multiple_of(8) {
                    return Err(Ending::Lie("a status twice or in part"));
                }
                while payload.has_remaining() {
                    self.status.push((payload.get_u32(), payload.get_u32()));
                }
            }
            (kind, _) if kind & kind::ERROR_BIT != 0 => {
                let (errno, length) = (payload.get_u32(), usize::from(payload.get_u16()));
                let text = payload.get(..length).unwrap_or_default();
                self.error.get_or_insert((errno, String::from_utf8_lossy(text).into_owned()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a reply without structure: only an error may come so.
    pub(crate) fn simple(&mut self, errno: u32) -> Result<(), Ending> {
        if errno == 0 {
            return Err(Ending::Lie("an answer without structure"));
        }
        self.error.get_or_insert((errno, String::new()));
        Ok(())
    }

    /// The answer is complete.
    pub(crate) fn finish(mut self) -> Result<Answer, Failure> {
        if let Some((errno, message)) = self.error {
            return Err(Failure::Server { errno, message });
        }
        match self.asked {
            Asked::Read(_) if self.bytes_left > 0 => Err(lie("an answer with a gap")),
            Asked::Read(_) => {
                // They cover as many bytes as were asked for; in order and without overlap they are the range.
                self.chunks.sort_by_key(|chunk| chunk.span().0);
                let seamless = self.chunks.windows(2).all(|pair| pair[0].span().1 == pair[1].span().0);
                if seamless { Ok(Answer::Read(self.chunks)) } else { Err(lie("an answer with an overlap")) }
            }
            Asked::Status(..) if self.status.is_empty() => Err(lie("a status without a range")),
            Asked::Status(..) if self.status.iter().any(|(length, _)| *length == 0) => {
                Err(lie("a status with an empty range"))
            }
            Asked::Status(..) => Ok(Answer::Status(self.status)),
        }
    }
}

fn lie(what: &'static str) -> Failure {
    Failure::Ended(Ending::Lie(what))
}

//! Structured replies: what comes back for one request, checked against what was asked.

use bytes::{Buf, Bytes};
use extent::Extent;

use crate::error::NbdError;

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
        Arriving { asked, chunks: Vec::new(), status: Vec::new(), error: None }
    }

    /// Longest payload that a chunk of this kind may have for this request.
    pub(crate) fn payload_max(&self, kind: u16) -> u64 {
        match kind {
            kind::NONE => 0,
            kind::DATA => 8 + self.asked.extent().length(),
            kind::HOLE => 12,
            // One pair per 512 bytes at the very most; QEMU sends far fewer.
            kind::STATUS => 4 + 8 * (self.asked.extent().length() / 512 + 1).min(1 << 20),
            _ => 4096 + 14,
        }
    }

    /// Takes one chunk.
    pub(crate) fn take(&mut self, kind: u16, mut payload: Bytes) -> Result<(), NbdError> {
        match (kind, self.asked) {
            (kind::NONE, _) => {}
            (kind::DATA, Asked::Read(asked)) if payload.len() > 8 => {
                let offset = payload.get_u64();
                let chunk = Extent::new(offset, payload.len() as u64).ok();
                inside(asked, chunk)?;
                self.chunks.push(Chunk::Data { offset, bytes: payload });
            }
            (kind::HOLE, Asked::Read(asked)) if payload.len() == 12 => {
                let (offset, length) = (payload.get_u64(), payload.get_u32());
                let hole = inside(asked, Extent::new(offset, u64::from(length)).ok())?;
                self.chunks.push(Chunk::Hole(hole));
            }
            (kind::STATUS, Asked::Status(_, id)) if payload.len() >= 12 && (payload.len() - 4) % 8 == 0 => {
                // The server answers for every context of the connection; only one was asked for here.
                if payload.get_u32() != id {
                    return Ok(());
                }
                if !self.status.is_empty() {
                    return Err(NbdError::Protocol { what: "the status of one context twice" });
                }
                while payload.has_remaining() {
                    self.status.push((payload.get_u32(), payload.get_u32()));
                }
            }
            (kind, _) if kind & kind::ERROR_BIT != 0 && payload.len() >= 6 => {
                let (errno, length) = (payload.get_u32(), usize::from(payload.get_u16()));
                let text = payload.get(..length).unwrap_or_default();
                self.error.get_or_insert((errno, String::from_utf8_lossy(text).into_owned()));
            }
            _ => return Err(NbdError::Protocol { what: "a chunk that does not answer the request" }),
        }
        Ok(())
    }

    /// The answer is complete.
    pub(crate) fn finish(mut self) -> Result<Answer, NbdError> {
        let asked = self.asked.extent();
        if let Some((errno, message)) = self.error {
            return Err(NbdError::Server { offset: asked.offset(), length: asked.length(), errno, message });
        }
        match self.asked {
            Asked::Read(_) => {
                self.chunks.sort_by_key(|chunk| chunk.span().0);
                let mut at = asked.offset();
                for chunk in &self.chunks {
                    let (from, to) = chunk.span();
                    if from != at {
                        return Err(NbdError::Protocol { what: "an answer with a gap or an overlap" });
                    }
                    at = to;
                }
                if at != asked.end() {
                    return Err(NbdError::Protocol { what: "an answer that ends too early" });
                }
                Ok(Answer::Read(self.chunks))
            }
            Asked::Status(..) => {
                if self.status.is_empty() || self.status.iter().any(|(length, _)| *length == 0) {
                    return Err(NbdError::Protocol { what: "a status without a range" });
                }
                Ok(Answer::Status(self.status))
            }
        }
    }
}

fn inside(asked: Extent, chunk: Option<Extent>) -> Result<Extent, NbdError> {
    chunk
        .filter(|chunk| chunk.offset() >= asked.offset() && chunk.end() <= asked.end())
        .ok_or(NbdError::Protocol { what: "a chunk outside the request" })
}

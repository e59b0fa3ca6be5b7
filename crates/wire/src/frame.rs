//! Frames: the pieces of a delta, each with a digest of its content, in ascending order of disk and offset.
//!
//! ```text
//! 0    4    6    7     8        16       24          28      32        64
//! magic disk kind codec offset   length   payload len  zero    digest    payload …
//! ```
//! All numbers are little-endian. `length` counts bytes of the disk; the payload holds them encoded. A zero frame has no
//! payload. The trailer is a frame of kind `end` whose payload is the JSON of [`crate::DeltaTrailer`].

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::{self, Codec};

/// Most bytes of a disk in one data frame.
pub const FRAME_DATA_MAX: u64 = 1024 * 1024;
/// Longest payload: raw data, or JSON of a trailer, both below this.
const PAYLOAD_MAX: u32 = 1024 * 1024 + 64 * 1024;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 64;
const MAGIC: u32 = 0x4d52_4656; // "VFRM"

/// What a decoder refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The stream is not what the format says.
    #[error("the stream from the other host is damaged: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// The payload is not what its header says.
    #[error("a frame from the other host is damaged: {what}")]
    Payload {
        /// What is wrong.
        what: &'static str,
    },
    /// The content does not have the digest that was made where it was read.
    #[error(
        "bytes were damaged on the way: disk {disk}, offset {offset}, {length} bytes do not have their digest"
    )]
    Digest {
        /// Index of the disk.
        disk: u16,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
    /// The header is too large or no JSON.
    #[error("the header of a delta from the other host is not understood: {why}")]
    Header {
        /// Why.
        why: String,
    },
}

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameKind {
    /// Bytes.
    Data,
    /// A range of zeroes.
    Zero,
    /// The trailer.
    End,
}

/// The head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Index of the disk in the delta's header.
    pub disk: u16,
    /// What it carries.
    pub kind: FrameKind,
    /// How the payload is encoded.
    pub codec: Codec,
    /// First byte of the disk.
    pub offset: u64,
    /// Number of bytes of the disk.
    pub length: u64,
    /// BLAKE3 of the content before encoding; of nothing for zeroes.
    pub digest: [u8; 32],
}

/// A frame as it arrived: checked in form, not yet in content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Its head.
    pub header: FrameHeader,
    payload: Bytes,
}

/// Makes a data frame: (head, payload). Hashing and compressing are the expensive part; call it off the event loop.
///
/// # Panics
/// If `data` is empty or longer than [`FRAME_DATA_MAX`]: the caller cuts.
#[must_use]
pub fn data_frame(disk: u16, offset: u64, data: &Bytes, compress: bool) -> (FrameHeader, Bytes, Bytes) {
    assert!(!data.is_empty() && data.len() as u64 <= FRAME_DATA_MAX, "a frame of {} bytes", data.len());
    let digest = *blake3::hash(data).as_bytes();
    let (codec, payload) = codec::encode(data, compress);
    let header =
        FrameHeader { disk, kind: FrameKind::Data, codec, offset, length: data.len() as u64, digest };
    (header, head_bytes(&header, payload.len()), payload)
}

/// Makes a frame of zeroes.
#[must_use]
pub fn zero_frame(disk: u16, offset: u64, length: u64) -> (FrameHeader, Bytes) {
    let digest = *blake3::hash(&[]).as_bytes();
    let header = FrameHeader { disk, kind: FrameKind::Zero, codec: Codec::Raw, offset, length, digest };
    (header, head_bytes(&header, 0))
}

/// Makes the trailer's frame.
#[must_use]
pub fn end_frame(trailer_json: &[u8]) -> Bytes {
    let digest = *blake3::hash(trailer_json).as_bytes();
    let header =
        FrameHeader { disk: 0, kind: FrameKind::End, codec: Codec::Raw, offset: 0, length: 0, digest };
    let mut bytes = BytesMut::from(head_bytes(&header, trailer_json.len()).as_ref());
    bytes.put_slice(trailer_json);
    bytes.freeze()
}

fn head_bytes(header: &FrameHeader, payload_length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES);
    bytes.put_u32_le(MAGIC);
    bytes.put_u16_le(header.disk);
    bytes.put_u8(match header.kind {
        FrameKind::Data => 1,
        FrameKind::Zero => 2,
        FrameKind::End => 3,
    });
    bytes.put_u8(header.codec.number());
    bytes.put_u64_le(header.offset);
    bytes.put_u64_le(header.length);
    bytes.put_u32_le(u32::try_from(payload_length).expect("payloads are bounded by FRAME_DATA_MAX"));
    bytes.put_u32_le(0);
    bytes.put_slice(&header.digest);
    bytes.freeze()
}

impl Frame {
    /// The content, decoded and checked against its digest; empty for zeroes.
    pub fn open(&self) -> Result<Bytes, WireError> {
        let header = &self.header;
        let content = match header.kind {
            FrameKind::Zero => Bytes::new(),
            FrameKind::End => self.payload.clone(),
            FrameKind::Data => {
                let length = usize::try_from(header.length).expect("bounded by FRAME_DATA_MAX");
                codec::decode(header.codec, &self.payload, length)?
            }
        };
        if *blake3::hash(&content).as_bytes() == header.digest {
            Ok(content)
        } else {
            let FrameHeader { disk, offset, length, .. } = *header;
            Err(WireError::Digest { disk, offset, length })
        }
    }

    /// Bytes that the payload took on the wire.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// One thing in a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// The header's JSON.
    Header(Bytes),
    /// A frame.
    Frame(Frame),
}

/// Takes a delta's stream apart, whatever pieces it arrives in.
///
/// Checks form, limits, and that frames ascend and stay inside their disks; a disk's size is known once the caller has
/// read the header and called [`FrameDecoder::expect_disks`].
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    disks: Option<Vec<u64>>,
    at: (u16, u64),
    ended: bool,
}

/// First bytes of a stream: magic and the version of the format.
pub const PREAMBLE: &[u8; 8] = b"VRDELTA1";
/// Longest header: it carries a definition and a variable store.
pub const STREAM_HEADER_MAX: u32 = 16 * 1024 * 1024;

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// Says which disks the header names, by virtual size, and where the first frame may begin.
    pub fn expect_disks(&mut self, sizes: Vec<u64>, resume_at: (u16, u64)) {
        self.disks = Some(sizes);
        self.at = resume_at;
    }

    /// Takes bytes as they arrive.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes that wait for more; bounded by the largest frame once [`FrameDecoder::next`] returns none.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next thing, if it has arrived whole.
    #[allow(clippy::should_implement_trait)] // it returns a result, and none only means "not yet"
    pub fn next(&mut self) -> Result<Option<Item>, WireError> {
        match self.disks {
            None => self.next_header(),
            Some(_) => self.next_frame(),
        }
    }

    fn next_header(&mut self) -> Result<Option<Item>, WireError> {
        if self.buffer.len() < 12 {
            return Ok(None);
        }
        if &self.buffer[..8] != PREAMBLE {
            return Err(WireError::Malformed { what: "it does not begin like a delta of this version" });
        }
        let length = (&self.buffer[8..12]).get_u32_le();
        if length > STREAM_HEADER_MAX {
            return Err(WireError::Malformed { what: "its header is too long" });
        }
        let whole = 12 + length as usize;
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let header = self.buffer.split_to(whole).freeze().slice(12..);
        Ok(Some(Item::Header(header)))
    }

    fn next_frame(&mut self) -> Result<Option<Item>, WireError> {
        if self.ended && !self.buffer.is_empty() {
            return Err(WireError::Malformed { what: "bytes after the end" });
        }
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let (header, payload_length) = parse_head(&self.buffer[..HEADER_BYTES])?;
        let whole = HEADER_BYTES + payload_length as usize;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        self.check_order(&header)?;
        let payload = self.buffer.split_to(whole).freeze().slice(HEADER_BYTES..);
        Ok(Some(Item::Frame(Frame { header, payload })))
    }

    fn check_order(&mut self, header: &FrameHeader) -> Result<(), WireError> {
        if header.kind == FrameKind::End {
            self.ended = true;
            return Ok(());
        }
        let sizes = self.disks.as_deref().unwrap_or_default();
        let size = sizes.get(usize::from(header.disk)).copied();
        let size = size.ok_or(WireError::Malformed { what: "a disk that the header does not name" })?;
        let end = header.offset.checked_add(header.length).filter(|end| *end <= size && header.length > 0);
        let end = end.ok_or(WireError::Malformed { what: "a range outside its disk" })?;
        let in_order = header.disk > self.at.0 || (header.disk == self.at.0 && header.offset >= self.at.1);
        if !in_order {
            return Err(WireError::Malformed { what: "frames out of order" });
        }
        self.at = (header.disk, end);
        Ok(())
    }
}

fn parse_head(mut head: &[u8]) -> Result<(FrameHeader, u32), WireError> {
    let malformed = |what| WireError::Malformed { what };
    if head.get_u32_le() != MAGIC {
        return Err(malformed("a frame without its magic number"));
    }
    let disk = head.get_u16_le();
    let kind = match head.get_u8() {
        1 => FrameKind::Data,
        2 => FrameKind::Zero,
        3 => FrameKind::End,
        _ => return Err(malformed("an unknown kind of frame")),
    };
    let codec = Codec::from_number(head.get_u8()).ok_or(malformed("an unknown codec"))?;
    let (offset, length) = (head.get_u64_le(), head.get_u64_le());
    let (payload, reserved) = (head.get_u32_le(), head.get_u32_le());
    let mut digest = [0; 32];
    head.copy_to_slice(&mut digest);
    let fits = match kind {
        FrameKind::Data => length <= FRAME_DATA_MAX && payload > 0,
        FrameKind::Zero => payload == 0 && codec == Codec::Raw,
        FrameKind::End => (disk, offset, length) == (0, 0, 0) && codec == Codec::Raw,
    };
    if !fits || payload > PAYLOAD_MAX || reserved != 0 {
        return Err(malformed("a frame's lengths make no sense"));
    }
    Ok((FrameHeader { disk, kind, codec, offset, length, digest }, payload))
}

/// The digest of a delta, grown frame by frame: d ← BLAKE3(d ‖ disk ‖ kind ‖ offset ‖ length ‖ content digest).
///
/// Its whole state is 32 bytes, so that a transfer that broke goes on with the digest that both sides had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeltaDigest(pub [u8; 32]);

impl DeltaDigest {
    /// Takes one frame.
    pub fn take(&mut self, header: &FrameHeader) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&header.disk.to_le_bytes());
        hasher.update(&[u8::from(header.kind == FrameKind::Zero)]);
        hasher.update(&header.offset.to_le_bytes());
        hasher.update(&header.length.to_le_bytes());
        hasher.update(&header.digest);
        self.0 = *hasher.finalize().as_bytes();
    }

    /// The lineage of the point that this delta makes of `parent`.
    #[must_use]
    pub fn lineage(&self, parent: domain::Lineage) -> domain::Lineage {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&parent.0);
        hasher.update(&self.0);
        domain::Lineage(*hasher.finalize().as_bytes())
    }
}

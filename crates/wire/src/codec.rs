//! How the bytes of a frame travel: as they are, or compressed with zstd at its fastest useful level.

use bytes::Bytes;

use crate::frame::WireError;

/// zstd's level: at 1 MiB a piece, level 1 compresses 500 MB/s to about half; higher levels cost much and gain little.
const LEVEL: i32 = 1;
/// A frame is sent compressed only if that saves at least one part in this many.
const WORTHWHILE_PART: usize = 16;

/// How the payload of a frame is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Codec::Raw => 0,
            Codec::Zstd => 1,
        }
    }

    /// Reads the number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Codec> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// Compresses when it pays; returns what travels and how.
#[must_use]
pub fn encode(data: &Bytes, compress: bool) -> (Codec, Bytes) {
    if compress
        && let Ok(packed) = zstd::bulk::compress(data, LEVEL)
        && packed.len() + data.len() / WORTHWHILE_PART < data.len()
    {
        return (Codec::Zstd, Bytes::from(packed));
    }
    (Codec::Raw, data.clone())
}

/// One zstd frame, whether it pays or not.
pub(crate) fn pack(data: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(data, LEVEL)
}

/// Takes the payload apart; never makes more than `length` bytes.
pub fn decode(codec: Codec, payload: &Bytes, length: usize) -> Result<Bytes, WireError> {
    let data = match codec {
        Codec::Raw => payload.clone(),
        Codec::Zstd => {
            let data = zstd::bulk::decompress(payload, length);
            Bytes::from(
                data.map_err(|_| WireError::Payload { what: "it does not decompress to its length" })?,
            )
        }
    };
    if data.len() == length {
        Ok(data)
    } else {
        Err(WireError::Payload { what: "its length is not what was declared" })
    }
}

/// Decides whether frames are compressed when the operator left it to us.
///
/// The link decides: while the queue to it is short, the sender waits for the reader and compression would only slow it
/// down; while the queue is long and the link slower than a compressor, every saved byte is saved time. A long queue alone
/// says little: hosts whose processors are busy have one too, and compressing would make them busier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Adaptive {
    compress: bool,
}

impl Adaptive {
    /// Bytes in the queue above which the link may be the slower part; it must fit the memory of every queue.
    pub const QUEUE_HIGH: u64 = 8 * 1024 * 1024;
    /// Bytes in the queue below which it is not.
    pub const QUEUE_LOW: u64 = 2 * 1024 * 1024;
    /// Links that take more than this, bytes per second, are faster than one processor compresses.
    pub const LINK_FAST: f64 = 200e6;

    /// Whether the next frame is compressed, by the number of bytes that wait for the link and by what it takes; none:
    /// not measured yet.
    pub fn compress(&mut self, queued_bytes: u64, link_bytes_per_second: Option<f64>) -> bool {
        let slow = link_bytes_per_second.is_some_and(|rate| rate < Self::LINK_FAST);
        if queued_bytes > Self::QUEUE_HIGH && slow {
            self.compress = true;
        } else if queued_bytes < Self::QUEUE_LOW || !slow {
            self.compress = false;
        }
        self.compress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shrinks_is_compressed_and_a_bomb_is_refused() {
        let text = Bytes::from(vec![b'a'; 1 << 20]);
        let (codec, packed) = encode(&text, true);
        assert_eq!(codec, Codec::Zstd);
        assert_eq!(decode(codec, &packed, 1 << 20), Ok(text.clone()));
        assert!(decode(codec, &packed, 1 << 10).is_err());
        assert!(decode(codec, &packed, 1 << 21).is_err());
        assert_eq!(encode(&text, false), (Codec::Raw, text));
        let noise = Bytes::copy_from_slice(blake3::hash(b"noise").as_bytes());
        assert_eq!(encode(&noise, true).0, Codec::Raw);
    }

    #[test]
    fn adaptive_compression_follows_the_queue_of_a_slow_link_with_hysteresis() {
        let (slow, fast) = (Some(Adaptive::LINK_FAST / 2.0), Some(Adaptive::LINK_FAST * 2.0));
        let (short, between, long) = (0, Adaptive::QUEUE_LOW + 1, Adaptive::QUEUE_HIGH + 1);
        let mut adaptive = Adaptive::default();
        let told = [(short, slow), (long, slow), (between, slow), (short, slow), (between, slow)];
        let answers = told.map(|(queued, link)| adaptive.compress(queued, link));
        assert_eq!(answers, [false, true, true, false, false]);
        let told = [(long, fast), (long, None), (long, slow), (long, fast)];
        let answers = told.map(|(queued, link)| adaptive.compress(queued, link));
        assert_eq!(answers, [false, false, true, false]);
    }

    #[test]
    fn what_saves_less_than_its_part_travels_as_it_is() {
        let mixed = |noise: usize| {
            let mut noise_of = blake3::Hasher::new().finalize_xof();
            let mut bytes = vec![0; 1 << 20];
            noise_of.fill(&mut bytes[..noise]);
            Bytes::from(bytes)
        };
        // Noise does not shrink, zeroes cost next to nothing.
        assert_eq!(encode(&mixed((1 << 20) * 93 / 100), true).0, Codec::Zstd);
        assert_eq!(encode(&mixed((1 << 20) * 95 / 100), true).0, Codec::Raw);
        assert_eq!(encode(&Bytes::new(), true).0, Codec::Raw);
    }

    #[test]
    fn a_codec_is_known_by_its_number() {
        for codec in [Codec::Raw, Codec::Zstd] {
            assert_eq!(Codec::from_number(codec.number()), Some(codec));
        }
        assert_eq!(Codec::from_number(2), None);
    }

    #[test]
    fn at_its_borders_adaptive_compression_leaves_things_as_they_are() {
        let slow = Some(Adaptive::LINK_FAST / 2.0);
        let mut adaptive = Adaptive::default();
        assert!(!adaptive.compress(Adaptive::QUEUE_HIGH, slow));
        assert!(adaptive.compress(Adaptive::QUEUE_HIGH + 1, slow));
        assert!(adaptive.compress(Adaptive::QUEUE_LOW, slow));
        assert!(!adaptive.compress(Adaptive::QUEUE_LOW - 1, slow));
        assert!(!adaptive.compress(Adaptive::QUEUE_HIGH + 1, Some(Adaptive::LINK_FAST)));
        assert_eq!((Adaptive::QUEUE_HIGH, Adaptive::QUEUE_LOW), (8 << 20, 2 << 20));
    }
}

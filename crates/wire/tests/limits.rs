//! Whatever is too much, out of its form or out of its place is refused at exactly the limit that the format names, and before memory
//! is taken for it.

mod common;

use bytes::Bytes;
use wire::delta::{DeltaDisk, DeltaHeader, DeltaTrailer};
use wire::digests::{BLOCK_BYTES, DigestsForm, RANGE_BYTES_MAX};
use wire::frame::{
    FRAME_DATA_MAX, HEADER_BYTES, PREAMBLE, STREAM_HEADER_MAX, data_frame, end_frame, zero_frame,
};
use wire::message::form::{DISKS_MAX, ORDINAL_MAX};
use wire::{AttachmentForm, DeltaDigest, FrameDecoder, FrameKind, Item, WireError};

/// Of every disk here, bytes.
const SIZE: u64 = 8 << 20;
/// Where things are in the head of a frame.
const KIND: usize = 6;
const CODEC: usize = 7;
const OFFSET: usize = 8;
const LENGTH: usize = 16;
const PAYLOAD: usize = 24;
const RESERVED: usize = 28;

fn header(disks: usize) -> DeltaHeader {
    let disk = |index: usize| DeltaDisk { target: format!("vd{index}"), virtual_size: SIZE };
    common::header((0..disks).map(disk).collect())
}

fn read(header: &DeltaHeader) -> Result<DeltaHeader, WireError> {
    DeltaHeader::from_json(&header.to_bytes()[12..])
}

/// A decoder behind the header of a delta with two disks.
fn decoder() -> FrameDecoder {
    let mut decoder = FrameDecoder::new();
    decoder.expect_disks(vec![SIZE, SIZE], (0, 0));
    decoder
}

fn decode(bytes: &[u8]) -> Result<Option<Item>, WireError> {
    let mut decoder = decoder();
    decoder.feed(bytes);
    decoder.next()
}

fn is_malformed(bytes: &[u8]) -> bool {
    matches!(decode(bytes), Err(WireError::Malformed { .. }))
}

/// The bytes of a frame, with others in their place.
fn with(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

fn data(disk: u16, offset: u64, length: usize) -> Vec<u8> {
    let (_, head, payload) = data_frame(disk, offset, &Bytes::from(vec![7; length]), false);
    [&head[..], &payload[..]].concat()
}

#[test]
fn a_header_names_one_disk_to_the_most_nothing_twice_and_a_place_that_can_be_counted_to() {
    for (disks, good) in [(0, false), (1, true), (DISKS_MAX, true), (DISKS_MAX + 1, false)] {
        assert_eq!(read(&header(disks)).is_ok(), good, "{disks} disks");
    }
    let twice = [header(1).disks, header(1).disks].concat();
    assert!(read(&DeltaHeader { disks: twice, ..header(1) }).is_err(), "a disk that comes twice");
    for (ordinal, good) in [(ORDINAL_MAX - 1, true), (ORDINAL_MAX, false), (u64::MAX, false)] {
        assert_eq!(read(&DeltaHeader { ordinal, ..header(1) }).is_ok(), good, "ordinal {ordinal}");
    }
    let attachment = |kind| AttachmentForm::pack(kind, b"state").expect("small");
    let [nvram, tpm] = domain::Attachment::ALL.map(attachment);
    assert!(read(&DeltaHeader { attachments: vec![nvram.clone(), tpm], ..header(1) }).is_ok());
    assert!(read(&DeltaHeader { attachments: vec![nvram.clone(), nvram], ..header(1) }).is_err());
}

#[test]
fn a_stream_that_does_not_begin_as_one_or_announces_too_much_is_refused_at_once() {
    let begin = |preamble: &[u8], length: u32| {
        let mut decoder = FrameDecoder::new();
        decoder.feed(&[preamble, &length.to_le_bytes()].concat());
        decoder.next()
    };
    assert_eq!((FRAME_DATA_MAX, STREAM_HEADER_MAX), (1 << 20, 16 << 20), "as the format says");
    assert_eq!(begin(PREAMBLE, STREAM_HEADER_MAX), Ok(None), "the header may still come");
    assert!(begin(PREAMBLE, STREAM_HEADER_MAX + 1).is_err());
    assert!(begin(b"VRDELTA2", 4).is_err());
    let mut decoder = FrameDecoder::new();
    let bytes = header(1).to_bytes();
    for byte in &bytes[..bytes.len() - 1] {
        decoder.feed(&[*byte]);
        assert_eq!(decoder.next(), Ok(None));
    }
    assert_eq!(decoder.buffered(), bytes.len() - 1);
    decoder.feed(&bytes[bytes.len() - 1..]);
    assert_eq!(decoder.next(), Ok(Some(Item::Header(bytes.slice(12..)))));
    assert_eq!(decoder.buffered(), 0);
}

#[test]
fn a_frame_is_taken_when_it_is_whole_and_not_before() {
    let frame = data(0, 0, 100);
    for cut in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, frame.len() - 1] {
        assert_eq!(decode(&frame[..cut]), Ok(None), "cut after {cut} bytes");
    }
    let Ok(Some(Item::Frame(whole))) = decode(&frame) else { panic!("it is whole") };
    assert_eq!((whole.payload_bytes(), whole.open().expect("intact").len()), (100, 100));
}

#[test]
fn a_frame_out_of_its_form_is_refused() {
    let (good, zero, end) = (data(0, 0, 100), zero_frame(0, 0, 4096).1, end_frame(b"{}"));
    for good in [&good[..], &zero, &end] {
        assert!(decode(good).is_ok());
        for byte in 0..4 {
            assert!(is_malformed(&with(good, byte, b"?")), "no magic number");
        }
        for byte in RESERVED..RESERVED + 4 {
            assert!(is_malformed(&with(good, byte, &[1])), "what is reserved is zero");
        }
        assert!(is_malformed(&with(good, KIND, &[0])) && is_malformed(&with(good, KIND, &[4])));
        assert!(is_malformed(&with(good, CODEC, &[2])));
    }
    // Data has a payload, of one codec or the other, and is no longer than it may be.
    assert!(is_malformed(&with(&good, PAYLOAD, &0_u32.to_le_bytes())));
    assert!(is_malformed(&with(&good, LENGTH, &(FRAME_DATA_MAX + 1).to_le_bytes())));
    assert!(decode(&with(&good, LENGTH, &FRAME_DATA_MAX.to_le_bytes())).is_ok());
    assert!(decode(&with(&good, CODEC, &[1])).is_ok());
    // Zeroes have none; the end is nowhere.
    assert!(is_malformed(&with(&zero, PAYLOAD, &1_u32.to_le_bytes())));
    assert!(is_malformed(&with(&zero, CODEC, &[1])) && is_malformed(&with(&end, CODEC, &[1])));
    for (at, what) in [(4, "a disk"), (OFFSET, "an offset"), (LENGTH, "a length")] {
        assert!(is_malformed(&with(&end, at, &[1])), "an end with {what}");
    }
}

#[test]
fn no_more_is_waited_for_than_the_longest_payload() {
    const PAYLOAD_MAX: u32 = 1024 * 1024 + 64 * 1024;
    for frame in [&data(0, 0, 100)[..HEADER_BYTES], &end_frame(b"{}")[..HEADER_BYTES]] {
        assert_eq!(decode(&with(frame, PAYLOAD, &PAYLOAD_MAX.to_le_bytes())), Ok(None));
        assert!(is_malformed(&with(frame, PAYLOAD, &(PAYLOAD_MAX + 1).to_le_bytes())));
    }
}

#[test]
fn a_piece_of_a_disk_is_neither_empty_nor_longer_than_a_frame() {
    for (length, good) in [(0, false), (1, true), (FRAME_DATA_MAX, true), (FRAME_DATA_MAX + 1, false)] {
        let data = Bytes::from(vec![0; usize::try_from(length).expect("small")]);
        let made = std::panic::catch_unwind(|| data_frame(0, 0, &data, true));
        assert_eq!(made.is_ok(), good, "{length} bytes");
    }
}

#[test]
fn frames_ascend_from_where_the_transfer_goes_on_to_the_end_of_their_disk() {
    let at = |frames: &[Vec<u8>]| {
        let mut decoder = FrameDecoder::new();
        decoder.expect_disks(vec![SIZE, SIZE], (0, 8192));
        decoder.feed(&frames.concat());
        frames.iter().map(|_| decoder.next()).collect::<Result<Vec<_>, _>>().is_ok()
    };
    assert!(at(&[
        data(0, 8192, 100),
        data(0, 8292, 100),
        data(0, SIZE - 1, 1),
        data(1, 0, 1),
        data(1, 1, 1)
    ]));
    assert!(at(&[data(1, 0, 100)]), "nothing more of the first disk");
    assert!(!at(&[data(0, 8191, 100)]), "it has arrived");
    assert!(!at(&[data(0, 8192, 100), data(0, 8291, 100)]), "they overlap");
    assert!(!at(&[data(1, 0, 100), data(0, 8192, 100)]), "back to the first disk");
    assert!(!at(&[data(0, SIZE - 1, 2)]) && !at(&[data(2, 0, 1)]));
}

#[test]
fn nothing_comes_behind_the_end() {
    let mut decoder = decoder();
    decoder.feed(&end_frame(b"{}"));
    assert!(matches!(decoder.next(), Ok(Some(Item::Frame(frame))) if frame.header.kind == FrameKind::End));
    assert_eq!(decoder.next(), Ok(None), "more may not have come");
    decoder.feed(b"?");
    assert!(matches!(decoder.next(), Err(WireError::Malformed { .. })));
}

#[test]
fn content_that_is_not_what_was_read_is_refused_with_its_place() {
    let mut frame = data(1, 4096, 100);
    *frame.last_mut().expect("a payload") ^= 1;
    let Ok(Some(Item::Frame(frame))) = decode(&frame) else { panic!("its form is good") };
    assert_eq!(frame.open(), Err(WireError::Digest { disk: 1, offset: 4096, length: 100 }));
}

#[test]
fn the_digest_of_a_delta_tells_apart_whatever_differs() {
    let digest = |frames: &[wire::FrameHeader]| {
        let mut digest = DeltaDigest::default();
        frames.iter().for_each(|frame| digest.take(frame));
        digest
    };
    let head = |disk, offset, data: &[u8]| data_frame(disk, offset, &Bytes::copy_from_slice(data), false).0;
    let (one, zero) = (head(0, 0, b"one"), zero_frame(0, 0, 3).0);
    let all = [
        digest(&[]),
        digest(&[one]),
        digest(&[head(1, 0, b"one")]),
        digest(&[head(0, 1, b"one")]),
        digest(&[head(0, 0, b"two")]),
        digest(&[wire::FrameHeader { length: 4, ..one }]),
        digest(&[wire::FrameHeader { kind: FrameKind::Zero, ..one }]),
        digest(&[zero]),
        digest(&[one, zero]),
        digest(&[zero, one]),
    ];
    for (index, digest) in all.iter().enumerate() {
        assert!(!all[..index].contains(digest), "{index}");
    }
    let (parent, other) = (domain::Lineage::ORIGIN, domain::Lineage([1; 32]));
    assert_ne!(all[1].lineage(parent), all[1].lineage(other));
    assert_ne!(all[1].lineage(parent), all[2].lineage(parent));
}

/// Another version, or another program, must come to the same.
#[test]
fn the_digest_of_a_delta_is_made_as_the_format_says() {
    let data = data_frame(3, 65_536, &Bytes::from_static(b"content"), false).0;
    let zero = zero_frame(4, 0, 512).0;
    let mut digest = DeltaDigest::default();
    let mut expected = [0; 32];
    for (frame, kind) in [(data, 0_u8), (zero, 1)] {
        digest.take(&frame);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&expected).update(&frame.disk.to_le_bytes()).update(&[kind]);
        hasher.update(&frame.offset.to_le_bytes()).update(&frame.length.to_le_bytes()).update(&frame.digest);
        expected = *hasher.finalize().as_bytes();
        assert_eq!(digest.0, expected);
    }
}

#[test]
fn a_trailer_arrives_as_it_was_sent() {
    let trailer = DeltaTrailer { digest: "d".into(), lineage: "l".into(), data_bytes: 3 };
    assert_eq!(DeltaTrailer::from_json(&trailer.to_json()), Ok(trailer));
    assert!(DeltaTrailer::from_json(br#"{"digest":"d"}"#).is_err());
}

#[test]
fn the_digests_of_the_largest_range_are_far_below_the_limit_of_a_command() {
    let blocks = usize::try_from(RANGE_BYTES_MAX / BLOCK_BYTES).expect("some thousand");
    assert_eq!((BLOCK_BYTES, blocks), (65_536, 4096));
    let one_in_two: Vec<_> = (0..blocks).map(|index| (index % 2 == 0).then_some([7; 32])).collect();
    for digests in [vec![Some([7; 32]); blocks], one_in_two] {
        let json = serde_json::to_vec(&DigestsForm::pack(&digests)).expect("plain data becomes JSON");
        assert!(json.len() < 1 << 20, "{} bytes", json.len());
    }
}

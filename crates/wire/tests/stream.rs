//! A delta survives its journey in whatever pieces it arrives, and nothing damaged gets through.

mod common;

use bytes::Bytes;
use proptest::prelude::*;
use wire::delta::{DeltaDisk, DeltaHeader};
use wire::frame::{data_frame, end_frame, zero_frame};
use wire::{DeltaDigest, FrameDecoder, FrameKind, Item, WireError};

fn header() -> DeltaHeader {
    let disk = |target: &str, virtual_size| DeltaDisk { target: target.into(), virtual_size };
    common::header(vec![disk("vda", 1 << 20), disk("vdb", 1 << 16)])
}

fn stream() -> Vec<u8> {
    let mut stream = header().to_bytes().to_vec();
    let (_, head, payload) = data_frame(0, 4096, &Bytes::from(vec![5; 100_000]), true);
    stream.extend_from_slice(&head);
    stream.extend_from_slice(&payload);
    stream.extend_from_slice(&zero_frame(0, 200_000, 1000).1);
    let (_, head, payload) = data_frame(1, 0, &Bytes::from_static(b"other disk"), false);
    stream.extend_from_slice(&head);
    stream.extend_from_slice(&payload);
    stream.extend_from_slice(&end_frame(b"{}"));
    stream
}

/// (disk, offset, content) of every frame, the digest over them, and whether the end came.
type Decoded = (Vec<(u16, u64, Vec<u8>)>, DeltaDigest, bool);

fn decode(stream: &[u8], piece: usize) -> Result<Decoded, WireError> {
    let (mut decoder, mut frames, mut digest, mut ended) =
        (FrameDecoder::new(), Vec::new(), DeltaDigest::default(), false);
    for piece in stream.chunks(piece) {
        decoder.feed(piece);
        while let Some(item) = decoder.next()? {
            match item {
                Item::Header(json) => {
                    let header = DeltaHeader::from_json(&json)?;
                    decoder.expect_disks(header.disks.iter().map(|disk| disk.virtual_size).collect(), (0, 0));
                }
                Item::Frame(frame) => {
                    let content = frame.open()?;
                    if frame.header.kind == FrameKind::End {
                        ended = true;
                    } else {
                        digest.take(&frame.header);
                        frames.push((frame.header.disk, frame.header.offset, content.to_vec()));
                    }
                }
            }
        }
    }
    Ok((frames, digest, ended))
}

#[test]
fn any_cut_of_the_stream_gives_the_same_frames() {
    let stream = stream();
    let whole = decode(&stream, stream.len()).expect("a good stream");
    assert_eq!(
        whole.0,
        vec![(0, 4096, vec![5; 100_000]), (0, 200_000, vec![]), (1, 0, b"other disk".to_vec())]
    );
    assert!(whole.2);
    for piece in [1, 7, 64, 1000] {
        assert_eq!(decode(&stream, piece).expect("a good stream"), whole);
    }
    assert!(!decode(&stream[..stream.len() - 1], 64).expect("a good beginning").2);
}

#[test]
fn frames_out_of_order_or_outside_their_disk_are_refused() {
    let check = |frames: &[Bytes]| {
        let mut bytes = header().to_bytes().to_vec();
        frames.iter().for_each(|frame| bytes.extend_from_slice(frame));
        assert!(matches!(decode(&bytes, 64), Err(WireError::Malformed { .. })));
    };
    check(&[zero_frame(0, 4096, 4096).1, zero_frame(0, 0, 4096).1]);
    check(&[zero_frame(1, 0, 4096).1, zero_frame(0, 0, 4096).1]);
    check(&[zero_frame(0, 4096, 4096).1, zero_frame(0, 4096, 4096).1]);
    check(&[zero_frame(0, 0, (1 << 20) + 1).1]);
    check(&[zero_frame(0, u64::MAX, 2).1]);
    check(&[zero_frame(2, 0, 1).1]);
    check(&[zero_frame(0, 0, 0).1]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Some bits of compressed bytes mean nothing, so that a flip of them is none of the content.
    #[test]
    fn no_flipped_byte_of_a_frame_is_taken_for_good(at in 0_usize..1000, flip in 1_u8..) {
        let good = stream();
        let from = header().to_bytes().len();
        let mut bad = good.clone();
        let at = from + at % (good.len() - from);
        bad[at] ^= flip;
        let (frames, digest, ended) = decode(&good, 64).expect("a good stream");
        match decode(&bad, 64) {
            Err(_) => {}
            Ok(other) => prop_assert!((&other.1, other.2) != (&digest, ended) || other.0 == frames),
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096), piece in 1_usize..100) {
        let _ = decode(&bytes, piece);
        let mut after_header = header().to_bytes().to_vec();
        after_header.extend_from_slice(&bytes);
        let _ = decode(&after_header, piece);
    }
}

//! What a delta is made of: the stream and its frames, the header, attachments; and digests of ranges.

use bytes::Bytes;
use domain::Attachment;
use uuid::Uuid;
use wire::delta::DeltaDisk;
use wire::digests::DigestsForm;
use wire::frame::{data_frame, end_frame, zero_frame};
use wire::{AttachmentForm, DeltaHeader, DeltaTrailer, FrameDecoder, Item};

use super::json;

pub(super) fn headers() -> Vec<Vec<u8>> {
    vec![json(&a_header())]
}

fn a_header() -> DeltaHeader {
    DeltaHeader {
        relationship: Uuid::from_u128(1),
        epoch: 1,
        point: Uuid::from_u128(2),
        parent: None,
        ordinal: 1,
        instant_ms: 1_700_000_000_000,
        consistency: "crash".into(),
        disks: vec![DeltaDisk { target: "vda".into(), virtual_size: 1 << 20 }],
        resume_at: Some((0, 65536)),
        domain_xml: "<domain/>".into(),
        attachments: Vec::new(),
        expected_bytes: 100,
        tag: Some("tag".into()),
        autostart: Some(true),
    }
}

pub(super) fn streams() -> Vec<Vec<u8>> {
    let header = DeltaHeader { resume_at: None, ..a_header() };
    let mut stream = header.to_bytes().to_vec();
    for compress in [true, false] {
        let (_, head, payload) = data_frame(0, 65536, &Bytes::from(vec![5; 70_000]), compress);
        stream.extend_from_slice(&head);
        stream.extend_from_slice(&payload);
    }
    stream.extend_from_slice(&zero_frame(0, 196_608, 65536).1);
    stream.extend_from_slice(&end_frame(b"{}"));
    vec![stream]
}

/// As the receiver does it: in pieces, every frame opened.
pub(super) fn stream(input: &[u8]) {
    let mut decoder = FrameDecoder::new();
    for piece in input.chunks(1 + input.len() / 3) {
        decoder.feed(piece);
        while let Ok(Some(item)) = decoder.next() {
            match item {
                Item::Header(json) => {
                    let Ok(header) = DeltaHeader::from_json(&json) else { return };
                    let sizes = header.disks.iter().map(|disk| disk.virtual_size).collect();
                    decoder.expect_disks(sizes, header.resume_at.unwrap_or_default());
                }
                Item::Frame(frame) => match frame.open() {
                    Ok(content) => drop(DeltaTrailer::from_json(&content)),
                    Err(_) => return,
                },
            }
        }
    }
}

pub(super) fn header(input: &[u8]) {
    drop(DeltaHeader::from_json(input));
    drop(DeltaTrailer::from_json(input));
}

pub(super) fn attachments() -> Vec<Vec<u8>> {
    AttachmentForm::pack(Attachment::Nvram, &[3; 5000]).iter().map(json).collect()
}

pub(super) fn attachment(input: &[u8]) {
    drop(serde_json::from_slice::<AttachmentForm>(input).map(|form| form.unpack().is_ok()));
}

pub(super) fn digests(input: &[u8]) {
    if let Ok(form) = serde_json::from_slice::<DigestsForm>(input) {
        for count in [0, 2, 4096] {
            drop(form.unpack(count));
        }
    }
}

pub(super) fn ranges() -> Vec<Vec<u8>> {
    vec![json(&DigestsForm::pack(&[None, Some([7; 32])]))]
}

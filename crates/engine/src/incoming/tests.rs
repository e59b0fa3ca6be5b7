//! A delta that is cut anywhere goes on to the same layers and the same digest.

use bytes::Bytes;
use layer::{Manifest, ManifestDisk, Storage};
use wire::delta::DeltaDisk;
use wire::frame::{data_frame, end_frame, zero_frame};
use wire::{FrameDecoder, Item};

use super::*;

const CLUSTER: u64 = layer::CLUSTER_BYTES;
const SIZE: u64 = 8 * CLUSTER;

fn directory(root: &std::path::Path) -> ReplicaDirectory {
    let disk = |target: &str| ManifestDisk::fresh(DiskTarget::new(target).expect("a target"), SIZE);
    let manifest = Manifest {
        vm_name: "vm".into(),
        vm: Uuid::from_u128(1).into(),
        relationship: Uuid::from_u128(2).into(),
        disks: ["vda", "vdb", "vdc"].map(disk).into(),
        points: Vec::new(),
        autostart: false,
    };
    ReplicaDirectory::create(&Storage::initialise(root).expect("storage"), manifest).expect("a directory")
}

fn header() -> DeltaHeader {
    let disk = |target: &str| DeltaDisk { target: target.into(), virtual_size: SIZE };
    DeltaHeader {
        relationship: Uuid::from_u128(2),
        epoch: 1,
        point: Uuid::from_u128(3),
        parent: None,
        ordinal: 1,
        instant_ms: 1,
        consistency: "crash".into(),
        disks: ["vda", "vdb", "vdc"].map(disk).into(),
        resume_at: None,
        domain_xml: String::new(),
        attachments: Vec::new(),
        expected_bytes: 0,
        tag: None,
        autostart: None,
    }
}

/// Frames for the first and the last disk, none for the one between, and the trailer.
fn frames() -> Vec<Frame> {
    frames_with_trailer(|digest| digest)
}

/// The same with another digest in the trailer.
fn frames_with_trailer(said: impl Fn(String) -> String) -> Vec<Frame> {
    let mut bytes = Vec::new();
    let mut digest = DeltaDigest::default();
    for (disk, cluster, filled) in [(0, 0, true), (0, 2, true), (0, 5, false), (2, 1, true), (2, 3, true)] {
        let content = Bytes::from(vec![disk as u8 + cluster as u8 + 1; CLUSTER as usize]);
        let header = if filled {
            let (header, head, payload) = data_frame(disk, cluster * CLUSTER, &content, true);
            bytes.extend([head, payload]);
            header
        } else {
            let (header, head) = zero_frame(disk, cluster * CLUSTER, CLUSTER);
            bytes.push(head);
            header
        };
        digest.take(&header);
    }
    let digest = said(Lineage(digest.0).to_hex());
    let trailer = DeltaTrailer { digest, lineage: String::new(), data_bytes: 4 * CLUSTER };
    bytes.push(end_frame(&trailer.to_json()));
    let mut decoder = FrameDecoder::new();
    decoder.expect_disks(vec![SIZE; 3], (0, 0));
    bytes.iter().for_each(|piece| decoder.feed(piece));
    let mut frames = Vec::new();
    while let Some(item) = decoder.next().expect("well formed") {
        let Item::Frame(frame) = item else { unreachable!("frames only") };
        frames.push(frame);
    }
    frames
}

/// Writes the frames behind `from`, at most `count` of them.
fn write(directory: &ReplicaDirectory, from: Option<Partial>, count: usize) -> Result<Written> {
    write_frames(directory, frames(), from, count)
}

fn write_frames(
    directory: &ReplicaDirectory,
    frames: Vec<Frame>,
    from: Option<Partial>,
    count: usize,
) -> Result<Written> {
    let at = from.as_ref().map_or((0, 0), |from| (from.disk, from.offset));
    let (sender, receiver) = mpsc::channel(16);
    let behind =
        |frame: &Frame| frame.header.kind == FrameKind::End || (frame.header.disk, frame.header.offset) >= at;
    for frame in frames.into_iter().filter(behind).take(count) {
        sender.try_send(frame).unwrap_or_else(|_| unreachable!("room for all"));
    }
    drop(sender);
    Incoming::plan(directory, &header())?.write(from, receiver)
}

#[test]
fn a_delta_cut_anywhere_goes_on_to_the_same_files_and_digest() {
    cov_mark::check!(a_disk_is_complete_before_the_next_begins);
    let content = |directory: &ReplicaDirectory, target: &str| {
        let folder = directory.disk_folder(&DiskTarget::new(target).expect("a target"));
        std::fs::read(folder.join(ReplicaDirectory::base_name().as_str())).expect("sealed")
    };
    let whole_root = tempfile::tempdir().expect("a folder");
    let whole = directory(whole_root.path());
    let expected = write(&whole, None, usize::MAX).expect("written");
    for first in 0..frames().len() {
        for second in 0..3 {
            let root = tempfile::tempdir().expect("a folder");
            let cut = directory(root.path());
            assert!(write(&cut, None, first).is_err(), "cut after {first} frames");
            let from = arrived(&cut, header().point, 1).expect("readable");
            assert!(from.is_some(), "cut after {first} frames");
            let again = write(&cut, from, second);
            let done = match again {
                Ok(done) => done,
                Err(_) => {
                    let from = arrived(&cut, header().point, 1).expect("readable");
                    write(&cut, from, usize::MAX).expect("written")
                }
            };
            assert_eq!((done.digest, done.data_bytes), (expected.digest, expected.data_bytes));
            for target in ["vda", "vdb", "vdc"] {
                assert!(
                    content(&cut, target) == content(&whole, target),
                    "{target} cut after {first}, {second}"
                );
            }
        }
    }
}

#[test]
fn what_arrived_of_another_point_is_not_gone_on_with_and_is_swept() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = directory(root.path());
    assert!(write(&directory, None, 2).is_err());
    assert_eq!(arrived(&directory, Uuid::from_u128(4), 1).expect("readable"), None);
    directory.discard_partials().expect("swept");
    assert_eq!(arrived(&directory, header().point, 1).expect("readable"), None);
    assert!(directory.leftovers().expect("listed").is_empty());
}

#[test]
fn a_delta_whose_digest_is_wrong_leaves_nothing_and_the_next_try_begins_anew() {
    cov_mark::check!(a_delta_with_a_wrong_digest_counts_for_nothing);
    let root = tempfile::tempdir().expect("a folder");
    let directory = directory(root.path());
    let frames = frames_with_trailer(|digest| digest.chars().rev().collect());
    assert!(write_frames(&directory, frames, None, usize::MAX).is_err());
    assert_eq!(arrived(&directory, header().point, 1).expect("readable"), None);
    assert!(directory.leftovers().expect("listed").is_empty());
    write(&directory, None, usize::MAX).expect("written");
}

#[test]
fn a_disk_that_shrank_is_refused_before_anything_is_written() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = directory(root.path());
    let mut smaller = header();
    smaller.parent = Some(Uuid::from_u128(9));
    smaller.disks[1].virtual_size -= CLUSTER;
    let refused = Incoming::plan(&directory, &smaller).err().expect("refused");
    assert_eq!(refused.code, Code::Refused);
    assert!(
        refused.detail.contains("disk vdb has") && refused.cure.contains("virsh blockresize"),
        "{}",
        refused.detail
    );
    assert!(directory.leftovers().expect("listed").is_empty());
}

#[test]
fn a_delta_does_not_go_on_in_a_disk_that_it_does_not_have() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = directory(root.path());
    assert!(write(&directory, None, 4).is_err());
    let from = arrived(&directory, header().point, 1).expect("readable").expect("it broke in the last disk");
    assert_eq!(from.disk, 2);
    let mut fewer = header();
    fewer.disks.truncate(2);
    let (_, none) = mpsc::channel(1);
    let incoming = Incoming::plan(&directory, &fewer).expect("planned");
    let refused = incoming.write(Some(from.clone()), none).err().expect("refused");
    assert!(refused.detail.contains("a disk that it does not have"), "{refused}");
    // The whole delta still goes on.
    write(&directory, Some(from), usize::MAX).expect("written");
}

//! A recovery point starts with the definition, the UEFI variables and the TPM that the VM had then.

mod common;

use std::fs;
use std::path::Path;

use common::CLUSTER;
use domain::fixture::{point, vda};
use domain::{Attachment, PointId};
use layer::{LayerWriter, Manifest, ReplicaDirectory};

use Attachment::{Nvram, Tpm};

const SIZE: u64 = 4 * CLUSTER;

/// What came with a point.
type Files<'a> = &'a [(Attachment, &'a str)];

/// A point arrives as the engine lists it.
fn receive(directory: &mut ReplicaDirectory, ordinal: u64, definition: &str, files: Files<'_>) {
    let id = point(ordinal).id;
    let (layer, spec) = match ordinal {
        0 => (ReplicaDirectory::base_name(), directory.first_layer(&vda(), SIZE)),
        _ => (ReplicaDirectory::layer_name(ordinal, id), directory.next_layer(&vda()).expect("a spec")),
    };
    let mut writer = LayerWriter::create(&directory.disk_folder(&vda()), &layer, spec).expect("a writer");
    writer.write(0, &common::pattern(1, CLUSTER)).expect("a write");
    writer.seal().expect("sealed");
    let files: Vec<_> = files.iter().map(|(kind, text)| (*kind, text.as_bytes().to_vec())).collect();
    directory.write_primary_definition(definition).expect("written");
    for (kind, bytes) in &files {
        directory.write_attachment(*kind, bytes).expect("written");
    }
    let kept = directory.keep_belongings(id, definition, &files).expect("kept");
    let offered = |manifest: &mut Manifest| {
        manifest.add_point(point(ordinal), &[(vda(), layer)]);
        manifest.note_belongings(id, kept);
    };
    directory.update(offered).expect("a point");
}

fn assert_has(directory: &ReplicaDirectory, at: Option<PointId>, definition: &str, files: Files<'_>) {
    assert_eq!(directory.primary_definition(at).expect("a definition"), definition);
    for kind in Attachment::ALL {
        let expected =
            files.iter().find(|(known, _)| *known == kind).map(|(_, text)| text.as_bytes().to_vec());
        assert_eq!(directory.read_attachment(kind, at).expect("read"), expected, "{kind:?} at {at:?}");
    }
}

fn folders(directory: &ReplicaDirectory) -> usize {
    fs::read_dir(directory.path().join("points")).expect("listed").count()
}

fn replica(root: &Path) -> ReplicaDirectory {
    let mut directory = common::directory(root, SIZE);
    receive(&mut directory, 0, "monday", &[(Nvram, "one"), (Tpm, "sealed")]);
    receive(&mut directory, 1, "monday", &[(Nvram, "one"), (Tpm, "sealed")]);
    receive(&mut directory, 2, "monday", &[(Nvram, "two"), (Tpm, "sealed")]);
    receive(&mut directory, 3, "friday", &[(Nvram, "two")]);
    directory
}

#[test]
fn each_point_has_its_own_and_points_that_are_equal_share_them() {
    let root = tempfile::tempdir().expect("a folder");
    let mut directory = replica(root.path());
    let id = |ordinal| Some(point(ordinal).id);
    for _ in 0..2 {
        assert_has(&directory, id(0), "monday", &[(Nvram, "one"), (Tpm, "sealed")]);
        assert_has(&directory, id(1), "monday", &[(Nvram, "one"), (Tpm, "sealed")]);
        assert_has(&directory, id(2), "monday", &[(Nvram, "two"), (Tpm, "sealed")]);
        assert_has(&directory, id(3), "friday", &[(Nvram, "two")]);
        assert_eq!(folders(&directory), 3);
        directory = ReplicaDirectory::open(directory.path()).expect("opened");
    }
    // What a delta brings that never becomes a point changes none.
    directory.write_primary_definition("saturday").expect("written");
    directory.keep_belongings(point(4).id, "saturday", &[]).expect("kept");
    assert_has(&directory, id(3), "friday", &[(Nvram, "two")]);

    // They go with the last point that shares them, and so does what was left behind.
    directory.forget_points(|id| id != point(0).id).expect("forgotten");
    assert_has(&directory, id(1), "monday", &[(Nvram, "one"), (Tpm, "sealed")]);
    directory.forget_points(|id| id != point(1).id).expect("forgotten");
    assert_eq!(folders(&directory), 2);
    let path = directory.path().to_owned();
    directory.remove().expect("removed");
    assert!(!path.exists());
}

/// As an older version left it.
#[test]
fn a_point_without_its_own_has_what_came_last() {
    let root = tempfile::tempdir().expect("a folder");
    let mut directory = replica(root.path());
    let older =
        |manifest: &mut Manifest| manifest.points.iter_mut().for_each(|point| point.belongings = None);
    directory.update(older).expect("written");
    let directory = ReplicaDirectory::open(directory.path()).expect("opened");
    for at in [None, Some(point(0).id), Some(point(9).id)] {
        assert_has(&directory, at, "friday", &[(Nvram, "two"), (Tpm, "sealed")]);
    }
}

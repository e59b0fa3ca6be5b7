//! Files that lost their end: QEMU reads zeroes there, so that a layer without its tables reads as the file below it, without an
//! error. Wherever the cut is, and whoever wrote the file, nothing starts from it.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::{CLUSTER, keep_newest, pattern, run, text};
use domain::fixture::{point, vda};
use layer::{
    FileName, Gate, GateRefusal, LayerError, LayerWriter, ReplicaDirectory, Scope, create_overlay, inspect,
};

/// More than one L2 table.
const SIZE: u64 = 1 << 30;

fn write(directory: &ReplicaDirectory, file: &FileName, seed: u8) {
    let spec = match *file == ReplicaDirectory::base_name() {
        true => directory.first_layer(&vda(), SIZE),
        false => directory.next_layer(&vda()).expect("a spec"),
    };
    let mut writer = LayerWriter::create(&directory.disk_folder(&vda()), file, spec).expect("a writer");
    for at in [0, SIZE / 2, SIZE - 2 * CLUSTER] {
        writer.write(at, &pattern(seed, 2 * CLUSTER)).expect("a write");
    }
    writer.seal().expect("sealed");
}

/// A base and two layers over it.
fn replica(root: &Path) -> ReplicaDirectory {
    let mut directory = common::directory(root, SIZE);
    write(&directory, &ReplicaDirectory::base_name(), 1);
    directory.add_point(point(0), &[(vda(), ReplicaDirectory::base_name())]).expect("a point");
    for ordinal in [1, 2] {
        let layer = ReplicaDirectory::layer_name(ordinal, point(ordinal).id);
        write(&directory, &layer, 16 * ordinal as u8);
        directory.add_point(point(ordinal), &[(vda(), layer)]).expect("a point");
    }
    directory
}

fn files(directory: &ReplicaDirectory) -> Vec<PathBuf> {
    let (disk, folder) = (&directory.manifest().disks[0], directory.disk_folder(&vda()));
    let layers = disk.layers.iter().map(FileName::as_str);
    layers.chain([disk.base.file()]).map(|file| folder.join(file)).collect()
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("opened")
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("metadata").size()
}

/// Does something to a file and takes it back; what was said of the disk in between.
fn while_harmed(directory: &ReplicaDirectory, path: &Path, harm: impl Fn(&File)) -> Result<(), GateRefusal> {
    let whole = fs::read(path).expect("read");
    harm(&open(path));
    let said = directory.check_chain(&vda());
    open(path).write_all_at(&whole, 0).expect("restored");
    directory.check_chain(&vda()).expect("whole again");
    match said {
        Err(LayerError::Gate { path: found, refusal }) => {
            assert_eq!(found, path);
            Err(refusal)
        }
        other => {
            other.expect("refused by the gate, or not at all");
            Ok(())
        }
    }
}

/// Cuts each file at many places, also in its last bytes.
fn assert_every_cut_is_seen(directory: &ReplicaDirectory, what: &str) {
    for file in files(directory) {
        let whole = size(&file);
        let clusters = (1..whole.div_ceil(CLUSTER)).map(|cluster| cluster * CLUSTER);
        for at in clusters.chain([whole - 1, whole - 512, whole / 2]).filter(|at| *at < whole) {
            let said = while_harmed(directory, &file, |open| open.set_len(at).expect("cut"));
            assert!(said.is_err(), "{what}: {} of {whole} bytes, cut at {at}", file.display());
        }
    }
}

#[test]
fn a_cut_at_any_place_of_any_file_is_seen_also_after_qemu_wrote_to_it() {
    let root = tempfile::tempdir().expect("a folder");
    let mut directory = replica(root.path());
    assert_every_cut_is_seen(&directory, "as received");

    directory.forget_points(|id| id != point(1).id).expect("forgotten");
    directory.fold(&vda(), Scope::BelowHead, &Default::default()).expect("folded");
    assert_every_cut_is_seen(&directory, "merged by qemu-img");

    let active = directory.create_active(&vda()).expect("an overlay");
    run(&[
        "qemu-io",
        "-f",
        "qcow2",
        "-c",
        "write -q -P 90 128M 1M",
        "-c",
        "write -q -P 91 4k 1k",
        text(&active),
    ]);
    let layer = ReplicaDirectory::layer_name(3, point(3).id);
    directory.adopt_active(&vda(), &layer).expect("adopted");
    directory.add_point(point(3), &[(vda(), layer)]).expect("a point");
    assert_every_cut_is_seen(&directory, "written by a VM");

    keep_newest(&mut directory, &vda(), Scope::All).expect("folded");
    assert_every_cut_is_seen(&directory, "all in the base");
    let again = ReplicaDirectory::open(directory.path()).expect("opened");
    assert_eq!(again.manifest(), directory.manifest(), "the lengths are kept");
}

/// As the replica of an older version is.
#[test]
fn a_received_file_that_was_cut_is_seen_by_its_header_alone() {
    let root = tempfile::tempdir().expect("a folder");
    let mut directory = replica(root.path());
    let manifest = directory.path().join("manifest.json");
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(&manifest).expect("read")).expect("JSON");
    json["disks"][0].as_object_mut().expect("a disk").remove("file_bytes_at_least").expect("lengths");
    fs::write(&manifest, json.to_string()).expect("written");
    directory = ReplicaDirectory::open(directory.path()).expect("an older version's manifest");
    assert!(directory.manifest().disks[0].file_bytes_min.is_empty());
    assert_every_cut_is_seen(&directory, "without lengths");
    // With the next change they are known.
    directory.update(|_| ()).expect("written");
    let lengths = &directory.manifest().disks[0].file_bytes_min;
    for file in files(&directory) {
        assert_eq!(lengths[file.file_name().and_then(|name| name.to_str()).expect("a name")], size(&file));
    }
}

/// What a file system that lost blocks leaves, or a copy that skipped what it could not read.
#[test]
fn a_hole_where_the_end_was_is_seen_though_the_length_is_right() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = replica(root.path());
    for file in files(&directory) {
        let whole = size(&file);
        for at in (1..whole.div_ceil(CLUSTER)).map(|cluster| cluster * CLUSTER) {
            let said = while_harmed(&directory, &file, |open| {
                open.set_len(at).expect("cut");
                open.set_len(whole).expect("a hole");
            });
            assert_eq!(said, Err(GateRefusal::Tables), "{}: a hole from {at} of {whole}", file.display());
        }
    }
}

/// What is damaged above a point is no reason not to start from it.
#[test]
fn a_point_is_whole_while_the_files_below_it_are_and_the_newest_such_is_known() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = replica(root.path());
    let whole = |ordinals: &[u64], newest: Option<u64>| {
        for ordinal in 0..=2 {
            let id = point(ordinal).id;
            assert_eq!(directory.check_point(id).is_ok(), ordinals.contains(&ordinal), "point {ordinal}");
            let name = FileName::new("copy").expect("a name");
            assert_eq!(directory.create_throwaway(&name, id).is_ok(), ordinals.contains(&ordinal));
            directory.remove_throwaway(&name).expect("removed");
        }
        assert_eq!(directory.newest_whole().map(|point| point.ordinal), newest);
    };
    whole(&[0, 1, 2], Some(2));
    // The base comes last in the list, the newest layer before it.
    let [first, second, base] = files(&directory).try_into().expect("three files");
    fs::remove_file(second).expect("removed");
    whole(&[0, 1], Some(1));
    open(&first).set_len(size(&first) - CLUSTER).expect("cut");
    whole(&[0], Some(0));
    open(&base).set_len(CLUSTER).expect("cut");
    whole(&[], None);
}

#[test]
fn the_users_own_disk_must_have_its_tables_too_and_one_that_qemu_writes_to_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("disk.qcow2");
    run(&["qemu-img", "create", "-q", "-f", "qcow2", text(&path), "3G"]);
    inspect(&path, Gate::Foreign).expect("an empty disk is whole");
    run(&["qemu-img", "resize", "-q", "-f", "qcow2", text(&path), "900G"]);
    inspect(&path, Gate::Foreign).expect("one that has grown is whole");
    let whole = size(&path);
    open(&path).set_len(whole - 1).expect("cut");
    let said = inspect(&path, Gate::Foreign);
    assert!(matches!(said, Err(LayerError::Gate { refusal: GateRefusal::Cut { .. }, .. })), "{said:?}");
    let name = FileName::new("overlay.qcow2").expect("a name");
    let overlay =
        create_overlay(folder.path(), &name, common::spec(1 << 20, Some("disk.qcow2"))).expect("made");
    inspect(&overlay.path, Gate::Foreign).expect("an empty overlay is whole");
}

//! The gate lets through what it knows and refuses everything else, without a panic, whatever the bytes.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{foreign_base, name, pattern, run, spec, text};
use layer::{Backing, BackingFormat, Gate, GateRefusal, HeaderError, LayerError, create_overlay, inspect};
use proptest::prelude::*;

fn qemu_image(folder: &Path, options: &[&str]) -> PathBuf {
    let path = folder.join("image.qcow2");
    let mut command = vec!["qemu-img", "create", "-q", "-f", "qcow2"];
    command.extend_from_slice(options);
    command.extend_from_slice(&[text(&path), "1M"]);
    run(&command);
    path
}

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(path).expect("open").write_all_at(bytes, at).expect("patch");
}

fn refusal(path: &Path, gate: Gate<'_>) -> GateRefusal {
    match inspect(path, gate) {
        Err(LayerError::Gate { refusal, .. }) => refusal,
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[test]
fn an_image_of_qemu_passes_as_the_users_disk_with_its_facts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = qemu_image(folder.path(), &["-o", "cluster_size=2M,lazy_refcounts=on,extended_l2=on"]);
    run(&["qemu-img", "bitmap", "--add", "-f", "qcow2", text(&path), "dirty0"]);
    run(&["qemu-img", "snapshot", "-c", "before", text(&path)]);
    let info = inspect(&path, Gate::Foreign).expect("accepted");
    assert_eq!((info.virtual_size, info.cluster_bytes), (1 << 20, 2 << 20));
    assert_eq!((info.snapshots, info.bitmaps, info.backing), (1, 1, None));
    assert!(matches!(refusal(&path, Gate::Ours(None)), GateRefusal::Features(_)));
}

#[test]
fn an_external_data_file_is_refused_however_it_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("secret");
    let option = format!("data_file={},data_file_raw=on", text(&data));
    let path = qemu_image(folder.path(), &["-o", &option]);
    assert_eq!(refusal(&path, Gate::Foreign), GateRefusal::DataFile);
    // With the feature bit hidden, the name alone is enough.
    patch(&path, 72, &[0; 8]);
    assert_eq!(refusal(&path, Gate::Foreign), GateRefusal::DataFile);
}

#[test]
fn encryption_corruption_unknown_features_and_versions_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for (at, bytes, expected) in [
        (32, 1u32.to_be_bytes().as_slice(), GateRefusal::Encrypted),
        (72, 2u64.to_be_bytes().as_slice(), GateRefusal::Corrupt),
        (72, (1u64 << 40).to_be_bytes().as_slice(), GateRefusal::Features(1 << 40)),
        (4, 4u32.to_be_bytes().as_slice(), HeaderError::Version(4).into()),
        (0, b"MZ".as_slice(), HeaderError::NotQcow2.into()),
        (20, 40u32.to_be_bytes().as_slice(), HeaderError::ClusterBits(40).into()),
        (100, 12u32.to_be_bytes().as_slice(), HeaderError::Damaged.into()),
        (8, u64::MAX.to_be_bytes().as_slice(), HeaderError::Damaged.into()),
    ] {
        let path = qemu_image(folder.path(), &[]);
        // A name length, so that only the offset of the name is wrong.
        patch(&path, 16, &5u32.to_be_bytes());
        patch(&path, at, bytes);
        assert_eq!(refusal(&path, Gate::Foreign), expected);
    }
}

#[test]
fn a_layer_over_another_file_than_expected_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = spec(1 << 20, Some("base.qcow2"));
    let sealed = create_overlay(folder.path(), &name("1.qcow2"), spec.clone()).expect("an overlay");
    let expected = spec.backing.expect("the spec has one");
    inspect(&sealed.path, Gate::Ours(Some(&expected))).expect("its own backing file fits");
    let other = Backing::new("other.qcow2", BackingFormat::Qcow2).expect("a backing file");
    let raw = Backing::new("base.qcow2", BackingFormat::Raw).expect("a backing file");
    assert!(matches!(refusal(&sealed.path, Gate::Ours(Some(&other))), GateRefusal::Backing { .. }));
    assert!(matches!(refusal(&sealed.path, Gate::Ours(None)), GateRefusal::Backing { .. }));
    assert_eq!(refusal(&sealed.path, Gate::Ours(Some(&raw))), GateRefusal::BackingFormat);
}

#[test]
fn symlinks_directories_devices_and_pipes_are_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let real = foreign_base(folder.path(), "real.qcow2", &pattern(1, 4096));
    let link = folder.path().join("link.qcow2");
    std::os::unix::fs::symlink(&real, &link).expect("symlink");
    let pipe = folder.path().join("pipe");
    run(&["mkfifo", text(&pipe)]);
    for path in [link.as_path(), folder.path(), Path::new("/dev/zero"), &pipe] {
        assert_eq!(refusal(path, Gate::Foreign), GateRefusal::NotRegular, "{}", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn no_bytes_make_the_gate_panic(
        patches in prop::collection::vec((0..400usize, any::<u8>()), 0..40),
        length in 0..2048usize,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hostile");
        let mut bytes = vec![0; 2048];
        bytes[..4].copy_from_slice(b"QFI\xfb");
        bytes[7] = 3;
        bytes[23] = 16;
        bytes[103] = 104;
        for (at, value) in patches {
            bytes[at] = value;
        }
        fs::write(&path, &bytes[..length]).expect("write");
        let _ = inspect(&path, Gate::Foreign);
        let _ = inspect(&path, Gate::Ours(None));
    }
}

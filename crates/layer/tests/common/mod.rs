//! What the tests share: guest bytes as an oracle file, and QEMU's own tools as the judge.

#![allow(dead_code)] // each test binary uses its part

pub mod disk_log;

use std::path::{Path, PathBuf};
use std::process::Command;

use domain::DiskTarget;
use domain::fixture::vda;
use layer::{
    Backing, BackingFormat, FileName, LayerError, LayerSpec, Manifest, ManifestDisk, ReplicaDirectory, Scope,
    Storage,
};

pub const CLUSTER: u64 = layer::CLUSTER_BYTES;

pub fn name(text: &str) -> FileName {
    FileName::new(text).expect("a name")
}

pub fn spec(virtual_size: u64, backing: Option<&str>) -> LayerSpec {
    let backing = backing.map(|file| Backing::new(file, BackingFormat::Qcow2).expect("a backing file"));
    LayerSpec { virtual_size, backing, owner: None }
}

/// Runs a command that must succeed.
pub fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("the command starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// The image passes `qemu-img check` without a leak and reads as the oracle.
pub fn assert_reads_as(image: &Path, oracle: &[u8]) {
    run(&["qemu-img", "check", "-q", "-f", "qcow2", text(image)]);
    assert_content(image, oracle);
}

/// The image has the oracle's size and bytes; whether zeroes are stored or left out does not matter.
pub fn assert_content(image: &Path, oracle: &[u8]) {
    let info = layer::inspect(image, layer::Gate::Foreign).expect("an image");
    assert_eq!(info.virtual_size, oracle.len() as u64);
    let raw = image.with_extension("oracle");
    std::fs::write(&raw, oracle).expect("the oracle is written");
    run(&["qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", text(image), text(&raw)]);
    std::fs::remove_file(raw).expect("the oracle is removed");
}

/// A qcow2 file with these guest bytes, made by QEMU and not by us.
pub fn foreign_base(folder: &Path, file: &str, content: &[u8]) -> PathBuf {
    let raw = folder.join("source.raw");
    let path = folder.join(file);
    std::fs::write(&raw, content).expect("the source is written");
    run(&["qemu-img", "convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&path)]);
    std::fs::remove_file(raw).expect("the source is removed");
    path
}

/// Bytes that differ from cluster to cluster and are never all zero.
pub fn pattern(seed: u8, length: u64) -> Vec<u8> {
    (0..length).map(|at| seed ^ (at / 511) as u8 ^ (at / 65536) as u8 | 1).collect()
}

/// Merges everything into the newest point, or all but its own layer.
pub fn keep_newest(
    directory: &mut ReplicaDirectory,
    target: &DiskTarget,
    scope: Scope,
) -> Result<(), LayerError> {
    directory.forget_points(|_| false)?;
    directory.fold(target, scope, &Default::default())
}

/// A replica with one disk: makes the directory in a storage below `root`, or opens it.
pub fn directory(root: &Path, virtual_size: u64) -> ReplicaDirectory {
    let storage = Storage::initialise(root).expect("storage");
    let base = Backing::beside(&ReplicaDirectory::base_name());
    let manifest = Manifest {
        vm_name: "vm".to_owned(),
        vm: uuid::Uuid::from_u128(1).into(),
        relationship: uuid::Uuid::from_u128(2).into(),
        disks: vec![ManifestDisk::on(vda(), virtual_size, base)],
        points: Vec::new(),
        autostart: false,
    };
    ReplicaDirectory::create(&storage, manifest).expect("a directory")
}

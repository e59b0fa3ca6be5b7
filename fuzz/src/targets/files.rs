//! What lies in files and images: layers, manifests, what a writer goes on from, file systems of guests.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use filesystem::{Disk, Limits, changed_files};
use layer::{FileName, Gate, LayerSpec, LayerWriter, ReplicaDirectory};
use uuid::Uuid;

use super::made;

/// A file of these bytes, for a decoder that reads files.
fn as_file(name: &str, input: &[u8], read: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join(name);
    if std::fs::write(&path, input).is_ok() {
        read(&path);
    }
}

pub(super) fn images() -> Vec<Vec<u8>> {
    let plain = ["qemu-img", "create", "-q", "-f", "qcow2", "image", "1M"];
    let over = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "below", "-F", "qcow2", "image", "1M"];
    let data =
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=data,data_file_raw=on", "image", "1M"];
    [&plain[..], &over[..], &data[..]].iter().filter_map(|program| made("image", program)).collect()
}

pub(super) fn image(input: &[u8]) {
    as_file("image", input, |path| {
        drop(layer::inspect(path, Gate::Foreign));
        drop(layer::inspect(path, Gate::Ours(None)));
        drop(layer::chain_check(path));
    });
}

pub(super) fn manifests() -> Vec<Vec<u8>> {
    let Ok(folder) = tempfile::tempdir() else { return Vec::new() };
    let manifest = layer::Manifest {
        vm_name: "vm".into(),
        vm: domain::VmId(Uuid::from_u128(1)),
        relationship: domain::RelationshipId(Uuid::from_u128(2)),
        disks: vec![layer::ManifestDisk::fresh(domain::fixture::vda(), 1 << 20)],
        points: Vec::new(),
        autostart: false,
    };
    let made = layer::Storage::initialise(folder.path())
        .and_then(|storage| ReplicaDirectory::create(&storage, manifest))
        .ok();
    let read = made.and_then(|directory| std::fs::read(directory.path().join("manifest.json")).ok());
    read.into_iter().collect()
}

pub(super) fn manifest(input: &[u8]) {
    as_file("manifest.json", input, |path| {
        if let Some(folder) = path.parent() {
            drop(ReplicaDirectory::open(folder));
        }
    });
}

/// A layer that is not whole yet.
const LAYER: &str = "1.qcow2";

fn half_a_layer() -> LayerSpec {
    LayerSpec { virtual_size: 1 << 20, backing: None, owner: None }
}

pub(super) fn progresses() -> Vec<Vec<u8>> {
    let half = || {
        let (folder, name) = (tempfile::tempdir().ok()?, FileName::new(LAYER).ok()?);
        let mut writer = LayerWriter::create(folder.path(), &name, half_a_layer()).ok()?;
        writer.write(0, &[7; 65536]).ok()?;
        writer.make_durable(b"how far").ok()?;
        std::fs::read(folder.path().join(format!("{LAYER}.progress"))).ok()
    };
    half().into_iter().collect()
}

/// A writer goes on from what it finds. The digest is set right, so that damage goes deeper.
pub(super) fn progress(input: &[u8]) {
    let mut input = input.to_vec();
    let digest_at = input.len().saturating_sub(32);
    let digest = blake3::hash(&input[..digest_at]);
    input.truncate(digest_at);
    input.extend_from_slice(digest.as_bytes());
    as_file(&format!("{LAYER}.progress"), &input, |path| {
        let partial = path.with_extension("partial");
        let Some((folder, name)) = path.parent().zip(FileName::new(LAYER).ok()) else { return };
        if std::fs::write(&partial, [7; 1 << 18]).is_err() {
            return;
        }
        if let Ok(resumed) = LayerWriter::resume(folder, &name, &half_a_layer()) {
            let mut writer = resumed.writer;
            if writer.write(writer.position(), &[8; 65536]).is_ok() {
                drop(writer.seal());
            }
        }
    });
}

struct Memory(Vec<u8>);

impl Disk for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from = self.0.get(start..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

pub(super) fn file_systems() -> Vec<Vec<u8>> {
    let make = |options: &str| {
        let script = format!("mkdir d && echo x >d/a && mkfs.ext4 -q -F -b 1024 {options} -d d image 1M");
        made("image", &["sh", "-c", &script])
    };
    // Without checksums damage goes deeper.
    ["-O ^has_journal", "-O ^has_journal,^metadata_csum", "-O ^has_journal,^metadata_csum,^extent"]
        .into_iter()
        .filter_map(make)
        .collect()
}

pub(super) fn file_system(input: &[u8]) {
    let disk: Arc<dyn Disk> = Arc::new(Memory(input.to_vec()));
    let limits = Limits { time: Duration::from_secs(1), entries: 1000, files: 100 };
    drop(changed_files(Arc::clone(&disk), disk, i64::MIN, limits));
}

//! A replica that begins from an existing copy: a backup that was restored on the replica server, a disk that was carried there.
//!
//! The copy lies in the folder `seeds` of the storage, where only the host's administrator puts files: a peer that asks for a seed
//! can name nothing else. It is read, never changed: its content becomes the base of the replica, and then both sides are
//! compared, so that only what differs travels. Until that has been sealed there is no recovery point.

use std::path::{Path, PathBuf};

use domain::DiskTarget;
use layer::{FileName, Gate, ReplicaDirectory};
use store::Record;
use wire::message::Requirements;

use crate::events::Number;
use crate::{Code, Engine, Refusal, Result, copy, replica};

/// The folder of the storage where existing copies lie.
const SEEDS: &str = "seeds";
/// What is to be taken, in the replica's directory until it has been.
const WANTED: &str = "seeds.json";

/// A copy that is to become the base of a disk.
pub(crate) type Seed = (DiskTarget, PathBuf);

/// The seeds that a peer asks for, if each is a copy that can be taken.
pub(crate) fn check(
    engine: &Engine,
    requirements: &Requirements,
    asked: &[(String, String)],
) -> Result<Vec<Seed>> {
    let folder = engine.config().storage.join(SEEDS);
    let seed = |(target, path): &(String, String)| {
        let refuse = |found: String, cure: String| Err(Refusal::new(Code::Refused, found, cure));
        let disk = requirements.disks.iter().find(|disk| disk.target == *target && disk.replicated);
        let Some(disk) = disk else {
            return refuse(format!("no disk {target:?} is replicated"), "virsh domblklist VM".into());
        };
        let asked = Path::new(path);
        let name = asked
            .file_name()
            .filter(|_| asked.parent().is_some_and(|it| it == Path::new("") || it == folder));
        let Some(name) = name else {
            let found =
                format!("{path:?} is not in {}, and no other file is taken as a seed", folder.display());
            let cure = format!("on the replica server: mkdir -p {0}; mv FILE {0}/", folder.display());
            return refuse(found, cure);
        };
        let file = folder.join(name);
        let info = layer::inspect(&file, Gate::Foreign).map_err(|error| {
            let cure = "it must be a qcow2 file; to make one: qemu-img convert -O qcow2";
            Refusal::new(Code::Refused, error.to_string(), cure)
        })?;
        if let Some(below) = info.backing {
            let found = format!("{} stands on another file ({below})", file.display());
            return refuse(found, "flatten it: qemu-img convert -O qcow2".into());
        }
        if info.virtual_size > disk.virtual_size {
            let (seed, disk) = (info.virtual_size, disk.virtual_size);
            let found = format!("{} is a disk of {seed} bytes, {target} has {disk}", file.display());
            return refuse(found, "name the copy of this disk".into());
        }
        Ok((DiskTarget::new(target).map_err(Refusal::failed)?, file))
    };
    asked.iter().map(seed).collect()
}

/// Writes down what is to be taken, before it is.
pub(crate) fn want(directory: &ReplicaDirectory, seeds: &[Seed]) -> Result<()> {
    if seeds.is_empty() {
        return Ok(());
    }
    let wanted: Vec<(&str, &PathBuf)> = seeds.iter().map(|(target, path)| (target.as_str(), path)).collect();
    let json = serde_json::to_vec(&wanted).map_err(Refusal::failed)?;
    let name = FileName::new(WANTED).map_err(Refusal::failed)?;
    directory.write_beside(&name, &json).map_err(Refusal::from)
}

/// Whether copies still have to be taken.
pub(crate) fn is_wanted(directory: &ReplicaDirectory) -> bool {
    directory.path().join(WANTED).exists()
}

/// Whether the replica has a base and no recovery point: only a comparison tells what travels.
pub(crate) fn is_seeded(directory: &ReplicaDirectory) -> bool {
    let manifest = directory.manifest();
    let seed = ReplicaDirectory::seed_name();
    manifest.points.is_empty() && manifest.disks.iter().any(|disk| disk.base.file() == seed.as_str())
}

/// Deletes the list, with the replica.
pub(crate) fn forget(directory: &ReplicaDirectory) -> Result<()> {
    match std::fs::remove_file(directory.path().join(WANTED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Refusal::failed(error)),
        _ => Ok(()),
    }
}

/// Takes the copies that are wanted. A run that was cut begins the file that it was at again.
pub(crate) async fn mind(engine: &Engine, record: &Record) -> Result<()> {
    let directory = replica::directory(record)?;
    if !is_wanted(&directory) {
        return Ok(());
    }
    let json = std::fs::read(directory.path().join(WANTED)).map_err(Refusal::failed)?;
    let seeds: Vec<(String, PathBuf)> = serde_json::from_slice(&json).map_err(Refusal::failed)?;
    for (target, file) in seeds {
        let target = DiskTarget::new(&target).map_err(Refusal::failed)?;
        let folder = directory.disk_folder(&target);
        if !folder.join(ReplicaDirectory::seed_name().as_str()).exists() {
            take(engine, record, &folder, &file).await?;
        }
    }
    forget(&directory)?;
    engine.event(
        Number::Seeded,
        &record.relationship.vm_name,
        "the existing copy was taken; what differs travels now",
    );
    Ok(())
}

/// Copies what a file holds into a base of ours.
async fn take(engine: &Engine, record: &Record, folder: &Path, file: &Path) -> Result<()> {
    // It may have been exchanged since it was asked for.
    layer::inspect(file, Gate::Foreign).map_err(Refusal::failed)?;
    let socket = format!("seed-{}.sock", record.relationship.id);
    copy::copy(engine, file, None, (folder, &ReplicaDirectory::seed_name()), &socket).await.map(drop)
}

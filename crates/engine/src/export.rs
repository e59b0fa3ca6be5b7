//! A first copy that is carried by hand: written into a directory instead of the link, and read from there on the replica server.
//!
//! ```text
//!   primary                         a disk that is carried            replica
//!   enable --export ──▶ <relationship>.vrdelta, the stream of a delta ──▶ import: received as from the link
//!   tracks from that instant on, and goes on when the replica says that it has the point
//! ```
//! The file is what would have travelled, digests and all; it is NOT encrypted.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use domain::{Phase, RelationshipId, vm_argument};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use store::Record;
use transport::DeltaBody;
use uuid::Uuid;
use wire::{DeltaHeader, FrameDecoder, Item};

use crate::events::Number;
use crate::spool::SpoolReader;
use crate::{Code, Engine, Refusal, Result, blocking, receive};

const SUFFIX: &str = "vrdelta";
/// Read from the file at once.
const PIECE_BYTES: usize = 1 << 20;
/// Most that is read to find a header; it has 16 MiB at most.
const HEAD_BYTES_MAX: usize = 32 << 20;

/// Where the first copy goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    pub(crate) directory: PathBuf,
    /// The point that lies there, whole.
    pub(crate) point: Option<Uuid>,
}

/// Whether the first copy is carried by hand.
pub(crate) fn wanted(engine: &Engine, id: RelationshipId) -> Result<Option<Export>> {
    let known = engine.store().export(id).map_err(Refusal::failed)?;
    known.map(|json| serde_json::from_str(&json).map_err(Refusal::failed)).transpose()
}

/// Remembers where it goes, and what lies there.
pub(crate) fn keep(engine: &Engine, id: RelationshipId, export: &Export) -> Result<()> {
    let json = serde_json::to_string(export).map_err(Refusal::failed)?;
    engine.store().set_export(id, &json).map_err(Refusal::failed)
}

/// What a cycle says as long as the copy is on its way.
pub(crate) fn waits(engine: &Engine, record: &Record, export: &Export) -> Refusal {
    let (peer, directory) = (engine.peer_name(record), export.directory.display());
    let found =
        format!("the initial copy lies in {directory}, and the replica server has not imported it yet");
    Refusal::new(Code::Refused, found, format!("carry it to {peer}; there: virt-replica import DIRECTORY"))
}

/// Whether a directory can take a copy of so many bytes.
pub(crate) fn check(directory: &Path, expected_bytes: Option<u64>) -> Result<()> {
    let refuse = |found: String, cure: &str| Err(Refusal::new(Code::Refused, found, cure));
    if !directory.is_absolute() || !directory.is_dir() {
        return refuse(
            format!("{} is no directory of this host", directory.display()),
            "mount the disk, or mkdir it",
        );
    }
    let space = rustix::fs::statvfs(directory).map_err(Refusal::failed)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    match expected_bytes {
        Some(expected) if expected > free => {
            let (expected, free) = (crate::operation::mib(expected), crate::operation::mib(free));
            let found = format!("{} has {free} left, the copy needs up to {expected}", directory.display());
            refuse(found, "name a larger disk")
        }
        _ => Ok(()),
    }
}

fn path(directory: &Path, relationship: Uuid) -> PathBuf {
    directory.join(format!("{relationship}.{SUFFIX}"))
}

/// A new file that nobody but root reads: a copy has the guest's disks, its NVRAM and the state of its TPM in it.
fn private(path: &Path) -> std::io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a delta as it comes out of the spool; it has its name when it is whole and on the disk.
pub(crate) async fn write(directory: &Path, header: &DeltaHeader, spool: SpoolReader) -> Result<()> {
    let path = path(directory, header.relationship);
    let partial = path.with_extension(format!("{SUFFIX}.partial"));
    let (made, head) = (partial.clone(), header.to_bytes());
    let mut file = blocking(move || {
        let mut file = private(&made).map_err(Refusal::failed)?;
        file.write_all(&head).map_err(Refusal::failed)?;
        Ok(file)
    })
    .await?;
    while let Some(piece) = spool.pop().await.map_err(Refusal::failed)? {
        file = blocking(move || {
            file.write_all(&piece).map_err(Refusal::failed)?;
            Ok(file)
        })
        .await?;
    }
    let directory = directory.to_owned();
    blocking(move || {
        file.sync_all().and_then(|()| std::fs::rename(&partial, &path)).map_err(Refusal::failed)?;
        File::open(&directory).and_then(|directory| directory.sync_all()).map_err(Refusal::failed)
    })
    .await
}

impl Engine {
    /// Where the first copy of a VM is written that is carried by hand, and whether it is whole; none: it goes another way, or the
    /// replica server has it.
    pub fn carried_copy(&self, record: &Record) -> Result<Option<(PathBuf, bool)>> {
        let first =
            matches!(record.relationship.phase, Phase::InitialPending { .. } | Phase::InitialReplication);
        let export = wanted(self, record.relationship.id)?.filter(|_| first);
        Ok(export.map(|export| (export.directory, export.point.is_some())))
    }

    /// Takes the first copies that lie in a directory; gives the names of their VMs. How it ends is told by events. It is noted
    /// before it begins, and goes on when the daemon comes back.
    pub async fn import(&self, directory: PathBuf, dry_run: bool) -> Result<Vec<String>> {
        let found = blocking(move || copies(&directory)).await?;
        let mut records = Vec::new();
        for (file, header) in found {
            let record = self.record(RelationshipId(header.relationship))?;
            self.expect_importable(&record)?;
            records.push((record, file));
        }
        let names = records.iter().map(|(record, _)| record.relationship.vm_name.clone()).collect();
        if !dry_run {
            for (record, file) in records {
                if self.store().begin_import(record.relationship.id, &file).map_err(Refusal::failed)? {
                    tokio::spawn(self.clone().import_one(record, file));
                }
            }
        }
        Ok(names)
    }

    fn expect_importable(&self, record: &Record) -> Result<()> {
        let relationship = &record.relationship;
        let vm = vm_argument(&relationship.vm_name);
        if relationship.phase != Phase::Receiving {
            let found = format!("this host does not receive: {}", relationship.phase.words());
            return Err(Refusal::new(Code::Refused, found, format!("virt-replica show {vm}")));
        }
        let under_way = self.store().imports().map_err(Refusal::failed)?;
        if let Some((_, file)) = under_way.into_iter().find(|(id, _)| *id == relationship.id) {
            let found = format!("{vm} is being imported already, from {}", file.display());
            return Err(Refusal::new(Code::Busy, found, format!("virt-replica events --vm {vm}")));
        }
        Ok(())
    }

    /// Goes on with the imports that a daemon before this one had begun.
    pub(crate) fn resume_imports(&self) -> Result<()> {
        for (id, file) in self.store().imports().map_err(Refusal::failed)? {
            tokio::spawn(self.clone().import_one(self.record(id)?, file));
        }
        Ok(())
    }

    async fn import_one(self, record: Record, file: PathBuf) {
        let name = &record.relationship.vm_name;
        let received = self.receive_file(&record, &file).await;
        // Before the event: whoever heard of the end may begin another.
        if let Err(error) = self.store().end_import(record.relationship.id) {
            tracing::warn!(vm = name, %error, "the end of an import could not be noted: it begins again with the daemon");
        }
        match received {
            Ok(()) => self.event(Number::Imported, name, format!("{} was imported", file.display())),
            Err(error) => {
                let text = format!("{} could not be imported: {error}", file.display());
                self.event(Number::NotImported, name, text);
            }
        }
    }

    async fn receive_file(&self, record: &Record, file: &Path) -> Result<()> {
        let peer = self.0.trust.peer(record.relationship.peer).map_err(Refusal::failed)?;
        let peer = peer.ok_or_else(|| Refusal::failed("the primary server is not a peer any more"))?;
        let file = File::open(file).map_err(Refusal::failed)?;
        let pieces = stream::unfold(Some(file), |file| async move {
            let mut file = file?;
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let length = file.read(&mut piece)?;
                piece.truncate(length);
                Ok::<_, std::io::Error>((Bytes::from(piece), file))
            });
            match read.await.map_err(std::io::Error::other).flatten() {
                Ok((piece, _)) if piece.is_empty() => None,
                Ok((piece, file)) => Some((Ok(piece), Some(file))),
                Err(error) => Some((Err(error), None)),
            }
        });
        receive::receive(self, peer, DeltaBody::from_stream(pieces)).await.map(drop)
    }
}

/// The copies in a directory, by their headers.
fn copies(directory: &Path) -> Result<Vec<(PathBuf, DeltaHeader)>> {
    let refuse = |found: String| {
        let cure = "name the directory that enable --export has written, on a disk that is mounted here";
        Refusal::new(Code::Refused, found, cure)
    };
    let listed = std::fs::read_dir(directory)
        .map_err(|error| refuse(format!("{} cannot be read: {error}", directory.display())))?;
    let files = listed.filter_map(|entry| Some(entry.ok()?.path()));
    let files = files.filter(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX));
    let found: Vec<_> =
        files.map(|path| header(&path).map(|header| (path, header))).collect::<Result<_>>()?;
    if found.is_empty() {
        return Err(refuse(format!("there is no whole copy in {}", directory.display())));
    }
    Ok(found)
}

fn header(path: &Path) -> Result<DeltaHeader> {
    let mut file = File::open(path).map_err(Refusal::failed)?;
    let (mut decoder, mut piece) = (FrameDecoder::new(), vec![0; 64 << 10]);
    for _ in 0..HEAD_BYTES_MAX / piece.len() {
        let length = file.read(&mut piece).map_err(Refusal::failed)?;
        decoder.feed(&piece[..length]);
        match decoder.next().map_err(Refusal::failed)? {
            Some(Item::Header(json)) => return DeltaHeader::from_json(&json).map_err(Refusal::failed),
            None if length > 0 => {}
            _ => break,
        }
    }
    Err(Refusal::failed(format!("{} is no copy of a VM", path.display())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_copy_is_readable_by_root_alone_whatever_an_earlier_one_was() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("copy.partial");
        std::fs::write(&path, "of an earlier attempt").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        let file = private(&path).expect("a file");
        let found = file.metadata().expect("metadata");
        assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o600, 0));
    }
}

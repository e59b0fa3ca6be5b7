//! Which files a guest wrote that only this host has, listed beside the blocks that are set aside.
//!
//! A help for the person who decides what becomes of them: whatever goes wrong here is a sentence in the list, and keeps nothing
//! from being set aside. The guest's disks are read by `filesystem`, which trusts nothing in them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use extent::Extent;
use filesystem::{Disk, FileSystem, Limits, changed_files};
use nbd::{Client, Deadlines, OfflineDisk, OfflineExport};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::frames::joined;
use crate::{Engine, Refusal, Result};

const LIMITS: Limits = Limits { time: Duration::from_secs(20), entries: 1_000_000, files: 1000 };
/// A list that is longer was not made here.
const LIST_BYTES_MAX: u64 = 8 << 20;

/// The files of one file system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestFiles {
    /// Where it is: `whole disk`, `partition 2`.
    pub place: String,
    /// The files, by their paths.
    pub files: Vec<GuestFile>,
    /// Why the list is not whole, or there is none; none: it is whole.
    pub incomplete: Option<String>,
}

/// One file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GuestFile {
    /// Its path in the file system.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When it was changed last, by the guest's clock, seconds since 1970.
    pub changed: i64,
    /// Whether only this host has a file of that path.
    pub is_new: bool,
}

/// A disk as `qemu-nbd` gives it.
struct Exported {
    client: Arc<Client>,
    runtime: Handle,
}

impl Disk for Exported {
    fn size(&self) -> u64 {
        self.client.size()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let range = Extent::new(offset, bytes.len() as u64).map_err(io::Error::other)?;
        let read = self.runtime.block_on(self.client.read(range)).map_err(io::Error::other)?;
        let read = joined(range, read);
        bytes.copy_from_slice(read.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Lists the files that `image` has and `other` has not, or otherwise, changed at `since` or later by the guest's clock, into a file
/// beside. Nobody writes to either. A list that is there stays.
pub(crate) async fn list(engine: &Engine, image: &Path, other: &Path, since: i64, into: &Path) {
    if into.exists() {
        return;
    }
    let found = find(engine, image, other, since).await.unwrap_or_else(|error| {
        let incomplete = Some(format!("its files could not be listed: {error}"));
        vec![GuestFiles { place: "disk".to_owned(), files: Vec::new(), incomplete }]
    });
    let kept = serde_json::to_vec(&found).map_err(Refusal::failed);
    let kept = kept.and_then(|json| layer::replace_file(into, &json).map_err(Refusal::failed));
    if let Err(error) = kept {
        tracing::warn!(list = %into.display(), %error, "the list of files could not be kept");
    }
}

async fn find(engine: &Engine, image: &Path, other: &Path, since: i64) -> Result<Vec<GuestFiles>> {
    let (first, second) = (export(engine, image, "one").await?, export(engine, other, "other").await?);
    let disk = |client: &Arc<Client>| -> Arc<dyn Disk> {
        Arc::new(Exported { client: Arc::clone(client), runtime: Handle::current() })
    };
    let (one, two) = (disk(&first.1), disk(&second.1));
    // A panic of a parser that met what nobody thought of is an error here.
    let found = tokio::task::spawn_blocking(move || changed_files(one, two, since, LIMITS)).await;
    for (export, client) in [first, second] {
        drop(client);
        export.stop().await;
    }
    Ok(found.map_err(Refusal::failed)?.into_iter().map(GuestFiles::from).collect())
}

async fn export(engine: &Engine, file: &Path, name: &str) -> Result<(OfflineExport, Arc<Client>)> {
    let socket = engine.config().sockets.join(format!("files-{}-{name}.sock", uuid::Uuid::now_v7()));
    let export = OfflineExport::start(OfflineDisk { file, bitmaps: &[] }, &socket).await?;
    let client = export.connect(&[], Deadlines::default()).await?;
    Ok((export, Arc::new(client)))
}

impl From<FileSystem> for GuestFiles {
    fn from(found: FileSystem) -> GuestFiles {
        let file = |file: filesystem::File| GuestFile {
            path: file.path,
            bytes: file.bytes,
            changed: file.changed,
            is_new: file.is_new,
        };
        GuestFiles {
            place: found.place,
            files: found.files.into_iter().map(file).collect(),
            incomplete: found.incomplete,
        }
    }
}

/// A list that was made; none: there is none, or it cannot be read.
pub(crate) fn read(list: &Path) -> Option<Vec<GuestFiles>> {
    let is_ours = std::fs::metadata(list).is_ok_and(|metadata| metadata.len() <= LIST_BYTES_MAX);
    is_ours.then(|| serde_json::from_slice(&std::fs::read(list).ok()?).ok())?
}

//! Small habits with files: nameless ones, and identities that tell whether somebody touched a disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// A file without a name: it vanishes with the last descriptor, also after kill -9.
pub fn nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR)?))
}

/// What changes when somebody writes to a file: inode, size, and the time of the last change of data.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct FileIdentity {
    inode: u64,
    size_bytes: u64,
    modified_ns: i64,
}

impl FileIdentity {
    /// The identity of a file as it is now.
    pub fn of(path: &Path) -> io::Result<FileIdentity> {
        let metadata = std::fs::metadata(path)?;
        let modified_ns =
            metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
        Ok(FileIdentity { inode: metadata.ino(), size_bytes: metadata.len(), modified_ns })
    }
}

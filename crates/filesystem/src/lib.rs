//! Which files of a guest one version of its disk has, and another has not: read from the disk's bytes, by this program alone.
//!
//! A guest's disk is hostile: whoever controls the guest chooses every byte. So nothing is mounted and no kernel code reads it; no
//! path, link or device of the guest means anything here; time, bytes and entries are bounded, and a file system that cannot be read
//! is a sentence in the answer and no failure. Read are ext2, ext3 and ext4, on the whole disk or in partitions.
//!
//! NOT a way to get at the files' content, and no proof: a guest with a wrong clock, or one that sets times back, hides
//! what it wrote. The blocks that were set aside have everything.

mod partitions;
mod reader;
mod walk;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use partitions::{Partition, partitions};

/// The bytes of a disk, as the guest sees them.
pub trait Disk: Send + Sync {
    /// Size in bytes.
    fn size(&self) -> u64;

    /// Fills `bytes` from `offset` on; what lies beyond the end is an error.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// How much work an answer may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time for all of it.
    pub time: Duration,
    /// Directory entries that are looked at.
    pub entries: usize,
    /// Files in the answer.
    pub files: usize,
}

/// What was found on one file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSystem {
    /// Where it is, in words: `whole disk`, `partition 2`.
    pub place: String,
    /// The files, by their paths.
    pub files: Vec<File>,
    /// Why the answer is not whole, or there is none; none: it is whole.
    pub incomplete: Option<String>,
}

/// A file that only the one version has, or has otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Its path in the file system; bytes that are no text are replaced.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When it was changed last, by the guest's clock, seconds since 1970.
    pub changed: i64,
    /// Whether the other version has no file of that path.
    pub is_new: bool,
}

/// The files of `disk` that were changed at `since` or later (seconds since 1970, by the guest's clock) and are not the same on
/// `other`. Never fails: what cannot be read is said.
pub fn changed_files(
    disk: Arc<dyn Disk>,
    other: Arc<dyn Disk>,
    since: i64,
    limits: Limits,
) -> Vec<FileSystem> {
    let budget = reader::Budget::new(limits.time);
    let places = match partitions(&*disk) {
        Ok(places) => places,
        Err(error) => {
            let why = format!("the partition table cannot be read: {error}");
            return vec![FileSystem { place: "disk".to_owned(), files: Vec::new(), incomplete: Some(why) }];
        }
    };
    let mut left = limits;
    places
        .into_iter()
        .map(|place| {
            let found = walk::changed_files(&disk, &other, &place, since, &mut left, &budget);
            left.files = left.files.saturating_sub(found.files.len());
            found
        })
        .collect()
}

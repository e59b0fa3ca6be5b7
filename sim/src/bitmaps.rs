//! Persistent bitmaps of the images of a host. A real image has them inside; here they belong to the file, whatever its name.

use std::collections::{BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One bitmap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bitmap {
    pub(crate) name: String,
    /// Clusters that it marks.
    pub(crate) marks: BTreeSet<usize>,
    /// Whether it marks what is written from now on.
    pub(crate) records: bool,
}

/// All bitmaps, by the file that has them.
#[derive(Default)]
pub(crate) struct Bitmaps(Mutex<HashMap<u64, Vec<Bitmap>>>);

impl Bitmaps {
    fn all(&self) -> MutexGuard<'_, HashMap<u64, Vec<Bitmap>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, file: &Path) -> Vec<Bitmap> {
        inode(file).and_then(|inode| self.all().get(&inode).cloned()).unwrap_or_default()
    }

    pub(crate) fn put(&self, file: &Path, bitmaps: Vec<Bitmap>) {
        if let Some(inode) = inode(file) {
            self.all().insert(inode, bitmaps);
        }
    }

    pub(crate) fn add(&self, file: &Path, name: &str) {
        let mut bitmaps = self.of(file);
        bitmaps.push(Bitmap { name: name.to_owned(), marks: BTreeSet::new(), records: true });
        self.put(file, bitmaps);
    }

    /// False: there was none.
    pub(crate) fn remove(&self, file: &Path, name: &str) -> bool {
        let mut bitmaps = self.of(file);
        let before = bitmaps.len();
        bitmaps.retain(|bitmap| bitmap.name != name);
        let removed = bitmaps.len() < before;
        self.put(file, bitmaps);
        removed
    }
}

fn inode(file: &Path) -> Option<u64> {
    std::fs::metadata(file).ok().map(|it| it.ino())
}

//! Two versions of one file system, side by side: what the first has, and the second has not or otherwise.

use std::sync::Arc;

use ext4_view::{Ext4, Ext4Error, Metadata, PathBuf};

use crate::reader::{Budget, Reader};
use crate::{Disk, File, FileSystem, Limits, Partition};

/// Deepest directory that is looked into.
const DEPTH_MAX: usize = 64;
/// Longest path in an answer, characters.
const PATH_MAX: usize = 400;

pub(crate) fn changed_files(
    disk: &Arc<dyn Disk>,
    other: &Arc<dyn Disk>,
    partition: &Partition,
    since: i64,
    left: &mut Limits,
    budget: &Arc<Budget>,
) -> FileSystem {
    let place = partition.number.map_or("whole disk".to_owned(), |number| format!("partition {number}"));
    let open = |disk| Ext4::load(Box::new(Reader::new(disk, partition, budget)));
    let mut found = FileSystem { place, files: Vec::new(), incomplete: None };
    let system = match open(disk) {
        Ok(system) => system,
        Err(error) => {
            found.incomplete = Some(match error {
                Ext4Error::Corrupt(_) if !looks_like_ext(disk, partition) => {
                    "no ext2, ext3 or ext4 file system is there".to_owned()
                }
                error => format!("the file system cannot be read: {error}"),
            });
            return found;
        }
    };
    // Of one that cannot be read every file is new.
    let other = open(other).ok();
    let mut walk = Walk { system, other, since, left, budget, files: Vec::new(), incomplete: None };
    walk.run();
    found.files = walk.files;
    found.files.sort_by(|one, two| one.path.cmp(&two.path));
    found.incomplete = walk.incomplete;
    found
}

/// The magic number of the super block.
fn looks_like_ext(disk: &Arc<dyn Disk>, partition: &Partition) -> bool {
    const MAGIC_AT: u64 = 1024 + 56;
    let mut magic = [0; 2];
    partition.bytes >= MAGIC_AT + 2
        && disk.read_at(partition.offset + MAGIC_AT, &mut magic).is_ok()
        && magic == [0x53, 0xef]
}

struct Walk<'a> {
    system: Ext4,
    other: Option<Ext4>,
    since: i64,
    left: &'a mut Limits,
    budget: &'a Budget,
    files: Vec<File>,
    incomplete: Option<String>,
}

impl Walk<'_> {
    fn run(&mut self) {
        let mut folders = vec![(PathBuf::new("/"), 0)];
        while let Some((folder, depth)) = folders.pop() {
            if let Err(why) = self.look_into(&folder, depth, &mut folders) {
                self.incomplete = Some(why);
                return;
            }
        }
    }

    /// Fails when nothing more is to be looked at; one entry that cannot be read is only said.
    fn look_into(
        &mut self,
        folder: &PathBuf,
        depth: usize,
        folders: &mut Vec<(PathBuf, usize)>,
    ) -> Result<(), String> {
        let entries = match self.system.read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return self.stumble(folder, &error),
        };
        for entry in entries {
            self.left.entries =
                self.left.entries.checked_sub(1).ok_or("it has too many files to look at all")?;
            let (path, metadata) = match entry.and_then(|entry| Ok((entry.path(), entry.metadata()?, entry)))
            {
                Ok((_, _, entry)) if [&b"."[..], b".."].contains(&entry.file_name().as_ref()) => continue,
                Ok((path, metadata, _)) => (path, metadata),
                Err(error) => {
                    self.stumble(folder, &error)?;
                    // The next entry may lie anywhere in a damaged directory.
                    return Ok(());
                }
            };
            if metadata.is_dir() {
                if depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            } else if metadata.file_type().is_regular_file() {
                self.judge(&path, &metadata)?;
            }
        }
        Ok(())
    }

    fn judge(&mut self, path: &PathBuf, metadata: &Metadata) -> Result<(), String> {
        // A file that was copied with its times is new all the same.
        let made = metadata.created().map_or(i64::MIN, |created| created.seconds());
        let changed = made.max(metadata.modified().seconds());
        if changed < self.since {
            return Ok(());
        }
        let there = self.other.as_ref().and_then(|other| other.symlink_metadata(path).ok());
        if there.as_ref().is_some_and(|there| is_same(there, metadata)) {
            return Ok(());
        }
        if self.files.len() == self.left.files {
            return Err("more files were changed than are listed".to_owned());
        }
        let path = path.display().to_string().chars().take(PATH_MAX).collect();
        self.files.push(File { path, bytes: metadata.len(), changed, is_new: there.is_none() });
        Ok(())
    }

    fn stumble(&mut self, folder: &PathBuf, error: &Ext4Error) -> Result<(), String> {
        if self.budget.is_spent() {
            return Err("the time for it was over".to_owned());
        }
        let folder: String = folder.display().to_string().chars().take(PATH_MAX).collect();
        self.incomplete.get_or_insert_with(|| format!("not all of {folder} can be read: {error}"));
        Ok(())
    }
}

/// Reading a file is no change.
fn is_same(one: &Metadata, two: &Metadata) -> bool {
    let facts =
        |it: &Metadata| (it.len(), it.modified(), it.created(), it.mode(), it.file_type().is_regular_file());
    facts(one) == facts(two)
}

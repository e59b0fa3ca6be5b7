//! The storage root of a host: where replica directories are made, and the marker that it is really mounted.
//!
//! An unmounted mount point is an empty directory on the root file system; without the marker a replica would be
//! written there, fill it, and be hidden by the next mount.

use std::path::{Path, PathBuf};

use domain::RelationshipId;

use crate::error::LayerError;
use crate::folder::Folder;
use crate::replica_directory::MANIFEST;

const MARKER: &str = ".virt-replica-storage";
const MARKER_TEXT: &[u8] =
    b"Storage of virt-replica. This file tells it that the file system is mounted; do not remove it.\n";
/// Longest part of a VM's name in the name of its directory, bytes; the relationship's id follows.
const NAME_BYTES_MAX: usize = 64;

/// A directory in which replicas may be kept.
#[derive(Debug)]
pub struct Storage {
    pub(crate) folder: Folder,
}

impl Storage {
    /// Declares a directory to be storage. Repeating it is harmless. Only for when a person names new storage.
    pub fn initialise(root: &Path) -> Result<Storage, LayerError> {
        let folder = open_root(root)?;
        if !folder.exists(MARKER)? {
            folder.replace(MARKER, MARKER_TEXT)?;
        }
        Ok(Storage { folder })
    }

    /// Opens storage; refused without its marker.
    pub fn open(root: &Path) -> Result<Storage, LayerError> {
        let folder = open_root(root)?;
        if !folder.exists(MARKER)? {
            return Err(LayerError::NoStorageMarker(root.to_owned()));
        }
        Ok(Storage { folder })
    }

    /// Where the storage is.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Bytes that a file may still grow by, as the file system tells an unprivileged process.
    pub fn free_bytes(&self) -> Result<u64, LayerError> {
        let status =
            rustix::fs::statvfs(self.root()).map_err(LayerError::io("ask the free space of", self.root()))?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    /// The replica directories that are here, known to the database or not.
    pub fn replicas(&self) -> Result<Vec<PathBuf>, LayerError> {
        let listed = std::fs::read_dir(self.root()).map_err(LayerError::io("list", self.root()))?;
        let paths = listed.map(|entry| entry.map(|entry| entry.path()));
        let paths: Vec<_> = paths.collect::<Result<_, _>>().map_err(LayerError::io("list", self.root()))?;
        let mut replicas: Vec<_> = paths.into_iter().filter(|path| path.join(MANIFEST).is_file()).collect();
        replicas.sort();
        Ok(replicas)
    }

    /// What lies here of a relationship, whatever its VM is called: complete or not.
    pub fn of_relationship(&self, relationship: RelationshipId) -> Result<Option<PathBuf>, LayerError> {
        let listed = std::fs::read_dir(self.root()).map_err(LayerError::io("list", self.root()))?;
        let ending = format!(".{relationship}");
        for entry in listed {
            let entry = entry.map_err(LayerError::io("list", self.root()))?;
            if entry.file_name().as_encoded_bytes().ends_with(ending.as_bytes()) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }
}

/// The root itself may be reached through a symlink of the administrator's; below it none is followed.
fn open_root(root: &Path) -> Result<Folder, LayerError> {
    Folder::open(&root.canonicalize().map_err(LayerError::io("open the directory", root))?)
}

/// A directory name that a person recognises and no tool misreads, for any VM name. The id makes it unique.
#[must_use]
pub fn directory_name(vm_name: &str, relationship: RelationshipId) -> String {
    let mut safe = String::new();
    for character in vm_name.chars() {
        let kept = character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        let next = if kept { character } else { '_' };
        // Runs of replaced characters become one; a name starts with a letter or a digit.
        let skipped =
            (next == '_' && safe.ends_with('_')) || (safe.is_empty() && !next.is_ascii_alphanumeric());
        if safe.len() == NAME_BYTES_MAX {
            break;
        }
        if !skipped {
            safe.push(next);
        }
    }
    let name = safe.trim_end_matches(['_', '.']);
    format!("{}.{relationship}", if name.is_empty() { "vm" } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_vm_name_makes_a_harmless_directory_name() {
        let id: RelationshipId = "0190b3c4-0000-7000-8000-000000000001".parse().expect("an id");
        for (vm_name, expected) in [
            ("testVM01", "testVM01"),
            ("../../etc/passwd", "etc_passwd"),
            ("-rf", "rf"),
            ("a \"quoted\"\nname", "a_quoted_name"),
            ("Bürö-Ñ 1", "B_r_-_1"),
            ("日本", "vm"),
            ("", "vm"),
            ("...", "vm"),
            ("web.", "web"),
        ] {
            assert_eq!(directory_name(vm_name, id), format!("{expected}.{id}"), "{vm_name:?}");
        }
        assert!(directory_name(&"x/".repeat(10_000), id).len() <= NAME_BYTES_MAX + 37);
    }
}

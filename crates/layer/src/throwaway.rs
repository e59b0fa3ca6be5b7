//! Throw-away copies: overlays over the files of one recovery point, for a VM that is tried and then forgotten.
//!
//! ```text
//! <replica>/tests/<name>/  vda.qcow2  vdb.qcow2  …     each stands on the point's file, by its absolute path
//! ```
//! The point's files are only read. That they do not change meanwhile (merging) is the caller's to see to.

use std::fs;
use std::path::PathBuf;

use domain::{DiskTarget, PointId};

use crate::backing::{Backing, BackingFormat};
use crate::error::LayerError;
use crate::folder::Folder;
use crate::inspect::{Gate, inspect};
use crate::name::FileName;
use crate::replica_directory::{ReplicaDirectory, remove_if_empty};
use crate::writer::{LayerSpec, create_overlay};

/// Where all throw-away copies of a replica lie.
const TESTS: &str = "tests";

impl ReplicaDirectory {
    /// The folder of a throw-away copy. It may not exist.
    #[must_use]
    pub fn throwaway_path(&self, name: &FileName) -> PathBuf {
        self.path().join(TESTS).join(name.as_str())
    }

    /// Makes a throw-away copy of a point, after a look at every file of the chain; gives the file of each disk.
    pub fn create_throwaway(
        &self,
        name: &FileName,
        point: PointId,
    ) -> Result<Vec<(DiskTarget, PathBuf)>, LayerError> {
        let folder = self.folder.enter(TESTS)?.enter(name.as_str())?;
        let overlay = |target: &DiskTarget| {
            self.check_from(target, self.point_backing(point, target)?.file())?;
            let file = FileName::new(&format!("{target}.qcow2"))?;
            let below = self.point_file(point, target)?;
            let virtual_size = match below.format() {
                BackingFormat::Qcow2 => inspect(&PathBuf::from(below.file()), Gate::Foreign)?.virtual_size,
                BackingFormat::Raw => self.disk(target)?.virtual_size,
            };
            let spec = LayerSpec { virtual_size, backing: Some(below), owner: None };
            let made = create_overlay(folder.path(), &file, spec)?;
            Ok((target.clone(), made.path))
        };
        self.disks_at(point)?.iter().map(overlay).collect()
    }

    /// Removes a throw-away copy with all that its VM wrote; a missing one is fine.
    pub fn remove_throwaway(&self, name: &FileName) -> Result<(), LayerError> {
        let folder = self.throwaway_path(name);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LayerError::io("remove", &folder)(error));
            }
            _ => {}
        }
        let tests = self.path().join(TESTS);
        remove_if_empty(&tests)?;
        Folder::open(self.path())?.sync()
    }

    /// The file from which a disk starts at a point, by its absolute path.
    fn point_file(&self, point: PointId, target: &DiskTarget) -> Result<Backing, LayerError> {
        let listed = self.manifest().points.iter().find(|listed| listed.point.id == point);
        let file = listed.and_then(|listed| listed.files.get(target));
        let file = file.ok_or(LayerError::NoSuchPoint { path: self.path().to_owned(), point })?;
        let base = &self.disk(target)?.base;
        let format = if base.file() == file { base.format() } else { BackingFormat::Qcow2 };
        let path = self.disk_folder(target).join(file);
        Backing::new(path.to_str().unwrap_or_default(), format)
    }
}

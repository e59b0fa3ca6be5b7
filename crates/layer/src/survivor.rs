//! The files of a replica whose VM was failed over without its other host, and of an old primary that comes back.
//!
//! ```text
//! failover     base ◄─ L1 ◄─ L2 ◄─ L3        the VM writes to an overlay over the chosen point; newer layers stay
//!                       └─ active
//! cancel       base ◄─ L1 ◄─ L2 ◄─ L3        the overlay stands alone from now on: diverged-<when>.qcow2
//! complete     base ◄─ L1 ◄─ active          newer points are given up, then older ones; QEMU merges below the VM
//!              base ◄─ active
//! ```
//! Nothing that a VM wrote is deleted here: what was set aside is listed, and goes when a person says so.

use std::path::{Path, PathBuf};

use domain::{DiskTarget, PointId, Timestamp};

use crate::backing::Backing;
use crate::chain::own_extents;
use crate::error::LayerError;
use crate::folder::Folder;
use crate::inspect::{Gate, inspect};
use crate::manifest::Manifest;
use crate::name::FileName;
use crate::qemu_img;
use crate::replica_directory::{ACTIVE, ReplicaDirectory, remove_if_empty};
use crate::writer::{LayerSpec, create_overlay, discard};

/// How the name of a file begins that holds what was set aside.
const DIVERGED: &str = "diverged-";

/// What one disk held that no other host has, set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diverged {
    /// When it was set aside.
    pub at: Timestamp,
    /// Which disk.
    pub target: DiskTarget,
    /// A qcow2 file of the disk's size that stands on nothing and holds only what differed.
    pub path: PathBuf,
    /// Bytes of guest data that it holds, in clusters.
    pub bytes: u64,
    /// Pieces in which they lie.
    pub pieces: usize,
}

/// The name of what is set aside at this time.
#[must_use]
pub fn diverged_name(at: Timestamp) -> FileName {
    FileName::new(&format!("{DIVERGED}{}.qcow2", at.millis()))
        .expect("letters, digits and a suffix are a name")
}

/// The name of the list of files in what is set aside at this time.
#[must_use]
pub fn diverged_list_name(at: Timestamp) -> FileName {
    FileName::new(&format!("{DIVERGED}{}.files.json", at.millis()))
        .expect("letters, digits and a suffix are a name")
}

fn diverged_at(name: &str) -> Option<Timestamp> {
    name.strip_prefix(DIVERGED)?.strip_suffix(".qcow2")?.parse().ok().map(Timestamp)
}

impl ReplicaDirectory {
    /// Makes the overlay of a disk over a point's file; an existing one stays as it is.
    pub fn create_active_at(&self, target: &DiskTarget, point: PointId) -> Result<PathBuf, LayerError> {
        let (folder, name) = (self.disk_folder(target), FileName::new(ACTIVE)?);
        if !self.active_path(target).exists() {
            let backing = self.point_backing(point, target)?;
            let virtual_size = self.size_at(target, &backing)?;
            // A crash in mid-creation leaves a partial file that holds nothing.
            discard(&folder, &name)?;
            create_overlay(
                &folder,
                &name,
                LayerSpec { virtual_size, backing: Some(backing), owner: Some(self.owner(target)) },
            )?;
        }
        Ok(self.active_path(target))
    }

    /// What a disk starts from at a point, as its overlay names it.
    pub(crate) fn point_backing(&self, point: PointId, target: &DiskTarget) -> Result<Backing, LayerError> {
        let listed = self.manifest().points.iter().find(|listed| listed.point.id == point);
        let file = listed.and_then(|listed| listed.files.get(target));
        let file = file.ok_or(LayerError::NoSuchPoint { path: self.path().to_owned(), point })?;
        let base = &self.disk(target)?.base;
        if base.file() == file { Ok(base.clone()) } else { Ok(Backing::beside(&FileName::new(file)?)) }
    }

    /// A disk that grew later was smaller at an older point.
    fn size_at(&self, target: &DiskTarget, file: &Backing) -> Result<u64, LayerError> {
        match file.format() {
            crate::BackingFormat::Raw => Ok(self.disk(target)?.virtual_size),
            crate::BackingFormat::Qcow2 => {
                Ok(inspect(&file.resolve(&self.disk_folder(target)), Gate::Foreign)?.virtual_size)
            }
        }
    }

    /// Gives up every point that is newer than this one, and deletes their layers. Refused when the VM stands on one of them.
    /// Repeating it is harmless.
    pub fn give_up_after(&mut self, point: PointId) -> Result<(), LayerError> {
        if self.manifest.points.last().is_some_and(|newest| newest.point.id == point) {
            // A run that was cut has done it, and the VM may have been merged onto the base since.
            return self.delete_folded();
        }
        for target in self.disks_at(point)? {
            let file = self.point_backing(point, &target)?.resolve(&self.disk_folder(&target));
            self.expect_below_active(&target, &[&file])?;
        }
        let sizes: Vec<(DiskTarget, u64)> = self
            .disks_at(point)?
            .into_iter()
            .map(|target| {
                let size = self.size_at(&target, &self.point_backing(point, &target)?)?;
                Ok((target, size))
            })
            .collect::<Result<_, LayerError>>()?;
        self.update(|manifest| {
            manifest.give_up_after(point);
            for (target, size) in sizes {
                if let Some(disk) = manifest.disk_mut(&target) {
                    disk.virtual_size = size;
                }
            }
        })?;
        self.delete_folded()
    }

    /// The overlay of a disk, where there is one, stands on one of these files.
    fn expect_below_active(&self, target: &DiskTarget, files: &[&Path]) -> Result<(), LayerError> {
        match self.file_below_active(target)? {
            Some(found) if !files.contains(&found.as_path()) => Err(LayerError::StandsElsewhere {
                path: self.active_path(target),
                found,
                expected: files.iter().map(|file| file.to_path_buf()).collect(),
            }),
            _ => Ok(()),
        }
    }

    /// Offers no point but this one: the files below it are about to become one. Repeating it is harmless.
    pub fn keep_only(&mut self, point: PointId) -> Result<(), LayerError> {
        self.disks_at(point)?;
        self.update(|manifest| manifest.points.retain(|listed| listed.point.id == point))
    }

    /// What is to be merged below a VM that runs: the newest layer and the base, by their paths; none: nothing is left.
    /// QEMU lets the overlay stand on the base when it has merged them. An overlay that stands on anything else is refused: QEMU
    /// would not find the newest layer below the VM.
    pub fn to_merge(&self, target: &DiskTarget) -> Result<Option<(PathBuf, PathBuf)>, LayerError> {
        let (disk, folder) = (self.disk(target)?, self.disk_folder(target));
        let Some(top) = disk.layers.last() else { return Ok(None) };
        let (top, base) = (folder.join(top.as_str()), disk.base.resolve(&folder));
        self.expect_below_active(target, &[&top, &base])?;
        let merged = self.file_below_active(target)?.is_some_and(|found| found == base);
        Ok((!merged).then_some((top, base)))
    }

    /// Notes that QEMU has merged every layer of a disk into its base, and deletes them. Repeating it is harmless.
    pub fn layers_are_merged(&mut self, target: &DiskTarget) -> Result<(), LayerError> {
        self.update(|manifest| {
            let Some(disk) = manifest.disk_mut(target) else { return };
            let layers = std::mem::take(&mut disk.layers);
            disk.folded.extend(layers);
            let base = disk.base.file().to_owned();
            // It has grown.
            disk.file_bytes_min.remove(&base);
            for point in &mut manifest.points {
                if let Some(file) = point.files.get_mut(target) {
                    file.clone_from(&base);
                }
            }
        })?;
        self.delete_folded()
    }

    /// Deletes the files of layers that nothing stands on any more.
    fn delete_folded(&mut self) -> Result<(), LayerError> {
        for disk in &self.manifest.disks {
            let folder = Folder::open(&self.disk_folder(&disk.target))?;
            disk.folded.iter().try_for_each(|layer| folder.remove(layer.as_str()))?;
            folder.sync()?;
        }
        self.update(|manifest| manifest.disks.iter_mut().for_each(|disk| disk.folded.clear()))
    }

    /// The file on which the overlay of a disk stands; none: there is no overlay.
    pub fn file_below_active(&self, target: &DiskTarget) -> Result<Option<PathBuf>, LayerError> {
        let (folder, path) = (self.disk_folder(target), self.active_path(target));
        if !path.exists() {
            return Ok(None);
        }
        let info = inspect(&path, Gate::Foreign)?;
        let Some((name, format)) = info.backing.zip(info.backing_format) else { return Ok(None) };
        Ok(Some(Backing::new(&name, format)?.resolve(&folder)))
    }

    /// Keeps what the VM wrote to its overlay apart: the file stands on nothing from now on. The VM is off. No overlay: done.
    pub fn set_active_aside(&self, target: &DiskTarget, at: Timestamp) -> Result<(), LayerError> {
        let folder = Folder::open(&self.disk_folder(target))?;
        let name = diverged_name(at);
        if folder.exists(ACTIVE)? {
            inspect(&self.active_path(target), Gate::Foreign)?;
            folder.publish(ACTIVE, name.as_str())?;
        }
        let path = folder.path().join(name.as_str());
        if folder.exists(name.as_str())? && inspect(&path, Gate::Foreign)?.backing.is_some() {
            qemu_img::run("rebase", &["-u", "-f", "qcow2", "-b", ""], &[&path], qemu_img::SHORT)?;
        }
        Ok(())
    }

    /// The file on which a layer of a disk stands; none: there is no such layer.
    #[must_use]
    pub fn file_below(&self, target: &DiskTarget, layer: &str) -> Option<PathBuf> {
        let disk = self.manifest().disk(target)?;
        let index = disk.layers.iter().position(|known| known.as_str() == layer)?;
        Some(disk.below(index).resolve(&self.disk_folder(target)))
    }

    /// What was set aside, the oldest first.
    pub fn diverged(&self) -> Result<Vec<Diverged>, LayerError> {
        let mut found = Vec::new();
        for target in self.disks_with_folders()? {
            let folder = self.disk_folder(&target);
            for entry in std::fs::read_dir(&folder).map_err(LayerError::io("list", &folder))? {
                let name = entry.map_err(LayerError::io("list", &folder))?.file_name();
                let Some(at) = name.to_str().and_then(diverged_at) else { continue };
                let path = folder.join(&name);
                let extents = own_extents(&path)?;
                let bytes = extents.iter().map(|(_, length)| length).sum();
                found.push(Diverged { at, target: target.clone(), path, bytes, pieces: extents.len() });
            }
        }
        found.sort_by_key(|one| (one.at, one.target.to_string()));
        Ok(found)
    }

    /// Deletes what was set aside at this time; gives how many files that were.
    pub fn remove_diverged(&self, at: Timestamp) -> Result<usize, LayerError> {
        let mut removed = 0;
        for target in self.disks_with_folders()? {
            let folder = Folder::open(&self.disk_folder(&target))?;
            let (name, list) = (diverged_name(at), diverged_list_name(at));
            if folder.exists(name.as_str())? {
                // A list whose writing failed is one that was never there; what was written of it is.
                folder.remove(&list.with_suffix(".tmp"))?;
                folder.remove(list.as_str())?;
                folder.remove(name.as_str())?;
                folder.sync()?;
                removed += 1;
            }
            if self.manifest().disk(&target).is_none() {
                remove_if_empty(folder.path())?;
            }
        }
        Ok(removed)
    }

    /// Disks that have a folder, those among them that went with the last point that had them.
    fn disks_with_folders(&self) -> Result<Vec<DiskTarget>, LayerError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.path()).map_err(LayerError::io("list", self.path()))? {
            let entry = entry.map_err(LayerError::io("list", self.path()))?;
            let kind = entry.file_type().map_err(LayerError::io("look at", self.path()))?;
            let target = entry.file_name().to_str().and_then(|name| DiskTarget::new(name).ok());
            found.extend(target.filter(|_| kind.is_dir()));
        }
        found.sort();
        Ok(found)
    }
}

impl Manifest {
    /// Forgets points newer than this one; their layers are noted for deletion.
    fn give_up_after(&mut self, point: PointId) {
        let Some(index) = self.points.iter().position(|listed| listed.point.id == point) else { return };
        let files = self.points[index].files.clone();
        self.points.truncate(index + 1);
        for disk in &mut self.disks {
            let Some(file) = files.get(&disk.target) else {
                // It was added after this point.
                disk.retired = true;
                continue;
            };
            let kept =
                disk.layers.iter().position(|layer| layer.as_str() == file).map_or(0, |index| index + 1);
            let given_up = disk.layers.split_off(kept);
            disk.folded.extend(given_up);
        }
    }
}

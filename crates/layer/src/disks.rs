//! The disks of a replica come and go with those of the VM.
//!
//! ```text
//! added      the first delta that carries it makes its folder and its base; the manifest learns of both with the point
//! removed    retired: no new point lists it; its files go when no point lists it any more
//! ```
//! A point lists exactly the disks that the VM had at its moment, so that an older one is not offered with a disk that it lacks.

use std::collections::BTreeMap;

use domain::{DiskTarget, PointId};

use crate::backing::Backing;
use crate::error::LayerError;
use crate::manifest::{Manifest, ManifestDisk};
use crate::replica_directory::ReplicaDirectory;

impl ManifestDisk {
    /// A disk whose base is about to be received.
    #[must_use]
    pub fn fresh(target: DiskTarget, virtual_size: u64) -> ManifestDisk {
        ManifestDisk::on(target, virtual_size, Backing::beside(&ReplicaDirectory::base_name()))
    }

    /// A disk that is one file so far.
    #[must_use]
    pub fn on(target: DiskTarget, virtual_size: u64, base: Backing) -> ManifestDisk {
        ManifestDisk {
            target,
            virtual_size,
            base,
            layers: Vec::new(),
            folded: Vec::new(),
            file_bytes_min: BTreeMap::new(),
            retired: false,
        }
    }
}

impl Manifest {
    /// The disks that the newest point lacks: what is replicated of them must travel whole.
    #[must_use]
    pub fn head_lacks(&self, target: &DiskTarget) -> bool {
        // An old primary has its disks, and none of its points may be left.
        let Some(head) = self.points.last() else { return self.disk(target).is_none() };
        !head.files.contains_key(target)
    }

    /// From now on the VM has these disks. One that it did not have before, or has again, is part of the points from here on.
    pub fn have_disks(&mut self, now: &[DiskTarget]) {
        for disk in &mut self.disks {
            disk.retired = !now.contains(&disk.target);
        }
    }
}

impl ReplicaDirectory {
    /// The disks that a point has.
    pub fn disks_at(&self, point: PointId) -> Result<Vec<DiskTarget>, LayerError> {
        let listed = self.manifest.points.iter().find(|listed| listed.point.id == point);
        let listed = listed.ok_or(LayerError::NoSuchPoint { path: self.path().to_owned(), point })?;
        let has = |disk: &&ManifestDisk| listed.files.contains_key(&disk.target);
        Ok(self.manifest.disks.iter().filter(has).map(|disk| disk.target.clone()).collect())
    }

    /// Makes the folder of a disk that the manifest does not know yet.
    pub fn prepare_disk(&self, target: &DiskTarget) -> Result<(), LayerError> {
        self.folder.enter(target.as_str()).map(drop)
    }

    /// Deletes the files of disks that are retired and that no point lists any more. The user's own disk under a replica at
    /// home stays, and so does what was set aside. Gives the disks that went.
    pub fn drop_retired(&mut self) -> Result<Vec<DiskTarget>, LayerError> {
        let listed =
            |target: &DiskTarget| self.manifest.points.iter().any(|point| point.files.contains_key(target));
        let gone: Vec<ManifestDisk> = self
            .manifest
            .disks
            .iter()
            .filter(|disk| disk.retired && !listed(&disk.target))
            .cloned()
            .collect();
        for disk in &gone {
            self.remove_disk(disk)?;
        }
        let targets: Vec<DiskTarget> = gone.into_iter().map(|disk| disk.target).collect();
        if !targets.is_empty() {
            self.update(|manifest| manifest.disks.retain(|disk| !targets.contains(&disk.target)))?;
        }
        Ok(targets)
    }
}

//! The manifest of a replica directory: what its files are, and how a person starts the VM from them alone.
//!
//! It repeats for people what the database knows for the daemon; after a loss of the database it is enough to build
//! it again. Its JSON form is in [`form`], the
//! instructions in [`by_hand`]; where it lies and how it is replaced is the replica directory's business.

mod by_hand;
mod form;

use std::collections::BTreeMap;
use std::path::Path;

use domain::{DiskTarget, PointId, RecoveryPoint, RelationshipId, VmId};

use crate::backing::Backing;
use crate::name::FileName;

/// Largest manifest that is read, bytes: 16 disks with 10 000 points stay below.
pub const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What a replica directory holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// The VM's name as libvirt has it, whatever characters it has.
    pub vm_name: String,
    /// The VM's UUID, the same on both hosts.
    pub vm: VmId,
    /// The relationship that owns the directory.
    pub relationship: RelationshipId,
    /// The disks in the order of the VM's definition.
    pub disks: Vec<ManifestDisk>,
    /// The recovery points, oldest first.
    pub points: Vec<ManifestPoint>,
    /// Whether the host on which the VM runs starts it when it boots. A replica is never started like this.
    pub autostart: bool,
}

/// One disk: a base and the layers over it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestDisk {
    /// Its name in the guest's definition; also the folder of its files.
    pub target: DiskTarget,
    /// Size of the guest's disk, bytes.
    pub virtual_size: u64,
    /// The file at the bottom: beside the layers, or the user's own disk by its absolute path.
    pub base: Backing,
    /// The layers, oldest first; each stands on the one before, the first on the base.
    pub layers: Vec<FileName>,
    /// Layers whose data is in the file below already, and whose own files are about to go.
    pub folded: Vec<FileName>,
    /// Bytes that each file of ours has at least, by its name: what is shorter has lost its end. Kept by the replica directory.
    pub file_bytes_min: BTreeMap<String, u64>,
    /// The VM does not have it any more: no new point lists it, and its files go with the last point that does.
    pub retired: bool,
}

/// One recovery point and the file of each disk that holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestPoint {
    /// The point.
    pub point: RecoveryPoint,
    /// For each disk the layer (or base) from which the VM starts at this point, as [`Backing::file`] names it.
    pub files: BTreeMap<DiskTarget, String>,
    /// The point with which the definition and the firmware's files came that it starts with; none: an older version did not keep them.
    pub belongings: Option<PointId>,
}

impl ManifestDisk {
    /// The newest file of the disk: what an `active` overlay or the next layer stands on.
    #[must_use]
    pub fn head(&self) -> Backing {
        self.layers.last().map_or_else(|| self.base.clone(), Backing::beside)
    }

    /// The files of ours that hold its data, the base first: all but the user's own disk.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        let base = Some(self.base.file()).filter(|base| !base.starts_with('/'));
        base.into_iter().chain(self.layers.iter().map(FileName::as_str))
    }

    /// What the layer at `index` stands on.
    pub(crate) fn below(&self, index: usize) -> Backing {
        index.checked_sub(1).map_or_else(|| self.base.clone(), |below| Backing::beside(&self.layers[below]))
    }
}

impl Manifest {
    /// The disk of this name.
    #[must_use]
    pub fn disk(&self, target: &DiskTarget) -> Option<&ManifestDisk> {
        self.disks.iter().find(|disk| disk.target == *target)
    }

    /// The disks that the VM has now.
    pub fn current_disks(&self) -> impl Iterator<Item = &ManifestDisk> {
        self.disks.iter().filter(|disk| !disk.retired)
    }

    pub(crate) fn disk_mut(&mut self, target: &DiskTarget) -> Option<&mut ManifestDisk> {
        self.disks.iter_mut().find(|disk| disk.target == *target)
    }

    /// Adds a point whose layers are sealed; each becomes the head of its disk. A repetition changes nothing.
    ///
    /// A disk that is not in `layers` keeps its head: the base of the first point, or an unchanged disk. One that is retired
    /// is no part of the point.
    pub fn add_point(&mut self, point: RecoveryPoint, layers: &[(DiskTarget, FileName)]) {
        if self.points.iter().any(|known| known.point.id == point.id) {
            return;
        }
        for (target, layer) in layers {
            let Some(disk) = self.disk_mut(target) else { continue };
            // The first point of a disk is its base itself.
            if disk.base.file() != layer.as_str() && !disk.layers.contains(layer) {
                disk.layers.push(layer.clone());
            }
        }
        let files = self.current_disks().map(|disk| (disk.target.clone(), disk.head().file().to_owned()));
        self.points.push(ManifestPoint { point, files: files.collect(), belongings: None });
    }

    /// Notes that the data of a layer is in the file below it now.
    pub(crate) fn layer_is_in_below(&mut self, target: &DiskTarget, layer: &FileName) {
        let Some(disk) = self.disk_mut(target) else { return };
        let Some(index) = disk.layers.iter().position(|known| known == layer) else { return };
        let below = disk.below(index).file().to_owned();
        // It has grown.
        disk.file_bytes_min.remove(&below);
        let layer = disk.layers.remove(index);
        disk.folded.push(layer.clone());
        for file in self.points.iter_mut().filter_map(|point| point.files.get_mut(target)) {
            if file == layer.as_str() {
                file.clone_from(&below);
            }
        }
    }

    /// The manifest as JSON text for the directory `folder`, with instructions for its newest point.
    pub(crate) fn to_json(&self, folder: &Path) -> Vec<u8> {
        form::encode(self, by_hand::how_to_start(self, folder))
    }

    /// Reads a manifest; the error is a reason in words.
    pub(crate) fn from_json(bytes: &[u8]) -> Result<Manifest, String> {
        form::decode(bytes)
    }
}

//! The directory of one replica: its manifest, its definition, the folders of its disks.
//!
//! ```text
//! <storage>/<vm-name>.<relationship-id>/
//!     manifest.json  domain.xml  primary.xml  nvram.fd  tpm.permall  points/
//!     vda/  base.qcow2  1-<point-id>.qcow2  2-<point-id>.qcow2  …  active.qcow2 while this side is primary
//! ```
//!
//! Which points exist and which side is primary is decided elsewhere; here it becomes files, durably and in an order
//! in which every crash leaves a directory that starts. Merging is in `fold`, what belongs to a point beside its disks in `belongings`.

use std::path::{Path, PathBuf};

use domain::{Attachment, DiskTarget, PointId, RecoveryPoint};

use crate::backing::BackingFormat;
use crate::error::LayerError;
use crate::folder::Folder;
use crate::inspect::{Gate, GateRefusal, LayerInfo, inspect};
use crate::manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestDisk};
use crate::name::FileName;
use crate::owner::Owner;
use crate::storage::{Storage, directory_name};
use crate::writer::{LayerSpec, create_overlay, discard};

pub(crate) const MANIFEST: &str = "manifest.json";
const DEFINITION: &str = "domain.xml";
/// The primary's own definition, as it came; the source of every later one.
pub(crate) const PRIMARY_DEFINITION: &str = "primary.xml";
/// The overlay that exists only while this side is primary.
pub(crate) const ACTIVE: &str = "active.qcow2";
/// The UEFI variables that the VM writes to while this side is primary: those of the recovery points stay as they are.
pub(crate) const ACTIVE_NVRAM: &str = "active-nvram.fd";

/// An open replica directory and its manifest.
#[derive(Debug)]
pub struct ReplicaDirectory {
    pub(crate) folder: Folder,
    pub(crate) manifest: Manifest,
}

impl ReplicaDirectory {
    /// Makes the directory of a relationship that is new; refused where anything of that relationship is here, under whatever name of
    /// the VM. What it holds then belongs to a person, and its bases may be the VM's own disks.
    pub fn create_new(storage: &Storage, manifest: Manifest) -> Result<ReplicaDirectory, LayerError> {
        match storage.of_relationship(manifest.relationship)? {
            Some(path) => Err(LayerError::Exists(path)),
            None => Self::create(storage, manifest),
        }
    }

    /// Makes the directory of a replica; one that exists already for this relationship and VM is opened as it is.
    pub fn create(storage: &Storage, manifest: Manifest) -> Result<ReplicaDirectory, LayerError> {
        let name = directory_name(&manifest.vm_name, manifest.relationship);
        let folder = storage.folder.enter(&name)?;
        if folder.exists(MANIFEST)? {
            let there = Self::open(&storage.root().join(name))?;
            // Names that differ may lead to one directory.
            if (there.manifest.vm, there.manifest.relationship) != (manifest.vm, manifest.relationship) {
                let why = format!("it is of the VM {}, not of {}", there.manifest.vm, manifest.vm);
                return Err(LayerError::Manifest { path: there.path().join(MANIFEST), why });
            }
            return Ok(there);
        }
        for disk in &manifest.disks {
            folder.enter(disk.target.as_str())?;
        }
        let directory = ReplicaDirectory { folder, manifest };
        directory.save()?;
        Ok(directory)
    }

    /// Opens a replica directory by its manifest.
    pub fn open(path: &Path) -> Result<ReplicaDirectory, LayerError> {
        let folder = Folder::open(path)?;
        let refused = |why| LayerError::Manifest { path: path.join(MANIFEST), why };
        let bytes =
            folder.read(MANIFEST, MANIFEST_BYTES_MAX)?.ok_or_else(|| refused("it does not exist".into()))?;
        let manifest = Manifest::from_json(&bytes).map_err(refused)?;
        Ok(ReplicaDirectory { folder, manifest })
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Changes the manifest and makes the change durable; on failure neither changes.
    pub fn update(&mut self, change: impl FnOnce(&mut Manifest)) -> Result<(), LayerError> {
        let mut changed = self.manifest.clone();
        change(&mut changed);
        for disk in &mut changed.disks {
            if self.manifest.disk(&disk.target).is_none() {
                self.folder.enter(disk.target.as_str())?;
            }
            let folder = self.disk_folder(&disk.target);
            note_lengths(disk, &folder);
        }
        let before = std::mem::replace(&mut self.manifest, changed);
        if let Err(error) = self.save() {
            self.manifest = before;
            return Err(error);
        }
        self.drop_belongings(&before);
        Ok(())
    }

    /// Writes the manifest again if its instructions are of an older version, or of another place.
    pub fn renew_instructions(&self) -> Result<(), LayerError> {
        let there = self.folder.read(MANIFEST, MANIFEST_BYTES_MAX)?;
        if there == Some(self.manifest.to_json(self.path())) { Ok(()) } else { self.save() }
    }

    /// Records a point whose layers are sealed.
    pub fn add_point(
        &mut self,
        point: RecoveryPoint,
        layers: &[(DiskTarget, FileName)],
    ) -> Result<(), LayerError> {
        self.update(|manifest| manifest.add_point(point, layers))
    }

    /// The folder of a disk's files.
    #[must_use]
    pub fn disk_folder(&self, target: &DiskTarget) -> PathBuf {
        self.path().join(target.as_str())
    }

    /// The name of the layer of a point: its ordinal first, so that a listing shows the order.
    #[must_use]
    pub fn layer_name(ordinal: u64, point: PointId) -> FileName {
        FileName::new(&format!("{ordinal}-{point}.qcow2")).expect("digits, a UUID and a suffix are a name")
    }

    /// The name of a base that was received.
    #[must_use]
    pub fn base_name() -> FileName {
        FileName::new("base.qcow2").expect("a constant name")
    }

    /// The name of a base that was taken from an existing copy. Unlike [`ReplicaDirectory::base_name`] it is no recovery point:
    /// the first delta becomes a layer over it.
    #[must_use]
    pub fn seed_name() -> FileName {
        FileName::new("seed.qcow2").expect("a constant name")
    }

    /// What the next layer of a disk is to be.
    pub fn next_layer(&self, target: &DiskTarget) -> Result<LayerSpec, LayerError> {
        let disk = self.disk(target)?;
        let owner = Some(self.owner(target));
        Ok(LayerSpec { virtual_size: disk.virtual_size, backing: Some(disk.head()), owner })
    }

    /// What the first file of a disk is to be.
    #[must_use]
    pub fn first_layer(&self, target: &DiskTarget, virtual_size: u64) -> LayerSpec {
        LayerSpec { virtual_size, backing: None, owner: Some(self.owner(target)) }
    }

    /// Whose the files of a disk are.
    #[must_use]
    pub fn owner(&self, target: &DiskTarget) -> Owner {
        Owner { relationship: self.manifest.relationship, disk: target.clone() }
    }

    /// Keeps the VM's definition, replacing an older one at once.
    pub fn write_definition(&self, xml: &str) -> Result<(), LayerError> {
        self.folder.replace(DEFINITION, xml.as_bytes())
    }

    /// Where the definition is.
    #[must_use]
    pub fn definition_path(&self) -> PathBuf {
        self.path().join(DEFINITION)
    }

    /// Where a file that belongs to the VM is kept. It may not exist.
    #[must_use]
    pub fn attachment_path(&self, kind: Attachment) -> PathBuf {
        self.path().join(attachment_name(kind))
    }

    /// The VM's own UEFI variables while this side is primary away from the VM's home. They may not exist.
    #[must_use]
    pub fn active_nvram_path(&self) -> PathBuf {
        self.path().join(ACTIVE_NVRAM)
    }

    /// Removes the VM's own UEFI variables, when this side is the replica again. Repeating it is harmless.
    pub fn remove_active_nvram(&self) -> Result<(), LayerError> {
        self.folder.remove(ACTIVE_NVRAM)?;
        self.folder.sync()
    }

    /// The overlay that the VM writes to while this side is primary. It may not exist.
    #[must_use]
    pub fn active_path(&self, target: &DiskTarget) -> PathBuf {
        self.disk_folder(target).join(ACTIVE)
    }

    /// Makes the overlay of a disk over its head; an existing one stays as it is.
    pub fn create_active(&self, target: &DiskTarget) -> Result<PathBuf, LayerError> {
        let folder = self.disk_folder(target);
        let name = FileName::new(ACTIVE).expect("a constant name");
        if !self.active_path(target).exists() {
            // A crash in mid-creation leaves a partial file that holds nothing.
            discard(&folder, &name)?;
            create_overlay(&folder, &name, self.next_layer(target)?)?;
        }
        Ok(self.active_path(target))
    }

    /// Refused while a disk of a replica has an overlay: the VM would start from what somebody else wrote.
    pub fn expect_no_active(&self) -> Result<(), LayerError> {
        let mut paths = self.manifest.disks.iter().map(|disk| self.active_path(&disk.target));
        paths.find(|path| path.exists()).map_or(Ok(()), |path| Err(LayerError::Active(path)))
    }

    /// Keeps the overlay of a VM that is off as the newest layer, under the name `layer`. Repeating it is harmless.
    pub fn adopt_active(&mut self, target: &DiskTarget, layer: &FileName) -> Result<(), LayerError> {
        if self.disk(target)?.layers.contains(layer) {
            return Ok(());
        }
        let folder = Folder::open(&self.disk_folder(target))?;
        // The overlay may be renamed already by a run that was cut before the manifest.
        let path =
            self.disk_folder(target).join(if folder.exists(ACTIVE)? { ACTIVE } else { layer.as_str() });
        let info = inspect(&path, Gate::Ours(Some(&self.disk(target)?.head())))?;
        self.expect_owner(target, &path, &info)?;
        if folder.exists(ACTIVE)? {
            folder.publish(ACTIVE, layer.as_str())?;
        }
        self.update(|manifest| {
            if let Some(disk) = manifest.disk_mut(target) {
                disk.layers.push(layer.clone());
                disk.virtual_size = info.virtual_size;
            }
        })
    }

    /// Makes sure that every file of a disk is what the manifest says, by headers and lengths. Reads no guest data. A file that an older
    /// version made does not say whose it is; its place and its size have to do.
    pub fn check_chain(&self, target: &DiskTarget) -> Result<(), LayerError> {
        self.check_from(target, self.disk(target)?.head().file())
    }

    /// The same of all that a recovery point is made of, and of nothing above it.
    pub fn check_point(&self, point: PointId) -> Result<(), LayerError> {
        let disks = self.disks_at(point)?;
        disks.iter().try_for_each(|target| self.check_from(target, self.point_backing(point, target)?.file()))
    }

    /// The newest recovery point that passes [`ReplicaDirectory::check_point`]; none: not one does.
    #[must_use]
    pub fn newest_whole(&self) -> Option<&RecoveryPoint> {
        let mut points = self.manifest.points.iter().rev().map(|listed| &listed.point);
        points.find(|point| self.check_point(point.id).is_ok())
    }

    /// Every file of a disk from `top` down.
    pub(crate) fn check_from(&self, target: &DiskTarget, top: &str) -> Result<(), LayerError> {
        let disk = self.disk(target)?;
        let folder = self.disk_folder(target);
        let above_base = match disk.layers.iter().position(|layer| layer.as_str() == top) {
            Some(index) => index + 1,
            None if top == disk.base.file() => 0,
            None => {
                let why =
                    format!("a recovery point has {top:?} of disk {target}, which is none of its files");
                return Err(LayerError::Manifest { path: self.path().join(MANIFEST), why });
            }
        };
        // From the top down: a disk has grown at most.
        // An existing copy that a replica began from may be older than the growth.
        let is_newest = disk.head().file() == top && top != Self::seed_name().as_str();
        let (mut expected, mut is_exact) = (disk.virtual_size, is_newest);
        let mut judge = |path: &Path, info: &LayerInfo| {
            self.expect_owner(target, path, info)?;
            expect_length(disk, path, info)?;
            let found = info.virtual_size;
            if found > expected || is_exact && found != expected {
                let refusal = GateRefusal::Size { found, expected, is_exact };
                return Err(LayerError::Gate { path: path.to_owned(), refusal });
            }
            (expected, is_exact) = (found, false);
            Ok(())
        };
        for (index, layer) in disk.layers[..above_base].iter().enumerate().rev() {
            let path = folder.join(layer.as_str());
            judge(&path, &inspect(&path, Gate::Ours(Some(&disk.below(index))))?)?;
        }
        if disk.base.format() == BackingFormat::Qcow2 {
            let (path, theirs) = (disk.base.resolve(&folder), disk.base.file().starts_with('/'));
            let info = inspect(&path, if theirs { Gate::Foreign } else { Gate::Ours(None) })?;
            // The user's own disk had its size before.
            if !theirs {
                judge(&path, &info)?;
            }
        }
        Ok(())
    }

    /// A file that says whose it is must be this disk's.
    fn expect_owner(&self, target: &DiskTarget, path: &Path, info: &LayerInfo) -> Result<(), LayerError> {
        let expected = self.owner(target);
        match &info.owner {
            Some(found) if *found != expected => Err(LayerError::Gate {
                path: path.to_owned(),
                refusal: GateRefusal::Owner { found: found.clone(), expected },
            }),
            _ => Ok(()),
        }
    }

    /// Files in the disks' folders that the manifest does not know: what interrupted work left behind. The caller
    /// knows which of them belong to work that goes on.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, LayerError> {
        let mut found = Vec::new();
        for disk in &self.manifest.disks {
            let folder = self.disk_folder(&disk.target);
            let entries = std::fs::read_dir(&folder).map_err(LayerError::io("list", &folder))?;
            for entry in entries {
                let name = entry.map_err(LayerError::io("list", &folder))?.file_name();
                let known = name.to_str().is_some_and(|name| is_known(disk, name));
                if !known {
                    found.push(folder.join(name));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes what transfers that nobody goes on with left behind: partial layers and their progress, and layers that were
    /// sealed and never became part of a point.
    pub fn discard_partials(&self) -> Result<(), LayerError> {
        for file in self.leftovers()? {
            let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str()))
            else {
                continue;
            };
            let layer = [".partial", ".progress"].iter().find_map(|suffix| name.strip_suffix(suffix));
            if let Some(layer) = layer.and_then(|layer| FileName::new(layer).ok()) {
                crate::writer::discard(folder, &layer)?;
            } else if let Some(layer) = FileName::new(name).ok().filter(|_| is_layer(name)) {
                crate::writer::remove_sealed(folder, &layer)?;
            }
        }
        Ok(())
    }

    /// Deletes the replica: every file that we made, and the directories if nothing else is in them. A base outside
    /// of the directory is the user's and stays.
    pub fn remove(self) -> Result<(), LayerError> {
        self.manifest.disks.iter().try_for_each(|disk| self.remove_disk(disk))?;
        self.remove_belongings()?;
        // The manifest goes last: until then a repetition knows what to delete.
        let attachments = Attachment::ALL.map(attachment_name);
        for file in attachments.into_iter().chain([ACTIVE_NVRAM, DEFINITION, PRIMARY_DEFINITION, MANIFEST]) {
            self.folder.remove(file)?;
        }
        self.folder.sync()?;
        remove_if_empty(self.path())
    }

    /// Deletes the files that we made for a disk.
    pub(crate) fn remove_disk(&self, disk: &ManifestDisk) -> Result<(), LayerError> {
        // A run that was cut may have removed it already.
        if !self.folder.exists(disk.target.as_str())? {
            return Ok(());
        }
        let path = self.disk_folder(&disk.target);
        let folder = Folder::open(&path)?;
        let base = Some(disk.base.file()).filter(|base| !base.starts_with('/'));
        let layers = disk.layers.iter().chain(&disk.folded).map(FileName::as_str);
        layers.chain(base).chain([ACTIVE]).try_for_each(|file| folder.remove(file))?;
        folder.sync()?;
        remove_if_empty(&path)
    }

    pub(crate) fn disk(&self, target: &DiskTarget) -> Result<&ManifestDisk, LayerError> {
        self.manifest.disk(target).ok_or_else(|| LayerError::NoSuchDisk {
            path: self.path().to_owned(),
            target: target.to_string(),
        })
    }

    /// What could not be read again is not written.
    fn save(&self) -> Result<(), LayerError> {
        let json = self.manifest.to_json(self.path());
        if json.len() as u64 > MANIFEST_BYTES_MAX {
            let why = format!("{} bytes, more than {MANIFEST_BYTES_MAX}", json.len());
            return Err(LayerError::Manifest { path: self.path().join(MANIFEST), why });
        }
        self.folder.replace(MANIFEST, &json)
    }
}

/// The name of an attachment's file; that of a TPM ends as swtpm's own.
pub(crate) fn attachment_name(kind: Attachment) -> &'static str {
    match kind {
        Attachment::Nvram => "nvram.fd",
        Attachment::Tpm => "tpm.permall",
    }
}

/// A file that has been longer has lost its end.
fn expect_length(disk: &ManifestDisk, path: &Path, info: &LayerInfo) -> Result<(), LayerError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match disk.file_bytes_min.get(name) {
        Some(expected) if info.file_bytes < *expected => Err(LayerError::Gate {
            path: path.to_owned(),
            refusal: GateRefusal::Cut { found: info.file_bytes, expected: *expected },
        }),
        _ => Ok(()),
    }
}

/// Notes how long the files are that are new in the list, or have taken in another: sealed or synced just now, they never become
/// shorter. A base that is still to come has no length yet.
fn note_lengths(disk: &mut ManifestDisk, folder: &Path) {
    let length = |file: &str| {
        let metadata = std::fs::symlink_metadata(folder.join(file)).ok();
        metadata.filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    };
    let known = std::mem::take(&mut disk.file_bytes_min);
    let noted = disk.files().filter_map(|file| {
        let bytes = known.get(file).copied().or_else(|| length(file))?;
        Some((file.to_owned(), bytes))
    });
    disk.file_bytes_min = noted.collect();
}

fn is_known(disk: &ManifestDisk, name: &str) -> bool {
    let layer = disk.layers.iter().chain(&disk.folded).any(|layer| layer.as_str() == name);
    layer || name == ACTIVE || name == disk.base.file()
}

/// Whether a file has a name that only layers of ours have.
fn is_layer(name: &str) -> bool {
    let parts = name.strip_suffix(".qcow2").and_then(|name| name.split_once('-'));
    parts.is_some_and(|(ordinal, point)| ordinal.parse::<u64>().is_ok() && point.parse::<PointId>().is_ok())
}

pub(crate) fn remove_if_empty(path: &Path) -> Result<(), LayerError> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match std::fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), DirectoryNotEmpty | NotFound) => {
            Err(LayerError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

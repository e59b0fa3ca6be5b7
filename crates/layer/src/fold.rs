//! Folding: a file that no point stands on takes in the layer above it, one interruptible step at a time.
//!
//! ```text
//! before     base ◄─ L1 ◄─ L2 ◄─ L3 ◄─ L4      points: P0 on base, P1 on L1, …, P4 on L4; P1 was forgotten
//! commit     L1 takes in L2's data; through L2 the disk reads the same meanwhile and afterwards
//! rebase     base ◄─ L1 ◄─ L3 ◄─ L4;  L2 stands aside
//! record     manifest: P2 is on L1, L2 is to be deleted
//! delete     base ◄─ L1 ◄─ L3 ◄─ L4
//! ```
//!
//! Each step is found by looking at the disk, so a crash anywhere is followed by the step that was cut, and each is
//! harmless when repeated. A file from which somebody reads a pinned point, and all files below it, do not change. Only the commit
//! takes long; it touches nothing but the two files, so layers may arrive on top meanwhile. Not here: which points are forgotten
//! (retention decides), and merging below a running VM.

use std::collections::HashSet;

use domain::{DiskTarget, PointId};

use crate::backing::{Backing, set_backing};
use crate::chain::commit;
use crate::error::LayerError;
use crate::folder::Folder;
use crate::inspect::{Gate, inspect};
use crate::manifest::{Manifest, ManifestDisk};
use crate::name::FileName;
use crate::replica_directory::{ACTIVE, ReplicaDirectory};

/// How far a disk is folded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The newest layer stays what it is: the next delta will stand on it.
    BelowHead,
    /// The newest layer too, if the file below holds no point.
    All,
}

/// A layer and the file below, into which its data goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Merge {
    target: DiskTarget,
    layer: FileName,
    below: Backing,
}

/// The next thing to do to shorten a disk's chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FoldStep {
    /// Delete the files of layers whose data is in the file below already.
    Delete,
    /// Bring the layer's data into the file below. The only step that takes long.
    Commit(Merge),
    /// Let this layer stand on the file below the merged one.
    Rebase(FileName, Merge),
    /// Note in the manifest that the layer is in the file below.
    Record(Merge),
}

/// The lowest file that may take in the layer above it, as the index of that layer. Pure.
fn lowest_merge(
    manifest: &Manifest,
    disk: &ManifestDisk,
    scope: Scope,
    pinned: &HashSet<PointId>,
) -> Option<usize> {
    let file = |index: usize| disk.below(index);
    let holds_point = |index: usize| {
        let name = file(index);
        manifest.points.iter().any(|point| point.files.get(&disk.target).is_some_and(|it| it == name.file()))
    };
    let is_pinned = |index: &usize| {
        let name = file(*index);
        let pinned = manifest.points.iter().filter(|point| pinned.contains(&point.point.id));
        pinned.filter_map(|point| point.files.get(&disk.target)).any(|it| it == name.file())
    };
    let lowest = (0..=disk.layers.len()).rev().find(is_pinned).map_or(0, |index| index + 1);
    let end = match scope {
        Scope::All => disk.layers.len(),
        Scope::BelowHead => disk.layers.len().saturating_sub(1),
    };
    (lowest..end).find(|index| !holds_point(*index))
}

/// A fold of one disk under way. Dropping it at any moment is as good as a crash, and both are harmless.
#[derive(Debug)]
pub struct Fold<'a> {
    directory: &'a mut ReplicaDirectory,
    target: DiskTarget,
    scope: Scope,
    pinned: &'a HashSet<PointId>,
    /// The merge whose commit was seen to its end. Nothing on disk tells it, so without that word it is done again.
    committed: Option<Merge>,
}

impl ReplicaDirectory {
    /// Stops offering the points that `keep` does not want; gives those that went. The newest always stays.
    pub fn forget_points(&mut self, keep: impl Fn(PointId) -> bool) -> Result<Vec<PointId>, LayerError> {
        let Some(newest) = self.manifest.points.last().map(|point| point.point.id) else {
            return Ok(Vec::new());
        };
        let stays = |id: PointId| id == newest || keep(id);
        let points = self.manifest.points.iter().map(|point| point.point.id);
        let gone: Vec<PointId> = points.filter(|id| !stays(*id)).collect();
        if !gone.is_empty() {
            self.update(|manifest| manifest.points.retain(|point| !gone.contains(&point.point.id)))?;
        }
        Ok(gone)
    }

    /// Folds a disk as far as its points allow.
    pub fn fold(
        &mut self,
        target: &DiskTarget,
        scope: Scope,
        pinned: &HashSet<PointId>,
    ) -> Result<(), LayerError> {
        let mut fold = self.begin_fold(target, scope, pinned)?;
        while fold.step()?.is_some() {}
        Ok(())
    }

    /// Prepares a fold that is driven step by step. Refused while an `active` overlay exists.
    pub fn begin_fold<'a>(
        &'a mut self,
        target: &DiskTarget,
        scope: Scope,
        pinned: &'a HashSet<PointId>,
    ) -> Result<Fold<'a>, LayerError> {
        self.disk(target)?;
        if Folder::open(&self.disk_folder(target))?.exists(ACTIVE)? {
            return Err(LayerError::Active(self.active_path(target)));
        }
        Ok(Fold { directory: self, target: target.clone(), scope, pinned, committed: None })
    }

    /// Brings a layer's data into the file below, until `gives_way` says that somebody needs the files. The manifest is neither
    /// read nor changed; points and layers may be added meanwhile, and nothing else may.
    pub fn commit(&self, merge: &Merge, gives_way: &dyn Fn() -> bool) -> Result<(), LayerError> {
        let folder = self.disk_folder(&merge.target);
        commit(&folder.join(merge.layer.as_str()), &merge.below.resolve(&folder), gives_way)
    }
}

impl Merge {
    /// Of which disk.
    #[must_use]
    pub fn target(&self) -> &DiskTarget {
        &self.target
    }
}

impl Fold<'_> {
    /// The same, by somebody who has seen this merge's commit to its end; since then no file below the newest changed.
    #[must_use]
    pub fn after(mut self, committed: Option<Merge>) -> Self {
        self.committed = committed;
        self
    }

    /// Does the next step and tells which it was; `None` when there is nothing left to do.
    pub fn step(&mut self) -> Result<Option<FoldStep>, LayerError> {
        let Some(step) = self.next()? else { return Ok(None) };
        match &step {
            FoldStep::Delete => self.delete()?,
            FoldStep::Commit(merge) => {
                self.directory.commit(merge, &|| false)?;
                self.committed = Some(merge.clone());
            }
            FoldStep::Rebase(above, merge) => {
                let path = self.directory.disk_folder(&self.target).join(above.as_str());
                set_backing(&path, &merge.below)?;
            }
            FoldStep::Record(merge) => {
                self.directory.update(|manifest| manifest.layer_is_in_below(&merge.target, &merge.layer))?;
            }
        }
        Ok(Some(step))
    }

    /// What the next step would be.
    pub fn next(&self) -> Result<Option<FoldStep>, LayerError> {
        let disk = self.directory.disk(&self.target)?;
        if !disk.folded.is_empty() {
            cov_mark::hit!(a_fold_finds_files_that_were_not_deleted);
            return Ok(Some(FoldStep::Delete));
        }
        if let Some(index) = self.rebased()? {
            cov_mark::hit!(a_fold_finds_a_rebase_that_was_not_recorded);
            return Ok(Some(FoldStep::Record(self.merge(disk, index))));
        }
        let manifest = &self.directory.manifest;
        let Some(index) = lowest_merge(manifest, disk, self.scope, self.pinned) else { return Ok(None) };
        let merge = self.merge(disk, index);
        Ok(Some(match disk.layers.get(index + 1) {
            _ if self.committed.as_ref() != Some(&merge) => FoldStep::Commit(merge),
            Some(above) => FoldStep::Rebase(above.clone(), merge),
            None => FoldStep::Record(merge),
        }))
    }

    fn merge(&self, disk: &ManifestDisk, index: usize) -> Merge {
        Merge { target: self.target.clone(), layer: disk.layers[index].clone(), below: disk.below(index) }
    }

    /// The layer that a layer above has left already. That happens only after the commit was durable: the order of the steps is
    /// the proof.
    fn rebased(&self) -> Result<Option<usize>, LayerError> {
        let disk = self.directory.disk(&self.target)?;
        let folder = self.directory.disk_folder(&self.target);
        for (index, layer) in disk.layers.iter().enumerate().skip(1) {
            let path = folder.join(layer.as_str());
            let found = inspect(&path, Gate::Foreign)?.backing;
            let (below, further) = (disk.below(index), disk.below(index - 1));
            match found.as_deref() {
                Some(name) if name == below.file() => {}
                Some(name) if name == further.file() => return Ok(Some(index - 1)),
                _ => {
                    let expected = below.file().to_owned();
                    return Err(LayerError::ChainDiffers { path, found, expected });
                }
            }
        }
        Ok(None)
    }

    fn delete(&mut self) -> Result<(), LayerError> {
        let folder = Folder::open(&self.directory.disk_folder(&self.target))?;
        for layer in &self.directory.disk(&self.target)?.folded {
            folder.remove(layer.as_str())?;
        }
        folder.sync()?;
        let target = &self.target;
        self.directory.update(|manifest| {
            if let Some(disk) = manifest.disk_mut(target) {
                disk.folded.clear();
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::{RecoveryPoint, fixture};
    use uuid::Uuid;

    use super::*;
    use crate::backing::BackingFormat;
    use crate::manifest::ManifestPoint;

    fn id(number: u32) -> PointId {
        PointId(Uuid::from_u128(u128::from(number) + 1))
    }

    /// `points` lists the files on which points stand: 0 is the base, 1 the first layer. The answer is the file that takes in.
    fn check(layers: usize, points: &[u32], pins: &[u32], scope: Scope) -> Option<usize> {
        let target = DiskTarget::new("vda").expect("a target");
        let layer = |number: usize| FileName::new(&format!("{number}.qcow2")).expect("a name");
        let base = Backing::new("0.qcow2", BackingFormat::Qcow2).expect("a base");
        let disk = ManifestDisk {
            layers: (1..=layers).map(layer).collect(),
            ..ManifestDisk::on(target.clone(), 512, base)
        };
        let point = |number: &u32| ManifestPoint {
            point: RecoveryPoint { id: id(*number), ..fixture::point(u64::from(*number)) },
            files: BTreeMap::from([(target.clone(), format!("{number}.qcow2"))]),
            belongings: None,
        };
        let manifest = Manifest {
            vm_name: "vm".to_owned(),
            vm: Uuid::from_u128(1).into(),
            relationship: Uuid::from_u128(2).into(),
            disks: vec![disk.clone()],
            points: points.iter().map(point).collect(),
            autostart: false,
        };
        lowest_merge(&manifest, &disk, scope, &pins.iter().map(|number| id(*number)).collect())
    }

    #[test]
    fn a_file_without_a_point_takes_in_the_layer_above() {
        use Scope::{All, BelowHead};
        assert_eq!(check(3, &[0, 1, 2, 3], &[], All), None);
        assert_eq!(check(3, &[3], &[], BelowHead), Some(0));
        assert_eq!(check(3, &[0, 3], &[], BelowHead), Some(1));
        assert_eq!(check(3, &[0, 1, 3], &[], BelowHead), None);
        assert_eq!(check(3, &[0, 1, 3], &[], All), Some(2));
        assert_eq!(check(1, &[1], &[], BelowHead), None);
        assert_eq!(check(1, &[1], &[], All), Some(0));
        assert_eq!(check(0, &[0], &[], All), None);
        assert_eq!(check(0, &[], &[], All), None);
    }

    #[test]
    fn nothing_at_or_below_a_pinned_point_changes() {
        use Scope::BelowHead;
        assert_eq!(check(5, &[2, 5], &[], BelowHead), Some(0));
        assert_eq!(check(5, &[2, 5], &[2], BelowHead), Some(3));
        assert_eq!(check(5, &[2, 5], &[5], BelowHead), None);
        assert_eq!(check(5, &[0, 2, 5], &[0, 2], BelowHead), Some(3));
    }
}

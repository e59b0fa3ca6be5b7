//! Folding: the oldest layer of a disk becomes part of its base, one interruptible step at a time.
//!
//! ```text
//! before     base ◄─ L1 ◄─ L2 ◄─ L3          points: P0 on base, P1 on L1, P2 on L2, P3 on L3
//! forget     the same files; P0 is no longer offered, since the base is about to change
//! commit     base holds P1's bytes; through L1 and through base the disk reads the same from now on
//! rebase     base ◄─ L2 ◄─ L3;  L1 stands aside
//! record     manifest: P1 is on base, L1 is to be deleted
//! delete     base ◄─ L2 ◄─ L3
//! ```
//!
//! Each step is found by looking at the disk, so a crash anywhere is followed by the step that was cut, and each is
//! harmless when repeated. Not here: whether a point may go (retention decides), and merging below a running VM.

use domain::DiskTarget;

use crate::backing::set_backing;
use crate::chain::commit_into_base;
use crate::error::LayerError;
use crate::folder::Folder;
use crate::inspect::{Gate, inspect};
use crate::name::FileName;
use crate::replica_directory::{ACTIVE, ReplicaDirectory};

/// The next thing to do to bring a disk's oldest layer into its base.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FoldStep {
    /// Delete the files of layers that are in the base already.
    Delete,
    /// Stop offering the points that start from the bare base.
    ForgetPoints,
    /// Bring the layer's data into the base.
    Commit(FileName),
    /// Let the layer above stand on the base.
    Rebase(FileName),
    /// Note in the manifest that the layer is in the base.
    Record(FileName),
}

/// What a fold has observed of a disk.
struct Observed<'a> {
    layers: &'a [FileName],
    keep: usize,
    to_delete: bool,
    point_on_base: bool,
    /// Whether the data of the oldest layer is known to be in the base.
    second_is_on_base: bool,
    just_committed: bool,
}

/// Decides; pure.
fn next_step(observed: &Observed<'_>) -> Option<FoldStep> {
    if observed.to_delete {
        return Some(FoldStep::Delete);
    }
    if observed.layers.len() <= observed.keep {
        return None;
    }
    let oldest = observed.layers[0].clone();
    if observed.point_on_base {
        return Some(FoldStep::ForgetPoints);
    }
    if observed.second_is_on_base {
        return Some(FoldStep::Record(oldest));
    }
    if !observed.just_committed {
        return Some(FoldStep::Commit(oldest));
    }
    Some(match observed.layers.get(1) {
        Some(second) => FoldStep::Rebase(second.clone()),
        None => FoldStep::Record(oldest),
    })
}

/// A fold of one disk under way. Dropping it at any moment is as good as a crash, and both are harmless.
#[derive(Debug)]
pub struct Fold<'a> {
    directory: &'a mut ReplicaDirectory,
    target: DiskTarget,
    keep: usize,
    /// The layer whose commit this run has seen to the end. Nothing on disk tells it, so a new run commits again.
    committed: Option<FileName>,
}

impl ReplicaDirectory {
    /// Folds the oldest layers of a disk until `keep` are left: 0 leaves just the base.
    pub fn fold(&mut self, target: &DiskTarget, keep: usize) -> Result<(), LayerError> {
        let mut fold = self.begin_fold(target, keep)?;
        while fold.step()?.is_some() {}
        Ok(())
    }

    /// Prepares a fold that is driven step by step. Refused while an `active` overlay exists.
    pub fn begin_fold(&mut self, target: &DiskTarget, keep: usize) -> Result<Fold<'_>, LayerError> {
        self.disk(target)?;
        if Folder::open(&self.disk_folder(target))?.exists(ACTIVE)? {
            return Err(LayerError::Active(self.active_path(target)));
        }
        Ok(Fold { directory: self, target: target.clone(), keep, committed: None })
    }
}

impl Fold<'_> {
    /// Does the next step and tells which it was; `None` when there is nothing left to do.
    pub fn step(&mut self) -> Result<Option<FoldStep>, LayerError> {
        let Some(step) = self.plan()? else { return Ok(None) };
        match &step {
            FoldStep::Delete => self.delete()?,
            FoldStep::ForgetPoints => {
                let target = &self.target;
                self.directory.update(|manifest| manifest.forget_points_on_base(target))?;
            }
            FoldStep::Commit(layer) => self.commit(layer)?,
            FoldStep::Rebase(layer) => {
                let path = self.directory.disk_folder(&self.target).join(layer.as_str());
                set_backing(&path, &self.directory.disk(&self.target)?.base)?;
            }
            FoldStep::Record(_) => {
                let target = &self.target;
                self.directory.update(|manifest| manifest.oldest_layer_is_in_base(target))?;
            }
        }
        Ok(Some(step))
    }

    fn plan(&self) -> Result<Option<FoldStep>, LayerError> {
        let disk = self.directory.disk(&self.target)?;
        Ok(next_step(&Observed {
            layers: &disk.layers,
            keep: self.keep,
            to_delete: !disk.folded.is_empty(),
            point_on_base: disk.layers.len() > self.keep
                && self.directory.manifest.has_point_on_base(&self.target),
            second_is_on_base: self.second_is_on_base()?,
            just_committed: self.committed.is_some() && self.committed.as_ref() == disk.layers.first(),
        }))
    }

    /// The layer above stands on the base only after the commit was durable: the order of the steps is the proof.
    fn second_is_on_base(&self) -> Result<bool, LayerError> {
        let disk = self.directory.disk(&self.target)?;
        let Some(second) = disk.layers.get(1) else { return Ok(false) };
        let path = self.directory.disk_folder(&self.target).join(second.as_str());
        let found = inspect(&path, Gate::Foreign)?.backing;
        let below = disk.below(1);
        match found.as_deref() {
            Some(name) if name == below.file() => Ok(false),
            Some(name) if name == disk.base.file() => Ok(true),
            _ => Err(LayerError::ChainDiffers { path, found, expected: below.file().to_owned() }),
        }
    }

    fn commit(&mut self, layer: &FileName) -> Result<(), LayerError> {
        let folder = self.directory.disk_folder(&self.target);
        let base = self.directory.disk(&self.target)?.base.resolve(&folder);
        commit_into_base(&folder.join(layer.as_str()), &base)?;
        self.committed = Some(layer.clone());
        Ok(())
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

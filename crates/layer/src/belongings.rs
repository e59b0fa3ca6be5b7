//! What belongs to a VM beside its disks, as it was at each recovery point: its definition, its UEFI variables, the state of its TPM.
//! A disk of Monday with the variables and the TPM of Friday need not start, and must not be taken for Monday.
//!
//! ```text
//! <replica>/  primary.xml  nvram.fd  tpm.permall      what came last, also before it is a point
//!             points/<id>/ primary.xml  nvram.fd  …   as they came with the point `id`; points that follow share them while they are equal
//! ```
//! A folder is complete before the manifest names it, and goes with the last point that does. Points of an older version have none: what came
//! last has to do for them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use domain::{Attachment, PointId};

use crate::error::LayerError;
use crate::folder::Folder;
use crate::manifest::Manifest;
use crate::replica_directory::{PRIMARY_DEFINITION, ReplicaDirectory, attachment_name, remove_if_empty};

/// Where the folders are.
pub(crate) const POINTS: &str = "points";
/// Largest definition that is read, bytes: as much as the header of a delta may carry.
const DEFINITION_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl Manifest {
    /// Notes where that of a listed point is kept.
    pub fn note_belongings(&mut self, point: PointId, kept: PointId) {
        if let Some(listed) = self.points.iter_mut().find(|listed| listed.point.id == point) {
            listed.belongings = Some(kept);
        }
    }

    fn named(&self) -> BTreeSet<PointId> {
        self.points.iter().filter_map(|listed| listed.belongings).collect()
    }
}

impl ReplicaDirectory {
    /// Keeps the primary's own definition as it came last, replacing an older one at once.
    pub fn write_primary_definition(&self, xml: &str) -> Result<(), LayerError> {
        replace_if_other(&self.folder, PRIMARY_DEFINITION, xml.as_bytes(), DEFINITION_BYTES_MAX)
    }

    /// Keeps a file that belongs to the VM as it came last, replacing an older one at once.
    pub fn write_attachment(&self, kind: Attachment, bytes: &[u8]) -> Result<(), LayerError> {
        replace_if_other(&self.folder, attachment_name(kind), bytes, kind.bytes_max())
    }

    /// Keeps what comes with a point that is about to be listed; gives where, for [`Manifest::note_belongings`].
    pub fn keep_belongings(
        &self,
        point: PointId,
        definition: &str,
        files: &[(Attachment, Vec<u8>)],
    ) -> Result<PointId, LayerError> {
        let newest = self.manifest.points.last().and_then(|listed| listed.belongings);
        if let Some(newest) = newest
            && self.holds(&Folder::open(&self.belongings_path(newest))?, definition, files)?
        {
            return Ok(newest);
        }
        let folder = self.folder.enter(POINTS)?.enter(&point.to_string())?;
        for kind in Attachment::ALL {
            match files.iter().find(|(known, _)| *known == kind) {
                Some((_, bytes)) => folder.replace(attachment_name(kind), bytes)?,
                // What a run left that was cut.
                None => folder.remove(attachment_name(kind))?,
            }
        }
        folder.replace(PRIMARY_DEFINITION, definition.as_bytes())?;
        Ok(point)
    }

    fn holds(
        &self,
        folder: &Folder,
        definition: &str,
        files: &[(Attachment, Vec<u8>)],
    ) -> Result<bool, LayerError> {
        for kind in Attachment::ALL {
            let wanted = files.iter().find(|(known, _)| *known == kind).map(|(_, bytes)| bytes.as_slice());
            if folder.read(attachment_name(kind), kind.bytes_max())?.as_deref() != wanted {
                return Ok(false);
            }
        }
        Ok(folder.read(PRIMARY_DEFINITION, DEFINITION_BYTES_MAX)?.as_deref() == Some(definition.as_bytes()))
    }

    /// The primary's own definition at a point; none: as it came last.
    pub fn primary_definition(&self, at: Option<PointId>) -> Result<String, LayerError> {
        let path = self.kept_in(at).join(PRIMARY_DEFINITION);
        let refused = |kind| LayerError::io("read", &path)(std::io::Error::from(kind));
        let bytes = Folder::open(&self.kept_in(at))?.read(PRIMARY_DEFINITION, DEFINITION_BYTES_MAX)?;
        let bytes = bytes.ok_or_else(|| refused(std::io::ErrorKind::NotFound))?;
        String::from_utf8(bytes).map_err(|_| refused(std::io::ErrorKind::InvalidData))
    }

    /// A file that belonged to the VM at a point, if it had one of this kind; none: as it came last.
    pub fn read_attachment(
        &self,
        kind: Attachment,
        at: Option<PointId>,
    ) -> Result<Option<Vec<u8>>, LayerError> {
        Folder::open(&self.kept_in(at))?.read(attachment_name(kind), kind.bytes_max())
    }

    /// The folder in which that of a point lies; none: what came last.
    #[must_use]
    pub fn kept_in(&self, at: Option<PointId>) -> PathBuf {
        let listed = self.manifest.points.iter().find(|listed| Some(listed.point.id) == at);
        let kept = listed.and_then(|listed| listed.belongings);
        kept.map_or_else(|| self.path().to_owned(), |kept| self.belongings_path(kept))
    }

    fn belongings_path(&self, kept: PointId) -> PathBuf {
        self.path().join(POINTS).join(kept.to_string())
    }

    /// Deletes the folders that no point names any more, when there are fewer than before. What cannot be deleted stays until the next time.
    pub(crate) fn drop_belongings(&self, before: &Manifest) {
        let named = self.manifest.named();
        if before.named().is_subset(&named) {
            return;
        }
        for kept in self.all_belongings().into_iter().filter(|kept| !named.contains(kept)) {
            let _ = fs::remove_dir_all(self.belongings_path(kept));
        }
    }

    /// The folders that are there, named by a point or left behind.
    fn all_belongings(&self) -> Vec<PointId> {
        let entries = fs::read_dir(self.path().join(POINTS)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let ours = |name: String| name.parse::<PointId>().ok().filter(|kept| kept.to_string() == name);
        names.filter_map(ours).collect()
    }

    /// Deletes all of them, with the replica.
    pub(crate) fn remove_belongings(&self) -> Result<(), LayerError> {
        for kept in self.all_belongings() {
            let path = self.belongings_path(kept);
            fs::remove_dir_all(&path).map_err(LayerError::io("remove", &path))?;
        }
        remove_if_empty(&self.path().join(POINTS))
    }
}

/// Most deltas bring what is there already.
fn replace_if_other(folder: &Folder, name: &str, bytes: &[u8], bytes_max: u64) -> Result<(), LayerError> {
    match folder.read(name, bytes_max) {
        Ok(Some(known)) if known == bytes => Ok(()),
        _ => folder.replace(name, bytes),
    }
}

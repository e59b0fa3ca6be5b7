//! Files that belong to a VM beside its disks: its UEFI variables and the state of its TPM.
//!
//! They travel in the header of every delta together with the definition, lie in the replica's directory, and are put where
//! this host's own definition wants them before the VM starts. The peer names none of these paths. Of a VM that is off they
//! are exactly what the guest left; of one that runs, what the files held when the cycle began.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use domain::{Attachment, PointId};
use hypervisor::{Firmware, VmFacts};
use layer::ReplicaDirectory;
use wire::{AttachmentForm, envelope_digest};

use crate::{Engine, Refusal, Result};

/// What a delta carries beside the disks.
pub(crate) struct Envelope {
    pub(crate) definition: String,
    pub(crate) attachments: Vec<AttachmentForm>,
    /// Equal digests, equal envelopes.
    pub(crate) digest: String,
}

impl Envelope {
    /// The envelope of a VM of this host as it is now.
    pub(crate) fn of(facts: &VmFacts) -> Result<Envelope> {
        let files = read(facts)?;
        let packed = files.iter().map(|(kind, content)| AttachmentForm::pack(*kind, content));
        let attachments = packed.collect::<std::result::Result<Vec<_>, _>>().map_err(Refusal::failed)?;
        let definition = facts.definition.clone();
        let autostart = if facts.autostart { " autostart" } else { "" };
        let digest = envelope_digest(&definition, &attachments) + autostart;
        Ok(Envelope { digest, definition, attachments })
    }
}

/// Where this host's definition of the VM has the file.
fn place_of(facts: &VmFacts, kind: Attachment) -> Option<&Path> {
    match (kind, &facts.firmware) {
        (Attachment::Nvram, Firmware::Uefi { nvram, .. }) => nvram.as_deref(),
        (Attachment::Nvram, Firmware::Bios) => None,
        (Attachment::Tpm, _) => facts.tpm_state.as_deref(),
    }
}

/// The files of a VM of this host; one that never ran has none yet.
pub(crate) fn read(facts: &VmFacts) -> Result<Vec<(Attachment, Vec<u8>)>> {
    let mut found = Vec::new();
    for kind in Attachment::ALL {
        let Some(path) = place_of(facts, kind) else { continue };
        let broken = |error| Refusal::failed(format!("{} cannot be read: {error}", path.display()));
        match File::open(path) {
            Ok(file) => {
                let mut content = Vec::new();
                file.take(kind.bytes_max() + 1).read_to_end(&mut content).map_err(broken)?;
                found.push((kind, content));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(found)
}

/// Unpacks what came with a delta.
pub(crate) fn unpack(forms: &[AttachmentForm]) -> Result<Vec<(Attachment, Vec<u8>)>> {
    forms.iter().map(|form| form.unpack().map_err(Refusal::failed)).collect()
}

/// Keeps the files in the replica's directory, as what came last.
pub(crate) fn keep(directory: &ReplicaDirectory, files: &[(Attachment, Vec<u8>)]) -> Result<()> {
    files
        .iter()
        .try_for_each(|(kind, content)| directory.write_attachment(*kind, content).map_err(Refusal::failed))
}

/// What was kept last, as [`read`] gives it of a VM.
pub(crate) fn kept(directory: &ReplicaDirectory) -> Result<Vec<(Attachment, Vec<u8>)>> {
    let mut found = Vec::new();
    for kind in Attachment::ALL {
        found.extend(
            directory.read_attachment(kind, None).map_err(Refusal::failed)?.map(|content| (kind, content)),
        );
    }
    Ok(found)
}

/// Puts the files of a point (none: what came last) where the definition, which is this host's own, wants them. The VM is off.
pub(crate) async fn restore(
    engine: &Engine,
    directory: &ReplicaDirectory,
    definition: &str,
    at: Option<PointId>,
) -> Result<()> {
    let definition = definition.to_owned();
    let facts = engine.hypervisor(move |it| it.read_definition(&definition)).await?;
    for kind in Attachment::ALL {
        let kept = directory.read_attachment(kind, at).map_err(Refusal::failed)?;
        let place = place_of(&facts, kind).filter(|place| *place != directory.attachment_path(kind));
        if let (Some(content), Some(place)) = (kept, place) {
            put(place, &content).map_err(|error| {
                Refusal::failed(format!("{} cannot be written: {error}", place.display()))
            })?;
        }
    }
    Ok(())
}

/// Replaces a file at once and durably. libvirt gives it to the user of QEMU or swtpm when the VM starts.
fn put(place: &Path, content: &[u8]) -> io::Result<()> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    // Passable, as libvirt makes them: swtpm runs as a user of its own.
    DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
    let fresh = PathBuf::from(format!("{}.virt-replica", place.display()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, place)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_in_a_folder_that_is_made_if_missing_and_only_root_reads_it() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("swtpm/id/tpm2/tpm2-00.permall");
        for content in [&b"first"[..], b"2"] {
            put(&place, content).unwrap();
            assert_eq!(fs::read(&place).unwrap(), content);
        }
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.parent().unwrap()).unwrap().count(), 1);
    }
}

//! What a VM that is off was like at the last delta: as long as it is the same, there is nothing to send. Somebody may write
//! to its disks with guestfish or qemu-img, or edit its definition.

use std::path::Path;

use domain::DiskTarget;
use hypervisor::{CHECKPOINT_PREFIX, VmFacts};
use serde::{Deserialize, Serialize};
use store::Record;

use crate::attachments::Envelope;
use crate::files::FileIdentity;
use crate::source::source_file;
use crate::{Code, Refusal, Result, blocking};

/// Files and definition of a VM that is off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seal {
    pub(crate) files: Vec<FileIdentity>,
    /// Digest of the definition and what belongs to it.
    envelope: String,
}

impl Seal {
    /// As it is now.
    pub(crate) fn now(facts: &VmFacts, disks: &[DiskTarget], envelope: &Envelope) -> Result<Seal> {
        let mut files = Vec::new();
        for target in disks {
            let file = source_file(facts, target)?;
            files.push(FileIdentity::of(&file).map_err(Refusal::failed)?);
            if let Some(wrapper) = layer::wrapper(&file) {
                files.push(FileIdentity::of(&wrapper.data).map_err(Refusal::failed)?);
            }
        }
        Ok(Seal { files, envelope: envelope.digest.clone() })
    }

    /// As it was when the last delta of the VM while off was acknowledged; none: it ran since.
    pub(crate) fn before(record: &Record) -> Option<Seal> {
        serde_json::from_str(record.offline_seal.as_deref()?).ok()
    }

    pub(crate) fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(Refusal::failed)
    }
}

/// Makes sure that the newest file of each disk knows all that changed. After an external snapshot the file below still
/// holds a bitmap with what changed before it; libvirt unites the two while the VM runs, and nobody does when it is off.
pub(crate) async fn expect_one_bitmap(facts: &VmFacts, disks: &[DiskTarget]) -> Result<()> {
    for target in disks {
        let file = source_file(facts, target)?;
        expect_no_bypass(target, &file)?;
        let split = blocking(move || split_below(&file)).await?;
        if split {
            let found =
                format!("the bitmap of disk {target} is spread over several files: a snapshot was taken");
            return Err(Refusal::new(Code::TrackingLost, found, ""));
        }
    }
    Ok(())
}

/// What was written to a raw file past its wrapper is in no bitmap.
fn expect_no_bypass(target: &DiskTarget, file: &Path) -> Result<()> {
    let Some(wrapper) = layer::wrapper(file) else { return Ok(()) };
    if !wrapper.is_bypassed().map_err(Refusal::failed)? {
        return Ok(());
    }
    let found = format!("{} behind disk {target} was written to past its wrapper", wrapper.data.display());
    Err(Refusal::new(Code::TrackingLost, found, ""))
}

fn split_below(file: &Path) -> Result<bool> {
    let chain = layer::chain_check(file).map_err(Refusal::failed)?;
    let below = chain.iter().skip(1).filter(|link| link.info.as_ref().is_some_and(|info| info.bitmaps > 0));
    for link in below {
        let bitmaps = layer::list_bitmaps(&link.path).map_err(Refusal::failed)?;
        if bitmaps.iter().any(|bitmap| bitmap.name.starts_with(CHECKPOINT_PREFIX)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where no checkpoint is left, our bitmaps belong to nobody, in whatever file of a disk they are: libvirt removes a checkpoint's from
/// the newest, and `checkpoint-delete --metadata` leaves them all. The VM is off.
pub(crate) async fn forget_bitmaps(facts: &VmFacts, disks: &[DiskTarget]) {
    for target in disks {
        let Ok(file) = source_file(facts, target) else { continue };
        if let Err(error) = blocking(move || remove_ours(&file)).await {
            // What is left costs a comparison more; somebody else may have the file below open.
            tracing::warn!(disk = %target, %error, "a bitmap without a checkpoint could not be removed");
        }
    }
}

fn remove_ours(file: &Path) -> Result<()> {
    for link in layer::chain_check(file).map_err(Refusal::failed)? {
        if link.info.as_ref().is_none_or(|info| info.bitmaps == 0) {
            continue;
        }
        for bitmap in layer::list_bitmaps(&link.path).map_err(Refusal::failed)? {
            if bitmap.name.starts_with(CHECKPOINT_PREFIX) {
                layer::remove_bitmap(&link.path, &bitmap.name).map_err(Refusal::failed)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_bitmap_of_ours_below_the_newest_file_is_found_and_a_foreign_one_does_not_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let (base, top) = (dir.path().join("base.qcow2"), dir.path().join("top.qcow2"));
        let qemu_img = |words: &[&str]| {
            let done =
                Command::new("qemu-img").args(words).current_dir(dir.path()).output().expect("it runs");
            assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        qemu_img(&["create", "-q", "-f", "qcow2", "base.qcow2", "1M"]);
        qemu_img(&["bitmap", "--add", "base.qcow2", "theirs"]);
        qemu_img(&["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"]);
        qemu_img(&["bitmap", "--add", "top.qcow2", "vr-1"]);
        assert!(!split_below(&top).expect("a chain"));
        qemu_img(&["bitmap", "--add", "base.qcow2", "vr-1"]);
        assert!(split_below(&top).expect("a chain"));
        assert!(!split_below(&base).expect("a chain"));
        remove_ours(&top).expect("removed");
        assert!(!split_below(&top).expect("a chain"));
        let left = |path: &Path| layer::list_bitmaps(path).expect("listed").into_iter().map(|it| it.name);
        assert_eq!(left(&base).chain(left(&top)).collect::<Vec<_>>(), ["theirs"]);
    }
}

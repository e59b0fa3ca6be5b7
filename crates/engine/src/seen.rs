//! The VM as it was seen last, kept in the store. Comparing tells what was done behind our back, and why a VM is off is
//! remembered when libvirt has forgotten it, which it does whenever it restarts.
//!
//! The memory is honest: it holds for the disk files as they were when the reason was seen. QEMU marks the bitmaps in a
//! file when it opens it, so that a VM that ran meanwhile, seen or unseen, has other files and no remembered reason.

use std::path::PathBuf;

use domain::VmId;
use hypervisor::{ShutoffReason, VmFacts, VmState};
use layer::Gate;
use serde::{Deserialize, Serialize};
use store::Record;

use crate::files::FileIdentity;
use crate::{Engine, Refusal, Result};

/// What is remembered of a VM.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Its disks.
    pub(crate) disks: Vec<SeenDisk>,
    /// Digest of its definition.
    pub(crate) definition: String,
    /// Whether it was in memory.
    pub(crate) ran: bool,
    /// Why it is off; none: it runs, or nobody knows.
    pub(crate) shutoff: Option<SeenShutoff>,
}

/// A disk of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SeenDisk {
    pub(crate) target: String,
    /// The file that is written to.
    pub(crate) file: PathBuf,
    /// Bytes that the guest sees, as read last; none: the file was never readable.
    pub(crate) size_bytes: Option<u64>,
    /// The most bytes that it was seen to have: its replica has as many.
    #[serde(default)]
    pub(crate) largest_bytes: Option<u64>,
    /// The bus on which its replica is; none: not known yet.
    #[serde(default)]
    pub(crate) bus: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SeenShutoff {
    reason: String,
    files: Vec<Option<FileIdentity>>,
}

const REASONS: [(ShutoffReason, &str); 6] = [
    (ShutoffReason::Shutdown, "shutdown"),
    (ShutoffReason::Destroyed, "destroyed"),
    (ShutoffReason::Crashed, "crashed"),
    (ShutoffReason::Saved, "saved"),
    (ShutoffReason::Failed, "failed"),
    (ShutoffReason::Migrated, "migrated"),
];

impl Seen {
    /// What the last look left behind.
    pub(crate) fn before(record: &Record) -> Option<Seen> {
        serde_json::from_str(record.seen.as_deref()?).ok()
    }

    /// `files` must be older than the state in `facts`: a VM that starts in between is then seen to differ.
    fn now(facts: &VmFacts, files: Vec<Option<FileIdentity>>) -> Seen {
        let disk = |disk: &hypervisor::DiskFacts| SeenDisk {
            target: disk.target.to_string(),
            file: disk.source.clone(),
            size_bytes: layer::inspect(&disk.source, Gate::Foreign).ok().map(|info| info.virtual_size),
            largest_bytes: None,
            bus: Some(disk.bus.clone()),
        };
        let known = |state| match state {
            VmState::ShutOff(reason) => REASONS.iter().find(|(known, _)| *known == reason),
            _ => None,
        };
        Seen {
            disks: facts.disks.iter().map(disk).collect(),
            definition: blake3::hash(facts.definition.as_bytes()).to_hex().to_string(),
            ran: facts.state.is_active(),
            shutoff: known(facts.state).map(|(_, word)| SeenShutoff { reason: (*word).to_owned(), files }),
        }
    }

    /// The reason that libvirt has forgotten, if nothing has written to the disks since it was seen.
    fn recall(&self, files: &[Option<FileIdentity>]) -> Option<ShutoffReason> {
        let remembered = self.shutoff.as_ref().filter(|it| it.files == files && !files.contains(&None))?;
        REASONS.iter().find(|(_, word)| *word == remembered.reason).map(|(reason, _)| *reason)
    }
}

impl Engine {
    /// The VM of a relationship and how it is remembered from now on; none when it is not defined here.
    pub(crate) async fn look_at(&self, record: &Record) -> Result<Option<(VmFacts, Seen)>> {
        let vm = record.relationship.vm;
        let Some(mut facts) = self.hypervisor(move |it| it.vm(vm)).await? else { return Ok(None) };
        let files: Vec<_> = facts.disks.iter().map(|disk| FileIdentity::of(&disk.source).ok()).collect();
        let Some(state) = self.hypervisor(move |it| it.vm_state(vm)).await? else { return Ok(None) };
        facts.state = match state {
            VmState::ShutOff(ShutoffReason::Unknown) => {
                let recalled = Seen::before(record).and_then(|seen| seen.recall(&files));
                VmState::ShutOff(recalled.unwrap_or(ShutoffReason::Unknown))
            }
            known => known,
        };
        let seen = Seen::now(&facts, files);
        Ok(Some((facts, seen)))
    }

    /// The VM of a relationship.
    pub(crate) async fn vm(&self, record: &Record) -> Result<Option<VmFacts>> {
        Ok(self.look_at(record).await?.map(|(facts, _)| facts))
    }

    /// Only the state, cheaply.
    pub(crate) async fn vm_state(&self, record: &Record) -> Result<Option<VmState>> {
        let vm: VmId = record.relationship.vm;
        match self.hypervisor(move |it| it.vm_state(vm)).await? {
            Some(VmState::ShutOff(ShutoffReason::Unknown)) => Ok(self.vm(record).await?.map(|vm| vm.state)),
            known => Ok(known),
        }
    }

    pub(crate) fn remember(&self, record: &Record, seen: &Seen) -> Result<()> {
        let text = serde_json::to_string(seen).map_err(Refusal::failed)?;
        if record.seen.as_deref() == Some(text.as_str()) {
            return Ok(());
        }
        self.store().set_seen(record.relationship.id, &text).map_err(Refusal::failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_recalled_for_the_same_files_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = dir.path().join("disk");
        std::fs::write(&disk, "one").expect("written");
        let files = || vec![FileIdentity::of(&disk).ok()];
        let shutoff = Some(SeenShutoff { reason: "shutdown".into(), files: files() });
        let seen = Seen { shutoff, ..Seen::default() };
        let text = serde_json::to_string(&seen).expect("JSON");
        let seen: Seen = serde_json::from_str(&text).expect("a memory");
        assert_eq!(seen.recall(&files()), Some(ShutoffReason::Shutdown));
        assert_eq!(Seen::default().recall(&files()), None);
        std::fs::write(&disk, "three").expect("written");
        assert_eq!(seen.recall(&files()), None, "it ran, or somebody wrote to it");
        std::fs::remove_file(&disk).expect("removed");
        let gone = Seen { shutoff: Some(SeenShutoff { reason: "shutdown".into(), files: files() }), ..seen };
        assert_eq!(gone.recall(&files()), None, "two files that are not there are not the same file");
    }
}

//! What the engine says when it does not do something: what, why, and the command that cures it.

use std::fmt;

/// Between what was found and the cure, where both stand in one text.
pub(crate) const CURE: &str = "; cure: ";

/// The kind of a refusal or failure; it decides the exit code of the command line and the HTTP status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// A prerequisite does not hold; nothing was changed.
    Refused,
    /// No such VM, peer, relationship or operation.
    NotFound,
    /// Another operation is under way.
    Busy,
    /// What it was decided upon has changed meanwhile; nothing was changed.
    Stale,
    /// The other host or libvirt does not answer; trying again may help.
    Unavailable,
    /// The two hosts disagree, or must speak before anything may run; a person may have to decide.
    InDoubt,
    /// Something broke.
    Failed,
    /// What changed on a disk was not tracked all the time: only a comparison tells.
    TrackingLost,
}

/// A refusal or failure.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Its kind.
    pub code: Code,
    /// What was found and why it matters.
    pub detail: String,
    /// The command or action that cures it; empty when trying again is all.
    pub cure: String,
}

impl Refusal {
    /// A refusal with its cure.
    pub fn new(code: Code, detail: impl Into<String>, cure: impl Into<String>) -> Refusal {
        Refusal { code, detail: detail.into(), cure: cure.into() }
    }

    /// Something broke; the text says what.
    pub fn failed(detail: impl fmt::Display) -> Refusal {
        Refusal::new(Code::Failed, detail.to_string(), "")
    }

    /// The other host or libvirt does not answer.
    pub fn unavailable(detail: impl fmt::Display, cure: impl Into<String>) -> Refusal {
        Refusal::new(Code::Unavailable, detail.to_string(), cure)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, "{CURE}{}", self.cure) }
    }
}

impl std::error::Error for Refusal {}

/// Result of whatever the engine does.
pub type Result<T> = std::result::Result<T, Refusal>;

impl From<hypervisor::HypervisorError> for Refusal {
    fn from(error: hypervisor::HypervisorError) -> Self {
        use hypervisor::{ErrorClass, HypervisorError};
        let code = match (&error, error.class()) {
            (HypervisorError::NoSuchVm { .. }, _) => Code::NotFound,
            (HypervisorError::Busy { .. }, _) => Code::Busy,
            (HypervisorError::CheckpointUnusable { .. }, _) => Code::TrackingLost,
            (_, ErrorClass::Transient) => Code::Unavailable,
            (_, ErrorClass::NeedsOperator) => Code::Refused,
            (_, ErrorClass::Permanent) => Code::Failed,
        };
        let cure = match error {
            HypervisorError::Unreachable { .. } => {
                "on the host whose libvirt it is: systemctl start libvirtd"
            }
            HypervisorError::Busy { .. } => "wait until it has ended, or end it: virsh domjobabort VM",
            _ => "",
        };
        Refusal::new(code, error.to_string(), cure)
    }
}

impl From<nbd::NbdError> for Refusal {
    fn from(error: nbd::NbdError) -> Self {
        let code = match &error {
            nbd::NbdError::BitmapUnusable { .. } | nbd::NbdError::NoContext { .. } => Code::TrackingLost,
            _ => Code::Failed,
        };
        Refusal::new(code, error.to_string(), "")
    }
}

impl From<layer::LayerError> for Refusal {
    /// The storage of a replica: whoever reads this may sit at the other host.
    fn from(error: layer::LayerError) -> Self {
        use layer::LayerError;
        let (code, cure) = match &error {
            full if full.is_disk_full() => (
                Code::Failed,
                "on the host that has it: make room in the storage (df -h); replication goes on by itself"
                    .to_owned(),
            ),
            LayerError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => (
                Code::Failed,
                format!(
                    "on the host that has it: is the file system mounted? findmnt --target {}; replication goes on by itself",
                    domain::shell_word(&path.to_string_lossy())
                ),
            ),
            LayerError::NoStorageMarker(path) => (
                Code::Failed,
                format!(
                    "on that host: mount the file system of {}; replication goes on by itself",
                    path.display()
                ),
            ),
            LayerError::Manifest { path, .. } => (
                Code::Failed,
                format!(
                    "on the host that has it: put {} back from a copy of the storage; without one: virt-replica remove VM, then \
                     virt-replica enable VM on the primary server",
                    domain::shell_word(&path.to_string_lossy())
                ),
            ),
            _ => (Code::Failed, String::new()),
        };
        Refusal::new(code, error.to_string(), cure)
    }
}

impl From<wire::message::form::Nonsense> for Refusal {
    fn from(error: wire::message::form::Nonsense) -> Self {
        Refusal::failed(error)
    }
}

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

impl From<wire::message::form::Nonsense> for Refusal {
    fn from(error: wire::message::form::Nonsense) -> Self {
        Refusal::failed(error)
    }
}

//! What goes wrong in a hypervisor, and whether it helps to try again.

use std::path::PathBuf;

/// What to do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Trying again later may help.
    Transient,
    /// Trying again does not help.
    Permanent,
    /// A person must do something first.
    NeedsOperator,
}

/// A failed verb.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// libvirt cannot be reached.
    #[error("libvirt does not answer: {detail}")]
    Unreachable {
        /// libvirt's own words.
        detail: String,
    },
    /// The VM is not defined on this host.
    #[error("no VM {id} is defined on this host; see: virsh list --all")]
    NoSuchVm {
        /// Its UUID.
        id: domain::VmId,
    },
    /// Another job holds the VM.
    #[error("another job (backup, block copy, migration) runs on the VM: {detail}")]
    Busy {
        /// libvirt's own words.
        detail: String,
    },
    /// The base of an incremental backup cannot be used.
    #[error("checkpoint {name} cannot be used: {detail}")]
    CheckpointUnusable {
        /// Which checkpoint.
        name: String,
        /// libvirt's own words.
        detail: String,
    },
    /// The definition is not acceptable.
    #[error("the VM's definition is not accepted: {reason}")]
    Definition {
        /// What is wrong.
        reason: String,
    },
    /// A disk image cannot be read.
    #[error("{path} cannot be read as a disk image: {detail}")]
    Image {
        /// Which file.
        path: PathBuf,
        /// What was said about it.
        detail: String,
    },
    /// Any other failure of libvirt.
    #[error("libvirt: {verb} failed: {detail}")]
    Failed {
        /// What was asked.
        verb: &'static str,
        /// libvirt's own words.
        detail: String,
    },
}

impl HypervisorError {
    /// Whether it helps to try again.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            HypervisorError::Unreachable { .. } | HypervisorError::Busy { .. } => ErrorClass::Transient,
            HypervisorError::NoSuchVm { .. } | HypervisorError::Definition { .. } => {
                ErrorClass::NeedsOperator
            }
            HypervisorError::CheckpointUnusable { .. }
            | HypervisorError::Image { .. }
            | HypervisorError::Failed { .. } => ErrorClass::Permanent,
        }
    }
}

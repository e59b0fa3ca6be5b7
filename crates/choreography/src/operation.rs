//! One run of a procedure.

use std::time::Duration;

use domain::{Epoch, HostId, OperationId, RelationshipId, Timestamp};

/// What the operator chose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Reverse the replication direction after failover.
    pub reverse: bool,
    /// Start the VM on the new primary.
    pub start: bool,
    /// How long the guest may take to shut down.
    pub shutdown_timeout: Duration,
}

impl Options {
    /// Long enough for a database to flush, short enough for a maintenance window.
    pub const SHUTDOWN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);
}

impl Default for Options {
    fn default() -> Self {
        Options { reverse: true, start: true, shutdown_timeout: Self::SHUTDOWN_TIMEOUT_DEFAULT }
    }
}

/// Which part of the table a host carries out in this operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Primary when the operation began.
    OldPrimary,
    /// Replica when the operation began.
    NewPrimary,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Every step that was asked for is done.
    Completed,
    /// Everything was taken back; the VM is protected as before.
    Undone,
}

/// The head of an operation's record; its journal hangs below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The same on both hosts.
    pub id: OperationId,
    /// Whose handover.
    pub relationship: RelationshipId,
    /// The host that was primary when it began.
    pub old_primary: HostId,
    /// The part that this host plays.
    pub side: Side,
    /// The epoch that begins at the hand over.
    pub proposed_epoch: Epoch,
    /// What the operator chose.
    pub options: Options,
    /// Who asked, as the daemon knew it (a user name and a host).
    pub requested_by: String,
    /// When.
    pub begun: Timestamp,
}

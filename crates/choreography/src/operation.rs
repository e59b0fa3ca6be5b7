//! One run of a procedure.

use std::time::Duration;

use domain::{Epoch, HostId, OperationId, PointId, RelationshipId, Settlement, Timestamp};

use crate::table::Procedure;

/// What the operator chose.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Options {
    /// Reverse the replication direction after failover.
    pub reverse: bool,
    /// Start the VM on the new primary.
    pub start: bool,
    /// How long the guest may take to shut down.
    pub shutdown_timeout: Duration,
    /// From which recovery point a failover starts; none: what the procedure says.
    pub point: Option<PointId>,
    /// Turn the VM off when it does not shut down in time. Only where a person said so.
    pub destroy: bool,
    /// What becomes of a failover by itself, and after how long; none: a person decides.
    pub commit_timer: Option<(Settlement, Duration)>,
    /// Take a failover back when its guest has not answered after this long.
    pub roll_back_unless_boots: Option<Duration>,
    /// Fail over although the other host says that the VM runs there: a person vouches.
    pub force: bool,
}

impl Options {
    /// Long enough for a database to flush, short enough for a maintenance window.
    pub const SHUTDOWN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(300);

    /// Those that a planned failover knows: all that the other host has a say in.
    #[must_use]
    pub fn of_both_hosts(self) -> Options {
        let Options { reverse, start, shutdown_timeout, .. } = self;
        Options { reverse, start, shutdown_timeout, ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            reverse: true,
            start: true,
            shutdown_timeout: Self::SHUTDOWN_TIMEOUT_DEFAULT,
            point: None,
            destroy: false,
            commit_timer: None,
            roll_back_unless_boots: None,
            force: false,
        }
    }
}

/// Which part of the table a host carries out in this operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Side {
    /// Primary when the operation began.
    OldPrimary,
    /// Replica when the operation began.
    NewPrimary,
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Outcome {
    /// Every step that was asked for is done.
    Completed,
    /// Everything was taken back; the VM is protected as before.
    Undone,
    /// It took effect and did not stand its own test: what was left to do is not done, and another operation takes it back.
    GivenUp,
}

/// The head of an operation's record; its journal hangs below.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Operation {
    /// The same on both hosts.
    pub id: OperationId,
    /// What is carried out.
    pub procedure: Procedure,
    /// Whose handover.
    pub relationship: RelationshipId,
    /// The host that was primary when it began.
    pub old_primary: HostId,
    /// The part that this host plays; in a procedure of one host it is that of the new primary.
    pub side: Side,
    /// The epoch that begins at the point of no return, if one does.
    pub proposed_epoch: Epoch,
    /// What the operator chose.
    pub options: Options,
    /// Who asked, as the daemon knew it (a user name and a host).
    pub requested_by: String,
    /// When.
    pub begun: Timestamp,
}

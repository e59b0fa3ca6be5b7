//! The replication of one VM between two hosts, as one side sees it.
//!
//! ```text
//!   primary                                              replica
//!   InitialPending ─▶ InitialReplication                 Receiving (no point yet) ─▶ Receiving
//!                           │ first point acknowledged        ▲               │
//!                           ▼                                 │ reverse       │ hand over
//!   ┌─────────────────▶ Replicating ◀─ resynchronized ─┐      │               ▼
//!   │ undo                  │    └─ bitmap lost ─▶ Resynchronizing        (primary) Unprotected ─ reverse ─▶ Replicating
//!   │                       │ lock                            │
//!   └──────────────────  Yielding ── demote, reverse ─────────┤
//!                           └─────── demote, no reverse ─▶ Stopped
//!
//!   a failover that nobody planned
//!   survivor:  Receiving, Stopped ─ take over ─▶ FailedOver ─ complete ─▶ Unprotected ─ reverse ─▶ Replicating
//!                      ▲                             └─ cancel ─▶ Receiving       (FailedOver may be reversed at once)
//!   the other: Replicating … ─ the survivor reverses: step down ─▶ Receiving
//! ```

use crate::ids::{Epoch, HostId, PointId, RelationshipId, VmId};
use crate::settings::Settings;
use crate::time::Timestamp;

/// Which side may run the VM. Exactly one side is primary in an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Role {
    /// Runs the VM and sends.
    Primary,
    /// Holds the copy and receives.
    Replica,
}

/// How a failover ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Settlement {
    /// It is final.
    Complete,
    /// It is taken back.
    RollBack,
}

/// Where this side stands.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Phase {
    /// Primary: the first copy waits for its time.
    InitialPending {
        /// When it may begin.
        start: Timestamp,
    },
    /// Primary: the first copy is being made.
    InitialReplication,
    /// Primary: cycles run.
    Replicating,
    /// Primary: changes could not be tracked; both sides are compared, and what differs becomes a layer, no point is lost.
    Resynchronizing {
        /// Why, for people.
        cause: String,
    },
    /// Primary: locked by a handover; the VM must not start here until it is undone or handed over.
    Yielding,
    /// Primary: nobody receives; a visible debt until `reverse`.
    Unprotected {
        /// Since when.
        since: Timestamp,
    },
    /// Primary: the VM was started from a recovery point, because the other host was lost. Not final yet.
    FailedOver {
        /// Since when.
        since: Timestamp,
        /// From which point; newer ones are kept until it is final.
        point: PointId,
        /// What becomes of it by itself, and when by the clock of then; none: a person decides. Who acts on it counts the time between, for
        /// clocks are set.
        timer: Option<(Settlement, Timestamp)>,
    },
    /// Replica: receives deltas.
    Receiving,
    /// Replica: an old primary that handed over without reverse; the VM must not start here.
    Stopped {
        /// Since when.
        since: Timestamp,
    },
}

impl Phase {
    /// The role that a side in this phase plays.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            Phase::InitialPending { .. }
            | Phase::InitialReplication
            | Phase::Replicating
            | Phase::Resynchronizing { .. }
            | Phase::Yielding
            | Phase::Unprotected { .. }
            | Phase::FailedOver { .. } => Role::Primary,
            Phase::Receiving | Phase::Stopped { .. } => Role::Replica,
        }
    }

    /// Whether the VM may run on this side: the rule that the start hook applies.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.role() == Role::Primary && *self != Phase::Yielding
    }

    /// Whether this phase sends deltas.
    #[must_use]
    pub fn sends(&self) -> bool {
        matches!(self, Phase::InitialReplication | Phase::Replicating | Phase::Resynchronizing { .. })
    }

    /// The phase in the words that people see.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Phase::InitialPending { .. } => "Waiting to start initial replication",
            Phase::InitialReplication => "Initial replication in progress",
            Phase::Replicating => "Replicating",
            Phase::Resynchronizing { .. } => "Resynchronizing",
            Phase::Yielding => "Planned failover in progress",
            Phase::Unprotected { .. } => "Unprotected",
            Phase::FailedOver { .. } => "Failed over, not complete",
            Phase::Receiving => "Receiving",
            Phase::Stopped { .. } => "Failed over, not reversed",
        }
    }
}

/// One side's record of a relationship.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Relationship {
    /// The same on both sides.
    pub id: RelationshipId,
    /// The VM; the same UUID on both sides.
    pub vm: VmId,
    /// The VM's name when it was last seen; for people and for folder names.
    pub vm_name: String,
    /// The host on the other side.
    pub peer: HostId,
    /// Rises with each change of role.
    pub epoch: Epoch,
    /// Where this side stands; it implies the role.
    pub phase: Phase,
    /// Set while cycles are held by an operator on this side.
    pub paused_since: Option<Timestamp>,
    /// What the operator chose.
    pub settings: Settings,
}

impl Relationship {
    /// The role of this side.
    #[must_use]
    pub fn role(&self) -> Role {
        self.phase.role()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vm_may_run_only_on_a_primary_that_is_not_yielding() {
        let at = Timestamp(1);
        let phases = [
            (Phase::InitialPending { start: at }, true),
            (Phase::InitialReplication, true),
            (Phase::Replicating, true),
            (Phase::Resynchronizing { cause: "test".into() }, true),
            (Phase::Yielding, false),
            (Phase::Unprotected { since: at }, true),
            (Phase::FailedOver { since: at, point: PointId(uuid::Uuid::nil()), timer: None }, true),
            (Phase::Receiving, false),
            (Phase::Stopped { since: at }, false),
        ];
        let mut words = std::collections::BTreeSet::new();
        for (phase, may_run) in phases {
            assert_eq!(phase.may_run(), may_run, "{phase:?}");
            let replicas = ["Receiving", "Failed over, not reversed"];
            let role = if replicas.contains(&phase.words()) { Role::Replica } else { Role::Primary };
            assert_eq!(phase.role(), role, "{phase:?}");
            assert_eq!(crate::fixture::relationship(phase.clone()).role(), role, "{phase:?}");
            let sends = ["Initial replication in progress", "Replicating", "Resynchronizing"];
            assert_eq!(phase.sends(), sends.contains(&phase.words()), "{phase:?}");
            assert!(words.insert(phase.words()), "{phase:?} reads like another");
        }
    }
}

//! Who may run the VM: the rules by which role and epoch change on one host. Pure: `store` keeps an [`Authority`] and carries each
//! rule out in one transaction; a model may run the same rules.
//!
//! ```text
//!   old primary:  lock ──▶ (asked for the hand over) ──▶ demote
//!                   └──▶ unlock
//!   new primary:  hand over │ abandon: whichever comes first wins for ever
//!
//!   nobody planned it
//!   survivor:     take over ──▶ settle │ give back: whichever comes first wins
//!   the other:    supersede ──▶ step down, when the survivor reverses │ adopt, when it gave back
//!   either:       forget: epoch and role stay, and go on being told to the other
//! ```
//! The epoch never goes back, and a word about an epoch that has passed changes nothing. A rule gives the authority that follows;
//! where nothing follows it is the same. Not here: what the other host is asked before (`engine`).

use domain::{Epoch, OperationId, Phase, Role, Timestamp};

use crate::operation::{Operation, Side};
use crate::table::Procedure;

/// What one host holds of the right to run a VM, and what stands in the way of a change.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Authority {
    /// The epoch in which this host is.
    pub epoch: Epoch,
    /// Where it stands; the role follows from it.
    pub phase: Phase,
    /// The other side's epoch, when that was found to be higher: what is here is a stale copy.
    pub superseded_by: Option<Epoch>,
    /// What this host wrote as an old primary has yet to be set aside.
    pub diverged: bool,
    /// A test failover stands on the files that a handover would change.
    pub tested: bool,
    /// The operation that has not ended.
    pub open: Option<Open>,
}

/// An operation that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Open {
    /// Which.
    pub id: OperationId,
    /// What it carries out.
    pub procedure: Procedure,
    /// It is behind its point of no return.
    pub took_effect: bool,
}

/// Why a rule does not apply; nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Another operation of the relationship has not ended.
    #[error("operation {0} is under way; see: virt-replica operation show {0}")]
    Busy(OperationId),
    /// This host promised to refuse the operation.
    #[error("operation {0} was cancelled; start another: virt-replica planned-failover")]
    Abandoned(OperationId),
    /// A copy that is tried out stands on the files that the operation would change.
    #[error("a test failover of the VM stands on this host; to end it: virt-replica stop-test-failover")]
    Tested,
    /// What an old primary wrote has yet to be kept apart.
    #[error(
        "what this host wrote as the old primary is not set aside yet, and would be lost; to see how far that is: \
         virt-replica show"
    )]
    Diverged,
    /// The state is not one that the procedure begins from.
    #[error("{procedure} does not begin from the state \"{phase}\"; see: virt-replica show")]
    NotFrom {
        /// What was asked for.
        procedure: &'static str,
        /// The phase, in words.
        phase: &'static str,
    },
    /// A phase may not take or give authority.
    #[error(
        "the state may not go from \"{from}\" to \"{to}\" here: which side may run the VM changes in a handover only; \
         see: virt-replica operation list"
    )]
    Phase {
        /// The phase before, in words.
        from: &'static str,
        /// The phase that was asked for, in words.
        to: &'static str,
    },
    /// The word of an epoch that has passed, or has not come.
    #[error(
        "operation {operation} is for epoch {proposed}, this host is in epoch {known}: it comes too late or too early; \
         see: virt-replica show, on both hosts"
    )]
    Epoch {
        /// Whose word.
        operation: OperationId,
        /// The epoch that it would begin.
        proposed: Epoch,
        /// The epoch that this host is in.
        known: Epoch,
    },
}

/// Answer to a hand over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HandOverVerdict {
    /// This side is primary now.
    Taken,
    /// It was taken by this operation before.
    AlreadyTaken,
    /// This side promised to refuse this operation, or saw it end.
    Abandoned,
    /// The proposed epoch does not follow the one that this side knows.
    Epoch(Epoch),
}

/// What this host knows of the operation that asks for the hand over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Asked {
    /// It took over in it before.
    pub taken: bool,
    /// It promised to refuse it, or saw it cancelled or ended.
    pub refused: bool,
}

/// What the other host's role and epoch mean for this one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// Nothing new.
    Agreed,
    /// The other host is primary in a higher epoch: what is here is a stale copy.
    Overtaken(Epoch),
    /// The other host is the replica in a higher epoch: it took a failover back, and this host is primary in that epoch.
    AskedBack(Epoch),
}

/// What stays of a side that has ended the relationship: enough for the other host's stale copy, should that still believe in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Forgotten {
    /// The epoch in which it ended.
    pub epoch: Epoch,
    /// What this side was in it.
    pub role: Role,
}

/// The authority that follows.
pub type Ruling = Result<Authority, Denied>;

impl Authority {
    /// Whether this side may run the VM: what the start hook asks.
    #[must_use]
    pub fn may_run(&self) -> bool {
        self.phase.may_run() && !self.is_superseded()
    }

    /// Whether the other side is known to be primary in a later epoch: what is here is a stale copy.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded_by.is_some_and(|by| by > self.epoch)
    }

    /// Where this side stands from now on, within its role and beside the lock of a handover.
    pub fn go_to(&self, phase: Phase) -> Ruling {
        let is_lock = (self.phase == Phase::Yielding) != (phase == Phase::Yielding);
        if self.phase.role() != phase.role() || is_lock {
            return Err(self.not_to(&phase));
        }
        Ok(self.in_phase(phase))
    }

    /// Whether an operation may begin; gives the one that ends where it is in its favour: a failover that has taken effect, and
    /// hangs in a later step, when it is taken back.
    pub fn begin(&self, operation: &Operation, asked: Asked) -> Result<Option<OperationId>, Denied> {
        let left = self.open.filter(|open| {
            operation.procedure == Procedure::CancelFailover
                && open.procedure == Procedure::Failover
                && open.took_effect
        });
        if left.is_none() {
            self.expect_idle_but(operation.id)?;
        }
        if asked.refused {
            return Err(Denied::Abandoned(operation.id));
        }
        let fits = match (operation.procedure, operation.side) {
            (Procedure::PlannedFailover, Side::OldPrimary) => self.phase.role() == Role::Primary,
            (Procedure::PlannedFailover, Side::NewPrimary) | (Procedure::Failover, _) => {
                self.phase.role() == Role::Replica
            }
            (Procedure::CancelFailover | Procedure::CompleteFailover, _) => {
                matches!(self.phase, Phase::FailedOver { .. })
            }
        };
        if !fits {
            let procedure = operation.procedure.name();
            return Err(Denied::NotFrom { procedure, phase: self.phase.words() });
        }
        // One that was prepared before the VM moved would find its point of no return behind it.
        if operation.procedure != Procedure::PlannedFailover {
            self.expect_epoch_of(operation)?;
        }
        // A copy that is tried out reads what a failover leaves as it is, and so does its cancellation; a disaster does not wait for
        // it, nor does a time that a person has set. What an old primary wrote is looked at when it takes over.
        match operation.procedure {
            Procedure::Failover => {}
            Procedure::CancelFailover => self.expect_undiverged()?,
            Procedure::PlannedFailover | Procedure::CompleteFailover => {
                self.expect_untested()?;
                self.expect_undiverged()?;
            }
        }
        Ok(left.map(|open| open.id))
    }

    /// The lock: no start of the VM here from now on. Repeating is fine.
    pub fn lock(&self, operation: &Operation) -> Ruling {
        self.expect_epoch_of(operation)?;
        match self.phase.role() {
            Role::Primary => Ok(self.in_phase(Phase::Yielding)),
            Role::Replica => Err(self.not_to(&Phase::Yielding)),
        }
    }

    /// The lock is taken back, if it is set: replication goes on. The epoch may have risen meanwhile, by a failover that the
    /// other side took back; a side that was demoted has no lock.
    #[must_use]
    pub fn unlock(&self) -> Authority {
        match self.phase {
            Phase::Yielding => self.in_phase(Phase::Replicating),
            _ => self.clone(),
        }
    }

    /// The point of no return of a handover: taken only by a replica, only for the next epoch, and never after a cancellation that
    /// this host knows of.
    pub fn hand_over(
        &self,
        operation: &Operation,
        asked: Asked,
        phase: Phase,
    ) -> Result<(HandOverVerdict, Authority), Denied> {
        let refused = |verdict| Ok((verdict, self.clone()));
        if asked.taken {
            return refused(HandOverVerdict::AlreadyTaken);
        }
        if asked.refused {
            return refused(HandOverVerdict::Abandoned);
        }
        if operation.proposed_epoch != self.epoch.next() {
            return refused(HandOverVerdict::Epoch(self.epoch));
        }
        if (self.phase.role(), phase.role()) != (Role::Replica, Role::Primary) {
            return Err(self.not_to(&phase));
        }
        self.expect_idle_but(operation.id)?;
        self.expect_undiverged()?;
        Ok((HandOverVerdict::Taken, self.in_epoch(operation.proposed_epoch, phase)))
    }

    /// The old primary becomes replica. Repeating is fine, and changes nothing that came after the first time.
    pub fn demote(&self, operation: &Operation, phase: Phase) -> Ruling {
        if self.epoch >= operation.proposed_epoch {
            return Ok(self.clone());
        }
        self.expect_epoch_of(operation)?;
        if (self.phase.role(), phase.role()) != (Role::Primary, Role::Replica) {
            return Err(self.not_to(&phase));
        }
        Ok(self.in_epoch(operation.proposed_epoch, phase))
    }

    /// The point of no return of a failover: this replica becomes primary in the next epoch, whatever the other host does.
    pub fn take_over(&self, operation: &Operation, phase: Phase) -> Ruling {
        if self.epoch >= operation.proposed_epoch {
            return Ok(self.clone());
        }
        self.expect_epoch_of(operation)?;
        if (self.phase.role(), phase.role()) != (Role::Replica, Role::Primary) {
            return Err(self.not_to(&phase));
        }
        self.expect_undiverged()?;
        Ok(self.in_epoch(operation.proposed_epoch, phase))
    }

    /// A failover is taken back: this side is the replica again, in one more epoch, of which the other side is primary. Refused
    /// once the failover was made final: the other side may be the replica by then.
    pub fn give_back(&self, operation: &Operation) -> Ruling {
        if self.epoch >= operation.proposed_epoch {
            return Ok(self.clone());
        }
        self.expect_epoch_of(operation)?;
        match self.phase {
            Phase::FailedOver { .. } => Ok(self.in_epoch(operation.proposed_epoch, Phase::Receiving)),
            _ => Err(self.not_to(&Phase::Receiving)),
        }
    }

    /// A failover is final. `within`: the operation that does it; refused while another one is open, or a test failover reads
    /// what is given up.
    pub fn settle(&self, within: Option<OperationId>, since: Timestamp) -> Ruling {
        if !matches!(self.phase, Phase::FailedOver { .. }) {
            return Ok(self.clone());
        }
        match (self.open, within) {
            (Some(open), within) if within != Some(open.id) => return Err(Denied::Busy(open.id)),
            _ => self.expect_untested()?,
        }
        Ok(self.in_phase(Phase::Unprotected { since }))
    }

    /// The other host failed this VM over, and reverses: this side becomes its replica in its epoch, with disks that differ.
    /// Repeating is fine.
    pub fn step_down(&self, epoch: Epoch) -> Ruling {
        if self.epoch >= epoch {
            return Ok(self.clone());
        }
        if let Some(open) = self.open {
            return Err(Denied::Busy(open.id));
        }
        match self.phase.role() {
            Role::Primary => Ok(Authority { diverged: true, ..self.in_epoch(epoch, Phase::Receiving) }),
            Role::Replica => Err(self.not_to(&Phase::Receiving)),
        }
    }

    /// What the other side's role and epoch mean. Only a primary listens: a replica changes its role by its own procedures alone.
    #[must_use]
    pub fn hear(&self, they_are_primary: bool, theirs: Epoch) -> Standing {
        match self.phase.role() {
            Role::Primary if theirs > self.epoch && they_are_primary => Standing::Overtaken(theirs),
            Role::Primary if theirs > self.epoch => Standing::AskedBack(theirs),
            _ => Standing::Agreed,
        }
    }

    /// Acts on what was heard. One that was overtaken may not run, whatever it believed, until its own epoch rises to that.
    #[must_use]
    pub fn heed(&self, standing: Standing) -> Authority {
        match standing {
            Standing::Overtaken(by) => {
                Authority { superseded_by: self.superseded_by.max(Some(by)), ..self.clone() }
            }
            Standing::AskedBack(epoch) if epoch > self.epoch && self.phase.role() == Role::Primary => {
                self.in_epoch(epoch, self.phase.clone())
            }
            Standing::AskedBack(_) | Standing::Agreed => self.clone(),
        }
    }

    /// This side ends the relationship, whatever the other does: gives what stays of it. Refused while an operation is open: the
    /// start hook would no longer know a VM that may belong to the other host.
    pub fn forget(&self) -> Result<Forgotten, Denied> {
        match self.open {
            Some(open) => Err(Denied::Busy(open.id)),
            None => Ok(Forgotten { epoch: self.epoch, role: self.phase.role() }),
        }
    }

    /// Whether the files of the replica go with the relationship that ends here, where that is `asked` for. A primary's are its VM's;
    /// and where the VM was `at_home` first, its own disk lies below the layers: neither is complete without the other. Refused while
    /// they are all there is of what this host wrote as the old primary.
    pub fn deletes_files(&self, asked: bool, at_home: bool) -> Result<bool, Denied> {
        if !asked || at_home || self.phase.role() == Role::Primary {
            return Ok(false);
        }
        self.expect_undiverged().map(|()| true)
    }

    fn in_phase(&self, phase: Phase) -> Authority {
        Authority { phase, ..self.clone() }
    }

    /// The only place where an epoch changes.
    fn in_epoch(&self, epoch: Epoch, phase: Phase) -> Authority {
        Authority { epoch: self.epoch.max(epoch), phase, ..self.clone() }
    }

    fn not_to(&self, phase: &Phase) -> Denied {
        Denied::Phase { from: self.phase.words(), to: phase.words() }
    }

    fn expect_epoch_of(&self, operation: &Operation) -> Result<(), Denied> {
        if operation.proposed_epoch == self.epoch.next() {
            return Ok(());
        }
        let (operation, proposed) = (operation.id, operation.proposed_epoch);
        Err(Denied::Epoch { operation, proposed, known: self.epoch })
    }

    fn expect_idle_but(&self, own: OperationId) -> Result<(), Denied> {
        match self.open {
            Some(open) if open.id != own => Err(Denied::Busy(open.id)),
            _ => Ok(()),
        }
    }

    fn expect_untested(&self) -> Result<(), Denied> {
        if self.tested { Err(Denied::Tested) } else { Ok(()) }
    }

    fn expect_undiverged(&self) -> Result<(), Denied> {
        if self.diverged { Err(Denied::Diverged) } else { Ok(()) }
    }
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod tests;

//! The transactions in which the right to run a VM changes hands: role, epoch and journal in one write each.
//!
//! ```text
//!   old primary:  lock ──▶ (asked for the hand over) ──▶ demote
//!                   └──▶ unlock, only before the epoch has risen
//!   new primary:  hand_over │ abandon: whichever comes first wins for ever
//!
//!   nobody planned it
//!   survivor:     take_over ──▶ settle │ give_back
//!   the other:    supersede ──▶ step_down, when the survivor reverses │ adopt_epoch, when it gave back
//! ```
//! The epoch never goes back, and a word about an epoch that has passed changes nothing.

use choreography::{Entry, Mark, Operation};
use domain::{Divergence, Epoch, OperationId, Phase, RecoveryPoint, RelationshipId, Role, Timestamp};
use rusqlite::{Transaction, params};

use crate::boot::boot_id;
use crate::error::{StoreError, row};
use crate::operations::{append, expect_alone, insert_operation, open_operation_id, read_operation};
use crate::points::{insert_point, write_divergence};
use crate::relationships::{standing, write_phase};
use crate::{Result, Store};

/// Answer to a hand over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandOverVerdict {
    /// This side is primary now.
    Taken,
    /// It was taken by this operation before.
    AlreadyTaken,
    /// This side promised to refuse this operation.
    Abandoned,
    /// The proposed epoch does not follow the one that this side knows.
    Epoch(Epoch),
}

/// Answer to the plea to abandon an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbandonVerdict {
    /// A late hand over of this operation will be refused, for ever.
    Promised,
    /// The hand over has happened.
    AlreadyHandedOver,
}

impl Store {
    /// The lock: no start of the VM here from now on. Repeating is fine.
    pub fn lock(&self, operation: &Operation, done: &Entry) -> Result<()> {
        self.write(|transaction| {
            let (epoch, phase) = standing(transaction, operation.relationship)?;
            expect_epoch(operation, epoch)?;
            if phase.role() != Role::Primary {
                return Err(StoreError::Authority { from: phase.words(), to: Phase::Yielding.words() });
            }
            write_phase(transaction, operation.relationship, &Phase::Yielding)?;
            append(transaction, operation.id, std::slice::from_ref(done))
        })
    }

    /// The lock is taken back, if it was set: replication goes on. Refused once this side has been demoted.
    pub fn unlock(&self, operation: &Operation, undone: &Entry) -> Result<()> {
        self.write(|transaction| {
            let (epoch, phase) = standing(transaction, operation.relationship)?;
            expect_epoch(operation, epoch)?;
            if phase == Phase::Yielding {
                write_phase(transaction, operation.relationship, &Phase::Replicating)?;
            }
            append(transaction, operation.id, std::slice::from_ref(undone))
        })
    }

    /// The point of no return: role, epoch and journal in one transaction.
    ///
    /// Taken only by a replica, only for the next epoch, and never after a cancellation that this host knows of.
    pub fn hand_over(
        &self,
        operation: &Operation,
        entries: &[Entry],
        phase: &Phase,
        done: &Entry,
    ) -> Result<HandOverVerdict> {
        self.write(|transaction| {
            if is_taken(transaction, operation.id)? {
                return Ok(HandOverVerdict::AlreadyTaken);
            }
            let given_up = |mark: &Mark| matches!(mark, Mark::Cancel(_) | Mark::Ended(_));
            if is_abandoned(transaction, operation.id)? || has_mark(transaction, operation.id, given_up)? {
                return Ok(HandOverVerdict::Abandoned);
            }
            let (epoch, before) = standing(transaction, operation.relationship)?;
            if operation.proposed_epoch != epoch.next() {
                return Ok(HandOverVerdict::Epoch(epoch));
            }
            if (before.role(), phase.role()) != (Role::Replica, Role::Primary) {
                return Err(StoreError::Authority { from: before.words(), to: phase.words() });
            }
            expect_alone(transaction, operation)?;
            raise_epoch(transaction, operation.relationship, operation.proposed_epoch)?;
            write_phase(transaction, operation.relationship, phase)?;
            insert_operation(transaction, operation)?;
            let taken = "UPDATE operation SET taken = 1 WHERE id = ?1";
            transaction.execute(taken, [operation.id.to_string()])?;
            append(transaction, operation.id, entries)?;
            append(transaction, operation.id, std::slice::from_ref(done))?;
            Ok(HandOverVerdict::Taken)
        })
    }

    /// The durable promise to refuse a late hand over; works for an operation that was never heard of.
    pub fn abandon(&self, id: OperationId, cancel: &Entry) -> Result<AbandonVerdict> {
        self.write(|transaction| {
            if is_taken(transaction, id)? {
                return Ok(AbandonVerdict::AlreadyHandedOver);
            }
            transaction.execute("INSERT OR IGNORE INTO abandoned VALUES (?1)", [id.to_string()])?;
            if read_operation(transaction, &id.to_string())?.is_some() {
                append(transaction, id, std::slice::from_ref(cancel))?;
            }
            Ok(AbandonVerdict::Promised)
        })
    }

    /// The old primary becomes replica. Repeating is fine, and changes nothing that came after the first time.
    pub fn demote(&self, operation: &Operation, phase: &Phase, done: &Entry) -> Result<()> {
        self.write(|transaction| {
            let (epoch, before) = standing(transaction, operation.relationship)?;
            if epoch >= operation.proposed_epoch {
                return Ok(());
            }
            expect_epoch(operation, epoch)?;
            if (before.role(), phase.role()) != (Role::Primary, Role::Replica) {
                return Err(StoreError::Authority { from: before.words(), to: phase.words() });
            }
            raise_epoch(transaction, operation.relationship, operation.proposed_epoch)?;
            write_phase(transaction, operation.relationship, phase)?;
            append(transaction, operation.id, std::slice::from_ref(done))
        })
    }
}

impl Store {
    /// The other side has a higher epoch: this copy is stale and may not run, whatever this side believed. For ever, unless
    /// this side's epoch rises to it.
    pub fn supersede(&self, id: RelationshipId, by: Epoch) -> Result<()> {
        self.write(|transaction| {
            let update = "UPDATE relationship SET superseded_by = max(coalesce(superseded_by, 0), ?2),
                          may_run = may_run AND ?2 <= epoch WHERE id = ?1";
            transaction.execute(update, params![id.to_string(), by.number()])?;
            Ok(())
        })
    }
}

impl Store {
    /// A failover: this replica becomes primary in the next epoch, whatever the other host does. The point of no return.
    pub fn take_over(&self, operation: &Operation, phase: &Phase, done: &Entry) -> Result<()> {
        self.change_role(operation, phase, done, Role::Replica)
    }

    /// A failover is taken back: this side is the replica again, in one more epoch, of which the other side is primary.
    pub fn give_back(&self, operation: &Operation, done: &Entry) -> Result<()> {
        self.change_role(operation, &Phase::Receiving, done, Role::Primary)
    }

    /// Changes the role in a procedure that asks no other host. Repeating is fine.
    fn change_role(&self, operation: &Operation, phase: &Phase, done: &Entry, from: Role) -> Result<()> {
        self.write(|transaction| {
            let (epoch, before) = standing(transaction, operation.relationship)?;
            if epoch >= operation.proposed_epoch {
                return append(transaction, operation.id, std::slice::from_ref(done));
            }
            expect_epoch(operation, epoch)?;
            if before.role() != from || phase.role() == from {
                return Err(StoreError::Authority { from: before.words(), to: phase.words() });
            }
            raise_epoch(transaction, operation.relationship, operation.proposed_epoch)?;
            write_phase(transaction, operation.relationship, phase)?;
            append(transaction, operation.id, std::slice::from_ref(done))
        })
    }

    /// A failover is final: newer points than the one that it started from are given up.
    pub fn settle(&self, id: RelationshipId, since: Timestamp) -> Result<()> {
        self.write(|transaction| {
            let (_, before) = standing(transaction, id)?;
            let Phase::FailedOver { point, .. } = before else { return Ok(()) };
            let forget = "DELETE FROM point WHERE relationship = ?1 AND ordinal >
                          (SELECT ordinal FROM point WHERE relationship = ?1 AND id = ?2)";
            transaction.execute(forget, [id.to_string(), point.to_string()])?;
            write_phase(transaction, id, &Phase::Unprotected { since })
        })
    }

    /// The other host failed this VM over, and reverses: this side becomes its replica in its epoch. Its disks differ from
    /// the common point; newer points than that are not shared. Repeating is fine.
    pub fn step_down(
        &self,
        id: RelationshipId,
        epoch: Epoch,
        common: &RecoveryPoint,
        divergence: &Divergence,
    ) -> Result<()> {
        self.write(|transaction| {
            let (ours, before) = standing(transaction, id)?;
            if ours >= epoch {
                return Ok(());
            }
            if let Some(open) = open_operation_id(transaction, id)? {
                return Err(StoreError::Busy(open.parse().map_err(row)?));
            }
            if before.role() != Role::Primary {
                return Err(StoreError::Authority { from: before.words(), to: Phase::Receiving.words() });
            }
            raise_epoch(transaction, id, epoch)?;
            write_phase(transaction, id, &Phase::Receiving)?;
            let forget = "DELETE FROM point WHERE relationship = ?1 AND (ordinal > ?2 OR id = ?3)";
            let values = params![id.to_string(), common.ordinal, common.id.to_string()];
            transaction.execute(forget, values)?;
            insert_point(transaction, id, common)?;
            write_divergence(transaction, id, divergence)
        })
    }

    /// The other side says that it is this side's replica in a higher epoch: it took a failover back. This side goes on as
    /// primary, in that epoch.
    pub fn adopt_epoch(&self, id: RelationshipId, epoch: Epoch) -> Result<()> {
        self.write(|transaction| {
            let (ours, before) = standing(transaction, id)?;
            if ours >= epoch || before.role() != Role::Primary {
                return Ok(());
            }
            raise_epoch(transaction, id, epoch)?;
            write_phase(transaction, id, &before)
        })
    }
}

/// Whether this host promised to refuse the operation.
pub(crate) fn is_abandoned(transaction: &Transaction<'_>, id: OperationId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM abandoned WHERE operation = ?1)";
    Ok(transaction.query_row(query, [id.to_string()], |row| row.get(0))?)
}

/// Whether this host took over in the operation. A column of its own: lines of the journal come from the other host too.
fn is_taken(transaction: &Transaction<'_>, id: OperationId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM operation WHERE id = ?1 AND taken = 1)";
    Ok(transaction.query_row(query, [id.to_string()], |row| row.get(0))?)
}

fn has_mark(transaction: &Transaction<'_>, id: OperationId, wanted: impl Fn(&Mark) -> bool) -> Result<bool> {
    let operation = read_operation(transaction, &id.to_string())?;
    Ok(operation.is_some_and(|(_, entries)| entries.iter().any(|entry| wanted(&entry.mark))))
}

fn expect_epoch(operation: &Operation, known: Epoch) -> Result<()> {
    if operation.proposed_epoch == known.next() {
        return Ok(());
    }
    Err(StoreError::Epoch { operation: operation.id, proposed: operation.proposed_epoch, known })
}

/// The only statement that changes an epoch. The seal of disk files belongs to the role that ends; both sides just spoke.
fn raise_epoch(transaction: &Transaction<'_>, id: RelationshipId, epoch: Epoch) -> Result<()> {
    let update = "UPDATE relationship SET epoch = ?2, offline_seal = NULL, seen = NULL, confirmed_boot = ?3
                  WHERE id = ?1 AND epoch < ?2";
    transaction.execute(update, params![id.to_string(), epoch.number(), boot_id()])?;
    Ok(())
}

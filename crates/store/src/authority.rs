//! The transactions in which the right to run a VM changes hands: role, epoch and journal in one write each. The rules are
//! [`choreography::authority`]'s; here they meet the rows.

use choreography::authority::{Asked, Authority, HandOverVerdict, Open, Standing};
use choreography::{Entry, Mark, Operation, fold};
use domain::{Divergence, Epoch, OperationId, Phase, RecoveryPoint, RelationshipId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::boot::boot_id;
use crate::cached::Cached;
use crate::error::{StoreError, row};
use crate::forms::{phase_from_text, phase_to_text};
use crate::operations::{
    append, append_bounded, insert_operation, is_known, open_operation_id, read_operation,
};
use crate::points::{insert_point, read_divergence, write_divergence};
use crate::test_failovers::is_tested;
use crate::{Result, Store};

/// Answer to the plea to abandon an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbandonVerdict {
    /// A late hand over of this operation will be refused, for ever.
    Promised,
    /// The hand over has happened.
    AlreadyHandedOver,
}

impl Store {
    /// [`Authority::lock`].
    pub fn lock(&self, operation: &Operation, done: &Entry) -> Result<()> {
        self.rule(operation, done, |authority| authority.lock(operation))
    }

    /// [`Authority::unlock`].
    pub fn unlock(&self, operation: &Operation, undone: &Entry) -> Result<()> {
        self.rule(operation, undone, |authority| Ok(authority.unlock()))
    }

    /// [`Authority::demote`]; a repetition adds nothing to the journal.
    pub fn demote(&self, operation: &Operation, phase: &Phase, done: &Entry) -> Result<()> {
        self.write(|transaction| {
            let before = authority(transaction, operation.relationship)?;
            let after = before.demote(operation, phase.clone())?;
            if after != before {
                write(transaction, operation.relationship, &before, &after)?;
                append(transaction, operation.id, std::slice::from_ref(done))?;
            }
            Ok(())
        })
    }

    /// [`Authority::take_over`].
    pub fn take_over(&self, operation: &Operation, phase: &Phase, done: &Entry) -> Result<()> {
        self.rule(operation, done, |authority| authority.take_over(operation, phase.clone()))
    }

    /// [`Authority::give_back`].
    pub fn give_back(&self, operation: &Operation, done: &Entry) -> Result<()> {
        self.rule(operation, done, |authority| authority.give_back(operation))
    }

    /// One rule and the line of the journal that tells of it.
    fn rule(
        &self,
        operation: &Operation,
        line: &Entry,
        rule: impl FnOnce(&Authority) -> choreography::authority::Ruling,
    ) -> Result<()> {
        self.write(|transaction| {
            let before = authority(transaction, operation.relationship)?;
            write(transaction, operation.relationship, &before, &rule(&before)?)?;
            append(transaction, operation.id, std::slice::from_ref(line))
        })
    }

    /// [`Authority::hand_over`]: role, epoch and journal in one transaction.
    pub fn hand_over(
        &self,
        operation: &Operation,
        entries: &[Entry],
        phase: &Phase,
        done: &Entry,
    ) -> Result<HandOverVerdict> {
        self.write(|transaction| {
            is_known(transaction, operation)?;
            let asked = asked(transaction, operation.id)?;
            let before = authority(transaction, operation.relationship)?;
            let (verdict, after) = before.hand_over(operation, asked, phase.clone())?;
            if verdict == HandOverVerdict::Taken {
                write(transaction, operation.relationship, &before, &after)?;
                insert_operation(transaction, operation)?;
                let taken = "UPDATE operation SET taken = 1 WHERE id = ?1";
                transaction.execute_cached(taken, [operation.id.to_string()])?;
                append_bounded(transaction, operation.id, entries)?;
                append(transaction, operation.id, std::slice::from_ref(done))?;
            }
            Ok(verdict)
        })
    }

    /// The durable promise to refuse a late hand over; works for an operation that was never heard of.
    pub fn abandon(&self, id: OperationId, cancel: &Entry) -> Result<AbandonVerdict> {
        self.write(|transaction| {
            if is_taken(transaction, id)? {
                return Ok(AbandonVerdict::AlreadyHandedOver);
            }
            transaction.execute_cached("INSERT OR IGNORE INTO abandoned VALUES (?1)", [id.to_string()])?;
            if read_operation(transaction, &id.to_string())?.is_some() {
                append(transaction, id, std::slice::from_ref(cancel))?;
            }
            Ok(AbandonVerdict::Promised)
        })
    }

    /// [`Authority::settle`]; newer points than the one that the failover started from are given up. `within`: the operation that does
    /// it, and the line of its journal that tells of it; a reverse has neither.
    pub fn settle(
        &self,
        id: RelationshipId,
        within: Option<(OperationId, &Entry)>,
        since: Timestamp,
    ) -> Result<()> {
        self.write(|transaction| {
            let before = authority(transaction, id)?;
            let operation = within.map(|(operation, _)| operation);
            write(transaction, id, &before, &before.settle(operation, since)?)?;
            if let Some((operation, done)) = within {
                append(transaction, operation, std::slice::from_ref(done))?;
            }
            let Phase::FailedOver { point, .. } = before.phase else { return Ok(()) };
            let forget = "DELETE FROM point WHERE relationship = ?1 AND ordinal >
                          (SELECT ordinal FROM point WHERE relationship = ?1 AND id = ?2)";
            transaction.execute_cached(forget, [id.to_string(), point.to_string()])?;
            Ok(())
        })
    }

    /// [`Authority::step_down`]: the disks differ from the common point, and newer points than that are not shared.
    pub fn step_down(
        &self,
        id: RelationshipId,
        epoch: Epoch,
        common: &RecoveryPoint,
        divergence: &Divergence,
    ) -> Result<()> {
        self.write(|transaction| {
            let before = authority(transaction, id)?;
            let after = before.step_down(epoch)?;
            if after == before {
                return Ok(());
            }
            write(transaction, id, &before, &after)?;
            let forget = "DELETE FROM point WHERE relationship = ?1 AND (ordinal > ?2 OR id = ?3)";
            let values = params![id.to_string(), common.ordinal, common.id.to_string()];
            transaction.execute_cached(forget, values)?;
            insert_point(transaction, id, common)?;
            write_divergence(transaction, id, divergence)
        })
    }

    /// What the other side said of its role and epoch, judged ([`Authority::hear`]) and acted upon ([`Authority::heed`]).
    pub fn hear(&self, id: RelationshipId, they_are_primary: bool, theirs: Epoch) -> Result<Standing> {
        self.write(|transaction| {
            let before = authority(transaction, id)?;
            let standing = before.hear(they_are_primary, theirs);
            write(transaction, id, &before, &before.heed(standing))?;
            Ok(standing)
        })
    }

    /// Where this side stands from now on, within its role: [`Authority::go_to`].
    pub fn set_phase(&self, id: RelationshipId, phase: &Phase) -> Result<()> {
        self.write(|transaction| {
            let before = authority(transaction, id)?;
            write(transaction, id, &before, &before.go_to(phase.clone())?)
        })
    }
}

/// What this host holds of the right to run the VM of a relationship.
pub(crate) fn authority(transaction: &Transaction<'_>, id: RelationshipId) -> Result<Authority> {
    let query = "SELECT epoch, phase, superseded_by FROM relationship WHERE id = ?1";
    let columns = |columns: &rusqlite::Row<'_>| {
        Ok((columns.get::<_, u64>(0)?, columns.get::<_, String>(1)?, columns.get::<_, Option<u64>>(2)?))
    };
    let found = transaction.query_row_cached(query, [id.to_string()], columns).optional()?;
    let (epoch, phase, superseded_by) = found.ok_or(StoreError::NoRelationship(id))?;
    let open =
        open_operation_id(transaction, id)?.map(|open| read_operation(transaction, &open)).transpose()?;
    let open = open.flatten().map(|(operation, entries)| {
        let (id, procedure) = (operation.id, operation.procedure);
        Open { id, procedure, took_effect: fold(&entries).handed_over() }
    });
    Ok(Authority {
        epoch: Epoch::new(epoch).ok_or_else(|| row("epoch 0"))?,
        phase: phase_from_text(&phase)?,
        superseded_by: superseded_by.and_then(Epoch::new),
        diverged: read_divergence(transaction, id)?.is_some(),
        tested: is_tested(transaction, id)?,
        open,
    })
}

/// What the start hook reads is written with what it follows from. With the epoch go the seal of disk files and the failure of a
/// cycle: they belong to the role that ends; and both sides just spoke.
fn write(
    transaction: &Transaction<'_>,
    id: RelationshipId,
    before: &Authority,
    after: &Authority,
) -> Result<()> {
    let update =
        "UPDATE relationship SET epoch = ?2, phase = ?3, superseded_by = ?4, may_run = ?5 WHERE id = ?1";
    let superseded_by = after.superseded_by.map(Epoch::number);
    let phase = phase_to_text(&after.phase);
    let values = params![id.to_string(), after.epoch.number(), phase, superseded_by, after.may_run()];
    transaction.execute_cached(update, values)?;
    if after.epoch > before.epoch {
        let forget = "UPDATE relationship SET offline_seal = NULL, seen = NULL, last_failure = NULL,
                      confirmed_boot = ?2 WHERE id = ?1";
        transaction.execute_cached(forget, params![id.to_string(), boot_id()])?;
        // It spoke of the replica of that epoch.
        let forget = "UPDATE comparison SET unverified = NULL, unverified_ms = NULL WHERE relationship = ?1";
        transaction.execute_cached(forget, [id.to_string()])?;
    }
    Ok(())
}

/// What this host knows of an operation that asks for something.
pub(crate) fn asked(transaction: &Transaction<'_>, id: OperationId) -> Result<Asked> {
    let promised = "SELECT EXISTS (SELECT 1 FROM abandoned WHERE operation = ?1)";
    let promised: bool = transaction.query_row_cached(promised, [id.to_string()], |row| row.get(0))?;
    let given_up = |entry: &Entry| matches!(entry.mark, Mark::Cancel(_) | Mark::Ended(_));
    let known = read_operation(transaction, &id.to_string())?;
    let saw_it_end = known.is_some_and(|(_, entries)| entries.iter().any(given_up));
    Ok(Asked { taken: is_taken(transaction, id)?, refused: promised || saw_it_end })
}

/// Whether this host took over in the operation. A column of its own: lines of the journal come from the other host too.
fn is_taken(transaction: &Transaction<'_>, id: OperationId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM operation WHERE id = ?1 AND taken = 1)";
    Ok(transaction.query_row_cached(query, [id.to_string()], |row| row.get(0))?)
}

//! Operations and their journals; the transactions in which authority changes hands.

use choreography::{Entry, Mark, Operation, Side, Step};
use domain::{Epoch, OperationId, Phase, RelationshipId};
use rusqlite::{OptionalExtension, Transaction, params};
use wire::message::form::{EntryForm, OperationForm};

use crate::error::{StoreError, row};
use crate::relationships::{set_phase, to_json};
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
    /// A new operation with its first lines; refused while another one of the relationship is open. Repeating is fine.
    pub fn begin_operation(&self, operation: &Operation, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| {
            if let Some(open) = open_operation_id(transaction, operation.relationship)?
                && open != operation.id.to_string()
            {
                return Err(StoreError::Busy(open.parse().map_err(row)?));
            }
            insert_operation(transaction, operation)?;
            append(transaction, operation.id, entries)
        })
    }

    /// Lines of a journal; those that are there already are left alone.
    pub fn append_entries(&self, id: OperationId, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| append(transaction, id, entries))
    }

    /// An operation and its journal.
    pub fn operation(&self, id: OperationId) -> Result<Option<(Operation, Vec<Entry>)>> {
        self.write(|transaction| read_operation(transaction, &id.to_string()))
    }

    /// The operation of a relationship that has not ended.
    pub fn open_operation(&self, relationship: RelationshipId) -> Result<Option<(Operation, Vec<Entry>)>> {
        self.write(|transaction| match open_operation_id(transaction, relationship)? {
            Some(id) => read_operation(transaction, &id),
            None => Ok(None),
        })
    }

    /// The newest operations, the newest first.
    pub fn operations(&self, limit: u32) -> Result<Vec<(Operation, Vec<Entry>)>> {
        self.write(|transaction| {
            let mut statement =
                transaction.prepare("SELECT id FROM operation ORDER BY begun_ms DESC LIMIT ?1")?;
            let ids: Vec<String> =
                statement.query_map([limit], |row| row.get(0))?.collect::<std::result::Result<_, _>>()?;
            let operations = ids.iter().map(|id| read_operation(transaction, id));
            Ok(operations.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
    }

    /// Keeps the final report.
    pub fn set_report(&self, id: OperationId, report: &str) -> Result<()> {
        self.write(|transaction| {
            transaction
                .execute("UPDATE operation SET report = ?2 WHERE id = ?1", [id.to_string(), report.into()])?;
            Ok(())
        })
    }

    /// The final report.
    pub fn report(&self, id: OperationId) -> Result<Option<String>> {
        let query = "SELECT report FROM operation WHERE id = ?1";
        let report = self.connection().query_row(query, [id.to_string()], |row| row.get(0)).optional()?;
        Ok(report.flatten())
    }

    /// The lock: no start of the VM here from now on.
    pub fn lock(&self, operation: &Operation, done: &Entry) -> Result<()> {
        self.write(|transaction| {
            set_phase(transaction, operation.relationship, &Phase::Yielding)?;
            append(transaction, operation.id, std::slice::from_ref(done))
        })
    }

    /// The lock is taken back; the phase is as before.
    pub fn unlock(&self, operation: &Operation, undone: &Entry) -> Result<()> {
        self.write(|transaction| {
            set_phase(transaction, operation.relationship, &Phase::Replicating)?;
            append(transaction, operation.id, std::slice::from_ref(undone))
        })
    }

    /// The point of no return: role, epoch and journal in one transaction.
    pub fn hand_over(
        &self,
        operation: &Operation,
        entries: &[Entry],
        phase: &Phase,
        done: &Entry,
    ) -> Result<HandOverVerdict> {
        self.write(|transaction| {
            let id = operation.relationship.to_string();
            let query = "SELECT epoch FROM relationship WHERE id = ?1";
            let epoch: u64 = transaction.query_row(query, [&id], |row| row.get(0))?;
            let epoch = Epoch::new(epoch).ok_or_else(|| row("epoch 0"))?;
            if has_hand_over(transaction, operation.id)? {
                return Ok(HandOverVerdict::AlreadyTaken);
            }
            if is_abandoned(transaction, operation.id)? {
                return Ok(HandOverVerdict::Abandoned);
            }
            if operation.proposed_epoch != epoch.next() {
                return Ok(HandOverVerdict::Epoch(epoch));
            }
            let update = "UPDATE relationship SET epoch = ?2 WHERE id = ?1";
            transaction.execute(update, params![id, operation.proposed_epoch.number()])?;
            set_phase(transaction, operation.relationship, phase)?;
            insert_operation(transaction, operation)?;
            append(transaction, operation.id, entries)?;
            append(transaction, operation.id, std::slice::from_ref(done))?;
            Ok(HandOverVerdict::Taken)
        })
    }

    /// The durable promise to refuse a late hand over; works for an operation that was never heard of.
    pub fn abandon(&self, id: OperationId, cancel: &Entry) -> Result<AbandonVerdict> {
        self.write(|transaction| {
            if has_hand_over(transaction, id)? {
                return Ok(AbandonVerdict::AlreadyHandedOver);
            }
            transaction.execute("INSERT OR IGNORE INTO abandoned VALUES (?1)", [id.to_string()])?;
            if read_operation(transaction, &id.to_string())?.is_some() {
                append(transaction, id, std::slice::from_ref(cancel))?;
            }
            Ok(AbandonVerdict::Promised)
        })
    }

    /// The old primary becomes replica: role, epoch and journal in one transaction. The epoch never goes back.
    pub fn demote(&self, operation: &Operation, phase: &Phase, done: &Entry) -> Result<()> {
        self.write(|transaction| {
            let update = "UPDATE relationship SET epoch = max(epoch, ?2), offline_seal = NULL WHERE id = ?1";
            let id = operation.relationship.to_string();
            transaction.execute(update, params![id, operation.proposed_epoch.number()])?;
            set_phase(transaction, operation.relationship, phase)?;
            append(transaction, operation.id, std::slice::from_ref(done))
        })
    }
}

fn open_operation_id(transaction: &Transaction<'_>, relationship: RelationshipId) -> Result<Option<String>> {
    let query = "SELECT id FROM operation WHERE relationship = ?1 AND ended = 0";
    Ok(transaction.query_row(query, [relationship.to_string()], |row| row.get(0)).optional()?)
}

fn insert_operation(transaction: &Transaction<'_>, operation: &Operation) -> Result<()> {
    let side = match operation.side {
        Side::OldPrimary => "old-primary",
        Side::NewPrimary => "new-primary",
    };
    let insert = "INSERT OR IGNORE INTO operation (id, relationship, side, form, begun_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    transaction.execute(
        insert,
        params![
            operation.id.to_string(),
            operation.relationship.to_string(),
            side,
            to_json(&OperationForm::from(operation)),
            operation.begun.millis()
        ],
    )?;
    Ok(())
}

fn append(transaction: &Transaction<'_>, id: OperationId, entries: &[Entry]) -> Result<()> {
    let insert = "INSERT OR IGNORE INTO entry (operation, sequence, form)
                  VALUES (?1, (SELECT coalesce(max(sequence), 0) + 1 FROM entry WHERE operation = ?1), ?2)";
    for entry in entries {
        transaction.execute(insert, [id.to_string(), to_json(&EntryForm::from(entry))])?;
        // Only this host's own word ends its part: the other host's end may come while ours is not done.
        let _ = entry;
    }
    Ok(())
}

impl Store {
    /// This host's part of the operation has ended.
    pub fn end_operation(&self, id: OperationId, ended: &Entry) -> Result<()> {
        self.write(|transaction| {
            append(transaction, id, std::slice::from_ref(ended))?;
            transaction.execute("UPDATE operation SET ended = 1 WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Whether this host's part has ended.
    pub fn has_ended(&self, id: OperationId) -> Result<bool> {
        let query = "SELECT ended FROM operation WHERE id = ?1";
        Ok(self
            .connection()
            .query_row(query, [id.to_string()], |row| row.get(0))
            .optional()?
            .unwrap_or(false))
    }
}

fn read_operation(transaction: &Transaction<'_>, id: &str) -> Result<Option<(Operation, Vec<Entry>)>> {
    let query = "SELECT side, form FROM operation WHERE id = ?1";
    let found =
        transaction.query_row(query, [id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let Some((side, form)) = found.optional()? else { return Ok(None) };
    let form: OperationForm = serde_json::from_str(&form).map_err(row)?;
    let mut operation = form.into_new_primary().map_err(row)?;
    if side == "old-primary" {
        operation.side = Side::OldPrimary;
    }
    let mut statement =
        transaction.prepare("SELECT form FROM entry WHERE operation = ?1 ORDER BY sequence")?;
    let forms = statement.query_map([id], |row| row.get::<_, String>(0))?;
    let entries = forms.map(|form| {
        let form: EntryForm = serde_json::from_str(&form?).map_err(row)?;
        Entry::try_from(form).map_err(row)
    });
    Ok(Some((operation, entries.collect::<Result<_>>()?)))
}

fn has_hand_over(transaction: &Transaction<'_>, id: OperationId) -> Result<bool> {
    let operation = read_operation(transaction, &id.to_string())?;
    let is_hand_over = |entry: &Entry| matches!(entry.mark, Mark::Done(Step::HandOver, _));
    Ok(operation.is_some_and(|(_, entries)| entries.iter().any(is_hand_over)))
}

fn is_abandoned(transaction: &Transaction<'_>, id: OperationId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM abandoned WHERE operation = ?1)";
    Ok(transaction.query_row(query, [id.to_string()], |row| row.get(0))?)
}

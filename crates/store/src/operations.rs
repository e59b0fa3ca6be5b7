//! Operations and their journals. What a journal means is `choreography`'s to say; here its lines are kept.

use choreography::{Entry, Mark, Operation, Outcome, Side, fold};
use domain::{OperationId, RelationshipId};
use rusqlite::{OptionalExtension, Transaction, params};
use wire::message::form::{EntryForm, OperationForm};

use crate::authority::{asked, authority};
use crate::cached::Cached;
use crate::error::row;
use crate::forms::to_json;
use crate::{Result, Store, StoreError};

/// Lines in a journal beyond which the other host adds none; an operation of a week, retried all the time, has a few hundred.
const PEERS_ENTRIES_MAX: u64 = 4096;

impl Store {
    /// A new operation with its first lines. Repeating is fine.
    ///
    /// Refused where the state is not one that the procedure begins from, while another one of the relationship is open or a
    /// test failover stands, and when this host promised to refuse it: an announcement that comes after its own cancellation
    /// would wait for ever.
    pub fn begin_operation(&self, operation: &Operation, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| {
            begin(transaction, operation, entries)?;
            append(transaction, operation.id, entries)
        })
    }

    /// The same with an operation and lines that the other host sent; bounded as [`Store::append_peers_entries`].
    pub fn begin_peers_operation(&self, operation: &Operation, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| {
            begin(transaction, operation, entries)?;
            append_bounded(transaction, operation.id, entries)
        })
    }

    /// Lines of a journal; those that are there already are left alone.
    pub fn append_entries(&self, id: OperationId, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| append(transaction, id, entries))
    }

    /// The same with lines that the other host sent: bounded, for nobody knows how many it would send. Those that find no
    /// more room are left out; what they tell is asked for again when it matters.
    pub fn append_peers_entries(&self, id: OperationId, entries: &[Entry]) -> Result<()> {
        self.write(|transaction| append_bounded(transaction, id, entries))
    }

    /// An operation and its journal.
    pub fn operation(&self, id: OperationId) -> Result<Option<(Operation, Vec<Entry>)>> {
        self.read(|transaction| read_operation(transaction, &id.to_string()))
    }

    /// The operation of a relationship that has not ended.
    pub fn open_operation(&self, relationship: RelationshipId) -> Result<Option<(Operation, Vec<Entry>)>> {
        self.read(|transaction| match open_operation_id(transaction, relationship)? {
            Some(id) => read_operation(transaction, &id),
            None => Ok(None),
        })
    }

    /// The newest `limit` operations that began before another one, the newest first; of all relationships, or of those given.
    pub fn operations(
        &self,
        before: Option<OperationId>,
        of: Option<&[RelationshipId]>,
        limit: u32,
    ) -> Result<Vec<(Operation, Vec<Entry>)>> {
        self.read(|transaction| {
            let query = "SELECT id FROM operation
                WHERE (?1 IS NULL OR (begun_ms, id) < (SELECT begun_ms, id FROM operation WHERE id = ?1))
                  AND (?2 IS NULL OR relationship IN (SELECT value FROM json_each(?2)))
                ORDER BY begun_ms DESC, id DESC LIMIT ?3";
            let mut statement = transaction.prepare_cached(query)?;
            let of = of.map(|of| to_json(&of.iter().map(ToString::to_string).collect::<Vec<_>>()));
            let ids =
                statement.query_map(params![before.map(|id| id.to_string()), of, limit], |row| row.get(0))?;
            let ids: Vec<String> = ids.collect::<std::result::Result<_, _>>()?;
            let operations = ids.iter().map(|id| read_operation(transaction, id));
            Ok(operations.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
        })
    }

    /// This host's part of the operation has ended: its own word, which the other host's end does not stand for.
    pub fn end_operation(&self, id: OperationId, ended: &Entry) -> Result<()> {
        self.write(|transaction| end(transaction, id, ended))
    }

    /// Whether this host's part has ended.
    pub fn has_ended(&self, id: OperationId) -> Result<bool> {
        let query = "SELECT ended FROM operation WHERE id = ?1";
        let ended =
            self.connection().query_row_cached(query, [id.to_string()], |row| row.get(0)).optional()?;
        Ok(ended.unwrap_or(false))
    }
}

/// The operation, without its lines; one that is known already must be the same.
fn begin(transaction: &Transaction<'_>, operation: &Operation, entries: &[Entry]) -> Result<()> {
    if !is_known(transaction, operation)? {
        let authority = authority(transaction, operation.relationship)?;
        let left = authority.begin(operation, asked(transaction, operation.id)?)?;
        left.map(|left| leave(transaction, left, entries)).transpose()?;
    }
    insert_operation(transaction, operation)
}

/// Whether the operation is here. Another one under its id is an error: its row would be taken for this one's.
pub(crate) fn is_known(transaction: &Transaction<'_>, operation: &Operation) -> Result<bool> {
    let Some((known, _)) = read_operation(transaction, &operation.id.to_string())? else { return Ok(false) };
    let what = |it: &Operation| (it.relationship, it.procedure, it.side);
    if what(&known) == what(operation) { Ok(true) } else { Err(StoreError::OtherOperation(operation.id)) }
}

/// An operation that hangs behind its point of no return ends where it is, in favour of the one that begins with these lines.
fn leave(transaction: &Transaction<'_>, id: OperationId, entries: &[Entry]) -> Result<()> {
    let found = read_operation(transaction, &id.to_string())?;
    let (Some((operation, journal)), Some(Entry { at, host, .. })) = (found, entries.first().cloned()) else {
        return Ok(());
    };
    let (progress, line) = (fold(&journal), |mark| Entry { at, host, mark });
    let left = operation.procedure.steps().filter(|step| !progress.is_settled(*step));
    let skipped = left.map(|step| line(Mark::Skipped(step, "the failover is taken back".to_owned())));
    append(transaction, id, &skipped.collect::<Vec<_>>())?;
    end(transaction, id, &line(Mark::Ended(Outcome::Completed)))
}

fn end(transaction: &Transaction<'_>, id: OperationId, ended: &Entry) -> Result<()> {
    append(transaction, id, std::slice::from_ref(ended))?;
    transaction.execute_cached("UPDATE operation SET ended = 1 WHERE id = ?1", [id.to_string()])?;
    Ok(())
}

pub(crate) fn open_operation_id(
    transaction: &Transaction<'_>,
    relationship: RelationshipId,
) -> Result<Option<String>> {
    let query = "SELECT id FROM operation WHERE relationship = ?1 AND ended = 0";
    Ok(transaction.query_row_cached(query, [relationship.to_string()], |row| row.get(0)).optional()?)
}

pub(crate) fn insert_operation(transaction: &Transaction<'_>, operation: &Operation) -> Result<()> {
    let side = match operation.side {
        Side::OldPrimary => "old-primary",
        Side::NewPrimary => "new-primary",
    };
    let insert = "INSERT OR IGNORE INTO operation (id, relationship, side, form, begun_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    transaction.execute_cached(
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

/// Adds lines; one that is there already, to the millisecond and the letter, is left alone.
pub(crate) fn append(transaction: &Transaction<'_>, id: OperationId, entries: &[Entry]) -> Result<()> {
    let insert = "INSERT OR IGNORE INTO entry (operation, sequence, form)
                  VALUES (?1, (SELECT coalesce(max(sequence), 0) + 1 FROM entry WHERE operation = ?1), ?2)";
    for entry in entries {
        transaction.execute_cached(insert, [id.to_string(), to_json(&EntryForm::from(entry))])?;
    }
    Ok(())
}

/// The same as far as there is room for lines of the other host.
pub(crate) fn append_bounded(
    transaction: &Transaction<'_>,
    id: OperationId,
    entries: &[Entry],
) -> Result<()> {
    let count = "SELECT count(*) FROM entry WHERE operation = ?1";
    let mut kept: u64 = transaction.query_row_cached(count, [id.to_string()], |row| row.get(0))?;
    for entry in entries {
        if kept >= PEERS_ENTRIES_MAX {
            break;
        }
        append(transaction, id, std::slice::from_ref(entry))?;
        kept += transaction.changes();
    }
    Ok(())
}

pub(crate) fn read_operation(
    transaction: &Transaction<'_>,
    id: &str,
) -> Result<Option<(Operation, Vec<Entry>)>> {
    let query = "SELECT side, form FROM operation WHERE id = ?1";
    let found = transaction
        .query_row_cached(query, [id], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
    let Some((side, form)) = found.optional()? else { return Ok(None) };
    let form: OperationForm = serde_json::from_str(&form).map_err(row)?;
    let mut operation = form.into_new_primary().map_err(row)?;
    if side == "old-primary" {
        operation.side = Side::OldPrimary;
    }
    let mut statement =
        transaction.prepare_cached("SELECT form FROM entry WHERE operation = ?1 ORDER BY sequence")?;
    let forms = statement.query_map([id], |row| row.get::<_, String>(0))?;
    let entries = forms.map(|form| {
        let form: EntryForm = serde_json::from_str(&form?).map_err(row)?;
        Entry::try_from(form).map_err(row)
    });
    Ok(Some((operation, entries.collect::<Result<_>>()?)))
}

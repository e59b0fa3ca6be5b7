//! Recovery points: adding one moves the head, and those that the replica dropped are forgotten.

use domain::{Divergence, Phase, RecoveryPoint, RelationshipId, Timestamp};
use rusqlite::{OptionalExtension, Transaction, params};
use wire::message::form::{DivergenceForm, PointForm};

use crate::authority::authority;
use crate::cached::Cached;
use crate::error::row;
use crate::forms::to_json;
use crate::{Result, Store};

/// Points that a primary remembers behind the head.
const HISTORY_POINTS: u64 = 64;

impl Store {
    /// A new point: the head moves, and both sides were the same at `now`. Repeating is fine.
    pub fn add_point(&self, id: RelationshipId, point: &RecoveryPoint, now: Timestamp) -> Result<()> {
        self.write(|transaction| {
            insert_point(transaction, id, point)?;
            let update =
                "UPDATE relationship SET last_synchronized_ms = ?2, last_failure = NULL WHERE id = ?1";
            transaction.execute_cached(update, params![id.to_string(), now.millis()])?;
            cover_divergence(transaction, id, point)
        })
    }

    /// On the primary, which holds no files of points: a few ancestors of the head are enough to recognise a replica that lags.
    pub fn forget_old_points(&self, id: RelationshipId, head: &RecoveryPoint) -> Result<()> {
        self.write(|transaction| {
            let forget = "DELETE FROM point WHERE relationship = ?1 AND ordinal < ?2";
            let oldest = head.ordinal.saturating_sub(HISTORY_POINTS);
            transaction.execute_cached(forget, params![id.to_string(), oldest])?;
            Ok(())
        })
    }

    /// On the replica: the points are those that its files hold. The newest that is known stays whatever the files say: an
    /// acknowledged point is never forgotten in silence.
    pub fn set_points(&self, id: RelationshipId, held: &[RecoveryPoint]) -> Result<()> {
        self.write(|transaction| {
            let newest = "SELECT max(ordinal) FROM point WHERE relationship = ?1";
            let newest: Option<u64> =
                transaction.query_row_cached(newest, [id.to_string()], |columns| columns.get(0))?;
            let forget = "DELETE FROM point WHERE relationship = ?1 AND ordinal <> ?2";
            transaction.execute_cached(forget, params![id.to_string(), newest])?;
            held.iter().try_for_each(|point| insert_point(transaction, id, point))
        })
    }

    /// Where the disks differ from the common recovery point, as an old primary.
    pub fn divergence(&self, id: RelationshipId) -> Result<Option<Divergence>> {
        self.read(|transaction| read_divergence(transaction, id))
    }

    /// What differed has been set aside: the disks are like those of any replica.
    pub fn forget_divergence(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached("DELETE FROM divergence WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// The points that are known, oldest first; the last is the head.
    pub fn points(&self, id: RelationshipId) -> Result<Vec<RecoveryPoint>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT form FROM point WHERE relationship = ?1 ORDER BY ordinal")?;
        let forms = statement.query_map([id.to_string()], |columns| columns.get::<_, String>(0))?;
        forms.map(|form| point_of(&form?)).collect()
    }
}

pub(crate) fn insert_point(
    transaction: &Transaction<'_>,
    id: RelationshipId,
    point: &RecoveryPoint,
) -> Result<()> {
    let insert = "INSERT OR IGNORE INTO point (relationship, id, ordinal, form) VALUES (?1, ?2, ?3, ?4)";
    let form = to_json(&PointForm::from(point));
    transaction.execute_cached(insert, params![id.to_string(), point.id.to_string(), point.ordinal, form])?;
    Ok(())
}

pub(crate) fn write_divergence(
    transaction: &Transaction<'_>,
    id: RelationshipId,
    divergence: &Divergence,
) -> Result<()> {
    let insert = "INSERT OR REPLACE INTO divergence (relationship, form) VALUES (?1, ?2)";
    transaction.execute_cached(insert, [id.to_string(), to_json(&DivergenceForm::from(divergence))])?;
    Ok(())
}

pub(crate) fn read_divergence(
    transaction: &Transaction<'_>,
    id: RelationshipId,
) -> Result<Option<Divergence>> {
    let query = "SELECT form FROM divergence WHERE relationship = ?1";
    let form: Option<String> =
        transaction.query_row_cached(query, [id.to_string()], |row| row.get(0)).optional()?;
    let read = |form: String| {
        let form: DivergenceForm = serde_json::from_str(&form).map_err(row)?;
        Divergence::try_from(form).map_err(row)
    };
    form.map(read).transpose()
}

/// The first delta that the other side sends in the epoch of the divergence carries all that differed. No other point tells
/// anything of it.
fn cover_divergence(transaction: &Transaction<'_>, id: RelationshipId, by: &RecoveryPoint) -> Result<()> {
    let authority = authority(transaction, id)?;
    if authority.phase != Phase::Receiving || by.epoch != authority.epoch {
        return Ok(());
    }
    match read_divergence(transaction, id)? {
        Some(divergence) if divergence.covered_by.is_none() && divergence.since != by.id => {
            write_divergence(transaction, id, &Divergence { covered_by: Some(by.id), ..divergence })
        }
        _ => Ok(()),
    }
}

fn point_of(form: &str) -> Result<RecoveryPoint> {
    let form: PointForm = serde_json::from_str(form).map_err(row)?;
    RecoveryPoint::try_from(form).map_err(row)
}

//! Recovery points: adding one moves the head.

use domain::{RecoveryPoint, RelationshipId, Timestamp};
use rusqlite::params;
use wire::message::form::PointForm;

use crate::error::row;
use crate::forms::to_json;
use crate::{Result, Store};

/// Points that are remembered behind the head.
const HISTORY_POINTS: u64 = 64;

impl Store {
    /// A new point: the head moves, and both sides were the same at `now`. Repeating is fine.
    pub fn add_point(&self, id: RelationshipId, point: &RecoveryPoint, now: Timestamp) -> Result<()> {
        self.write(|transaction| {
            let insert =
                "INSERT OR IGNORE INTO point (relationship, id, ordinal, form) VALUES (?1, ?2, ?3, ?4)";
            let form = to_json(&PointForm::from(point));
            transaction
                .execute(insert, params![id.to_string(), point.id.to_string(), point.ordinal, form])?;
            let update =
                "UPDATE relationship SET last_synchronized_ms = ?2, last_failure = NULL WHERE id = ?1";
            transaction.execute(update, params![id.to_string(), now.millis()])?;
            // The primary needs a few ancestors to recognise a replica that lags; the replica its head.
            let forget = "DELETE FROM point WHERE relationship = ?1 AND ordinal < ?2";
            transaction
                .execute(forget, params![id.to_string(), point.ordinal.saturating_sub(HISTORY_POINTS)])?;
            Ok(())
        })
    }

    /// The points that are known, oldest first; the last is the head.
    pub fn points(&self, id: RelationshipId) -> Result<Vec<RecoveryPoint>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT form FROM point WHERE relationship = ?1 ORDER BY ordinal")?;
        let forms = statement.query_map([id.to_string()], |columns| columns.get::<_, String>(0))?;
        forms.map(|form| point_of(&form?)).collect()
    }
}

fn point_of(form: &str) -> Result<RecoveryPoint> {
    let form: PointForm = serde_json::from_str(form).map_err(row)?;
    RecoveryPoint::try_from(form).map_err(row)
}

//! Records of cycles, for statistics and health.

use std::time::Duration;

use domain::{CycleOutcome, CycleRecord, RelationshipId, Timestamp};
use rusqlite::{Row, params};

use crate::cached::Cached;
use crate::{Result, Store, number};

impl Store {
    /// One cycle, for statistics. Those before `forget_before` go.
    pub fn add_cycle(&self, id: RelationshipId, cycle: &CycleRecord, forget_before: Timestamp) -> Result<()> {
        let outcome = match cycle.outcome {
            CycleOutcome::Acknowledged => "acknowledged",
            CycleOutcome::Failed => "failed",
            CycleOutcome::Missed => "missed",
        };
        let latency_ms = u64::try_from(cycle.latency.as_millis()).unwrap_or(u64::MAX >> 1);
        self.write(|transaction| {
            let insert = "INSERT INTO cycle VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let begun_ms = cycle.begun.millis();
            let values =
                params![id.to_string(), begun_ms, latency_ms, cycle.bytes, outcome, cycle.sent_bytes];
            transaction.execute_cached(insert, values)?;
            let forget = "DELETE FROM cycle WHERE relationship = ?1 AND begun_ms < ?2";
            transaction.execute_cached(forget, params![id.to_string(), forget_before.millis()])?;
            Ok(())
        })
    }

    /// The cycles since then.
    pub fn cycles_since(&self, id: RelationshipId, since: Timestamp) -> Result<Vec<CycleRecord>> {
        let connection = self.connection();
        let query = "SELECT begun_ms, latency_ms, bytes, outcome, sent_bytes FROM cycle
                     WHERE relationship = ?1 AND begun_ms >= ?2";
        let mut statement = connection.prepare_cached(query)?;
        let cycles = statement.query_map(params![id.to_string(), since.millis()], cycle_of)?;
        Ok(cycles.collect::<std::result::Result<_, _>>()?)
    }

    /// The newest `limit` cycles before the one with the number `before`, the newest first, each with its own number.
    pub fn cycles(&self, id: RelationshipId, before: u64, limit: u32) -> Result<Vec<(u64, CycleRecord)>> {
        let connection = self.connection();
        let query = "SELECT begun_ms, latency_ms, bytes, outcome, sent_bytes, rowid FROM cycle
                     WHERE relationship = ?1 AND rowid < ?2 ORDER BY rowid DESC LIMIT ?3";
        let mut statement = connection.prepare_cached(query)?;
        let numbered = |columns: &Row<'_>| Ok((columns.get(5)?, cycle_of(columns)?));
        let cycles = statement.query_map(params![id.to_string(), number(before), limit], numbered)?;
        Ok(cycles.collect::<std::result::Result<_, _>>()?)
    }

    /// Statistics begin anew.
    pub fn reset_statistics(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached("DELETE FROM cycle WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }
}

fn cycle_of(columns: &Row<'_>) -> rusqlite::Result<CycleRecord> {
    Ok(CycleRecord {
        begun: Timestamp(columns.get(0)?),
        latency: Duration::from_millis(columns.get(1)?),
        bytes: columns.get(2)?,
        sent_bytes: columns.get(4)?,
        outcome: match columns.get::<_, String>(3)?.as_str() {
            "acknowledged" => CycleOutcome::Acknowledged,
            "missed" => CycleOutcome::Missed,
            _ => CycleOutcome::Failed,
        },
    })
}

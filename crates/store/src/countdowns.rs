//! What is left of the time that a person has set for a failover, as the daemon has counted it: no wall clock tells, for that of a host
//! that has just booted may be years off.

use std::time::Duration;

use domain::{RelationshipId, Timestamp};
use rusqlite::{OptionalExtension, params};

use crate::cached::Cached;
use crate::{Result, Store};

impl Store {
    /// Keeps what is left, for the failover that was `since` and is to end `at`, in place of what was kept before.
    pub fn keep_countdown(
        &self,
        id: RelationshipId,
        (since, at): (Timestamp, Timestamp),
        left: Duration,
    ) -> Result<()> {
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX >> 1);
        self.write(|transaction| {
            let put = "INSERT OR REPLACE INTO countdown (relationship, since_ms, at_ms, left_ms) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute_cached(put, params![id.to_string(), since.millis(), at.millis(), left_ms])?;
            Ok(())
        })
    }

    /// What was left when it was kept last; none: nothing was kept for this failover with this end.
    pub fn countdown(
        &self,
        id: RelationshipId,
        (since, at): (Timestamp, Timestamp),
    ) -> Result<Option<Duration>> {
        let query = "SELECT left_ms FROM countdown WHERE relationship = ?1 AND since_ms = ?2 AND at_ms = ?3";
        let values = params![id.to_string(), since.millis(), at.millis()];
        let left = self.connection().query_row_cached(query, values, |row| row.get(0)).optional()?;
        Ok(left.map(Duration::from_millis))
    }
}

//! What the primary said last of the bytes that wait to be replicated.

use domain::{RelationshipId, Timestamp};
use rusqlite::{OptionalExtension, params};

use crate::cached::Cached;
use crate::{Result, Store};

/// Bytes that waited on the primary, and when that was told, by this host's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pending {
    /// Bytes of guest data.
    pub bytes: u64,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Keeps it in place of what was told before.
    pub fn set_pending(&self, id: RelationshipId, pending: &Pending) -> Result<()> {
        self.write(|transaction| {
            let insert = "INSERT OR REPLACE INTO pending (relationship, bytes, at_ms) VALUES (?1, ?2, ?3)";
            transaction
                .execute_cached(insert, params![id.to_string(), pending.bytes, pending.at.millis()])?;
            Ok(())
        })
    }

    /// What was told last; none: nothing yet.
    pub fn pending(&self, id: RelationshipId) -> Result<Option<Pending>> {
        let query = "SELECT bytes, at_ms FROM pending WHERE relationship = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok(Pending { bytes: row.get(0)?, at: Timestamp(row.get(1)?) });
        Ok(self.connection().query_row_cached(query, [id.to_string()], read).optional()?)
    }
}

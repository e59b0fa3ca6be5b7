//! Freezes of guests: written before the guest is asked, so that one that outlived its daemon is thawed when that starts again.

use domain::{RelationshipId, Timestamp};
use rusqlite::{OptionalExtension, params};

use crate::cached::Cached;
use crate::error::row;
use crate::{Result, Store};

/// The last freeze of a VM's guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Freeze {
    /// When it was tried.
    pub tried: Timestamp,
    /// Why it did not make an application-consistent point; none: it did.
    pub failure: Option<String>,
}

impl Store {
    /// The guest may be frozen from now on.
    pub fn begin_freeze(&self, id: RelationshipId, now: Timestamp) -> Result<()> {
        self.write(|transaction| {
            let put = "INSERT INTO freeze (relationship, tried_ms, frozen) VALUES (?1, ?2, 1)
                       ON CONFLICT (relationship) DO UPDATE SET tried_ms = ?2, frozen = 1";
            transaction.execute_cached(put, params![id.to_string(), now.millis()])?;
            Ok(())
        })
    }

    /// The guest was thawed, or never frozen.
    pub fn end_freeze(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction
                .execute_cached("UPDATE freeze SET frozen = 0 WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// What became of the last try.
    pub fn set_freeze_result(&self, id: RelationshipId, now: Timestamp, failure: Option<&str>) -> Result<()> {
        self.write(|transaction| {
            let put = "INSERT INTO freeze (relationship, tried_ms, failure) VALUES (?1, ?2, ?3)
                       ON CONFLICT (relationship) DO UPDATE SET tried_ms = ?2, failure = ?3";
            transaction.execute_cached(put, params![id.to_string(), now.millis(), failure])?;
            Ok(())
        })
    }

    /// The last try; none: there was none.
    pub fn last_freeze(&self, id: RelationshipId) -> Result<Option<Freeze>> {
        let query = "SELECT tried_ms, failure FROM freeze WHERE relationship = ?1";
        let freeze = self.connection().query_row_cached(query, [id.to_string()], |columns| {
            Ok(Freeze { tried: Timestamp(columns.get(0)?), failure: columns.get(1)? })
        });
        Ok(freeze.optional()?)
    }

    /// Relationships whose guests may still be frozen.
    pub fn frozen(&self) -> Result<Vec<RelationshipId>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT relationship FROM freeze WHERE frozen = 1")?;
        let ids = statement.query_map([], |columns| columns.get::<_, String>(0))?;
        ids.map(|id| id?.parse().map_err(row)).collect()
    }
}

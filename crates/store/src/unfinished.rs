//! First copies that are on their way: what it takes to go on with one after the daemon was restarted.

use domain::RelationshipId;
use rusqlite::{OptionalExtension, params};

use crate::cached::Cached;
use crate::{Result, Store};

impl Store {
    /// Keeps the header of the delta that is on its way, as JSON of the engine, instead of an earlier one.
    pub fn keep_unfinished(&self, id: RelationshipId, header: &str) -> Result<()> {
        self.write(|transaction| {
            let insert = "INSERT OR REPLACE INTO unfinished (relationship, header) VALUES (?1, ?2)";
            transaction.execute_cached(insert, params![id.to_string(), header])?;
            Ok(())
        })
    }

    /// Nothing is on its way any more, or it cannot go on. Repeating is fine.
    pub fn forget_unfinished(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached("DELETE FROM unfinished WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// The header of the delta that is on its way.
    pub fn unfinished(&self, id: RelationshipId) -> Result<Option<String>> {
        let query = "SELECT header FROM unfinished WHERE relationship = ?1";
        Ok(self.connection().query_row_cached(query, [id.to_string()], |row| row.get(0)).optional()?)
    }
}

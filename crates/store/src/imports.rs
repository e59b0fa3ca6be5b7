//! First copies that are being taken from files that were carried here: they go on when the daemon comes back.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use domain::RelationshipId;
use rusqlite::params;

use crate::cached::Cached;
use crate::error::row;
use crate::{Result, Store};

impl Store {
    /// The first copy of a relationship is being taken from a file; false when one is already, and nothing was changed.
    pub fn begin_import(&self, id: RelationshipId, file: &Path) -> Result<bool> {
        self.write(|transaction| {
            let insert = "INSERT OR IGNORE INTO import (relationship, file) VALUES (?1, ?2)";
            Ok(transaction.execute_cached(insert, params![id.to_string(), file.as_os_str().as_bytes()])? == 1)
        })
    }

    /// Those that have not ended.
    pub fn imports(&self) -> Result<Vec<(RelationshipId, PathBuf)>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT relationship, file FROM import ORDER BY relationship")?;
        let found = statement
            .query_map([], |columns| Ok((columns.get::<_, String>(0)?, columns.get::<_, Vec<u8>>(1)?)))?;
        found
            .map(|import| {
                let (id, file) = import?;
                Ok((id.parse().map_err(row)?, OsString::from_vec(file).into()))
            })
            .collect()
    }

    /// It has ended, well or not.
    pub fn end_import(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached("DELETE FROM import WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }
}

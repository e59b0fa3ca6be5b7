//! Stale copies whose relationship has ended: VMs that the other host took over, and that may not start here although nothing else is
//! left of their replication. The start guard reads them. *Not* a way back: a person frees a copy, or it becomes a replica again.

use domain::VmId;
use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use crate::cached::Cached;
use crate::error::row;
use crate::{Result, Store};

/// A VM that may not start here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaleCopy {
    /// Its UUID.
    pub vm: VmId,
    /// Its name when the relationship ended.
    pub vm_name: String,
    /// The name of the host that took it over.
    pub peer: String,
}

/// What becomes of a stale copy when its relationship ends here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfStale {
    /// It stays off: nobody gave the other host up.
    StaysOff,
    /// It may start: a person gave the other host up, and was told.
    MayStart,
}

impl Store {
    /// The stale copy of this name or UUID, if there is one.
    pub fn stale_copy(&self, named: &str) -> Result<Option<StaleCopy>> {
        let query = "SELECT vm, vm_name, peer FROM stale_copy WHERE vm = ?1 OR vm_name = ?1";
        let columns = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        };
        let found = self.connection().query_row_cached(query, [named], columns).optional()?;
        let Some((vm, vm_name, peer)) = found else { return Ok(None) };
        Ok(Some(StaleCopy { vm: VmId(Uuid::parse_str(&vm).map_err(row)?), vm_name, peer }))
    }

    /// It may start from now on. Repeating is fine.
    pub fn free_stale_copy(&self, vm: VmId) -> Result<()> {
        self.write(|transaction| free(transaction, vm))
    }
}

/// A VM that is replicated again is judged by that.
pub(crate) fn free(transaction: &Transaction<'_>, vm: VmId) -> Result<()> {
    transaction.execute_cached("DELETE FROM stale_copy WHERE vm = ?1", [vm.to_string()])?;
    Ok(())
}

pub(crate) fn keep_off(transaction: &Transaction<'_>, vm: &str, vm_name: &str, peer: &str) -> Result<()> {
    let insert = "INSERT OR REPLACE INTO stale_copy (vm, vm_name, peer)
                  VALUES (?1, ?2, coalesce((SELECT name FROM peer WHERE host = ?3), ?3))";
    transaction.execute_cached(insert, params![vm, vm_name, peer])?;
    Ok(())
}

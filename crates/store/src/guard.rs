//! What the start hook of libvirt reads: may this VM start here? Works while the daemon is down.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::{Result, StoreError};

/// A read-only look at the database.
pub struct Guard {
    connection: Connection,
}

/// The answer for one VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuardVerdict {
    /// The VM has no relationship here.
    NotProtected,
    /// This side is primary.
    Allowed,
    /// This side is not primary: one line for the person who tried.
    Refused(String),
}

impl Guard {
    /// Opens the database of a host.
    pub fn open(path: &Path) -> Result<Guard> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|source| StoreError::Open { path: path.into(), source })?;
        connection.busy_timeout(std::time::Duration::from_secs(1))?;
        Ok(Guard { connection })
    }

    /// May the VM with this UUID start here?
    pub fn verdict(&self, vm: &str) -> Result<GuardVerdict> {
        let query = "SELECT r.may_run, r.vm_name, coalesce(p.name, r.peer) FROM relationship r
                     LEFT JOIN peer p ON p.host = r.peer WHERE r.vm = ?1";
        let found = self.connection.query_row(query, [vm], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        });
        Ok(match found.optional()? {
            None => GuardVerdict::NotProtected,
            Some((true, ..)) => GuardVerdict::Allowed,
            Some((false, name, peer)) => GuardVerdict::Refused(format!(
                "virt-replica: VM '{}' is a replica here and runs on {peer}; starting it would make two writers. \
                 To move it here: virt-replica planned-failover '{}'",
                one_line(&name),
                one_line(&name)
            )),
        })
    }
}

fn one_line(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

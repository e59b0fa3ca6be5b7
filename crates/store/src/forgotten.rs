//! What stays of a relationship that ended on this host: the epoch and role in which that was. The other host may still believe in
//! it; its stale copy learns from this that it was overtaken, and its replica that the VM is still here. *Not* a way back.

use choreography::authority::Forgotten;
use domain::{Epoch, HostId, RelationshipId, Role, VmId};
use rusqlite::{OptionalExtension, Transaction, params};
use uuid::Uuid;

use crate::authority::authority;
use crate::cached::Cached;
use crate::error::row;
use crate::relationships::delete;
use crate::stale_copies::{IfStale, keep_off};
use crate::{Result, Store};

/// A relationship that ended here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Whose.
    pub vm: VmId,
    /// The other host.
    pub peer: HostId,
    /// Where this side stood.
    pub was: Forgotten,
}

impl Store {
    /// Ends a relationship here in one transaction: [`choreography::authority::Authority::forget`] stays of it, and the refusal to
    /// start a stale copy, if it is to. Repeating is fine.
    pub fn forget_relationship(&self, id: RelationshipId, if_stale: IfStale) -> Result<()> {
        self.write(|transaction| {
            let query = "SELECT vm, peer, vm_name FROM relationship WHERE id = ?1";
            let columns = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            };
            let found = transaction.query_row_cached(query, [id.to_string()], columns).optional()?;
            let Some((vm, peer, name)) = found else { return Ok(()) };
            let authority = authority(transaction, id)?;
            let was = authority.forget()?;
            if authority.is_superseded() && if_stale == IfStale::StaysOff {
                keep_off(transaction, &vm, &name, &peer)?;
            }
            let insert =
                "INSERT OR REPLACE INTO forgotten (relationship, vm, peer, epoch, was_primary, vm_name)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
            let was_primary = was.role == Role::Primary;
            let values = params![id.to_string(), vm, peer, was.epoch.number(), was_primary, name];
            transaction.execute_cached(insert, values)?;
            delete(transaction, id)
        })
    }

    /// [`choreography::authority::Authority::deletes_files`] of a relationship that is about to end here.
    pub fn deletes_files(&self, id: RelationshipId, asked: bool) -> Result<bool> {
        self.read(|transaction| {
            let authority = authority(transaction, id)?;
            let query = "SELECT home_definition IS NOT NULL FROM relationship WHERE id = ?1";
            let at_home = transaction.query_row_cached(query, [id.to_string()], |row| row.get(0))?;
            Ok(authority.deletes_files(asked, at_home)?)
        })
    }

    /// The VMs that ended here as primary with that host: should it return, it hears from here that its copy is stale. Their names,
    /// or their UUIDs.
    pub fn moved_from(&self, peer: HostId) -> Result<Vec<String>> {
        let connection = self.connection();
        let query = "SELECT coalesce(vm_name, vm) FROM forgotten WHERE peer = ?1 AND was_primary ORDER BY 1";
        let mut statement = connection.prepare_cached(query)?;
        let names = statement.query_map([peer.to_string()], |row| row.get(0))?;
        Ok(names.collect::<std::result::Result<_, _>>()?)
    }

    /// What stayed of a relationship that ended here.
    pub fn ended(&self, id: RelationshipId) -> Result<Option<Ended>> {
        let query = "SELECT vm, peer, epoch, was_primary FROM forgotten WHERE relationship = ?1";
        let columns = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?, row.get(3)?))
        };
        let found = self.connection().query_row_cached(query, [id.to_string()], columns).optional()?;
        let Some((vm, peer, epoch, was_primary)) = found else { return Ok(None) };
        let role = if was_primary { Role::Primary } else { Role::Replica };
        let epoch = Epoch::new(epoch).ok_or_else(|| row("epoch 0"))?;
        Ok(Some(Ended {
            vm: VmId(Uuid::parse_str(&vm).map_err(row)?),
            peer: HostId(Uuid::parse_str(&peer).map_err(row)?),
            was: Forgotten { epoch, role },
        }))
    }

    /// The relationship ended on the other host as well: nobody asks any more.
    pub fn forget_ended(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached("DELETE FROM forgotten WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }
}

/// A peer that is not trusted any more is told nothing.
pub(crate) fn forget_ended_with(transaction: &Transaction<'_>, peer: HostId) -> Result<()> {
    transaction.execute_cached("DELETE FROM forgotten WHERE peer = ?1", [peer.to_string()])?;
    Ok(())
}

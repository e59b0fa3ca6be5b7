//! What the start hook of libvirt reads: may this VM start here? Works while the daemon is down, and writes nothing.
//!
//! It asks no version: the columns that it reads keep their meaning (see `schema.rs`), so that an older hook beside a newer
//! daemon, in the middle of an upgrade, still answers.

mod script;

use std::path::Path;
use std::time::Duration;

use domain::{Phase, VmId};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::forms::phase_from_text;
use crate::{Result, StoreError};

pub use script::{HookSettings, hook_script};

/// How long the guard waits for a database that is just being recovered; below the two seconds that a hook has.
const BUSY_WAIT: Duration = Duration::from_secs(1);

/// A read-only look at the database.
pub struct Guard {
    connection: Connection,
}

/// The answer for one VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GuardVerdict {
    /// The VM has no relationship here.
    NotProtected,
    /// This side is primary as far as it knows: the other host is asked, through the daemon, whether it knows better.
    Primary {
        /// Name of the other host.
        peer: String,
    },
    /// This side may not run the VM: one line for the person who tried.
    Refused(String),
}

impl Guard {
    /// Opens the database of a host; none when there is no such file: then nothing is protected here.
    pub fn open(path: &Path) -> Result<Option<Guard>> {
        if matches!(path.try_exists(), Ok(false)) {
            return Ok(None);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .map_err(|source| StoreError::Open { path: path.into(), source })?;
        connection.busy_timeout(BUSY_WAIT)?;
        Ok(Some(Guard { connection }))
    }

    /// May the VM with this UUID start here?
    pub fn verdict(&self, vm: VmId) -> Result<GuardVerdict> {
        self.look("vm", &vm.to_string())
    }

    /// May a VM of this name start here? For a definition without a UUID: when several have the name, each must be allowed.
    pub fn verdict_by_name(&self, name: &str) -> Result<GuardVerdict> {
        self.look("vm_name", name)
    }

    fn look(&self, column: &'static str, value: &str) -> Result<GuardVerdict> {
        // A daemon that has not made its tables yet protects nothing.
        if self.connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? == 0 {
            return Ok(GuardVerdict::NotProtected);
        }
        let query = format!(
            "SELECT r.may_run, r.phase, r.vm_name, coalesce(p.name, r.peer) FROM relationship r
             LEFT JOIN peer p ON p.host = r.peer WHERE r.{column} = ?1 ORDER BY r.may_run LIMIT 1"
        );
        let found = self.connection.query_row(&query, [value], |row| {
            let (phase, name, peer): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
            Ok((row.get::<_, bool>(0)?, phase, name, peer))
        });
        Ok(match found.optional()? {
            None => self.look_among_stale_copies(column, value)?,
            Some((true, _, _, peer)) => GuardVerdict::Primary { peer: one_line(&peer) },
            Some((false, phase, name, peer)) => {
                GuardVerdict::Refused(one_line(&reason(phase_from_text(&phase).ok().as_ref(), &name, &peer)))
            }
        })
    }

    /// A VM whose relationship has ended here. The daemon of this database may be older than the table.
    fn look_among_stale_copies(&self, column: &'static str, value: &str) -> Result<GuardVerdict> {
        let table = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'stale_copy')";
        if !self.connection.query_row(table, [], |row| row.get::<_, bool>(0))? {
            return Ok(GuardVerdict::NotProtected);
        }
        let query = format!("SELECT vm_name, peer FROM stale_copy WHERE {column} = ?1 LIMIT 1");
        let found = self
            .connection
            .query_row(&query, [value], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)));
        Ok(found.optional()?.map_or(GuardVerdict::NotProtected, |(name, peer)| {
            GuardVerdict::Refused(stale_for_good(&name, &peer))
        }))
    }
}

/// What is said about a copy that was overtaken before its replication ended, in one line.
#[must_use]
pub fn stale_for_good(name: &str, peer: &str) -> String {
    one_line(&format!(
        "VM {name} was moved to {peer} before its replication ended: what is here is an old copy, and starting it would make two \
         writers. If it is to live here all the same, and runs on {peer} no more: virt-replica remove --this-host-only {vm}; \
         otherwise: virsh undefine {vm} (its disk files stay)",
        vm = script::quoted(name)
    ))
}

/// What is said about a copy that the other host has overtaken, in one line.
#[must_use]
pub fn stale_copy(name: &str, peer: &str) -> String {
    one_line(&format!(
        "VM {name} belongs to {peer}, which took it over later than this host knows; starting the old copy here would make \
         two writers. To see it, on {peer}: virt-replica show {vm}; if {peer} is lost for good, here: virt-replica remove \
         --this-host-only {vm}",
        vm = script::quoted(name)
    ))
}

/// What is said about a VM that may not run here in this phase, in one line.
#[must_use]
pub fn may_not_run(phase: &Phase, name: &str, peer: &str) -> String {
    one_line(&reason(Some(phase), name, peer))
}

/// Where the VM runs and what to do. A phase that this version cannot read is a replica's: it may not run.
fn reason(phase: Option<&Phase>, name: &str, peer: &str) -> String {
    let vm = script::quoted(name);
    match phase {
        Some(phase) if phase.may_run() => stale_copy(name, peer),
        Some(Phase::Yielding) => format!(
            "VM {name} is being handed over to {peer} and runs on neither host until that is settled. \
             To see and settle it: virt-replica operation list"
        ),
        Some(Phase::Stopped { .. }) => format!(
            "VM {name} was failed over to {peer}; starting the old copy here would make two writers. \
             To protect it again, on {peer}: virt-replica reverse {vm}"
        ),
        _ => format!(
            "VM {name} is a replica here and belongs to {peer}; starting it would make two writers. \
             To move it here: virt-replica planned-failover {vm}"
        ),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

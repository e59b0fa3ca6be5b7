//! What a host must not forget, in SQLite: one method per durable intent, each one transaction, on disk when it returns.
//!
//! Calls block, shortly. Rows hold the wire's forms of the core types as JSON (`wire::message::form`): one reader for both
//! distrusts them alike. What is *not* here: decisions, and the chains of layers (a replica directory explains itself).

mod audit;
mod authority;
mod bell;
mod boot;
mod cached;
mod comparisons;
mod console_sessions;
mod countdowns;
mod cycles;
mod error;
mod events;
mod forgotten;
mod forms;
mod freezes;
mod guard;
mod imports;
mod operations;
mod peers;
mod pending;
mod points;
mod relationships;
mod schema;
mod stale_copies;
mod test_failovers;
mod unfinished;
mod wrappers;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::HostId;
use rusqlite::{Connection, OptionalExtension, Transaction};
use uuid::Uuid;

pub use audit::{AuditResult, Audited};
pub use authority::AbandonVerdict;
pub use bell::Listener;
pub use boot::boot_id;
use cached::Cached;
pub use comparisons::Comparisons;
pub use console_sessions::ConsoleSession;
pub use error::StoreError;
pub use events::{Event, EventSeverity, EventsOf};
pub use forgotten::Ended;
pub use freezes::Freeze;
pub use guard::{Guard, GuardVerdict, HookSettings, hook_script, may_not_run, stale_copy, stale_for_good};
pub use peers::{InviteVerdict, Peer};
pub use pending::Pending;
pub use relationships::Record;
pub use stale_copies::{IfStale, StaleCopy};
pub use test_failovers::{TestFailover, TestState};
pub use wrappers::WrappedDisk;

/// The state of one host. A cheap handle.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    bell: bell::Bell,
}

/// Result of a store's method.
pub type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Opens the database, makes it when it is not there, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Store> {
        create_private(path).map_err(|source| StoreError::Create { path: path.into(), source })?;
        let mut connection =
            Connection::open(path).map_err(|source| StoreError::Open { path: path.into(), source })?;
        schema::prepare(&mut connection)?;
        connection.set_prepared_statement_cache_capacity(cached::KEPT);
        let bell = bell::Bell::default();
        bell.hang_on(&connection);
        Ok(Store { connection: Arc::new(Mutex::new(connection)), bell })
    }

    /// This host's id; `fresh` becomes it at the first call.
    pub fn host_identity(&self, fresh: HostId) -> Result<HostId> {
        self.write(|transaction| {
            if let Some(text) = get_setting(transaction, "host")? {
                return Ok(HostId(Uuid::parse_str(&text).map_err(error::row)?));
            }
            put_setting(transaction, "host", &fresh.to_string())?;
            Ok(fresh)
        })
    }

    /// A setting of the host that was changed at run time.
    pub fn setting(&self, key: &str) -> Result<Option<String>> {
        self.read(|transaction| get_setting(transaction, key))
    }

    /// Changes a setting of the host.
    pub fn set_setting(&self, key: &str, value: &str) -> Result<()> {
        self.write(|transaction| put_setting(transaction, key, value))
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One consistent look.
    fn read<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        body(&transaction)
    }

    /// One transaction; whatever fails inside leaves nothing.
    fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        self.bell.clear();
        let value = body(&transaction)?;
        transaction.commit()?;
        self.bell.ring();
        Ok(value)
    }
}

/// Definitions of VMs may hold secrets: the file is its owner's alone, and SQLite gives its companions the same mode.
fn create_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// A number of ours as SQLite has them: those that it has not are beyond all that it holds.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn get_setting(transaction: &Transaction<'_>, key: &str) -> Result<Option<String>> {
    let query = "SELECT value FROM setting WHERE key = ?1";
    Ok(transaction.query_row_cached(query, [key], |row| row.get(0)).optional()?)
}

fn put_setting(transaction: &Transaction<'_>, key: &str, value: &str) -> Result<()> {
    transaction
        .execute_cached("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)", [key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests;

//! The tables, as numbered migrations: a fresh database is the sum of all of them.
//!
//! The start hook of any version reads `relationship.vm`, `vm_name`, `peer`, `phase`, `may_run` and `peer.host`, `name`, and
//! where they exist `confirmed_boot` and `stale_copy`: no migration takes those away or gives them another meaning.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::StoreError;

/// Each entry brings the schema from its index to the next version; none is ever changed after a release.
pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE peer (
        host TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, port INTEGER NOT NULL,
        certificate BLOB NOT NULL, next_certificate BLOB, paired_ms INTEGER NOT NULL) STRICT;
    CREATE TABLE invite (secret_hash BLOB PRIMARY KEY, expires_ms INTEGER NOT NULL, used INTEGER NOT NULL) STRICT;
    CREATE TABLE relationship (
        id TEXT PRIMARY KEY, vm TEXT NOT NULL UNIQUE, vm_name TEXT NOT NULL, peer TEXT NOT NULL,
        epoch INTEGER NOT NULL, phase TEXT NOT NULL, may_run INTEGER NOT NULL, settings TEXT NOT NULL,
        paused_since_ms INTEGER, paused_on_peer INTEGER NOT NULL DEFAULT 0,
        home_definition TEXT, directory TEXT, last_failure TEXT, pending_bytes INTEGER, offline_seal TEXT,
        last_synchronized_ms INTEGER, notices TEXT NOT NULL DEFAULT '[]') STRICT;
    CREATE TABLE point (
        relationship TEXT NOT NULL REFERENCES relationship ON DELETE CASCADE, id TEXT NOT NULL,
        ordinal INTEGER NOT NULL, form TEXT NOT NULL, PRIMARY KEY (relationship, id)) STRICT;
    CREATE TABLE operation (
        id TEXT PRIMARY KEY, relationship TEXT NOT NULL, side TEXT NOT NULL, form TEXT NOT NULL,
        begun_ms INTEGER NOT NULL, taken INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 0, report TEXT) STRICT;
    CREATE TABLE entry (
        operation TEXT NOT NULL REFERENCES operation ON DELETE CASCADE, sequence INTEGER NOT NULL,
        form TEXT NOT NULL, PRIMARY KEY (operation, sequence), UNIQUE (operation, form)) STRICT;
    CREATE TABLE abandoned (operation TEXT PRIMARY KEY) STRICT;
    CREATE TABLE cycle (
        relationship TEXT NOT NULL REFERENCES relationship ON DELETE CASCADE, begun_ms INTEGER NOT NULL,
        latency_ms INTEGER NOT NULL, bytes INTEGER NOT NULL, outcome TEXT NOT NULL) STRICT;
    CREATE INDEX cycle_by_time ON cycle (relationship, begun_ms);
    CREATE TABLE event (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, number INTEGER NOT NULL,
        severity TEXT NOT NULL, vm_name TEXT, text TEXT NOT NULL) STRICT;
", "
    CREATE TABLE unfinished (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, header TEXT NOT NULL) STRICT;
", "
    ALTER TABLE cycle ADD COLUMN sent_bytes INTEGER;
    ALTER TABLE relationship DROP COLUMN pending_bytes;
    ALTER TABLE relationship ADD COLUMN seen TEXT;
    ALTER TABLE relationship ADD COLUMN confirmed_boot TEXT;
    ALTER TABLE relationship ADD COLUMN superseded_by INTEGER;
    UPDATE relationship SET notices = '[]';
", "
    CREATE TABLE test_failover (
        id TEXT PRIMARY KEY, relationship TEXT NOT NULL, vm TEXT NOT NULL UNIQUE, point TEXT NOT NULL,
        state TEXT NOT NULL, begun_ms INTEGER NOT NULL, form TEXT NOT NULL) STRICT;
", "
    CREATE TABLE divergence (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, form TEXT NOT NULL) STRICT;
    ALTER TABLE operation DROP COLUMN report;
", "
    CREATE TABLE freeze (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, tried_ms INTEGER NOT NULL,
        frozen INTEGER NOT NULL DEFAULT 0, failure TEXT) STRICT;
", "
    CREATE TABLE comparison (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, resynchronize TEXT,
        verify_since_ms INTEGER, verified_ms INTEGER, mismatch TEXT, export TEXT) STRICT;
", "
    CREATE TABLE pending (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, bytes INTEGER NOT NULL,
        at_ms INTEGER NOT NULL) STRICT;
", "
    CREATE TABLE wrapper (
        vm TEXT NOT NULL, target TEXT NOT NULL, file TEXT NOT NULL, data TEXT NOT NULL, is_device INTEGER NOT NULL,
        PRIMARY KEY (vm, target)) STRICT;
", "
    CREATE TABLE audit (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, at_ms INTEGER NOT NULL, who TEXT NOT NULL, address TEXT,
        role TEXT, verb TEXT NOT NULL, target TEXT, result TEXT, detail TEXT NOT NULL) STRICT;
    CREATE INDEX operation_by_time ON operation (begun_ms, id);
", "
    CREATE TABLE console_session (
        token_hash BLOB PRIMARY KEY, user TEXT NOT NULL, role TEXT NOT NULL, by_link INTEGER NOT NULL,
        address TEXT NOT NULL, begun_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL, role_seen_ms INTEGER NOT NULL) STRICT;
", "
    CREATE TABLE forgotten (
        relationship TEXT PRIMARY KEY, vm TEXT NOT NULL, peer TEXT NOT NULL, epoch INTEGER NOT NULL,
        was_primary INTEGER NOT NULL) STRICT;
    CREATE TABLE doubt (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, epoch INTEGER NOT NULL,
        ordinal INTEGER NOT NULL, what TEXT NOT NULL) STRICT;
", "
    CREATE TABLE import (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, file BLOB NOT NULL) STRICT;
", "
    ALTER TABLE comparison ADD COLUMN wishes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE comparison ADD COLUMN wishes_frozen INTEGER NOT NULL DEFAULT 0;
", "
    ALTER TABLE audit ADD COLUMN asked_with TEXT NOT NULL DEFAULT '';
    ALTER TABLE event ADD COLUMN relationship TEXT;
", "
    CREATE TABLE stale_copy (vm TEXT PRIMARY KEY, vm_name TEXT NOT NULL, peer TEXT NOT NULL) STRICT;
    ALTER TABLE forgotten ADD COLUMN vm_name TEXT;
", "
    CREATE TABLE countdown (
        relationship TEXT PRIMARY KEY REFERENCES relationship ON DELETE CASCADE, since_ms INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, left_ms INTEGER NOT NULL) STRICT;
", "
    ALTER TABLE comparison ADD COLUMN unverified TEXT;
    ALTER TABLE comparison ADD COLUMN unverified_ms INTEGER;
"];

/// How long a call waits for another process (the start hook, a person's `sqlite3`) before it fails.
const BUSY_WAIT: Duration = Duration::from_secs(20);

/// Sets the connection up for durability and brings the schema up to date.
pub(crate) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(connection, MIGRATIONS)
}

/// All missing migrations in one transaction: the version is read under the same lock under which it is written.
pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::TooNew { found, known });
    }
    for migration in &migrations[usize::try_from(found).unwrap_or(0)..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    Ok(transaction.commit()?)
}

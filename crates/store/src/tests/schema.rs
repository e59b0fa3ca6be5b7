//! A database of any earlier version becomes the same as a fresh one; one of a later version is left alone.

use rusqlite::Connection;

use crate::schema::{MIGRATIONS, migrate};
use crate::{Store, StoreError};

fn shape(connection: &Connection) -> Vec<String> {
    let mut statement = connection
        .prepare("SELECT coalesce(sql, name) FROM sqlite_master ORDER BY type, name")
        .expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

#[test]
fn a_fresh_schema_is_the_sum_of_the_migrations_from_every_earlier_version() {
    let mut fresh = Connection::open_in_memory().expect("a database");
    migrate(&mut fresh, MIGRATIONS).expect("migrated");
    for version in 0..=MIGRATIONS.len() {
        let mut old = Connection::open_in_memory().expect("a database");
        migrate(&mut old, &MIGRATIONS[..version]).expect("the earlier version");
        migrate(&mut old, MIGRATIONS).expect("migrated");
        migrate(&mut old, MIGRATIONS).expect("repeated");
        assert_eq!(shape(&old), shape(&fresh), "from version {version}");
    }
}

#[test]
fn a_migration_that_fails_leaves_the_version_before_it() {
    let mut connection = Connection::open_in_memory().expect("a database");
    migrate(&mut connection, &["CREATE TABLE one (a)"]).expect("migrated");
    let before = shape(&connection);
    let broken = ["CREATE TABLE one (a)", "CREATE TABLE two (a)", "CREATE TABLE two (a)"];
    assert!(migrate(&mut connection, &broken).is_err());
    assert_eq!(shape(&connection), before);
    migrate(&mut connection, &broken[..2]).expect("the repaired migration");
}

#[test]
fn a_database_of_a_newer_daemon_is_refused_with_both_versions_and_not_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.db");
    drop(Store::open(&path).expect("a store"));
    let newer = Connection::open(&path).expect("a database");
    newer.pragma_update(None, "user_version", 4711).expect("a version");
    drop(newer);
    let Err(error) = Store::open(&path) else { panic!("it was opened") };
    assert!(matches!(error, StoreError::TooNew { found: 4711, .. }));
    assert!(error.to_string().contains("4711") && error.to_string().contains(&MIGRATIONS.len().to_string()));
}

#[test]
fn the_database_is_durable_and_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.db");
    let store = Store::open(&path).expect("a store");
    store.set_setting("key", "value").expect("a write");
    let number = |pragma: &str| -> i64 {
        store.connection().pragma_query_value(None, pragma, |row| row.get(0)).expect("a pragma")
    };
    assert_eq!((number("synchronous"), number("foreign_keys")), (2, 1));
    for name in ["state.db", "state.db-wal"] {
        let mode = std::fs::metadata(dir.path().join(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}");
    }
}

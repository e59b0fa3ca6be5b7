//! Sessions of the console, so that a restart of the daemon signs nobody out. A token is never here, only its hash. What is *not*
//! here: when a session ends, and what its role may do.

use domain::Timestamp;
use rusqlite::params;

use crate::cached::Cached;
use crate::{Result, Store};

/// One session of the console.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsoleSession {
    /// SHA-256 of the token that the browser has.
    pub token_hash: [u8; 32],
    /// The person's name.
    pub user: String,
    /// The word of its role.
    pub role: String,
    /// Root let the person in with a link; else an account did.
    pub by_link: bool,
    /// The address that the person signed in from.
    pub address: String,
    /// When it began.
    pub begun: Timestamp,
    /// When something was last asked.
    pub used: Timestamp,
    /// When the person's groups were last looked at.
    pub role_seen: Timestamp,
}

impl Store {
    /// All sessions of the console.
    pub fn console_sessions(&self) -> Result<Vec<ConsoleSession>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM console_session")?;
        let sessions = statement.query_map([], |row| {
            Ok(ConsoleSession {
                token_hash: row.get("token_hash")?,
                user: row.get("user")?,
                role: row.get("role")?,
                by_link: row.get("by_link")?,
                address: row.get("address")?,
                begun: Timestamp(row.get("begun_ms")?),
                used: Timestamp(row.get("used_ms")?),
                role_seen: Timestamp(row.get("role_seen_ms")?),
            })
        })?;
        Ok(sessions.collect::<std::result::Result<_, _>>()?)
    }

    /// Keeps a session of the console, or its new state.
    pub fn keep_console_session(&self, session: &ConsoleSession) -> Result<()> {
        self.write(|transaction| {
            let insert = "INSERT OR REPLACE INTO console_session
                (token_hash, user, role, by_link, address, begun_ms, used_ms, role_seen_ms)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            let ConsoleSession { token_hash, user, role, by_link, address, begun, used, role_seen } = session;
            let (begun, used, seen) = (begun.millis(), used.millis(), role_seen.millis());
            transaction.execute_cached(
                insert,
                params![token_hash, user, role, by_link, address, begun, used, seen],
            )?;
            Ok(())
        })
    }

    /// Forgets a session of the console.
    pub fn forget_console_session(&self, token_hash: &[u8; 32]) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached("DELETE FROM console_session WHERE token_hash = ?1", [token_hash])?;
            Ok(())
        })
    }
}

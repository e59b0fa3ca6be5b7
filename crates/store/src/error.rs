//! What goes wrong with the state of a host.

use std::path::PathBuf;

use domain::OperationId;

/// A failed method; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("the state database {path} cannot be opened: {source}")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A newer daemon wrote it.
    #[error(
        "the state database has version {found}, this daemon knows versions up to {known}: install the newer virt-replica again"
    )]
    TooNew {
        /// The file's version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// SQLite failed.
    #[error("the state database failed: {0}")]
    Sqlite(#[source] rusqlite::Error),
    /// A row makes no sense.
    #[error("the state database holds something that is not understood: {what}")]
    Row {
        /// What.
        what: String,
    },
    /// The VM or the relationship exists already.
    #[error("this VM is already replicated; see: virt-replica list")]
    Duplicate,
    /// Another operation of the relationship has not ended.
    #[error("operation {0} is under way; see: virt-replica operation show {0}")]
    Busy(OperationId),
    /// A peer that is still needed.
    #[error("the peer is used by a relationship; end it first: virt-replica remove VM")]
    PeerInUse,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Duplicate,
            _ => StoreError::Sqlite(error),
        }
    }
}

pub(crate) fn row(what: impl ToString) -> StoreError {
    StoreError::Row { what: what.to_string() }
}

//! What goes wrong with the state of a host.

use std::path::PathBuf;

use choreography::authority::Denied;
use domain::{OperationId, RelationshipId};

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
    /// The file cannot be made.
    #[error("the state database {path} cannot be made: {source}; the directory must exist and be writable")]
    Create {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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
    /// There is no such relationship on this host.
    #[error("there is no relationship {0} here; see: virt-replica list")]
    NoRelationship(RelationshipId),
    /// The id is that of an operation of another relationship, or of another kind.
    #[error("operation {0} is known here, and is another one; see: virt-replica operation show {0}")]
    OtherOperation(OperationId),
    /// A rule of [`choreography::authority`].
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A peer that is still needed.
    #[error("the peer is used by a relationship; end it first: virt-replica remove VM")]
    PeerInUse,
}

impl StoreError {
    /// The error of an insertion whose only constraint can be "one relationship per VM".
    pub(crate) fn duplicate(error: rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => StoreError::Duplicate,
            _ => StoreError::Sqlite(error),
        }
    }
}

// Every call of SQLite may fail, and always with the same meaning: nothing was changed.
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        StoreError::Sqlite(error)
    }
}

pub(crate) fn row(what: impl ToString) -> StoreError {
    StoreError::Row { what: what.to_string() }
}

//! What goes wrong with the state of a host.

use std::path::PathBuf;

use domain::{Epoch, OperationId, RelationshipId};

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
    /// A copy that is tried out stands on the files that the operation would change.
    #[error("a test failover of the VM stands on this host; to end it: virt-replica stop-test-failover")]
    Tested,
    /// The VM or the relationship exists already.
    #[error("this VM is already replicated; see: virt-replica list")]
    Duplicate,
    /// There is no such relationship on this host.
    #[error("there is no relationship {0} here; see: virt-replica list")]
    NoRelationship(RelationshipId),
    /// A phase may not take or give authority.
    #[error(
        "the state may not go from \"{from}\" to \"{to}\" here: which side may run the VM changes in a handover only; \
         see: virt-replica operation list"
    )]
    Authority {
        /// The phase before, in words.
        from: &'static str,
        /// The phase that was asked for, in words.
        to: &'static str,
    },
    /// The word of an epoch that has passed, or has not come.
    #[error(
        "operation {operation} is for epoch {proposed}, this host is in epoch {known}: it comes too late or too early; \
         see: virt-replica show, on both hosts"
    )]
    Epoch {
        /// Whose word.
        operation: OperationId,
        /// The epoch that it would begin.
        proposed: Epoch,
        /// The epoch that this host is in.
        known: Epoch,
    },
    /// This host promised to refuse the operation.
    #[error("operation {0} was cancelled; start another: virt-replica planned-failover")]
    Abandoned(OperationId),
    /// Another operation of the relationship has not ended.
    #[error("operation {0} is under way; see: virt-replica operation show {0}")]
    Busy(OperationId),
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

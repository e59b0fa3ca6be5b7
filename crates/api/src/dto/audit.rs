//! Who changed what: one record for each change that was asked for, whatever came of it. Plans (dry runs) are none.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::caller::Role;

/// What came of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AuditResult {
    /// It was made, or had been made before.
    Accepted,
    /// It was refused, and nothing was changed.
    Refused,
    /// It was tried and failed.
    Failed,
    /// Nothing is known: it is under way, or the daemon ended before it had an answer.
    Unknown,
}

impl AuditResult {
    /// The word people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            AuditResult::Accepted => "accepted",
            AuditResult::Refused => "refused",
            AuditResult::Failed => "failed",
            AuditResult::Unknown => "unknown",
        }
    }
}

/// One change that somebody asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecord {
    /// Rises by one with each record of this host.
    pub sequence: u64,
    /// When it was asked for.
    pub at_ms: u64,
    /// Who asked: the name of a system account.
    pub who: String,
    /// The address that the request came from; none: this host's control socket.
    #[serde(default)]
    pub from: Option<String>,
    /// The role in which it was asked for; none: nobody's, as for a sign-in that was refused.
    #[serde(default)]
    pub role: Option<Role>,
    /// What was asked for, by its name in this document: `pause`.
    pub verb: String,
    /// Of what: a VM, a peer, an operation, as it was named; none: of this host.
    #[serde(default)]
    pub target: Option<String>,
    /// With what: the fields of the request, `force: true`, without secrets; empty: nothing beyond the verb.
    #[serde(default)]
    pub with: String,
    /// What came of it.
    pub result: AuditResult,
    /// Why it was refused or failed; empty otherwise.
    #[serde(default)]
    pub detail: String,
}

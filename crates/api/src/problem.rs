//! What went wrong, in the form of `application/problem+json`: a code for programs, what and why for people, and the cure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dto::Check;

/// What kind of problem; programs decide by it, and the CLI's exit code follows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request itself is wrong: a value out of range, a parameter that does not match.
    Invalid,
    /// No such VM, peer or operation.
    NotFound,
    /// A prerequisite does not hold; nothing was changed.
    Refused,
    /// Another operation is under way; nothing was changed.
    Busy,
    /// Nobody is signed in, or no longer.
    #[serde(rename = "signed-out")]
    NotSignedIn,
    /// The caller may not do this.
    Forbidden,
    /// What was changed is no longer as the caller saw it; nothing was changed.
    Stale,
    /// The request is larger than anything that is taken.
    TooLarge,
    /// Too many tries; later again.
    TooMany,
    /// A paired host does not answer: what it would say is unknown.
    PeerSilent,
    /// Neither side can go on by itself; a person decides.
    NeedsOperator,
    /// The daemon does not answer (made by the client, never sent).
    Unreachable,
    /// It was tried and failed, or a code that this version does not know.
    #[serde(other)]
    Failed,
}

impl Code {
    /// The HTTP status that carries it.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Code::Invalid => 400,
            Code::NotSignedIn => 401,
            Code::Forbidden => 403,
            Code::NotFound => 404,
            Code::Refused => 409,
            Code::NeedsOperator => 409,
            Code::Stale => 412,
            Code::TooLarge => 413,
            Code::Busy => 423,
            Code::TooMany => 429,
            Code::Failed => 500,
            Code::Unreachable => 503,
            Code::PeerSilent => 504,
        }
    }
}

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{title}: {detail}")]
pub struct Problem {
    /// For programs.
    pub code: Code,
    /// What went wrong, in a few words.
    pub title: String,
    /// Why.
    #[serde(default)]
    pub detail: String,
    /// The exact command or action that cures it.
    #[serde(default)]
    pub cure: Option<String>,
    /// The prerequisites that were looked at, when one of them refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl Problem {
    /// What a problem is called over HTTP (RFC 9457).
    pub const MEDIA_TYPE: &str = "application/problem+json";

    /// A problem without a cure.
    pub fn new(code: Code, title: impl Into<String>, detail: impl Into<String>) -> Problem {
        Problem { code, title: title.into(), detail: detail.into(), cure: None, checks: Vec::new() }
    }

    /// The same problem with its cure.
    #[must_use]
    pub fn with_cure(self, cure: impl Into<String>) -> Problem {
        Problem { cure: Some(cure.into()), ..self }
    }

    /// The same problem with the checks that refused.
    #[must_use]
    pub fn with_checks(self, checks: Vec<Check>) -> Problem {
        Problem { checks, ..self }
    }

    /// No such thing.
    pub fn not_found(what: &str, name: &str, cure: &str) -> Problem {
        Problem::new(Code::NotFound, format!("{what} not found"), format!("there is no {what} {name:?} here"))
            .with_cure(cure)
    }
}

//! What a change would do, shown before it is done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One prerequisite by name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What is proved, for people: "Replica server is reachable".
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// What was found; empty when there is nothing to add.
    #[serde(default)]
    pub detail: String,
    /// The exact command or action that cures it; only when it does not hold.
    #[serde(default)]
    pub cure: Option<String>,
}

/// What a change would do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// What will happen, one sentence a line, in order.
    pub summary: Vec<String>,
    /// Every prerequisite that was looked at.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// Whether the guest is turned off on the way: then bytes and downtime are shown, also as "unknown".
    #[serde(default)]
    pub touches_guest: bool,
    /// Bytes of guest data that are expected to travel; none: not known, or none travel.
    #[serde(default)]
    pub expected_bytes: Option<u64>,
    /// How long the guest is expected to be off; none: not known, or it stays on.
    #[serde(default)]
    pub expected_downtime_ms: Option<u64>,
}

impl Plan {
    /// A plan of these lines without checks.
    pub fn of<S: Into<String>>(summary: impl IntoIterator<Item = S>) -> Plan {
        Plan { summary: summary.into_iter().map(Into::into).collect(), ..Plan::default() }
    }

    /// The same plan with these checks.
    #[must_use]
    pub fn with_checks(self, checks: Vec<Check>) -> Plan {
        Plan { checks, ..self }
    }

    /// Whether no check stands in the way.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// Whether another operation under way is all that stands in the way.
    #[must_use]
    pub fn is_only_busy(&self) -> bool {
        let busy = domain::CheckName::NoOtherOperation.words();
        let mut failed = self.checks.iter().filter(|check| !check.ok).peekable();
        failed.peek().is_some() && failed.all(|check| check.name == busy)
    }
}

/// The answer to a change: a plan when it was a dry run, else what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<T> {
    /// Nothing was changed.
    Planned(Plan),
    /// The change was made (or had been made before: repeating is no error).
    Done(T),
}

/// A change that has nothing more to tell than a sentence.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Done {
    /// What was done, for people.
    pub message: String,
}

/// First copies that are being taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Importing {
    /// The VMs, by name. For each an event tells how it ends (1407, 1408); a restart of the daemon does not end it.
    pub vms: Vec<String>,
}

impl Done {
    /// Done, in these words.
    pub fn saying(message: impl Into<String>) -> Done {
        Done { message: message.into() }
    }
}

//! What happened, with numbers that can be looked up.

use super::page::{LIMIT_MAX, Page};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much an event matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Protection became weaker.
    Warning,
    /// Protection stopped, or data is in danger.
    Critical,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Rises by one with each event of this host; `events --since` counts in it.
    pub sequence: u64,
    /// The number in the catalogue.
    pub number: u32,
    /// When.
    pub at_ms: u64,
    /// How much it matters.
    pub severity: Severity,
    /// The VM it is about, if it is about one.
    #[serde(default)]
    pub vm: Option<String>,
    /// What happened.
    pub text: String,
}

/// Which events.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only those of this VM (name, UUID or relationship id).
    #[serde(default)]
    pub vm: Option<String>,
    /// Only those after this sequence number.
    #[serde(default)]
    pub since: Option<u64>,
    /// At most so many, the newest of them; none: [`EventQuery::LIMIT_DEFAULT`].
    #[serde(default)]
    #[schemars(range(min = 1, max = LIMIT_MAX))]
    pub limit: Option<u32>,
    /// The page that follows, with older events: what the `Link` of the page before says.
    #[serde(default)]
    pub after: Option<String>,
}

impl EventQuery {
    /// A few screens.
    pub const LIMIT_DEFAULT: u32 = 200;

    /// Which page of them.
    pub fn page(&self) -> Page {
        Page { after: self.after.clone(), limit: self.limit }
    }
}

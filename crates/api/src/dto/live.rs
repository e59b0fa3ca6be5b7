//! What is told while somebody listens: which list has changed. Not what it shows now: who cares asks again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A list or a view whose content may have changed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Relationships: states, health, settings, how far copies are.
    Relationships,
    /// Operations and their steps.
    Operations,
    /// Events.
    Events,
    /// Test failovers.
    TestFailovers,
    /// Recovery points.
    Points,
    /// Paired hosts.
    Peers,
    /// This host.
    Host,
    /// VMs of this host: they started, stopped, came or went.
    Vms,
}

/// The data of an event `change`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// What to ask for again.
    pub what: What,
}

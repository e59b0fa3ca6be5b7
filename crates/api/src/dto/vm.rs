//! The VMs of this host, also those that nobody protects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::relationship::Mode;

/// Whether a VM runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// Runs.
    Running,
    /// Is in memory and does not run.
    Paused,
    /// Is off.
    Off,
}

/// One VM as libvirt of this host has it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VmView {
    /// Its UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it runs here.
    pub state: VmState,
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// Its virtual processors.
    pub processors: u32,
    /// The relationship that protects it, or of which it is the replica; none: nobody protects it.
    #[serde(default)]
    pub relationship: Option<String>,
    /// Which side of that relationship this host is.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// It is the throw-away copy of a test failover, which nobody would protect: its id.
    #[serde(default)]
    pub test_failover: Option<String>,
    /// Its hard disks.
    pub disks: Vec<VmDisk>,
    /// Bridges and networks that its cards are plugged into.
    pub networks: Vec<String>,
    /// What keeps it from being protected, as far as its definition tells, beside what is said of each disk; `enable` as a dry run looks
    /// at everything.
    pub obstacles: Vec<String>,
}

/// A disk of a VM that may be protected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct VmDisk {
    /// Its name in the guest's definition.
    pub target: String,
    /// Its format: `qcow2`, `raw`.
    pub format: String,
    /// The size that the guest sees; none: not looked at (the list looks at no image), or not known.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Bytes that its file takes: what a first copy carries at most; none: not looked at, or not known.
    #[serde(default)]
    pub allocated_bytes: Option<u64>,
    /// What it is that cannot be replicated: `raw file`, `block device`; none: it can be. The others are replicated without it.
    #[serde(default)]
    pub obstacle: Option<String>,
    /// The raw disk that has the data, when this is a wrapper that tracks its changes.
    #[serde(default)]
    pub wraps: Option<String>,
}

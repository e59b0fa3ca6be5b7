//! A failover that nobody planned, how it ends, and what is set aside by it.

use serde::{Deserialize, Serialize};

/// Start a VM from a recovery point of its replica.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverRequest {
    /// From which point, by its id; none: the newest.
    pub point: Option<String>,
    /// Also when the other host answers that the VM runs there.
    pub force: bool,
    /// It becomes final by itself after so many seconds.
    pub complete_after_seconds: Option<u64>,
    /// It is taken back by itself after so many seconds.
    pub roll_back_after_seconds: Option<u64>,
    /// It is taken back by itself when the guest agent has not answered after so many seconds.
    pub boots_within_seconds: Option<u64>,
}

/// Take a failover back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CancelFailoverRequest {
    /// Turn the VM off when it does not shut down in time.
    #[serde(default)]
    pub turn_off: bool,
    /// How long the guest may take to shut down, seconds.
    pub shutdown_timeout_seconds: u64,
}

/// What only one host has of a VM's disks, kept apart since a failover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DivergedView {
    /// By what it is removed: when it was set aside, milliseconds since 1970.
    pub id: String,
    /// When it was set aside.
    pub at_ms: u64,
    /// Its files.
    pub disks: Vec<DivergedDisk>,
}

/// What was set aside of one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DivergedDisk {
    /// The disk.
    pub target: String,
    /// A qcow2 file that holds only what differed, at its place.
    pub path: String,
    /// Bytes of guest data in it, in whole clusters.
    pub bytes: u64,
    /// Pieces in which they lie.
    pub pieces: u64,
}

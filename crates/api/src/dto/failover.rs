//! A failover that nobody planned, how it ends, and what is set aside by it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operation::PlannedFailoverRequest;

/// Start a VM from a recovery point of its replica.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailoverRequest {
    /// From which point, by its id or its number in the list; none: the newest.
    pub point: Option<String>,
    /// Also when the other host answers that the VM runs there.
    pub force: bool,
    /// It becomes final by itself after so many seconds.
    #[schemars(range(min = 1, max = FailoverRequest::AFTER_SECONDS_MAX))]
    pub complete_after_seconds: Option<u64>,
    /// It is taken back by itself after so many seconds.
    #[schemars(range(min = 1, max = FailoverRequest::AFTER_SECONDS_MAX))]
    pub roll_back_after_seconds: Option<u64>,
    /// It is taken back by itself when the guest agent has not answered after so many seconds.
    #[schemars(range(min = 1, max = FailoverRequest::AFTER_SECONDS_MAX))]
    pub boots_within_seconds: Option<u64>,
}

impl FailoverRequest {
    /// A month: until then somebody decides, and the points that a failover keeps take room.
    pub const AFTER_SECONDS_MAX: u64 = 31 * 24 * 3600;
}

/// Take a failover back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelFailoverRequest {
    /// Turn the VM off when it does not shut down in time.
    #[serde(default)]
    pub turn_off: bool,
    /// How long the guest may take to shut down, seconds.
    #[schemars(range(max = PlannedFailoverRequest::SHUTDOWN_TIMEOUT_SECONDS_MAX))]
    pub shutdown_timeout_seconds: u64,
}

/// What only one host has of a VM's disks, kept apart since a failover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DivergedView {
    /// By what it is removed: when it was set aside, milliseconds since 1970.
    pub id: String,
    /// When it was set aside.
    pub at_ms: u64,
    /// Its files.
    pub disks: Vec<DivergedDisk>,
}

/// What was set aside of one disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DivergedDisk {
    /// The disk.
    pub target: String,
    /// A qcow2 file that holds only what differed, at its place.
    pub path: String,
    /// Bytes of guest data in it, in whole clusters.
    pub bytes: u64,
    /// Pieces in which they lie.
    pub pieces: u64,
    /// The guest's files that were changed, for each file system of the disk; none: they were not listed.
    pub file_systems: Option<Vec<DivergedFileSystem>>,
}

/// What was changed on one file system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DivergedFileSystem {
    /// Where it is: `whole disk`, `partition 2`.
    pub place: String,
    /// The files, by their paths.
    pub files: Vec<DivergedFile>,
    /// Why the list is not whole, or there is none; none: it is whole.
    pub incomplete: Option<String>,
}

/// A file of the guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DivergedFile {
    /// Its path in the file system.
    pub path: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// When it was changed last, by the guest's clock.
    pub changed_at_ms: u64,
    /// Whether only this host has a file of that path.
    pub is_new: bool,
}

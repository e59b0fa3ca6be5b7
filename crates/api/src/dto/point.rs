//! Recovery points: the list, and one made on demand.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A moment the replica can start from, with what its files tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PointView {
    /// Known to both sides by the same id.
    pub id: String,
    /// Its place in the order of points; it names the point as well as the id does.
    pub ordinal: u64,
    /// The instant that it holds.
    pub at_ms: u64,
    /// What consistency was really reached, for people.
    pub consistency: String,
    /// The disks that it holds.
    #[serde(default)]
    pub disks: Vec<String>,
    /// What its own files take on the replica server; none: not known.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// What a person called it: it stays until it is removed by name.
    #[serde(default)]
    pub tag: Option<String>,
    /// The test failovers that read it.
    #[serde(default)]
    pub pinned_by: Vec<String>,
}

/// The recovery points of a VM, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PointList {
    /// The points.
    pub points: Vec<PointView>,
    /// Their files.
    pub chain: ChainView,
}

/// The files of all recovery points of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ChainView {
    /// How many points there are.
    pub points: u64,
    /// Layers of the disk that has the most.
    pub layers: u64,
    /// What all files take on the replica server; none: not known.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// Make a recovery point now.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CreatePointRequest {
    /// What it is called; none: "on demand".
    pub tag: Option<String>,
    /// Freeze the guest's file systems for it.
    pub application_consistent: bool,
}

/// A recovery point that was made on demand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PointMade {
    /// The point.
    pub point: PointView,
    /// Why its consistency is less than was asked for.
    #[serde(default)]
    pub failure: Option<String>,
}

/// What a point holds of the guest's state, in the words that people see.
#[must_use]
pub fn consistency(reached: domain::Consistency) -> &'static str {
    match reached {
        domain::Consistency::Crash => "crash-consistent",
        domain::Consistency::FileSystem => "file-system-consistent",
        domain::Consistency::Application => "application-consistent",
        domain::Consistency::PoweredOff => "powered off",
    }
}

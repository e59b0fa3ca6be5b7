//! View Replication Health: one relationship, as the asked host sees it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::point::ChainView;
use super::settings::{Compression, NewDisks, Thresholds};

/// Which side the asked host is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Runs the VM and sends.
    Primary,
    /// Holds the copy.
    Replica,
}

impl Mode {
    /// The word people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Mode::Primary => "Primary",
            Mode::Replica => "Replica",
        }
    }
}

/// The worst of the reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// All is as it should be.
    Normal,
    /// Protection is weaker than it should be.
    Warning,
    /// There is no protection, or data is in danger.
    Critical,
}

impl Health {
    /// The word people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Health::Normal => "Normal",
            Health::Warning => "Warning",
            Health::Critical => "Critical",
        }
    }
}

/// Why health is not Normal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Reason {
    /// How bad.
    pub severity: Health,
    /// What is the matter.
    pub text: String,
    /// The command that cures it; none: it cures itself.
    #[serde(default)]
    pub cure: Option<String>,
}

/// One line of `list`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RelationshipSummary {
    /// The relationship; the same on both sides.
    pub id: String,
    /// The VM's name.
    pub vm: String,
    /// The VM's UUID; the same on both sides.
    pub vm_uuid: String,
    /// Which side the asked host is.
    pub mode: Mode,
    /// Where it stands, for people: "Replicating".
    pub state: String,
    /// The worst of the reasons.
    pub health: Health,
    /// The host that runs the VM.
    pub primary_server: String,
    /// The host that holds the copy.
    pub replica_server: String,
    /// The host where the VM was protected first; none: an older host does not say.
    #[serde(default)]
    pub home_server: Option<String>,
    /// Since when the VM runs on the other host; none: it is at home, or the asked host has no record of how it moved.
    #[serde(default)]
    pub away_since_ms: Option<u64>,
    /// Time between cycles, seconds.
    pub frequency_seconds: u64,
    /// When the last point was acknowledged; none: never.
    #[serde(default)]
    pub last_synchronized_at_ms: Option<u64>,
    /// Held by an operator on the asked host.
    pub paused: bool,
    /// The operation under way, if one is.
    #[serde(default)]
    pub operation: Option<String>,
    /// Another one whenever its role, epoch, state, settings, pause or operation has changed: what `If-Match` is compared with.
    #[serde(default)]
    pub revision: String,
}

/// All that is known of one relationship.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RelationshipDetail {
    /// What `list` shows.
    #[serde(flatten)]
    pub summary: RelationshipSummary,
    /// Rises with each change of role.
    pub epoch: u64,
    /// Why health is not Normal, the worst first.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// Set while nobody receives.
    #[serde(default)]
    pub unprotected_since_ms: Option<u64>,
    /// The cycles of the monitoring interval.
    pub statistics: Statistics,
    /// Bytes changed and not yet sent; none: not known (always on the replica).
    #[serde(default)]
    pub pending_bytes: Option<u64>,
    /// When the next cycle begins; none: none is due.
    #[serde(default)]
    pub next_due_at_ms: Option<u64>,
    /// The first copy or a resynchronization, while one is under way.
    #[serde(default)]
    pub initial_copy: Option<InitialCopy>,
    /// Where the first copy is written that is carried by hand, until the replica server has it (on the primary).
    #[serde(default)]
    pub carried: Option<CarriedCopy>,
    /// Every disk of the VM.
    #[serde(default)]
    pub disks: Vec<DiskView>,
    /// Compression on the wire.
    pub compression: Compression,
    /// This VM's limit; none: only the host's.
    #[serde(default)]
    pub rate_limit_bytes_per_second: Option<u64>,
    /// Names of bridges and networks, as (name on the first host, name on the second).
    #[serde(default)]
    pub networks: Vec<(String, String)>,
    /// When health turns.
    pub thresholds: Thresholds,
    /// Time between two drills; none: there are none.
    #[serde(default)]
    pub drill_every_seconds: Option<u64>,
    /// Which recovery points stay, as it is typed.
    #[serde(default)]
    pub recovery_points: String,
    /// Time between two application-consistent points; none: there are none.
    #[serde(default)]
    pub application_consistent_every_seconds: Option<u64>,
    /// What becomes of a disk that is added to the VM.
    #[serde(default)]
    pub new_disks: NewDisks,
    /// The files of the recovery points; none: not known here (on the primary).
    #[serde(default)]
    pub chain: Option<ChainView>,
    /// The newest recovery point; none: the replica cannot start yet.
    #[serde(default)]
    pub head: Option<RecoveryPointView>,
    /// The replica directory on the asked host, if there is one.
    #[serde(default)]
    pub directory: Option<String>,
    /// A comparison of both sides: under way, or waiting.
    #[serde(default)]
    pub comparison: Option<ComparisonView>,
    /// When a resynchronization begins, in words; none: automatic.
    #[serde(default)]
    pub resynchronize: Option<String>,
    /// Time between two verifications; none: there are none.
    #[serde(default)]
    pub verify_every_seconds: Option<u64>,
    /// When the replica was last proven to be equal.
    #[serde(default)]
    pub verified_at_ms: Option<u64>,
}

/// A comparison of both sides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ComparisonView {
    /// Why the disks are resynchronized; none: they are verified.
    #[serde(default)]
    pub cause: Option<String>,
    /// What it waits for; none: it is under way.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Bytes of the disks that have been compared.
    pub compared_bytes: u64,
    /// Bytes of the disks in all; none: not known yet.
    #[serde(default)]
    pub total_bytes: Option<u64>,
    /// Bytes of those compared that differ.
    pub differing_bytes: u64,
}

/// The cycles of the monitoring interval.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Statistics {
    /// Cycles that were due.
    pub cycles_due: u64,
    /// Cycles that were acknowledged.
    pub cycles_acknowledged: u64,
    /// Cycles that were missed or failed.
    pub cycles_missed: u64,
    /// Mean size; none before the first acknowledged cycle.
    #[serde(default)]
    pub average_bytes: Option<u64>,
    /// Largest size.
    #[serde(default)]
    pub maximum_bytes: Option<u64>,
    /// Mean size on the wire, compressed as it was.
    #[serde(default)]
    pub average_sent_bytes: Option<u64>,
    /// Mean latency.
    #[serde(default)]
    pub average_latency_ms: Option<u64>,
    /// Longest latency.
    #[serde(default)]
    pub maximum_latency_ms: Option<u64>,
}

/// A first copy that is carried by hand.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CarriedCopy {
    /// The directory of this host in which it lies.
    pub directory: String,
    /// It is whole, and can be carried.
    pub is_whole: bool,
}

/// How far a whole-disk copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InitialCopy {
    /// Bytes acknowledged.
    pub bytes_done: u64,
    /// Bytes in all; none: not known yet.
    #[serde(default)]
    pub bytes_total: Option<u64>,
    /// Measured over the last seconds.
    #[serde(default)]
    pub bytes_per_second: Option<u64>,
}

impl InitialCopy {
    /// Time left at the measured speed, milliseconds; none: not known.
    #[must_use]
    pub fn time_left_ms(&self) -> Option<u64> {
        let left = self.bytes_total?.saturating_sub(self.bytes_done);
        let speed = self.bytes_per_second.filter(|speed| *speed > 0)?;
        Some(left.saturating_mul(1000) / speed)
    }
}

/// One disk of the VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DiskView {
    /// Its name in the guest's definition.
    pub target: String,
    /// Copied; else present on the replica but empty.
    pub replicated: bool,
    /// Its virtual size; none: not known.
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

/// A moment the replica can start from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RecoveryPointView {
    /// Known to both sides by the same id.
    pub id: String,
    /// The instant that it holds.
    pub at_ms: u64,
    /// What consistency was really reached, for people.
    pub consistency: String,
    /// Digest of the whole history up to here, hexadecimal.
    pub lineage: String,
}

/// May the VM start on this host? What libvirt's start hook asks when the host has come back from a crash.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum StartWord {
    /// It may.
    Allowed,
    /// It may not: one line for the person who tried.
    Refused {
        /// Where it runs and what to do.
        reason: String,
    },
    /// The other host does not answer; the host's configuration decides.
    PeerSilent {
        /// One line.
        reason: String,
    },
}

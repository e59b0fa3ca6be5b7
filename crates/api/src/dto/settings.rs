//! What an operator chooses for a relationship.

use domain::{Frequency, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether frames are compressed on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Always.
    On,
    /// Never.
    Off,
    /// When the link is slower than the compressor.
    Adaptive,
}

impl Compression {
    /// The word of CLI and JSON.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Compression::On => "on",
            Compression::Off => "off",
            Compression::Adaptive => "adaptive",
        }
    }
}

/// A limit, or none; apart from "leave as it is".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RateLimit {
    /// No limit.
    Unlimited,
    /// Bytes per second.
    BytesPerSecond(#[schemars(range(min = 1, max = RateLimit::BYTES_PER_SECOND_MAX))] u64),
}

impl RateLimit {
    /// Eight petabytes a second: above it a float skips whole bytes, and no link is that fast.
    pub const BYTES_PER_SECOND_MAX: u64 = 1 << 53;

    /// The limit as a number, none when there is no limit.
    #[must_use]
    pub fn bytes_per_second(self) -> Option<u64> {
        match self {
            RateLimit::Unlimited => None,
            RateLimit::BytesPerSecond(bytes) => Some(bytes),
        }
    }
}

/// Test failovers that the replica server makes by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Drills {
    /// It makes none.
    Never,
    /// One every so many seconds.
    EverySeconds(#[schemars(range(max = Settings::EVERY_MAX.as_secs()))] u64),
}

/// Application-consistent recovery points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FreezeEvery {
    /// The guest is never frozen.
    Never,
    /// Once every so many seconds.
    Seconds(#[schemars(range(max = Settings::EVERY_MAX.as_secs()))] u64),
}

/// Which disks are copied.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskSelection {
    /// Every disk of the VM that is no CD-ROM and not read-only.
    #[default]
    All,
    /// Only these targets.
    Only(Vec<String>),
    /// All but these targets.
    AllBut(Vec<String>),
}

/// When health turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Thresholds {
    /// Warning above this share of missed cycles, percent.
    pub missed_cycles_percent_max: u8,
    /// Warning when nothing was synchronized for this long, seconds.
    pub last_synchronized_age_max_seconds: u64,
    /// Warning above this average latency, seconds.
    pub average_latency_max_seconds: u64,
    /// The window over which cycles are counted, seconds.
    pub monitoring_interval_seconds: u64,
}

/// Change what is not none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ThresholdsChange {
    /// See [`Thresholds`].
    #[schemars(range(max = 100))]
    pub missed_cycles_percent_max: Option<u8>,
    /// See [`Thresholds`].
    #[schemars(range(min = 1, max = domain::Thresholds::SECONDS_MAX))]
    pub last_synchronized_age_max_seconds: Option<u64>,
    /// See [`Thresholds`].
    #[schemars(range(min = 1, max = domain::Thresholds::SECONDS_MAX))]
    pub average_latency_max_seconds: Option<u64>,
    /// See [`Thresholds`].
    #[schemars(range(min = 1, max = domain::Thresholds::SECONDS_MAX))]
    pub monitoring_interval_seconds: Option<u64>,
}

/// What becomes of a disk that is added to the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NewDisks {
    /// It is replicated by itself.
    #[default]
    Replicate,
    /// Health warns until a person decides.
    Warn,
}

/// Protect a VM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnableRequest {
    /// The VM, by name or UUID.
    pub vm: String,
    /// The replica server, by peer name or id.
    pub peer: String,
    /// Time between cycles, seconds; none: the default (300).
    #[serde(default)]
    #[schemars(range(min = Frequency::MIN.as_secs(), max = Frequency::MAX.as_secs()))]
    pub frequency_seconds: Option<u64>,
    /// Which disks.
    #[serde(default)]
    pub disks: DiskSelection,
    /// When the first copy begins; none: now.
    #[serde(default)]
    #[schemars(range(max = EnableRequest::INITIAL_AT_MS_MAX))]
    pub initial_at_ms: Option<u64>,
    /// None: adaptive.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// None: only the host's limit.
    #[serde(default)]
    #[schemars(range(min = 1, max = RateLimit::BYTES_PER_SECOND_MAX))]
    pub rate_limit_bytes_per_second: Option<u64>,
    /// Names of bridges and networks, as (here, there).
    #[serde(default)]
    pub networks: Vec<(String, String)>,
    /// Which recovery points stay: `latest`, a number of hourly ones, or a grid such as `24x1h,7x1d`; none: latest.
    #[serde(default)]
    pub recovery_points: Option<String>,
    /// None: never.
    #[serde(default)]
    pub application_consistent_every: Option<FreezeEvery>,
    /// Existing copies of disks on the replica server, as (target, file).
    #[serde(default)]
    pub seeds: Vec<(String, String)>,
    /// The first copy is written to this directory of the daemon's host, and carried by hand.
    #[serde(default)]
    pub export: Option<String>,
}

impl EnableRequest {
    /// The end of the year 9999: nothing behind it can be shown.
    pub const INITIAL_AT_MS_MAX: u64 = 253_402_300_799_999;
}

/// Take the first copies that were carried here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// A directory of the daemon's host.
    pub directory: String,
}

/// Change what is not none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SettingsChange {
    /// Time between cycles, seconds.
    #[schemars(range(min = Frequency::MIN.as_secs(), max = Frequency::MAX.as_secs()))]
    pub frequency_seconds: Option<u64>,
    /// Compression on the wire.
    pub compression: Option<Compression>,
    /// This VM's limit.
    pub rate_limit: Option<RateLimit>,
    /// Replaces the whole map.
    pub networks: Option<Vec<(String, String)>>,
    /// When health turns.
    pub thresholds: ThresholdsChange,
    /// Drills of the replica server.
    pub drills: Option<Drills>,
    /// Which recovery points stay.
    pub recovery_points: Option<String>,
    /// Application-consistent recovery points.
    pub application_consistent_every: Option<FreezeEvery>,
    /// When a resynchronization begins: `automatic`, `manual`, `window HH:MM-HH:MM`.
    pub resynchronize: Option<String>,
    /// Verifications of the primary server.
    pub verifications: Option<Drills>,
    /// What becomes of a disk that is added to the VM.
    pub new_disks: Option<NewDisks>,
    /// Disks of the VM that are replicated from now on, as they are now.
    pub add_disks: Vec<String>,
}

/// Reverse the direction of an unprotected relationship. What is none is filled in from the original; what is given
/// and differs from the original is refused by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReverseRequest {
    /// The new replica server: the old primary.
    pub peer: Option<String>,
    /// Time between cycles, seconds.
    #[schemars(range(min = Frequency::MIN.as_secs(), max = Frequency::MAX.as_secs()))]
    pub frequency_seconds: Option<u64>,
    /// Compression on the wire.
    pub compression: Option<Compression>,
}

/// What becomes of the replica when a relationship ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaFate {
    /// Its files stay; they can be started by hand.
    Keep,
    /// Its files and definition are deleted.
    Delete,
}

/// End a relationship.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// What becomes of the replica.
    pub replica: ReplicaFate,
    /// The other host is lost: it is not asked.
    #[serde(default)]
    pub this_host_only: bool,
}

//! Test failovers: a throw-away copy of a VM, started from a recovery point while replication goes on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Begin one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TestFailoverRequest {
    /// The recovery point, by its id or its number in the list; none: the newest.
    pub point: Option<String>,
    /// A bridge or libvirt network of the replica server; none: one of its own, in which there is nobody else.
    pub network: Option<String>,
    /// A shell command that must succeed once the guest is up.
    pub probe: Option<String>,
    /// A TCP port of the guest that must answer once it is up.
    #[schemars(range(min = 1))]
    pub probe_port: Option<u16>,
    /// How long booting and probing may take, seconds.
    #[schemars(range(min = 1, max = TestFailoverRequest::BOOT_TIMEOUT_SECONDS_MAX))]
    pub boot_timeout_seconds: u64,
    /// Stays after its check, until it is stopped.
    pub keep: bool,
}

impl TestFailoverRequest {
    /// A day: a guest that needs longer to boot will not.
    pub const BOOT_TIMEOUT_SECONDS_MAX: u64 = 24 * 3600;
}

impl Default for TestFailoverRequest {
    fn default() -> Self {
        TestFailoverRequest {
            point: None,
            network: None,
            probe: None,
            probe_port: None,
            boot_timeout_seconds: 600,
            keep: false,
        }
    }
}

/// Where one stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TestFailoverState {
    /// Its files, its network and its VM are made.
    Making,
    /// The guest boots, and is probed.
    Checking,
    /// Checked; it stays until it is stopped.
    Standing,
    /// Its VM, its network and its files are removed.
    Removing,
    /// Nothing of it is left but its report.
    Ended,
}

impl TestFailoverState {
    /// The word of CLI and JSON.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            TestFailoverState::Making => "making",
            TestFailoverState::Checking => "checking",
            TestFailoverState::Standing => "standing",
            TestFailoverState::Removing => "removing",
            TestFailoverState::Ended => "ended",
        }
    }
}

/// Something that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What.
    pub what: String,
    /// Whether it is as it should be; none: not known.
    pub ok: Option<bool>,
    /// What was found.
    pub detail: String,
}

/// One test failover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TestFailoverView {
    /// Its id.
    pub id: String,
    /// The VM of which it is a copy.
    pub vm: String,
    /// The copy's name in libvirt.
    pub name: String,
    /// The copy's UUID.
    pub vm_uuid: String,
    /// Where it is.
    pub host: String,
    /// Its recovery point.
    pub point: String,
    /// The instant of that point.
    pub point_at_ms: u64,
    /// Its bridge or network.
    pub network: String,
    /// Whether that network is its own, with nobody else in it.
    pub isolated: bool,
    /// Where it stands.
    pub state: TestFailoverState,
    /// Whether it passed; none: not known, or not yet.
    pub passed: Option<bool>,
    /// What was looked at, once it was.
    pub findings: Vec<Finding>,
    /// Why it could not be made, or ended before it was checked.
    pub failure: Option<String>,
    /// From the start to the guest agent's first answer; none: not measured.
    pub boot_ms: Option<u64>,
    /// The guest's addresses, when they were asked for.
    pub addresses: Vec<String>,
    /// File with a picture of the screen; none: there is none.
    pub picture: Option<String>,
    /// File with the report as Markdown; beside it lies the same as JSON. None: there is none yet.
    pub report: Option<String>,
    /// Stays after its check.
    pub keep: bool,
    /// Who asked for it.
    pub requested_by: String,
    /// When it began.
    pub begun_at_ms: u64,
    /// When all of it was gone.
    pub ended_at_ms: Option<u64>,
}

//! One run of a procedure: its steps while it goes on, its report when it ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::page::{LIMIT_MAX, Page};

/// Hand a VM over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlannedFailoverRequest {
    /// Reverse the replication direction after failover.
    pub reverse: bool,
    /// Start the VM on the new primary.
    pub start: bool,
    /// How long the guest may take to shut down, seconds.
    #[schemars(range(max = PlannedFailoverRequest::SHUTDOWN_TIMEOUT_SECONDS_MAX))]
    pub shutdown_timeout_seconds: u64,
}

impl PlannedFailoverRequest {
    /// Long enough for a database to flush, short enough for a maintenance window.
    pub const SHUTDOWN_TIMEOUT_SECONDS_DEFAULT: u64 = 300;
    /// A day: whoever waits longer for a guest has forgotten it.
    pub const SHUTDOWN_TIMEOUT_SECONDS_MAX: u64 = 24 * 3600;
}

impl Default for PlannedFailoverRequest {
    fn default() -> Self {
        PlannedFailoverRequest {
            reverse: true,
            start: true,
            shutdown_timeout_seconds: Self::SHUTDOWN_TIMEOUT_SECONDS_DEFAULT,
        }
    }
}

/// Which operations.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OperationQuery {
    /// Only those of this VM (name, UUID or relationship id).
    pub vm: Option<String>,
    /// The page that follows the one whose `Link` says this; none: the first.
    pub after: Option<String>,
    /// At most so many; none: [`OperationQuery::LIMIT_DEFAULT`].
    #[schemars(range(min = 1, max = LIMIT_MAX))]
    pub limit: Option<u32>,
}

impl OperationQuery {
    /// A few screens.
    pub const LIMIT_DEFAULT: u32 = 100;

    /// Which page of them.
    #[must_use]
    pub fn page(&self) -> Page {
        Page { after: self.after.clone(), limit: self.limit }
    }
}

/// Turn an operation round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Also when the other host's answer is missing: the operator vouches that it did not take over.
    #[serde(default)]
    pub force: bool,
}

/// Where an operation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OperationState {
    /// Steps go on by themselves.
    Running,
    /// Being taken back.
    Undoing,
    /// Handed over; the rest is retried until it succeeds.
    Finishing,
    /// Neither side runs the VM until the hosts have spoken or a person decided.
    InDoubt,
    /// Every step that was asked for is done.
    Completed,
    /// Everything was taken back; the VM is protected as before.
    Undone,
    /// It took effect, its guest did not boot, and another operation takes it back.
    GivenUp,
}

impl OperationState {
    /// The words people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            OperationState::Running => "under way",
            OperationState::Undoing => "being undone",
            OperationState::Finishing => "handed over, finishing",
            OperationState::InDoubt => "in doubt",
            OperationState::Completed => "completed",
            OperationState::Undone => "undone",
            OperationState::GivenUp => "given up",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, OperationState::Completed | OperationState::Undone | OperationState::GivenUp)
    }
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun.
    Running,
    /// Done.
    Done,
    /// The last try failed; `detail` says why.
    Failed,
    /// Not asked for.
    Skipped,
    /// Done, then taken back.
    Undone,
}

impl StepState {
    /// The word people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            StepState::Pending => "pending",
            StepState::Running => "running",
            StepState::Done => "done",
            StepState::Failed => "failed",
            StepState::Skipped => "skipped",
            StepState::Undone => "undone",
        }
    }
}

/// One row of the procedure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct StepView {
    /// Its name in the table.
    pub name: String,
    /// The host that carries it out.
    pub host: String,
    /// What it does.
    pub does: String,
    /// Where it stands.
    pub state: StepState,
    /// When it began, by that host's clock.
    #[serde(default)]
    pub started_at_ms: Option<u64>,
    /// When it ended.
    #[serde(default)]
    pub finished_at_ms: Option<u64>,
    /// What was found or measured, or why it failed.
    #[serde(default)]
    pub detail: String,
}

impl StepView {
    /// How long it took; none while it is open or when the clock went backwards.
    #[must_use]
    pub fn duration_ms(&self) -> Option<u64> {
        self.finished_at_ms?.checked_sub(self.started_at_ms?)
    }
}

/// Bytes on their way in the running step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Transfer {
    /// Sent and durable.
    pub bytes_done: u64,
    /// In all; none: not known yet.
    #[serde(default)]
    pub bytes_total: Option<u64>,
}

/// The evidence of a handover. What was not measured is none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Report {
    /// From the guest being off to the VM being resumed on the new primary.
    pub downtime_ms: Option<u64>,
    /// Guest data that the final sync carried.
    pub final_sync_bytes: Option<u64>,
    /// Guest data that the reverse carried.
    pub reverse_bytes: Option<u64>,
    /// Digest of the history at the freeze, as the old primary computed it from what it read.
    pub old_primary_digest: Option<String>,
    /// The same, as the new primary computed it from what it sealed.
    pub new_primary_digest: Option<String>,
}

impl Report {
    /// Whether both digests are the same; none when one is missing.
    #[must_use]
    pub fn digests_equal(&self) -> Option<bool> {
        Some(self.old_primary_digest.as_ref()? == self.new_primary_digest.as_ref()?)
    }
}

/// An operation, running or ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OperationView {
    /// The same on both hosts.
    pub id: String,
    /// The procedure: "planned failover".
    pub kind: String,
    /// The VM's name.
    pub vm: String,
    /// Whose handover.
    pub relationship: String,
    /// The host that was primary when it began.
    pub old_primary: String,
    /// The host that was replica when it began.
    pub new_primary: String,
    /// Reverse was asked for.
    pub reverse: bool,
    /// Start was asked for.
    pub start: bool,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub begun_at_ms: u64,
    /// When it ended; none while it is open.
    #[serde(default)]
    pub ended_at_ms: Option<u64>,
    /// Where it stands.
    pub state: OperationState,
    /// Why it was turned round or rests; empty when all goes well.
    #[serde(default)]
    pub explanation: String,
    /// The command that finishes it, when a person is needed.
    #[serde(default)]
    pub next_command: Option<String>,
    /// Every step in order.
    pub steps: Vec<StepView>,
    /// Bytes on their way in the running step.
    #[serde(default)]
    pub transfer: Option<Transfer>,
    /// The evidence, as far as it is known.
    #[serde(default)]
    pub report: Report,
}

impl OperationView {
    /// Whether it waits for a person: polling on would not change anything.
    #[must_use]
    pub fn rests(&self) -> bool {
        !self.state.is_ended() && self.next_command.is_some()
    }
}

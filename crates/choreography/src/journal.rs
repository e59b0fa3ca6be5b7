//! The journal: intent before effect, evidence after. Recovery reads it through the same fold as the running operation.

use std::collections::BTreeMap;

use domain::{HostId, Timestamp};

use crate::operation::Outcome;
use crate::table::Step;

/// What one line of a journal says.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum Mark {
    /// The step is about to be done. Written before its effect.
    Intent(Step),
    /// The step is done; the text is its evidence for people.
    Done(Step, String),
    /// The step was not asked for.
    Skipped(Step, String),
    /// One try failed; the text says why and what cures it.
    Failed(Step, String),
    /// A person or a refusal turned the operation round.
    Cancel(String),
    /// The step was taken back.
    Undone(Step),
    /// Behind the point of no return something shows that what came of it is no good; the text says what.
    GivenUp(String),
    /// Nothing more will happen.
    Ended(Outcome),
}

/// One line of a journal.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Entry {
    /// When, by the clock of the host that wrote it.
    pub at: Timestamp,
    /// Which host wrote it.
    pub host: HostId,
    /// What it says.
    pub mark: Mark,
}

/// Where a step stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StepState {
    /// Begun, end unknown: after a restart its effect may or may not have happened.
    Running {
        /// Since when; of the first try.
        since: Timestamp,
    },
    /// Done.
    Done {
        /// When it began.
        begun: Timestamp,
        /// When it was done.
        ended: Timestamp,
        /// What was found or measured.
        evidence: String,
    },
    /// Not asked for.
    Skipped {
        /// Why.
        reason: String,
    },
    /// The last try failed.
    Failed {
        /// When it began.
        begun: Timestamp,
        /// When it failed.
        ended: Timestamp,
        /// Why, and what cures it.
        reason: String,
    },
    /// Done, then taken back.
    Undone {
        /// When.
        at: Timestamp,
    },
}

/// A journal, folded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Every step that left a mark.
    pub steps: BTreeMap<Step, StepState>,
    /// Set when the operation was turned round, with the reason.
    pub cancelled: Option<String>,
    /// Set when what came of the operation is no good, with the reason.
    pub given_up: Option<String>,
    /// A person vouched that the new primary did not take over: nothing is in doubt any more.
    pub is_forced: bool,
    /// Set when nothing more will happen.
    pub outcome: Option<Outcome>,
}

/// How the reason of a cancellation begins by which a person decided in doubt.
pub const FORCED: &str = "forced";

impl Progress {
    /// Whether the step is done or was not asked for.
    #[must_use]
    pub fn is_settled(&self, step: Step) -> bool {
        matches!(self.steps.get(&step), Some(StepState::Done { .. } | StepState::Skipped { .. }))
    }

    /// Whether the step was ever begun and not taken back: its effect may exist.
    #[must_use]
    pub fn may_have_effect(&self, step: Step) -> bool {
        !matches!(self.steps.get(&step), None | Some(StepState::Undone { .. } | StepState::Skipped { .. }))
    }

    /// Whether the VM's authority has passed to the new primary (or another point of no return was passed), as far as this
    /// journal knows.
    #[must_use]
    pub fn handed_over(&self) -> bool {
        Step::POINTS_OF_NO_RETURN.into_iter().any(|step| self.is_settled(step))
    }
}

/// Reads a journal from its first line to its last.
///
/// A cancellation after the hand over is recorded by nobody (see [`crate::next`]); if a damaged journal holds one, the
/// hand over wins: it is a fact on the other host.
#[must_use]
pub fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Progress {
    let mut progress = Progress::default();
    for entry in entries {
        apply(&mut progress, entry);
    }
    if progress.handed_over() {
        progress.cancelled = None;
    }
    progress
}

fn apply(progress: &mut Progress, entry: &Entry) {
    let at = entry.at;
    let begun = |progress: &Progress, step: &Step| match progress.steps.get(step) {
        Some(StepState::Running { since } | StepState::Failed { begun: since, .. }) => *since,
        _ => at,
    };
    match &entry.mark {
        Mark::Intent(step) => {
            if !progress.is_settled(*step) {
                let since = begun(progress, step);
                progress.steps.insert(*step, StepState::Running { since });
            }
        }
        Mark::Done(step, evidence) => {
            if !progress.is_settled(*step) {
                let begun = begun(progress, step);
                progress
                    .steps
                    .insert(*step, StepState::Done { begun, ended: at, evidence: evidence.clone() });
            }
        }
        Mark::Skipped(step, reason) => {
            progress.steps.insert(*step, StepState::Skipped { reason: reason.clone() });
        }
        Mark::Failed(step, reason) => {
            // Of an operation that was turned round, what failed is taking back what was done.
            if !progress.is_settled(*step) || progress.cancelled.is_some() {
                let begun = begun(progress, step);
                progress.steps.insert(*step, StepState::Failed { begun, ended: at, reason: reason.clone() });
            }
        }
        Mark::Cancel(reason) => {
            progress.cancelled.get_or_insert_with(|| reason.clone());
            progress.is_forced |= reason.starts_with(FORCED);
        }
        Mark::Undone(step) => {
            progress.steps.insert(*step, StepState::Undone { at });
        }
        Mark::GivenUp(reason) => {
            progress.given_up.get_or_insert_with(|| reason.clone());
        }
        Mark::Ended(outcome) => {
            progress.outcome.get_or_insert(*outcome);
        }
    }
}

//! What a host does next in an operation: a pure function of its journal, its part and the options.
//!
//! Forward, a host does its own unsettled steps in the order of the table and waits for the other host's. Turned round
//! before the hand over, the old primary first asks the new primary to refuse a late hand over (that answer, or the news
//! that it already happened, is the only way out of doubt), then takes its steps back in reverse order.

use domain::Timestamp;

use crate::journal::{Progress, StepState};
use crate::operation::{Operation, Outcome, Side};
use crate::table::{Place, Procedure, Step, Undo, spec};

/// What to do now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// Do this step. It may have been begun before: every step is idempotent.
    Do(Step),
    /// This step is not asked for: write that down.
    Skip(Step, &'static str),
    /// The other host does the next step; ask it how far it is. The hand over is the answer to the old primary's request.
    Await(Step),
    /// Ask the new primary for its durable refusal of a late hand over, before anything is taken back.
    Abandon,
    /// Take this step back.
    TakeBack(Step),
    /// Write down that the operation ended.
    End(Outcome),
    /// Nothing: the operation ended.
    Nothing,
}

/// A state in which an operation may rest for long, with the command that leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestingState {
    /// Steps go on by themselves.
    UnderWay,
    /// A step before the lock failed and is being taken back, or waits for the other host.
    Undoing,
    /// Locked, and it is unknown whether the other host took over: neither side runs the VM.
    InDoubt,
    /// Handed over; the remaining steps are retried until they succeed.
    Forward,
    /// Ended.
    Ended,
}

impl RestingState {
    /// The state's name for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            RestingState::UnderWay => "under way",
            RestingState::Undoing => "being undone",
            RestingState::InDoubt => "in doubt",
            RestingState::Forward => "handed over, finishing",
            RestingState::Ended => "ended",
        }
    }
}

/// Decides what `operation.side` does next.
#[must_use]
pub fn next(operation: &Operation, progress: &Progress) -> Next {
    if progress.outcome.is_some() {
        return Next::Nothing;
    }
    if operation.procedure.is_solitary() {
        return alone(operation, progress);
    }
    match (operation.side, &progress.cancelled) {
        (Side::OldPrimary, Some(_)) => backward(progress),
        // The new primary took nothing of the VM yet: its announcement is all there is to clear.
        (Side::NewPrimary, Some(_)) => Next::End(Outcome::Undone),
        (_, None) => forward(operation, progress),
    }
}

/// A procedure of one host: nothing in front of its point of no return needs taking back.
fn alone(operation: &Operation, progress: &Progress) -> Next {
    if progress.cancelled.is_some() {
        return Next::End(Outcome::Undone);
    }
    if progress.given_up.is_some() {
        return Next::End(Outcome::GivenUp);
    }
    match operation.procedure.steps().find(|step| !progress.is_settled(*step)) {
        Some(step) => not_asked_for(operation, step).map_or(Next::Do(step), |why| Next::Skip(step, why)),
        None => Next::End(Outcome::Completed),
    }
}

fn forward(operation: &Operation, progress: &Progress) -> Next {
    let mine = match operation.side {
        Side::OldPrimary => Place::OldPrimary,
        Side::NewPrimary => Place::NewPrimary,
    };
    for step in Step::all().filter(|step| !progress.is_settled(*step)) {
        if let Some(reason) = not_asked_for(operation, step) {
            if spec(step).place == mine {
                return Next::Skip(step, reason);
            }
            continue;
        }
        // The new primary takes over when it is asked to, and never by itself; until then it listens.
        if spec(step).place == mine && step != Step::HandOver {
            return Next::Do(step);
        }
        // The new primary acts alone from the hand over on; the old one's demotion may lag (the epoch refuses it).
        if operation.side == Side::NewPrimary && step == Step::Demote {
            continue;
        }
        return Next::Await(step);
    }
    Next::End(Outcome::Completed)
}

fn not_asked_for(operation: &Operation, step: Step) -> Option<&'static str> {
    match step {
        Step::Reverse if !operation.options.reverse => {
            Some("not asked for: the VM is unprotected until `reverse`")
        }
        Step::Confirm if !operation.options.start => Some("the VM was not started"),
        _ => None,
    }
}

fn backward(progress: &Progress) -> Next {
    // The announcement is taken back exactly when the new primary has promised to refuse a late hand over.
    if progress.may_have_effect(Step::Announce) {
        return Next::Abandon;
    }
    let may_be_taken_back =
        |step: &Step| matches!(spec(*step).undo, Undo::By(_)) && progress.may_have_effect(*step);
    Step::all().rev().find(may_be_taken_back).map_or(Next::End(Outcome::Undone), Next::TakeBack)
}

/// In which state an operation rests while it does not move.
#[must_use]
pub fn resting_state(operation: &Operation, progress: &Progress) -> RestingState {
    if progress.outcome.is_some() {
        return RestingState::Ended;
    }
    if progress.handed_over() {
        return RestingState::Forward;
    }
    let asked = progress.may_have_effect(Step::HandOver);
    match operation.side {
        Side::OldPrimary if asked && !progress.is_forced => RestingState::InDoubt,
        _ if progress.cancelled.is_some() => RestingState::Undoing,
        _ => RestingState::UnderWay,
    }
}

/// What a person can do about an operation that does not move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// What stops it can be mended; then it goes on, at once when told so.
    MendAndResume,
    /// Only the other host can say whether it took over; if it is lost for good, a person decides for it.
    Decide,
}

/// How long a step may try before a person is asked to look, milliseconds: longer than a daemon's restart.
pub const PATIENCE_MS: u64 = 30_000;

/// Whether the operation waits for a person; none while it moves, or may still move by itself.
#[must_use]
pub fn advice(operation: &Operation, progress: &Progress, now: Timestamp) -> Option<Advice> {
    let tries_since = progress.steps.iter().find_map(|(step, state)| match state {
        // What turned the operation round was tried long before: taking back is given its own time.
        StepState::Failed { ended, .. } if progress.cancelled.is_some() => Some(*ended),
        StepState::Failed { begun, .. } => Some(*begun),
        StepState::Running { since } if *step == Step::HandOver && !progress.is_forced => Some(*since),
        _ => None,
    });
    let long = tries_since.is_some_and(|since| now.millis().saturating_sub(since.millis()) > PATIENCE_MS);
    match resting_state(operation, progress) {
        RestingState::InDoubt if long => Some(Advice::Decide),
        RestingState::Forward | RestingState::Undoing if long => Some(Advice::MendAndResume),
        _ => None,
    }
}

/// Why a person's cancel is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotCancel {
    /// The VM belongs to the new primary already.
    #[error(
        "the hand over has happened: the VM belongs to the other host now. To bring it home, run planned-failover there"
    )]
    HandedOver,
    /// A procedure of one host has passed its point of no return.
    #[error("it has taken effect and goes on to its end")]
    TookEffect,
    /// Nothing is left to cancel.
    #[error("the operation has ended")]
    Ended,
}

/// Whether a person may still turn the operation round.
pub fn may_cancel(procedure: Procedure, progress: &Progress) -> Result<(), CannotCancel> {
    match (progress.outcome, progress.handed_over(), procedure) {
        (Some(_), ..) => Err(CannotCancel::Ended),
        (None, false, _) => Ok(()),
        (None, true, Procedure::PlannedFailover) => Err(CannotCancel::HandedOver),
        (None, true, _) => Err(CannotCancel::TookEffect),
    }
}

/// A step behind the point of no return that a person may leave out for good; none: all the others are needed.
#[must_use]
pub fn may_leave_out(procedure: Procedure, progress: &Progress) -> Option<Step> {
    // A VM runs as well on a chain of files as on one.
    let merges = procedure == Procedure::CompleteFailover && progress.handed_over();
    (merges && progress.outcome.is_none() && !progress.is_settled(Step::Merge)).then_some(Step::Merge)
}

#[cfg(test)]
mod tests;

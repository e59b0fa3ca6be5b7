//! An operation as people see it: every row of the table with its state, time and evidence, and the report.

use api::dto;
use choreography::next::resting_state;
use choreography::{
    Advice, Entry, Operation, Outcome, Place, Procedure, Progress, RestingState, Side, StepState, fold,
};
use engine::{Engine, Times};

use crate::views::host_name;

/// The view of one operation.
pub(crate) fn view(engine: &Engine, operation: &Operation, entries: &[Entry]) -> dto::OperationView {
    let progress = fold(entries);
    let record = engine.record(operation.relationship).ok();
    let (own, peer) = (engine.host(), record.as_ref().map(|record| record.relationship.peer));
    let other = peer.map_or_else(|| "the other host".to_owned(), |peer| host_name(engine, peer));
    let (old_primary, new_primary) = match operation.side {
        Side::OldPrimary => (host_name(engine, own), other),
        Side::NewPrimary => (other, host_name(engine, own)),
    };
    let vm = record.as_ref().map(|record| record.relationship.vm_name.clone()).unwrap_or_default();
    let state = match (resting_state(operation, &progress), progress.outcome) {
        (_, Some(Outcome::Completed)) => dto::OperationState::Completed,
        (_, Some(Outcome::Undone)) => dto::OperationState::Undone,
        (_, Some(Outcome::GivenUp)) => dto::OperationState::GivenUp,
        (RestingState::InDoubt, None) => dto::OperationState::InDoubt,
        (RestingState::Undoing, None) => dto::OperationState::Undoing,
        (RestingState::Forward, None) => dto::OperationState::Finishing,
        (RestingState::UnderWay | RestingState::Ended, None) => dto::OperationState::Running,
    };
    let (explanation, next_command) = advise(operation, &progress, &new_primary);
    let steps = operation.procedure.table().iter().map(|row| {
        let host = if row.place == Place::OldPrimary { old_primary.clone() } else { new_primary.clone() };
        step(row.name, row.does, host, progress.steps.get(&row.step))
    });
    let last_ms = entries.last().map(|entry| entry.at.millis());
    let facts = engine::facts(entries);
    dto::OperationView {
        id: operation.id.to_string(),
        kind: operation.procedure.name().replace('-', " "),
        vm,
        relationship: operation.relationship.to_string(),
        steps: steps.collect(),
        old_primary,
        new_primary,
        // A failover leaves a debt like a handover without reverse.
        reverse: operation.options.reverse && operation.procedure != Procedure::Failover,
        start: operation.options.start,
        requested_by: operation.requested_by.clone(),
        begun_at_ms: operation.begun.millis(),
        ended_at_ms: last_ms.filter(|_| state.is_ended()),
        state,
        explanation,
        next_command,
        transfer: record.and_then(|record| engine.progress(&record)).map(|progress| dto::Transfer {
            bytes_done: progress.done_bytes,
            bytes_total: Some(progress.total_bytes),
        }),
        report: dto::Report {
            downtime_ms: Times::of(entries).off_to_resumed_ms.filter(|_| operation.options.start),
            final_sync_bytes: facts.final_sync_bytes,
            reverse_bytes: facts.reverse_bytes,
            old_primary_digest: facts.old_primary_digest,
            new_primary_digest: facts.new_primary_digest,
        },
    }
}

/// Why an operation was turned round or rests, and the command that leaves that state.
fn advise(operation: &Operation, progress: &Progress, new_primary: &str) -> (String, Option<String>) {
    let id = operation.id;
    match choreography::advice(operation, progress, engine::clock::now()) {
        None => (progress.cancelled.clone().or(progress.given_up.clone()).unwrap_or_default(), None),
        Some(Advice::MendAndResume) => {
            let reason = progress.steps.values().find_map(|state| match state {
                StepState::Failed { reason, .. } => Some(reason.clone()),
                _ => None,
            });
            let mut explanation = reason.unwrap_or_else(|| "it waits for the other host".into());
            if progress.handed_over() && !operation.procedure.is_solitary() {
                explanation += &format!(
                    "; if the other host is lost for good, finish here without it: virt-replica operation cancel {id} --force"
                );
            }
            if let Some(step) = choreography::may_leave_out(operation.procedure, progress) {
                explanation += &format!(
                    "; the VM runs as well without the step \"{}\": to leave it out: virt-replica operation cancel {id} --force",
                    step.name()
                );
            }
            (explanation, Some(format!("virt-replica operation resume {id}")))
        }
        Some(Advice::Decide) => (
            format!(
                "{new_primary} was asked to take over and does not answer, so it is unknown whether the VM runs there. It is \
                 asked again every second, and the VM stays off here until it answers. Bring {new_primary} back if you can; \
                 only if it is lost for good, or you see that the VM does not run there, give the command"
            ),
            Some(format!("virt-replica operation cancel {id} --force")),
        ),
    }
}

fn step(name: &str, does: &str, host: String, state: Option<&StepState>) -> dto::StepView {
    let mut view = dto::StepView {
        name: name.into(),
        host,
        does: does.into(),
        state: dto::StepState::Pending,
        started_at_ms: None,
        finished_at_ms: None,
        detail: String::new(),
    };
    match state {
        None => {}
        Some(StepState::Running { since }) => {
            view.state = dto::StepState::Running;
            view.started_at_ms = Some(since.millis());
        }
        Some(StepState::Done { begun, ended, evidence }) => {
            view.state = dto::StepState::Done;
            (view.started_at_ms, view.finished_at_ms) = (Some(begun.millis()), Some(ended.millis()));
            view.detail = engine::words(evidence).to_owned();
        }
        Some(StepState::Failed { begun, ended, reason }) => {
            view.state = dto::StepState::Failed;
            (view.started_at_ms, view.finished_at_ms) = (Some(begun.millis()), Some(ended.millis()));
            view.detail.clone_from(reason);
        }
        Some(StepState::Skipped { reason }) => {
            view.state = dto::StepState::Skipped;
            view.detail.clone_from(reason);
        }
        Some(StepState::Undone { at }) => {
            view.state = dto::StepState::Undone;
            view.finished_at_ms = Some(at.millis());
        }
    }
    view
}

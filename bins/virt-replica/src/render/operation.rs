//! Operations: the list, the page, and the lines that appear while one goes on.

use api::dto::{OperationState, OperationView, StepState, StepView};
use api::{report, units};

use super::table::{Cell, labelled, table};
use crate::screen::{Screen, printable};

/// The table of `operation list`.
pub fn operations(screen: &Screen, operations: &[OperationView]) -> String {
    if operations.is_empty() {
        return "No operation yet.".to_owned();
    }
    let head = ["BEGAN", "VM", "OPERATION", "FROM", "TO", "STATE", "ID"];
    let rows = operations.iter().map(|one| {
        [
            Cell::plain(units::instant(one.begun_at_ms, &screen.zone)),
            Cell::plain(&one.vm),
            Cell::plain(&one.kind),
            Cell::plain(&one.old_primary),
            Cell::plain(&one.new_primary),
            Cell::dressed(one.state.words(), |text| by_state(screen, one.state, text)),
            Cell::plain(&one.id),
        ]
    });
    table(screen, head, rows.collect())
}

/// The page of `operation show`.
pub fn operation(screen: &Screen, operation: &OperationView) -> String {
    let mut page =
        format!("{}\n", screen.bold(&printable(&format!("{} of {}", operation.kind, operation.vm))));
    page.push_str(&facts(screen, operation));
    page.push_str(&format!("\n{}\n", screen.bold("Steps")));
    page.extend(operation.steps.iter().map(|step| format!("{}\n", step_line(screen, step))));
    page.push_str(&next(screen, operation));
    page
}

/// What is printed when following ended: the report, or the command that goes on.
pub fn ending(screen: &Screen, operation: &OperationView) -> String {
    let mut text = format!("\n{}", facts(screen, operation));
    if operation.state == OperationState::Completed && !operation.reverse {
        let vm = api::vm_argument(&operation.vm);
        let debt = format!("{} is unprotected until it is reversed.", operation.vm);
        text.push_str(&format!("\n{}\n", screen.warn(&printable(&debt))));
        text.push_str(&format!("  On {}: virt-replica reverse {vm}\n", printable(&operation.new_primary)));
    }
    if operation.state == OperationState::Undone {
        let kept = format!("{} stays on {} and is protected as before.", operation.vm, operation.old_primary);
        text.push_str(&format!("\n{}\n", printable(&kept)));
    }
    text.push_str(&next(screen, operation));
    text
}

fn facts(screen: &Screen, operation: &OperationView) -> String {
    let facts = report::facts(operation, &screen.zone);
    let lines: Vec<(&str, String)> = facts
        .into_iter()
        .map(|(label, value)| match label {
            "Result" => (label, by_state(screen, operation.state, &value)),
            "Digests" => (label, by_digests(screen, operation.report.digests_equal(), &value)),
            _ => (label, printable(&value)),
        })
        .collect();
    labelled(screen, &lines)
}

fn next(screen: &Screen, operation: &OperationView) -> String {
    match &operation.next_command {
        Some(command) => format!("\n{} {}\n", screen.warn("To go on:"), printable(command)),
        None => String::new(),
    }
}

/// The lines that are new since `before`: one for each step that was settled, failed or taken back.
pub fn news(screen: &Screen, before: Option<&OperationView>, now: &OperationView) -> Vec<String> {
    let known = |step: &StepView| {
        let old = before.and_then(|it| it.steps.iter().find(|old| old.name == step.name));
        old.is_some_and(|old| old.state == step.state && old.finished_at_ms == step.finished_at_ms)
    };
    let open = |step: &StepView| matches!(step.state, StepState::Pending | StepState::Running);
    now.steps.iter().filter(|step| !open(step) && !known(step)).map(|step| step_line(screen, step)).collect()
}

/// One step with its mark, its host and its time.
fn step_line(screen: &Screen, step: &StepView) -> String {
    let mark = match step.state {
        StepState::Pending => screen.dim("·"),
        StepState::Running => screen.bold("▸"),
        StepState::Done => screen.good("✓"),
        StepState::Failed => screen.bad("✗"),
        StepState::Skipped => screen.dim("–"),
        StepState::Undone => screen.warn("↩"),
    };
    let took = step.duration_ms().map_or_else(String::new, units::duration);
    let line = format!("  {mark} {:<10}  {:<16} {took:>12}  ", printable(&step.name), printable(&step.host));
    format!("{line}{}", printable(&step.detail)).trim_end().to_owned()
}

fn by_state(screen: &Screen, state: OperationState, text: &str) -> String {
    match state {
        OperationState::Completed => screen.good(text),
        OperationState::Running | OperationState::Finishing => screen.bold(text),
        OperationState::Undoing | OperationState::Undone => screen.warn(text),
        OperationState::GivenUp => screen.bad(text),
        OperationState::InDoubt => screen.bad(text),
    }
}

fn by_digests(screen: &Screen, equal: Option<bool>, text: &str) -> String {
    match equal {
        Some(true) => screen.good(text),
        Some(false) => screen.bad(text),
        None => screen.warn(text),
    }
}

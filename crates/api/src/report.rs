//! An operation as Markdown, for the runbook. Pure: what is not known is written as "unknown".

use std::fmt::Write;

use jiff::tz::TimeZone;

use crate::dto::{OperationView, StepView};
use crate::units;

/// The kind of the procedure in which two hosts take part.
const PLANNED: &str = "planned failover";

/// The whole report, times in `zone`.
#[must_use]
pub fn markdown(operation: &OperationView, zone: &TimeZone) -> String {
    let mut page = format!("# {} of {}\n\n", capitalised(&operation.kind), cell(&operation.vm));
    let _ = writeln!(page, "| | |\n|---|---|"); // writing to a String cannot fail, here and below
    for (label, value) in facts(operation, zone) {
        let _ = writeln!(page, "| {label} | {} |", cell(&value));
    }
    let _ = writeln!(
        page,
        "\n## Steps\n\n| step | host | state | began | took | found |\n|---|---|---|---|---|---|"
    );
    for step in &operation.steps {
        let _ = writeln!(page, "{}", row(step, zone));
    }
    if let Some(command) = &operation.next_command {
        let _ = writeln!(page, "\n## Next\n\n```\n{command}\n```");
    }
    page
}

/// What the report says besides its steps, as (label, value).
#[must_use]
pub fn facts(operation: &OperationView, zone: &TimeZone) -> Vec<(&'static str, String)> {
    let report = &operation.report;
    let unknown = || "unknown".to_owned();
    let yes_no = |asked: bool| if asked { "yes" } else { "no" }.to_owned();
    let digests = match report.digests_equal() {
        Some(true) => "equal on both hosts".to_owned(),
        Some(false) => "DIFFERENT".to_owned(),
        None => unknown(),
    };
    let mut facts = vec![
        ("Result", operation.state.words().to_owned()),
        ("From", operation.old_primary.clone()),
        ("To", operation.new_primary.clone()),
        ("Requested by", operation.requested_by.clone()),
        ("Began", units::instant(operation.begun_at_ms, zone)),
        ("Ended", operation.ended_at_ms.map_or_else(|| "not yet".to_owned(), |at| units::instant(at, zone))),
        ("Reverse asked for", yes_no(operation.reverse)),
        ("Start asked for", yes_no(operation.start)),
        ("Guest off to resumed", report.downtime_ms.map_or_else(unknown, units::duration)),
        ("Final sync", report.final_sync_bytes.map_or_else(unknown, units::size)),
        ("Reverse carried", report.reverse_bytes.map_or_else(unknown, units::size)),
        ("Digests", digests),
        ("Digest of the old primary", report.old_primary_digest.clone().unwrap_or_else(unknown)),
        ("Digest of the new primary", report.new_primary_digest.clone().unwrap_or_else(unknown)),
        ("Operation", operation.id.clone()),
    ];
    if operation.kind != PLANNED {
        // What only two hosts together can measure.
        let of_both =
            ["Reverse asked", "Start asked", "Guest off", "Final sync", "Reverse carried", "Digest"];
        facts.retain(|(label, _)| !of_both.iter().any(|words| label.starts_with(words)));
    }
    if !operation.explanation.is_empty() {
        facts.insert(1, ("Because", operation.explanation.clone()));
    }
    facts
}

fn row(step: &StepView, zone: &TimeZone) -> String {
    let cells = [
        step.name.clone(),
        step.host.clone(),
        step.state.words().to_owned(),
        step.started_at_ms.map_or_else(String::new, |at| units::instant(at, zone)),
        step.duration_ms().map_or_else(String::new, units::duration),
        step.detail.clone(),
    ];
    format!("| {} |", cells.map(|text| cell(&text)).join(" | "))
}

/// Text inside a table: bars and line ends would break it, angle brackets would be taken for HTML.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace('<', "&lt;")
        .split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dto::{OperationState, Report, StepState};

    #[test]
    fn a_report_shows_what_is_known_and_says_what_is_not() {
        let step = |name: &str, host: &str, state, started, finished, detail: &str| StepView {
            name: name.into(),
            host: host.into(),
            does: String::new(),
            state,
            started_at_ms: started,
            finished_at_ms: finished,
            detail: detail.into(),
        };
        let operation = OperationView {
            id: "0198c0de-0000-7000-8000-000000000001".into(),
            kind: "planned failover".into(),
            vm: "db|one".into(),
            relationship: "0198c0de-0000-7000-8000-000000000002".into(),
            old_primary: "hvhost01".into(),
            new_primary: "hvhost02".into(),
            reverse: true,
            start: true,
            requested_by: "root on hvhost01".into(),
            begun_at_ms: 1_795_398_400_000,
            ended_at_ms: None,
            state: OperationState::Finishing,
            explanation: String::new(),
            next_command: None,
            steps: vec![
                step(
                    "final sync",
                    "hvhost01",
                    StepState::Done,
                    Some(1_795_398_404_000),
                    Some(1_795_398_404_800),
                    "64.0 MiB",
                ),
                step("start", "hvhost02", StepState::Pending, None, None, ""),
            ],
            transfer: None,
            report: Report {
                final_sync_bytes: Some(67_108_864),
                old_primary_digest: Some("ab".repeat(32)),
                ..Report::default()
            },
        };
        insta::assert_snapshot!(markdown(&operation, &TimeZone::UTC));
    }

    #[test]
    fn nothing_in_a_cell_breaks_the_table() {
        assert_eq!(cell("a|b\nc <d> \\ e"), "a\\|b c &lt;d> \\\\ e");
    }
}

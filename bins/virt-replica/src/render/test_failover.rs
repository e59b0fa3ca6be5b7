//! Test failovers: the list, and the page of one.

use api::dto::TestFailoverView;
use api::units;

use super::table::{Cell, labelled, table};
use crate::screen::{Screen, printable};

/// The table of `test-failover list`.
pub fn test_failovers(screen: &Screen, tests: &[TestFailoverView]) -> String {
    if tests.is_empty() {
        return "No test failover.".to_owned();
    }
    let head = ["BEGAN", "VM", "COPY", "STATE", "RESULT", "BOOT", "ID"];
    let rows = tests.iter().map(|test| {
        [
            Cell::plain(units::instant(test.begun_at_ms, &screen.zone)),
            Cell::plain(&test.vm),
            Cell::plain(&test.name),
            Cell::plain(test.state.words()),
            Cell::dressed(result(test), |text| by_result(screen, test.passed, text)),
            Cell::plain(boot(test)),
            Cell::plain(&test.id),
        ]
    });
    table(screen, head, rows.collect())
}

/// The page of one.
pub fn test_failover(screen: &Screen, test: &TestFailoverView) -> String {
    let mut page = format!("{}\n", screen.bold(&printable(&format!("Test failover of {}", test.vm))));
    let network = if test.isolated { "its own, isolated" } else { "an existing one" };
    let point = format!("{} of {}", test.point, units::instant(test.point_at_ms, &screen.zone));
    let mut lines = vec![
        ("Result", by_result(screen, test.passed, result(test))),
        ("State", test.state.words().to_owned()),
        ("Copy", printable(&format!("{} on {}", test.name, test.host))),
        ("Recovery point", printable(&point)),
        ("Network", printable(&format!("{} ({network})", test.network))),
        ("Boot time", boot(test)),
    ];
    let findings = test.findings.iter().map(|it| (it.what.as_str(), printable(&it.detail)));
    lines.extend(
        findings.filter(|(what, _)| *what != "picture" && (*what != "boot" || test.boot_ms.is_none())),
    );
    lines.extend(test.failure.iter().map(|why| ("Why", printable(why))));
    let picture = test
        .picture
        .clone()
        .or_else(|| test.findings.iter().find(|it| it.what == "picture").map(|it| it.detail.clone()));
    lines.extend(picture.map(|picture| ("Picture", printable(&picture))));
    lines.extend(test.report.iter().map(|report| ("Report", printable(report))));
    lines.push(("Id", test.id.clone()));
    page.push_str(&labelled(screen, &lines));
    if test.ended_at_ms.is_none() {
        page.push_str(&format!(
            "\n{} virt-replica stop-test-failover {}\n",
            screen.warn("To end it:"),
            test.id
        ));
    }
    page
}

fn result(test: &TestFailoverView) -> &'static str {
    match (test.passed, test.findings.is_empty()) {
        (Some(true), _) => "passed",
        (Some(false), _) => "failed",
        (None, false) => "nothing proved",
        (None, true) => "not checked",
    }
}

fn boot(test: &TestFailoverView) -> String {
    test.boot_ms.map_or_else(|| "unknown".to_owned(), units::duration)
}

fn by_result(screen: &Screen, passed: Option<bool>, text: &str) -> String {
    match passed {
        Some(true) => screen.good(text),
        Some(false) => screen.bad(text),
        None => screen.warn(text),
    }
}

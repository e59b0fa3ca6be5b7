//! `events`.

use api::dto::{Event, Severity};
use api::units;

use super::table::{Cell, table};
use crate::screen::Screen;

/// The table, the oldest first.
pub fn events(screen: &Screen, events: &[Event]) -> String {
    if events.is_empty() {
        return "No events.".to_owned();
    }
    let rows = events.iter().map(|event| {
        [
            Cell::plain(event.sequence.to_string()),
            Cell::plain(units::instant(event.at_ms, &screen.zone)),
            Cell::dressed(words(event.severity), |text| by_severity(screen, event.severity, text)),
            Cell::plain(event.number.to_string()),
            Cell::plain(event.vm.as_deref().unwrap_or("")),
            Cell::plain(&event.text),
        ]
    });
    table(screen, ["SEQUENCE", "TIME", "SEVERITY", "NUMBER", "VM", "WHAT"], rows.collect())
}

fn words(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn by_severity(screen: &Screen, severity: Severity, text: &str) -> String {
    match severity {
        Severity::Info => text.to_owned(),
        Severity::Warning => screen.warn(text),
        Severity::Critical => screen.bad(text),
    }
}

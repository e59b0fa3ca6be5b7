//! `host audit`.

use api::dto::{AuditRecord, AuditResult};
use api::{Role, units};

use super::table::{Cell, table};
use crate::screen::Screen;

/// The table, the newest first.
pub fn audit(screen: &Screen, records: &[AuditRecord]) -> String {
    if records.is_empty() {
        return "Nobody has changed anything yet.".to_owned();
    }
    let rows = records.iter().map(|record| {
        [
            Cell::plain(units::instant(record.at_ms, &screen.zone)),
            Cell::plain(&record.who),
            Cell::plain(record.from.as_deref().unwrap_or("this host")),
            Cell::plain(record.role.map_or("–", Role::words)),
            Cell::plain(&record.verb),
            Cell::plain(record.target.as_deref().unwrap_or("this host")),
            Cell::plain(&record.with),
            Cell::dressed(record.result.words(), |text| by_result(screen, record.result, text)),
            Cell::plain(&record.detail),
        ]
    });
    table(screen, ["TIME", "WHO", "FROM", "AS", "WHAT", "OF", "WITH", "RESULT", "WHY"], rows.collect())
}

fn by_result(screen: &Screen, result: AuditResult, text: &str) -> String {
    match result {
        AuditResult::Accepted => text.to_owned(),
        AuditResult::Refused | AuditResult::Unknown => screen.warn(text),
        AuditResult::Failed => screen.bad(text),
    }
}

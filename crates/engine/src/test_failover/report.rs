//! The report of a test failover: as JSON for programs and as Markdown for the folder of the auditor, beside the picture.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use domain::RelationshipId;
use store::TestState;

use super::{REPORTS_KEPT, TestFacts, TestView};
use crate::{Engine, Refusal, Result};

/// How it ended, in words.
pub(super) fn result(facts: &TestFacts) -> String {
    if let Some(failure) = &facts.failure {
        return format!("failed: {failure}");
    }
    let Some(findings) = &facts.findings else { return "not checked yet".to_owned() };
    let word = match facts.passed() {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "nothing was proved",
    };
    let details: Vec<String> = findings.iter().map(|it| format!("{}: {}", it.what, it.detail)).collect();
    format!("{word} ({})", details.join("; "))
}

/// Writes both, replacing an earlier state of them.
pub(super) fn write(engine: &Engine, test: &TestView) -> Result<()> {
    let folder = &engine.config().reports;
    let place = engine.test_report(test.id);
    let json = serde_json::json!({
        "id": test.id.to_string(), "relationship": test.relationship.to_string(), "vm_uuid": test.vm.to_string(),
        "point": test.point.to_string(), "begun_at_ms": test.begun.millis(), "passed": test.facts.passed(),
        "facts": test.facts,
    });
    let json = serde_json::to_string_pretty(&json).map_err(Refusal::failed)?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| replace(&place.with_extension("json"), &json))
        .and_then(|()| replace(&place, &markdown(test)));
    written.map_err(|error| {
        Refusal::failed(format!("the report in {} cannot be written: {error}", folder.display()))
    })
}

fn replace(place: &Path, text: &str) -> io::Result<()> {
    let fresh = place.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(fresh, place)
}

fn instant(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| "not known".to_owned(), |at| at.to_string())
}

fn markdown(test: &TestView) -> String {
    let facts = &test.facts;
    let network = if facts.isolated { "isolated" } else { "an existing network" };
    let mut text = format!("# Test failover of {}\n\n", facts.vm_name);
    for (label, value) in [
        ("Result", result(facts)),
        ("Host", facts.host.clone()),
        ("Recovery point", format!("{} of {}", test.point, instant(facts.point_instant_ms))),
        ("Copy", format!("{} ({})", facts.name, test.vm)),
        ("Network", format!("{} ({network})", facts.network)),
        ("Asked for by", facts.requested_by.clone()),
        ("Began", instant(test.begun.millis())),
        (
            "Boot time",
            facts.boot_ms.map_or_else(|| "not known".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0)),
        ),
        ("Ended", facts.ended_ms.map_or_else(|| "it stands".to_owned(), instant)),
    ] {
        let _ = writeln!(text, "- {label}: {value}"); // writing to a String cannot fail
    }
    if let Some(picture) = facts.picture.as_ref().and_then(|picture| picture.file_name()) {
        let _ = writeln!(text, "\n![the screen]({})", picture.to_string_lossy());
    }
    text
}

/// Forgets the oldest tests of a relationship with their files.
pub(super) fn forget_old(engine: &Engine, relationship: RelationshipId) -> Result<()> {
    let tests = engine.store().tests_of(relationship).map_err(Refusal::failed)?;
    for test in tests.into_iter().filter(|test| test.state == TestState::Ended).skip(REPORTS_KEPT) {
        let place = engine.test_report(test.id);
        for file in [place.with_extension("png"), place.with_extension("json"), place] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Refusal::failed(error)),
                _ => {}
            }
        }
        engine.store().forget_test(test.id).map_err(Refusal::failed)?;
    }
    Ok(())
}

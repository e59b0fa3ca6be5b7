//! The evidence of a handover, kept on both hosts. What was not measured is none.

use choreography::{Entry, Mark, Step, StepState, fold};
use serde::{Deserialize, Serialize};

/// The measured facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Digest at the freeze as the old primary computed it.
    pub old_primary_digest: Option<String>,
    /// Digest at the freeze as the new primary computed it.
    pub new_primary_digest: Option<String>,
    /// Bytes of guest data in the final sync.
    pub final_sync_bytes: Option<u64>,
    /// Bytes of guest data that the reverse moved.
    pub reverse_bytes: Option<u64>,
}

/// Times read from a journal, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From the guest being off to the VM being resumed; none when it was off before or was not started.
    pub off_to_resumed_ms: Option<u64>,
}

impl Times {
    /// Reads them; the two instants come from two hosts, whose clocks the checks compared.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Times {
        let progress = fold(entries);
        let ended = |step| match progress.steps.get(&step) {
            Some(StepState::Done { ended, .. }) => Some(ended.millis()),
            _ => None,
        };
        let off = ended(Step::ShutDown);
        Times { off_to_resumed_ms: ended(Step::Start).zip(off).and_then(|(on, off)| on.checked_sub(off)) }
    }
}

/// The facts that steps leave in their evidence are JSON after this mark, so that both hosts can read them.
const FACTS: &str = " ⟦";

/// Evidence for people with facts for programs behind it.
pub(crate) fn evidence(words: &str, facts: &Report) -> String {
    format!("{words}{FACTS}{}", serde_json::to_string(facts).unwrap_or_default())
}

/// The words of an evidence.
#[must_use]
pub fn words(evidence: &str) -> &str {
    evidence.split_once(FACTS).map_or(evidence, |(words, _)| words)
}

/// The facts of a journal.
#[must_use]
pub fn facts(entries: &[Entry]) -> Report {
    let mut report = Report::default();
    for entry in entries {
        let Mark::Done(_, evidence) = &entry.mark else { continue };
        let Some((_, json)) = evidence.split_once(FACTS) else { continue };
        let Ok(part) = serde_json::from_str::<Report>(json) else { continue };
        report.old_primary_digest = part.old_primary_digest.or(report.old_primary_digest);
        report.new_primary_digest = part.new_primary_digest.or(report.new_primary_digest);
        report.final_sync_bytes = part.final_sync_bytes.or(report.final_sync_bytes);
        report.reverse_bytes = part.reverse_bytes.or(report.reverse_bytes);
    }
    report
}

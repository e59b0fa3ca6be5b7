//! The cycles of a relationship, one by one: what the charts of its health are drawn from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a cycle ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CycleOutcome {
    /// The replica server has it.
    Acknowledged,
    /// It failed; what it carried travels with the next.
    Failed,
    /// Its time passed while the one before still ran.
    Missed,
}

impl CycleOutcome {
    /// The word people see.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            CycleOutcome::Acknowledged => "acknowledged",
            CycleOutcome::Failed => "failed",
            CycleOutcome::Missed => "missed",
        }
    }
}

/// One cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CycleView {
    /// When it began.
    pub begun_at_ms: u64,
    /// From its beginning to the acknowledgement, or to its failure.
    pub duration_ms: u64,
    /// Bytes of guest data.
    pub bytes: u64,
    /// Bytes on the wire, compressed as they were; none: not measured.
    #[serde(default)]
    pub sent_bytes: Option<u64>,
    /// How it ended.
    pub outcome: CycleOutcome,
}

impl CycleView {
    /// Cycles as a table for a spreadsheet (RFC 4180). Unknown is an empty cell.
    #[must_use]
    pub fn csv(cycles: &[CycleView]) -> String {
        let row = |cycle: &CycleView| {
            let sent = cycle.sent_bytes.map_or_else(String::new, |bytes| bytes.to_string());
            let CycleView { begun_at_ms, duration_ms, bytes, outcome, .. } = cycle;
            format!(
                "{},{begun_at_ms},{duration_ms},{bytes},{sent},{}\r\n",
                crate::units::instant_utc(*begun_at_ms),
                outcome.words()
            )
        };
        let rows: String = cycles.iter().map(row).collect();
        format!("begun,begun_at_ms,duration_ms,bytes,sent_bytes,outcome\r\n{rows}")
    }
}

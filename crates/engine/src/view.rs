//! What is shown: health with its reasons, statistics, progress.

use domain::health::{HealthFacts, assess};
use domain::{HealthReport, Statistics, Timestamp};
use store::Record;

use crate::{Engine, Refusal, Result, clock};

/// A transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read and handed to the link.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// When it began, milliseconds since 1970.
    pub begun_ms: u64,
}

impl Engine {
    /// The cycles of the monitoring interval.
    pub fn statistics(&self, record: &Record) -> Result<Statistics> {
        let interval = record.relationship.settings.thresholds.monitoring_interval;
        let since =
            Timestamp(clock::now().millis().saturating_sub(u64::try_from(interval.as_millis()).unwrap_or(0)));
        let cycles = self.store().cycles_since(record.relationship.id, since).map_err(Refusal::failed)?;
        Ok(Statistics::over(&cycles))
    }

    /// Health of this side.
    pub fn health(&self, record: &Record) -> Result<HealthReport> {
        let statistics = self.statistics(record)?;
        let open = self.store().open_operation(record.relationship.id).map_err(Refusal::failed)?;
        Ok(assess(&HealthFacts {
            phase: &record.relationship.phase,
            paused_since: record.relationship.paused_since,
            paused_on_peer: record.paused_on_peer,
            last_synchronized: record.last_synchronized,
            last_failure: record.last_failure.as_deref(),
            operation_open: open.is_some(),
            interference: &record.notices,
            statistics: &statistics,
            thresholds: &record.relationship.settings.thresholds,
            now: clock::now(),
        }))
    }

    /// A transfer under way.
    #[must_use]
    pub fn progress(&self, record: &Record) -> Option<Progress> {
        self.slot(record.relationship.id).progress()
    }
}

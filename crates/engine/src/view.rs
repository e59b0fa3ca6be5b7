//! What is shown: health with its reasons, statistics, progress.

use std::time::Duration;

use domain::health::{HealthFacts, assess};
use domain::{HealthReport, Statistics, Timestamp};
use store::Record;

use crate::source::checkpoint_name;
use crate::{Engine, Refusal, Result, clock};

/// Nobody waits longer for a number that is only shown.
const PENDING_DEADLINE: Duration = Duration::from_secs(2);

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

    /// Bytes that changed since the newest recovery point, as QEMU's dirty bitmap counts them. Unknown on the replica, while the VM
    /// is off, and when libvirt does not say.
    pub async fn pending_bytes(&self, record: &Record) -> Option<u64> {
        let relationship = &record.relationship;
        let head = self.store().points(relationship.id).ok()?.pop()?;
        if !relationship.phase.sends() {
            return None;
        }
        let (vm, checkpoint) = (relationship.vm, checkpoint_name(head.id));
        let asked = self.hypervisor(move |it| it.changed_bytes(vm, &checkpoint));
        tokio::time::timeout(PENDING_DEADLINE, asked).await.ok()?.ok()?
    }

    /// A transfer under way.
    #[must_use]
    pub fn progress(&self, record: &Record) -> Option<Progress> {
        self.slot(record.relationship.id).progress()
    }
}

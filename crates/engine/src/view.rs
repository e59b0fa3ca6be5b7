//! What is shown: health with its reasons, statistics, progress.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use domain::health::{HealthFacts, assess};
use domain::{DiskTarget, HealthReport, RelationshipId, Role, Statistics, Timestamp};
use hypervisor::DiskFacts;
use store::Record;
use tokio::time::Instant;

use crate::compare::policy;
use crate::source::checkpoint_name;
use crate::{Engine, Refusal, Result, clock, replica};

/// Nobody waits longer for a number that is only shown.
const PENDING_DEADLINE: Duration = Duration::from_secs(2);

/// A transfer under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read and handed to the link.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// How many of them had been sent before, by a transfer that broke.
    pub sent_before_bytes: u64,
    /// When it began or went on, milliseconds since 1970.
    pub begun_ms: u64,
}

/// Statistics are summed up again after this long, or at once after a cycle: a list of a thousand VMs is asked for all the time,
/// and each has thousands of cycles. What leaves the interval meanwhile is counted so much longer.
const SUMMED_MAX_AGE: Duration = Duration::from_secs(30);

/// Statistics, and of which interval and moment.
pub(crate) struct Summed {
    at: Instant,
    interval: Duration,
    statistics: Statistics,
}

impl Engine {
    /// The cycles of the monitoring interval.
    pub fn statistics(&self, record: &Record) -> Result<Statistics> {
        let interval = record.relationship.settings.thresholds.monitoring_interval;
        let slot = self.slot(record.relationship.id);
        let mut known = slot.statistics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(summed) = known.as_ref()
            && summed.interval == interval
            && summed.at.elapsed() < SUMMED_MAX_AGE
        {
            return Ok(summed.statistics);
        }
        let statistics = self.sum_up(record, interval)?;
        *known = Some(Summed { at: Instant::now(), interval, statistics });
        Ok(statistics)
    }

    /// A cycle was added.
    pub(crate) fn sum_up_anew(&self, id: RelationshipId) {
        *self.slot(id).statistics.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn sum_up(&self, record: &Record, interval: Duration) -> Result<Statistics> {
        let since =
            Timestamp(clock::now().millis().saturating_sub(u64::try_from(interval.as_millis()).unwrap_or(0)));
        let cycles = self.store().cycles_since(record.relationship.id, since).map_err(Refusal::failed)?;
        Ok(Statistics::over(&cycles))
    }

    /// Health of this side.
    pub fn health(&self, record: &Record) -> Result<HealthReport> {
        let statistics = self.statistics(record)?;
        let mut interference = record.notices.clone();
        interference.extend(policy::notice(self, record)?);
        let open = self.store().open_operation(record.relationship.id).map_err(Refusal::failed)?;
        Ok(assess(&HealthFacts {
            phase: &record.relationship.phase,
            paused_since: record.relationship.paused_since,
            paused_on_peer: record.paused_on_peer,
            last_synchronized: record.last_synchronized,
            last_failure: record.last_failure.as_deref(),
            operation_open: open.is_some(),
            interference: &interference,
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

    /// Sizes of the VM's disks in bytes, as far as they are known.
    pub async fn disk_sizes(&self, record: &Record) -> HashMap<DiskTarget, u64> {
        if record.relationship.role() == Role::Replica {
            let Ok(directory) = replica::directory(record) else { return HashMap::new() };
            return directory
                .manifest()
                .disks
                .iter()
                .map(|it| (it.target.clone(), it.virtual_size))
                .collect();
        }
        let vm = record.relationship.vm;
        let sizes = self.hypervisor(move |it| {
            let Some(facts) = it.vm(vm)? else { return Ok(HashMap::new()) };
            let size = |disk: &DiskFacts| {
                let size = it.image_size(&disk.source, &disk.format).ok()?;
                Some((disk.target.clone(), size.virtual_bytes))
            };
            Ok(facts.disks.iter().filter_map(size).collect())
        });
        sizes.await.unwrap_or_default()
    }

    /// A transfer under way.
    #[must_use]
    pub fn progress(&self, record: &Record) -> Option<Progress> {
        self.slot(record.relationship.id).progress()
    }
}

//! From the words of `domain` to the JSON forms and the words people read. Core types stay free of serialisation.

use crate::{dto, units};

impl From<domain::Role> for dto::Mode {
    fn from(role: domain::Role) -> Self {
        match role {
            domain::Role::Primary => dto::Mode::Primary,
            domain::Role::Replica => dto::Mode::Replica,
        }
    }
}

impl From<domain::Health> for dto::Health {
    fn from(health: domain::Health) -> Self {
        match health {
            domain::Health::Normal => dto::Health::Normal,
            domain::Health::Warning => dto::Health::Warning,
            domain::Health::Critical => dto::Health::Critical,
        }
    }
}

impl From<domain::Compression> for dto::Compression {
    fn from(compression: domain::Compression) -> Self {
        match compression {
            domain::Compression::On => dto::Compression::On,
            domain::Compression::Off => dto::Compression::Off,
            domain::Compression::Adaptive => dto::Compression::Adaptive,
        }
    }
}

impl From<dto::Compression> for domain::Compression {
    fn from(compression: dto::Compression) -> Self {
        match compression {
            dto::Compression::On => domain::Compression::On,
            dto::Compression::Off => domain::Compression::Off,
            dto::Compression::Adaptive => domain::Compression::Adaptive,
        }
    }
}

impl From<domain::NewDisks> for dto::NewDisks {
    fn from(new_disks: domain::NewDisks) -> Self {
        match new_disks {
            domain::NewDisks::Replicate => dto::NewDisks::Replicate,
            domain::NewDisks::Warn => dto::NewDisks::Warn,
        }
    }
}

impl From<dto::NewDisks> for domain::NewDisks {
    fn from(new_disks: dto::NewDisks) -> Self {
        match new_disks {
            dto::NewDisks::Replicate => domain::NewDisks::Replicate,
            dto::NewDisks::Warn => domain::NewDisks::Warn,
        }
    }
}

impl From<&domain::Check> for dto::Check {
    fn from(check: &domain::Check) -> Self {
        let name = check.name.words().to_owned();
        match &check.verdict {
            domain::Verdict::Pass => dto::Check { name, ok: true, detail: String::new(), cure: None },
            domain::Verdict::Fail { found, cure } => {
                dto::Check { name, ok: false, detail: found.clone(), cure: Some(cure.clone()) }
            }
        }
    }
}

impl From<&domain::Statistics> for dto::Statistics {
    fn from(sum: &domain::Statistics) -> Self {
        dto::Statistics {
            cycles_due: sum.cycles_due,
            cycles_acknowledged: sum.cycles_acknowledged,
            cycles_missed: sum.cycles_missed,
            average_bytes: sum.average_bytes,
            maximum_bytes: sum.maximum_bytes,
            average_sent_bytes: sum.average_sent_bytes,
            average_latency_ms: sum.average_latency.map(millis),
            maximum_latency_ms: sum.maximum_latency.map(millis),
        }
    }
}

impl From<&domain::Thresholds> for dto::Thresholds {
    fn from(thresholds: &domain::Thresholds) -> Self {
        dto::Thresholds {
            missed_cycles_percent_max: thresholds.missed_cycles_percent_max,
            last_synchronized_age_max_seconds: thresholds.last_synchronized_age_max.as_secs(),
            average_latency_max_seconds: thresholds.average_latency_max.as_secs(),
            monitoring_interval_seconds: thresholds.monitoring_interval.as_secs(),
        }
    }
}

impl From<&domain::RecoveryPoint> for dto::RecoveryPointView {
    fn from(point: &domain::RecoveryPoint) -> Self {
        dto::RecoveryPointView {
            id: point.id.to_string(),
            at_ms: point.instant.millis(),
            consistency: dto::consistency(point.consistency).to_owned(),
            lineage: point.lineage.to_hex(),
        }
    }
}

impl From<&domain::CycleRecord> for dto::CycleView {
    fn from(cycle: &domain::CycleRecord) -> Self {
        dto::CycleView {
            begun_at_ms: cycle.begun.millis(),
            duration_ms: millis(cycle.latency),
            bytes: cycle.bytes,
            sent_bytes: cycle.sent_bytes,
            outcome: match cycle.outcome {
                domain::CycleOutcome::Acknowledged => dto::CycleOutcome::Acknowledged,
                domain::CycleOutcome::Failed => dto::CycleOutcome::Failed,
                domain::CycleOutcome::Missed => dto::CycleOutcome::Missed,
            },
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl dto::Reason {
    /// A reason in words, with the command for this VM where one helps.
    #[must_use]
    pub fn of(reason: &domain::Reason, vm: &str) -> dto::Reason {
        let text = match reason {
            domain::Reason::Unprotected { since } => {
                format!("The VM is unprotected since {}: it was failed over without reverse", instant(*since))
            }
            other => other.words(),
        };
        let cure = reason.cure(vm);
        dto::Reason { severity: reason.severity().into(), text, cure }
    }
}

/// An instant in UTC: health travels between hosts and time zones.
fn instant(at: domain::Timestamp) -> String {
    units::instant_utc(at.millis())
}

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
        let consistency = match point.consistency {
            domain::Consistency::Crash => "crash-consistent",
            domain::Consistency::FileSystem => "file-system-consistent",
            domain::Consistency::Application => "application-consistent",
            domain::Consistency::PoweredOff => "powered off",
        };
        dto::RecoveryPointView {
            id: point.id.to_string(),
            at_ms: point.instant.millis(),
            consistency: consistency.to_owned(),
            lineage: point.lineage.to_hex(),
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
        use domain::Reason;
        let vm = shell_word(vm);
        let (text, cure) = match reason {
            Reason::CannotSend { cause } => (format!("The last cycle failed: {cause}"), None),
            Reason::Resynchronization { cause } => {
                (format!("Changes were not tracked ({cause}); the disks are resynchronized"), None)
            }
            Reason::PausedOnReplica => (
                "Replication is paused on the replica server".to_owned(),
                Some(format!("on the replica server: virt-replica resume {vm}")),
            ),
            Reason::PausedOnPrimary => (
                "Replication is paused on the primary server".to_owned(),
                Some(format!("on the primary server: virt-replica resume {vm}")),
            ),
            Reason::CyclesMissed { percent, percent_max } => {
                (format!("{percent} % of the cycles were missed, more than {percent_max} %"), None)
            }
            Reason::NotSynchronized { age: Some(age) } => {
                (format!("Nothing was synchronized for {}", in_words(*age)), None)
            }
            Reason::NotSynchronized { age: None } => ("Nothing was synchronized yet".to_owned(), None),
            Reason::Slow { average } => (format!("A cycle takes {} on average", in_words(*average)), None),
            Reason::InitialReplicationUnfinished => ("Initial replication is not finished".to_owned(), None),
            Reason::Unprotected { since } => (
                format!(
                    "The VM is unprotected since {}: it was failed over without reverse",
                    instant(*since)
                ),
                Some(format!("on the host that runs the VM: virt-replica reverse {vm}")),
            ),
            Reason::OperationUnfinished => (
                "A planned failover is not finished".to_owned(),
                Some("virt-replica operation list".to_owned()),
            ),
            Reason::Interference(notice) => (notice.what.clone(), Some(notice.cure.clone())),
        };
        dto::Reason { severity: reason.severity().into(), text, cure }
    }
}

/// `name` so that a shell reads it as one word.
#[must_use]
pub fn shell_word(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.:@%+=".contains(c);
    if !name.is_empty() && !name.starts_with('-') && name.chars().all(plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

fn in_words(time: std::time::Duration) -> String {
    units::duration(millis(time))
}

/// An instant in UTC: health travels between hosts and time zones.
fn instant(at: domain::Timestamp) -> String {
    units::instant(at.millis(), &jiff::tz::TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_can_be_pasted_whatever_the_vm_is_called() {
        assert_eq!(shell_word("testVM01"), "testVM01");
        assert_eq!(shell_word("it's a/VM"), r"'it'\''s a/VM'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("-rf"), "'-rf'");
        assert_eq!(shell_word("数据库"), "数据库");
    }
}

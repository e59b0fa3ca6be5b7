//! What the cycles of the monitoring interval cost and how many were missed.

use std::time::Duration;

use crate::time::Timestamp;

/// How a cycle ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CycleOutcome {
    /// Sealed and acknowledged.
    Acknowledged,
    /// Broken; the next one covers more.
    Failed,
    /// Not begun when it was due, because the one before still ran or replication could not begin.
    Missed,
}

/// One cycle, as it is kept for statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CycleRecord {
    /// When it began (or should have).
    pub begun: Timestamp,
    /// From begin to acknowledgement.
    pub latency: Duration,
    /// Bytes of guest data that it carried.
    pub bytes: u64,
    /// Bytes that travelled for it, compressed as they were; unknown for a cycle that broke.
    pub sent_bytes: Option<u64>,
    /// How it ended.
    pub outcome: CycleOutcome,
}

/// Sums over the cycles of one monitoring interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Cycles that were due.
    pub cycles_due: u64,
    /// Cycles that were acknowledged.
    pub cycles_acknowledged: u64,
    /// Cycles that failed.
    pub cycles_failed: u64,
    /// Cycles that were missed or failed.
    pub cycles_missed: u64,
    /// Mean size; unknown before the first acknowledged cycle.
    pub average_bytes: Option<u64>,
    /// Largest size.
    pub maximum_bytes: Option<u64>,
    /// Mean size on the wire.
    pub average_sent_bytes: Option<u64>,
    /// Mean latency.
    pub average_latency: Option<Duration>,
    /// Longest latency.
    pub maximum_latency: Option<Duration>,
}

impl Statistics {
    /// Sums up `cycles`.
    pub fn over<'a>(cycles: impl IntoIterator<Item = &'a CycleRecord>) -> Statistics {
        let mut sum = Statistics::default();
        let (mut bytes, mut latency) = (0_u64, Duration::ZERO);
        let (mut sent, mut measured) = (0_u64, 0_u64);
        for cycle in cycles {
            sum.cycles_due += 1;
            match cycle.outcome {
                CycleOutcome::Failed => {
                    sum.cycles_failed += 1;
                    sum.cycles_missed += 1;
                }
                CycleOutcome::Missed => sum.cycles_missed += 1,
                CycleOutcome::Acknowledged => {
                    sum.cycles_acknowledged += 1;
                    bytes = bytes.saturating_add(cycle.bytes);
                    if let Some(sent_bytes) = cycle.sent_bytes {
                        sent = sent.saturating_add(sent_bytes);
                        measured += 1;
                    }
                    latency = latency.saturating_add(cycle.latency);
                    sum.maximum_bytes = sum.maximum_bytes.max(Some(cycle.bytes));
                    sum.maximum_latency = sum.maximum_latency.max(Some(cycle.latency));
                }
            }
        }
        sum.average_bytes = bytes.checked_div(sum.cycles_acknowledged);
        sum.average_sent_bytes = sent.checked_div(measured);
        sum.average_latency = latency.checked_div(u32::try_from(sum.cycles_acknowledged).unwrap_or(u32::MAX));
        sum
    }

    /// Share of the due cycles that were missed or failed, in percent; unknown when none was due.
    #[must_use]
    pub fn missed_percent(&self) -> Option<u64> {
        (self.cycles_due > 0).then(|| self.cycles_missed.saturating_mul(100) / self.cycles_due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_stays_unknown_until_a_cycle_was_acknowledged() {
        let failed = CycleRecord {
            begun: Timestamp(0),
            latency: Duration::from_secs(9),
            bytes: 7,
            sent_bytes: None,
            outcome: CycleOutcome::Failed,
        };
        let sum = Statistics::over([&failed]);
        assert_eq!((sum.average_bytes, sum.average_sent_bytes, sum.average_latency), (None, None, None));
        assert_eq!(sum.missed_percent(), Some(100));
        assert_eq!(Statistics::over([]).missed_percent(), None);
    }

    #[test]
    fn averages_are_those_of_acknowledged_cycles_and_what_was_not_measured_does_not_count() {
        let cycle = |outcome, seconds, bytes, sent_bytes| CycleRecord {
            begun: Timestamp(0),
            latency: Duration::from_secs(seconds),
            bytes,
            sent_bytes,
            outcome,
        };
        let cycles = [
            cycle(CycleOutcome::Acknowledged, 1, 10, Some(4)),
            cycle(CycleOutcome::Acknowledged, 2, 20, Some(8)),
            cycle(CycleOutcome::Acknowledged, 6, 60, None),
            cycle(CycleOutcome::Failed, 99, 999, Some(999)),
            cycle(CycleOutcome::Missed, 99, 999, Some(999)),
        ];
        let expected = Statistics {
            cycles_due: 5,
            cycles_acknowledged: 3,
            cycles_failed: 1,
            cycles_missed: 2,
            average_bytes: Some(30),
            maximum_bytes: Some(60),
            average_sent_bytes: Some(6),
            average_latency: Some(Duration::from_secs(3)),
            maximum_latency: Some(Duration::from_secs(6)),
        };
        assert_eq!(Statistics::over(&cycles), expected);
        assert_eq!(expected.missed_percent(), Some(40));
        assert_eq!(Statistics { cycles_missed: 0, ..expected }.missed_percent(), Some(0));
    }
}

//! Health: Normal, Warning or Critical, always with reasons. Unknown facts make a reason; they never make health better.

use std::time::Duration;

use crate::relationship::{Phase, Role};
use crate::settings::Thresholds;
use crate::statistics::Statistics;
use crate::time::Timestamp;
use crate::words;

/// The worst of the reasons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Health {
    /// All is as it should be.
    Normal,
    /// Protection is weaker than it should be.
    Warning,
    /// There is no protection, or data is in danger.
    Critical,
}

/// Something that was noticed on a host: what, how bad it is, and the way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Warning or Critical.
    pub severity: Health,
    /// What was noticed.
    pub what: String,
    /// The command that cures it.
    pub cure: String,
}

/// Why health is not Normal. One fact each; `cure` names the way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The last cycle broke on the link, on the peer or on a disk.
    CannotSend {
        /// What went wrong, in the words of the error.
        cause: String,
    },
    /// Changes were not tracked; the disks are being compared or sent again.
    Resynchronization {
        /// Why.
        cause: String,
    },
    /// Cycles are held on the replica, so the primary cannot send.
    PausedOnReplica,
    /// Cycles are held on the primary.
    PausedOnPrimary,
    /// More cycles were missed than the threshold allows.
    CyclesMissed {
        /// Share of missed cycles, percent.
        percent: u64,
        /// The threshold, percent.
        percent_max: u8,
    },
    /// Nothing was synchronized for longer than the threshold.
    NotSynchronized {
        /// How long; none: never.
        age: Option<Duration>,
    },
    /// The average cycle takes longer than the threshold.
    Slow {
        /// Average latency.
        average: Duration,
    },
    /// The first copy is not finished.
    InitialReplicationUnfinished,
    /// The VM runs without a replica since a failover.
    Unprotected {
        /// Since when.
        since: Timestamp,
    },
    /// The VM was failed over, and that is neither complete nor cancelled nor reversed.
    FailedOver {
        /// Since when.
        since: Timestamp,
    },
    /// A handover is open.
    OperationUnfinished,
    /// Somebody did something to the VM or its copy that weakens protection.
    Interference(Notice),
}

impl Reason {
    /// How bad this reason is.
    #[must_use]
    pub fn severity(&self) -> Health {
        match self {
            Reason::CannotSend { .. } | Reason::Resynchronization { .. } | Reason::PausedOnReplica => {
                Health::Critical
            }
            Reason::Interference(notice) => notice.severity,
            Reason::PausedOnPrimary
            | Reason::CyclesMissed { .. }
            | Reason::NotSynchronized { .. }
            | Reason::Slow { .. }
            | Reason::InitialReplicationUnfinished
            | Reason::Unprotected { .. }
            | Reason::FailedOver { .. }
            | Reason::OperationUnfinished => Health::Warning,
        }
    }
}

impl Reason {
    /// The reason in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Reason::CannotSend { cause } => format!("The last cycle failed: {cause}"),
            Reason::Resynchronization { cause } => {
                format!("The disks are resynchronized: {cause}")
            }
            Reason::PausedOnReplica => "Replication is paused on the replica server".to_owned(),
            Reason::PausedOnPrimary => "Replication is paused on the primary server".to_owned(),
            Reason::CyclesMissed { percent, percent_max } => {
                format!("{percent} % of the cycles were missed, more than {percent_max} %")
            }
            Reason::NotSynchronized { age: Some(age) } => {
                format!("Nothing was synchronized for {}", words::duration(*age))
            }
            Reason::NotSynchronized { age: None } => "Nothing was synchronized yet".to_owned(),
            Reason::Slow { average } => format!("A cycle takes {} on average", words::duration(*average)),
            Reason::InitialReplicationUnfinished => "Initial replication is not finished".to_owned(),
            Reason::Unprotected { .. } => {
                "The VM is unprotected: it was failed over without reverse".to_owned()
            }
            Reason::FailedOver { .. } => {
                "The VM is unprotected: it was failed over from a recovery point, which is not final yet"
                    .to_owned()
            }
            Reason::OperationUnfinished => "An operation is not finished".to_owned(),
            Reason::Interference(notice) => notice.what.clone(),
        }
    }

    /// The command that cures it, for the VM of this name; none: it cures itself, or the words say what to do.
    #[must_use]
    pub fn cure(&self, vm_name: &str) -> Option<String> {
        let vm = words::vm_argument(vm_name);
        match self {
            Reason::PausedOnReplica => Some(format!("on the replica server: virt-replica resume {vm}")),
            Reason::PausedOnPrimary => Some(format!("on the primary server: virt-replica resume {vm}")),
            Reason::Unprotected { .. } => {
                Some(format!("on the host that runs the VM: virt-replica reverse {vm}"))
            }
            Reason::FailedOver { .. } => Some(format!(
                "when the VM is as it should be and the other host is back: virt-replica reverse {vm}; when that host will not \
                 come back: virt-replica complete-failover {vm}; to take it back: virt-replica cancel-failover {vm}"
            )),
            Reason::InitialReplicationUnfinished => Some(format!("virt-replica wait {vm}")),
            Reason::OperationUnfinished => Some("virt-replica operation list".to_owned()),
            Reason::Interference(notice) => Some(notice.cure.clone()),
            Reason::CyclesMissed { percent, .. } => Some(format!(
                "when the cause (virt-replica events) is gone, accept it: virt-replica set --missed-cycles-max {} {vm}",
                percent.min(&100)
            )),
            Reason::Slow { .. } => Some(format!("accept it: virt-replica set --latency-max TIME {vm}")),
            Reason::CannotSend { .. } | Reason::Resynchronization { .. } | Reason::NotSynchronized { .. } => {
                None
            }
        }
    }
}

/// What is known when health is judged.
#[derive(Clone, Debug)]
pub struct HealthFacts<'a> {
    /// Where this side stands.
    pub phase: &'a Phase,
    /// Held on this side since.
    pub paused_since: Option<Timestamp>,
    /// Held on the other side, as last reported.
    pub paused_on_peer: bool,
    /// When the last point was acknowledged.
    pub last_synchronized: Option<Timestamp>,
    /// Why the last cycle failed, if it did.
    pub last_failure: Option<&'a str>,
    /// A handover is open.
    pub operation_open: bool,
    /// Things noticed on this host.
    pub interference: &'a [Notice],
    /// The cycles of the monitoring interval.
    pub statistics: &'a Statistics,
    /// When health turns.
    pub thresholds: &'a Thresholds,
    /// The judging host's clock.
    pub now: Timestamp,
}

/// Health and all its reasons, the worst first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HealthReport {
    /// The worst severity; Normal without reasons.
    pub health: Health,
    /// Every reason, the worst first.
    pub reasons: Vec<Reason>,
}

/// Judges one side of a relationship.
#[must_use]
pub fn assess(facts: &HealthFacts<'_>) -> HealthReport {
    let mut reasons = Vec::new();
    let role = facts.phase.role();
    if let Some(cause) = facts.last_failure {
        reasons.push(Reason::CannotSend { cause: cause.to_owned() });
    }
    reasons.extend(facts.interference.iter().cloned().map(Reason::Interference));
    let (on_primary, on_replica) = match role {
        Role::Primary => (facts.paused_since.is_some(), facts.paused_on_peer),
        Role::Replica => (facts.paused_on_peer, facts.paused_since.is_some()),
    };
    if on_replica {
        reasons.push(Reason::PausedOnReplica);
    }
    if on_primary {
        reasons.push(Reason::PausedOnPrimary);
    }
    match facts.phase {
        Phase::InitialPending { .. } | Phase::InitialReplication => {
            reasons.push(Reason::InitialReplicationUnfinished)
        }
        Phase::Resynchronizing { cause } => reasons.push(Reason::Resynchronization { cause: cause.clone() }),
        Phase::Unprotected { since } | Phase::Stopped { since } => {
            reasons.push(Reason::Unprotected { since: *since })
        }
        Phase::FailedOver { since, .. } => reasons.push(Reason::FailedOver { since: *since }),
        Phase::Receiving if facts.last_synchronized.is_none() => {
            reasons.push(Reason::InitialReplicationUnfinished)
        }
        Phase::Replicating | Phase::Receiving => reasons.extend(freshness(facts)),
        Phase::Yielding => {}
    }
    if facts.operation_open {
        reasons.push(Reason::OperationUnfinished);
    }
    reasons.extend(missed_cycles(facts));
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.severity()));
    let health = reasons.first().map_or(Health::Normal, Reason::severity);
    HealthReport { health, reasons }
}

fn freshness(facts: &HealthFacts<'_>) -> Option<Reason> {
    let age = facts.last_synchronized.map(|at| facts.now.since(at));
    let stale = age.is_none_or(|age| age > facts.thresholds.last_synchronized_age_max);
    stale.then_some(Reason::NotSynchronized { age })
}

fn missed_cycles(facts: &HealthFacts<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let percent_max = facts.thresholds.missed_cycles_percent_max;
    if let Some(percent) =
        facts.statistics.missed_percent().filter(|percent| *percent > u64::from(percent_max))
    {
        reasons.push(Reason::CyclesMissed { percent, percent_max });
    }
    if let Some(average) =
        facts.statistics.average_latency.filter(|it| *it > facts.thresholds.average_latency_max)
    {
        reasons.push(Reason::Slow { average });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said in a phase of a VM whose replication is as it should be, but for what `edit` changes.
    fn judged(phase: &Phase, edit: impl FnOnce(&mut HealthFacts<'_>)) -> HealthReport {
        let (statistics, thresholds) = (Statistics::default(), Thresholds::default());
        let mut facts = HealthFacts {
            phase,
            paused_since: None,
            paused_on_peer: false,
            last_synchronized: Some(Timestamp(1_000)),
            last_failure: None,
            operation_open: false,
            interference: &[],
            statistics: &statistics,
            thresholds: &thresholds,
            now: Timestamp(2_000),
        };
        edit(&mut facts);
        assess(&facts)
    }

    fn check(edit: impl FnOnce(&mut HealthFacts<'_>), expected: Health) {
        let report = judged(&Phase::Replicating, edit);
        assert_eq!(report.health, expected, "{:?}", report.reasons);
        assert_eq!(report.reasons.is_empty(), expected == Health::Normal);
    }

    #[test]
    fn fresh_cycles_are_normal_and_each_trouble_has_its_severity() {
        check(|_| {}, Health::Normal);
        check(|facts| facts.last_synchronized = None, Health::Warning);
        check(|facts| facts.now = Timestamp(4_000_000), Health::Warning);
        check(|facts| facts.paused_since = Some(Timestamp(1)), Health::Warning);
        check(|facts| facts.paused_on_peer = true, Health::Critical);
        check(|facts| facts.last_failure = Some("link down"), Health::Critical);
        check(|facts| facts.phase = &Phase::InitialReplication, Health::Warning);
        for severity in [Health::Warning, Health::Critical] {
            let noticed = [Notice { severity, what: String::new(), cure: String::new() }];
            check(|facts| facts.interference = Box::leak(Box::new(noticed)), severity);
        }
        check(|facts| facts.phase = &Phase::Unprotected { since: Timestamp(1) }, Health::Warning);
    }

    #[test]
    fn missed_cycles_count_only_above_the_threshold() {
        let statistics =
            |missed| Statistics { cycles_due: 100, cycles_missed: missed, ..Statistics::default() };
        let (at, above) = (statistics(20), statistics(21));
        check(|facts| facts.statistics = Box::leak(Box::new(at)), Health::Normal);
        check(|facts| facts.statistics = Box::leak(Box::new(above)), Health::Warning);
    }

    #[test]
    fn an_age_and_a_latency_count_only_above_their_thresholds() {
        let thresholds = Thresholds::default();
        let slow = |average| Statistics { average_latency: Some(average), ..Statistics::default() };
        let (at, above) = (slow(thresholds.average_latency_max), slow(thresholds.average_latency_max * 2));
        check(|facts| facts.statistics = Box::leak(Box::new(at)), Health::Normal);
        check(|facts| facts.statistics = Box::leak(Box::new(above)), Health::Warning);
        let now = Timestamp(1_000).plus(thresholds.last_synchronized_age_max);
        check(|facts| facts.now = now, Health::Normal);
        check(|facts| facts.now = Timestamp(now.millis() + 1), Health::Warning);
    }

    #[test]
    fn a_replica_is_as_old_as_its_last_delta_and_one_that_never_had_one_is_not_finished() {
        let finished = |last_synchronized| {
            let edit = |facts: &mut HealthFacts<'_>| {
                facts.last_synchronized = last_synchronized;
                facts.operation_open = true;
            };
            judged(&Phase::Receiving, edit).reasons
        };
        let unfinished = [Reason::InitialReplicationUnfinished, Reason::OperationUnfinished];
        assert_eq!(finished(None), unfinished);
        assert_eq!(finished(Some(Timestamp(1_000))), [Reason::OperationUnfinished]);
    }

    #[test]
    fn who_paused_is_told_from_either_side_and_the_worst_comes_first() {
        let told = |phase: &Phase, here, there| {
            let edit = |facts: &mut HealthFacts<'_>| {
                facts.paused_since = here;
                facts.paused_on_peer = there;
            };
            judged(phase, edit).reasons
        };
        let at = Some(Timestamp(1));
        assert_eq!(told(&Phase::Replicating, at, false), [Reason::PausedOnPrimary]);
        assert_eq!(told(&Phase::Replicating, None, true), [Reason::PausedOnReplica]);
        assert_eq!(told(&Phase::Receiving, at, false), [Reason::PausedOnReplica]);
        assert_eq!(told(&Phase::Receiving, None, true), [Reason::PausedOnPrimary]);
        let both = [Reason::PausedOnReplica, Reason::PausedOnPrimary];
        assert_eq!(told(&Phase::Receiving, at, true), both);
    }

    #[test]
    fn a_reason_says_its_numbers_and_its_cure_names_the_vm() {
        let at = Timestamp(1);
        let hour = Duration::from_secs(3600);
        let notice =
            Notice { severity: Health::Warning, what: "a snapshot".into(), cure: "remove it".into() };
        let said = |reason: Reason| (reason.words(), reason.cure("web 1").unwrap_or_default());
        let cases = [
            (Reason::CannotSend { cause: "link down".into() }, "failed: link down", ""),
            (Reason::Resynchronization { cause: "a crash".into() }, "resynchronized: a crash", ""),
            (
                Reason::PausedOnReplica,
                "on the replica server",
                "on the replica server: virt-replica resume 'web 1'",
            ),
            (
                Reason::PausedOnPrimary,
                "on the primary server",
                "on the primary server: virt-replica resume 'web 1'",
            ),
            (
                Reason::CyclesMissed { percent: 130, percent_max: 20 },
                "130 % of the cycles were missed, more than 20 %",
                "--missed-cycles-max 100 'web 1'",
            ),
            (Reason::NotSynchronized { age: Some(hour) }, "for 1 h 00 min", ""),
            (Reason::NotSynchronized { age: None }, "yet", ""),
            (Reason::Slow { average: hour }, "1 h 00 min on average", "--latency-max TIME 'web 1'"),
            (Reason::InitialReplicationUnfinished, "not finished", "virt-replica wait 'web 1'"),
            (Reason::Unprotected { since: at }, "without reverse", "virt-replica reverse 'web 1'"),
            (Reason::FailedOver { since: at }, "not final yet", "virt-replica cancel-failover 'web 1'"),
            (Reason::OperationUnfinished, "not finished", "virt-replica operation list"),
            (Reason::Interference(notice), "a snapshot", "remove it"),
        ];
        for (reason, words, cure) in cases {
            let (told, cured) = said(reason.clone());
            assert!(told.contains(words), "{told}");
            assert!(cured.contains(cure) && cured.is_empty() == cure.is_empty(), "{reason:?}: {cured}");
        }
    }
}

//! Drills: test failovers that the replica server makes by itself, and what health says when none has passed for too long.

use std::time::Duration;

use domain::{Health, Notice, Phase, Timestamp, vm_argument};
use store::{Record, TestFailover, TestState};
use tokio::time::Instant;
use uuid::Uuid;

use super::{TestFacts, TestOptions, TestView};
use crate::events::Number;
use crate::{Code, Engine, Refusal, Result, clock};

/// Who asks for a drill.
const SCHEDULE: &str = "the schedule of drills";
/// How long the guest of a drill may take to boot, seconds.
const BOOT_TIMEOUT_S: u64 = 600;

/// How long one that has to wait does so before it is tried again: trying waits for the recovery points' files, too.
const WAITS: Duration = Duration::from_secs(300);

/// A test as the schedule sees it.
#[derive(Clone, Copy)]
struct Past {
    begun: Timestamp,
    open: bool,
    passed: Option<bool>,
}

/// Whether it is time for a drill; `tests` are the newest first. Pure.
fn is_due(every: Duration, tests: &[Past], now: Timestamp) -> bool {
    let recent = tests.iter().any(|test| !test.begun.is_due_again(every, now));
    !recent && !tests.iter().any(|test| test.open)
}

/// Since when no drill has passed although it should have. A quarter of the time is granted for the drill itself. Pure.
fn overdue_since(every: Duration, tests: &[Past], now: Timestamp) -> Option<Timestamp> {
    let known = || tests.iter().filter(|test| !test.begun.is_wrong(now));
    let passed = known().find(|test| test.passed == Some(true)).map(|test| test.begun);
    let since = passed.or_else(|| known().next_back().map(|oldest| oldest.begun))?;
    (now > since.plus(every.saturating_add(every / 4))).then_some(since)
}

fn history(engine: &Engine, record: &Record) -> Result<Vec<(Past, TestView)>> {
    let rows = engine.store().tests_of(record.relationship.id).map_err(Refusal::failed)?;
    let views = rows.into_iter().map(TestView::of).collect::<Result<Vec<_>>>()?;
    let past = |view: &TestView| Past {
        begun: view.begun,
        open: view.state != TestState::Ended,
        passed: view.facts.passed(),
    };
    Ok(views.into_iter().map(|view| (past(&view), view)).collect())
}

/// Begins a drill when it is time. One that cannot begin is remembered as one that failed, and tried again when it is due; one that only
/// has to wait is not.
pub(crate) async fn mind(engine: &Engine, record: &Record) -> Result<()> {
    let Some(every) = record.relationship.settings.drill_every else { return Ok(()) };
    let tests: Vec<Past> = history(engine, record)?.into_iter().map(|(past, _)| past).collect();
    let points = engine.store().points(record.relationship.id).map_err(Refusal::failed)?;
    let idle = engine.must_be_idle(record).is_ok() && record.relationship.phase == Phase::Receiving;
    if points.is_empty() || !idle || !is_due(every, &tests, clock::now()) {
        return Ok(());
    }
    let slot = engine.slot(record.relationship.id);
    let waits = || slot.drill_waits();
    if waits().is_some_and(|since| since.elapsed() < WAITS) {
        return Ok(());
    }
    let options = TestOptions {
        point: None,
        network: None,
        probe: None,
        probe_port: None,
        boot_timeout_s: BOOT_TIMEOUT_S,
        keep: false,
    };
    match engine.begin_test(record, options.clone(), SCHEDULE).await {
        Ok(_) => Ok(()),
        Err(error) if passes(error.code) => {
            tracing::info!(%error, "a drill waits");
            *waits() = Some(Instant::now());
            Ok(())
        }
        Err(error) => remember_refusal(engine, record, options, &error),
    }
}

/// Whether what stood in the way of a drill passes by itself: it is tried again soon, and says nothing of the replica.
fn passes(code: Code) -> bool {
    matches!(code, Code::Busy | Code::Unavailable)
}

fn remember_refusal(engine: &Engine, record: &Record, options: TestOptions, error: &Refusal) -> Result<()> {
    let relationship = &record.relationship;
    let head = engine.store().points(relationship.id).map_err(Refusal::failed)?.pop();
    let Some(head) = head else { return Ok(()) };
    let now = clock::now();
    let facts = TestFacts {
        vm_name: relationship.vm_name.clone(),
        name: format!("{} - Test", relationship.vm_name),
        host: engine.config().host_name.clone(),
        point_instant_ms: head.instant.millis(),
        network: String::new(),
        isolated: true,
        options,
        requested_by: SCHEDULE.to_owned(),
        directory: record.directory.clone().unwrap_or_default(),
        boot: store::boot_id().to_owned(),
        started_ms: None,
        ended_ms: Some(now.millis()),
        boot_ms: None,
        addresses: Vec::new(),
        findings: None,
        picture: None,
        failure: Some(format!("it could not begin: {error}")),
    };
    let row = TestFailover {
        id: domain::TestId(Uuid::now_v7()),
        relationship: relationship.id,
        vm: domain::VmId(Uuid::new_v4()),
        point: head.id,
        state: TestState::Ended,
        begun: now,
        form: serde_json::to_string(&facts).map_err(Refusal::failed)?,
    };
    engine.store().begin_test(&row).map_err(Refusal::failed)?;
    engine.event(Number::TestFailed, &relationship.vm_name, format!("a drill could not begin: {error}"));
    super::report::forget_old(engine, relationship.id)
}

/// What health says: nothing without a schedule.
pub(crate) fn notices(engine: &Engine, record: &Record) -> Result<Vec<Notice>> {
    let Some(every) = record.relationship.settings.drill_every else { return Ok(Vec::new()) };
    let history = history(engine, record)?;
    let tests: Vec<Past> = history.iter().map(|(past, _)| *past).collect();
    let vm = vm_argument(&record.relationship.vm_name);
    let warning = |what: String, cure: String| Notice { severity: Health::Warning, what, cure };
    let mut notices = Vec::new();
    if let Some(since) = overdue_since(every, &tests, clock::now()) {
        let every = domain::words::duration(every);
        let at = jiff::Timestamp::from_millisecond(i64::try_from(since.millis()).unwrap_or_default());
        let at = at.map(|at| at.to_string()).unwrap_or_default();
        let what = format!(
            "the drill is overdue: no test failover has passed since {at}, one is to pass every {every}"
        );
        notices.push(warning(what, format!("on this host: virt-replica test-failover {vm}")));
    }
    let last = history.iter().find(|(past, _)| !past.open).map(|(_, view)| view);
    if let Some(failed) = last.filter(|view| view.facts.passed() == Some(false)) {
        let what = format!("the last test failover {}", super::report::result(&failed.facts));
        let cure = format!("read its report, then try again: virt-replica test-failover {vm}");
        notices.push(warning(what, cure));
    }
    Ok(notices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(100);

    /// Oldest first, as (second of its begin, `p`assed, `f`ailed, `u`nknown, `o`pen).
    fn past(tests: &[(u64, char)]) -> Vec<Past> {
        let past = |(second, how): &(u64, char)| Past {
            begun: Timestamp(second * 1000),
            open: *how == 'o',
            passed: match how {
                'p' => Some(true),
                'f' => Some(false),
                _ => None,
            },
        };
        tests.iter().rev().map(past).collect()
    }

    #[test]
    fn a_drill_is_due_when_none_began_for_that_long_and_none_stands() {
        let due = |tests: &[(u64, char)], second: u64| is_due(EVERY, &past(tests), Timestamp(second * 1000));
        assert!(due(&[], 0), "the first at once");
        assert!(!due(&[(10, 'p')], 109) && due(&[(10, 'p')], 110));
        assert!(!due(&[(10, 'p'), (50, 'f')], 149), "a failed one is not repeated at once");
        assert!(!due(&[(10, 'o')], 500), "one still stands");
        assert!(due(&[(10, 'p'), (9_000, 'p')], 500), "the clock was wrong, and was set back");
        assert!(!due(&[(9_000, 'p'), (450, 'p')], 500), "and one has begun since");
    }

    #[test]
    fn a_merge_or_an_operation_that_is_under_way_is_no_failed_drill() {
        assert!(passes(Code::Busy) && passes(Code::Unavailable));
        for lasting in [Code::Refused, Code::NotFound, Code::InDoubt, Code::Failed, Code::TrackingLost] {
            assert!(!passes(lasting), "{lasting:?}");
        }
    }

    #[test]
    fn a_drill_is_overdue_when_none_passed_for_longer_than_the_time_and_a_quarter() {
        let overdue = |tests: &[(u64, char)], second: u64| {
            overdue_since(EVERY, &past(tests), Timestamp(second * 1000)).map(|since| since.millis() / 1000)
        };
        assert_eq!(overdue(&[], 10_000), None, "it begins at once");
        assert_eq!(overdue(&[(10, 'p')], 135), None);
        assert_eq!(overdue(&[(10, 'p')], 136), Some(10));
        assert_eq!(overdue(&[(10, 'p'), (110, 'f'), (120, 'u'), (130, 'o')], 136), Some(10));
        assert_eq!(overdue(&[(10, 'f'), (110, 'f')], 136), Some(10), "none ever passed");
        assert_eq!(overdue(&[(10, 'p'), (110, 'p')], 136), None);
        assert_eq!(overdue(&[(10, 'p'), (9_000, 'p')], 136), Some(10), "by a clock that was wrong");
    }
}

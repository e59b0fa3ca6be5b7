//! The audit, the bell, and lists page by page.

use std::sync::{Arc, Mutex};

use choreography::{Mark, Outcome};
use domain::{CycleOutcome, CycleRecord, OperationId, RelationshipId, Timestamp};

use super::{entry, id, operation, store};
use crate::{AuditResult, Audited};

const ID: RelationshipId = RelationshipId(uuid::Uuid::from_u128(1));

fn asked(verb: &str) -> Audited {
    Audited {
        sequence: 0,
        at: Timestamp(7),
        who: "anna".into(),
        from: Some("192.0.2.7".into()),
        role: Some("operator".into()),
        verb: verb.into(),
        target: Some("x".repeat(100_000)),
        with: "z".repeat(100_000),
        result: None,
        detail: String::new(),
    }
}

#[test]
fn records_come_back_newest_first_and_are_bounded_in_length() {
    let dir = tempfile::tempdir().expect("a directory");
    let before = store(&dir);
    let first = before.audit(&asked("pause")).expect("kept");
    let second = before.audit(&asked("resume")).expect("kept");
    before.audit_result(first, AuditResult::Refused, &"y".repeat(100_000)).expect("kept");
    std::mem::forget(before); // as after kill -9: nothing is closed

    let store = store(&dir);
    let records = store.audited(u64::MAX, 9).expect("a list");
    assert_eq!(records.iter().map(|it| it.sequence).collect::<Vec<_>>(), [second, first]);
    assert_eq!((records[0].result, records[1].result), (None, Some(AuditResult::Refused)));
    assert_eq!((records[1].detail.len(), records[1].target.as_ref().map(String::len)), (500, Some(500)));
    assert_eq!(records[1].with.len(), 500);
    assert_eq!(store.audited(second, 9).expect("a list"), records[1..], "the page behind");
}

#[test]
fn what_is_refused_makes_this_host_forget_nothing_that_was_made_nor_what_was_refused_of_another_verb() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let ask = |verb, result| {
        let record = store.audit(&asked(verb)).expect("kept");
        store.audit_result(record, result, "").expect("kept");
        record
    };
    let made = [ask("pause", AuditResult::Accepted), ask("pause", AuditResult::Failed)];
    let refused = ask("pause", AuditResult::Refused);
    let strangers: Vec<u64> = (0..4).map(|_| ask("sign-in", AuditResult::Refused)).collect();
    let under_way = store.audit(&asked("remove")).expect("kept");
    let left = |kept, refused_kept| -> Vec<u64> {
        store.write(|transaction| crate::audit::forget(transaction, kept, refused_kept)).expect("forgotten");
        store.audited(u64::MAX, 9).expect("a list").iter().map(|it| it.sequence).collect()
    };
    assert_eq!(left(3, 2), [under_way, strangers[3], strangers[2], refused, made[1], made[0]]);
    assert_eq!(left(1, 2), [under_way, strangers[3], strangers[2], refused]);
}

#[test]
fn the_audit_does_not_grow_without_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    // As if a viewer had asked all night for what it may not, after one change that was made.
    store
        .write(|transaction| {
            let many =
                "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 60098)
            INSERT INTO audit (at_ms, who, verb, result, detail)
            SELECT 1, 'mallory', 'pause', CASE n WHEN 1 THEN 'accepted' ELSE 'refused' END, '' FROM number";
            Ok(transaction.execute(many, [])?)
        })
        .expect("a write");
    store.audit(&asked("resume")).expect("kept");
    store.audit(&asked("resume")).expect("kept, and the old ones forgotten");
    let records = store.audited(u64::MAX, 60_000).expect("a list");
    assert_eq!(records.len(), 1 + 2_000 + 2);
    assert_eq!(records.last().map(|it| (it.sequence, it.result)), Some((1, Some(AuditResult::Accepted))));
}

#[test]
fn the_bell_tells_what_was_written_and_nothing_of_what_was_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&told);
    store.listen(Box::new(move |tables| kept.lock().expect("not poisoned").push(format!("{tables:?}"))));
    store.set_paused(ID, None).expect("set");
    store.set_paused(RelationshipId(id(9)), None).expect_err("there is none");
    let half = store.write(|transaction| {
        transaction.execute("UPDATE relationship SET last_failure = 'x'", [])?;
        Err::<(), _>(crate::StoreError::Duplicate)
    });
    half.expect_err("taken back");
    store.relationships().expect("a read");
    store.begin_operation(&operation(7), &[entry(Mark::Ended(Outcome::Undone))]).expect("begun");
    assert_eq!(*told.lock().expect("not poisoned"), [r#"{"relationship"}"#, r#"{"entry", "operation"}"#]);
}

#[test]
fn operations_and_cycles_come_page_by_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    for number in [7, 8, 9] {
        store.begin_operation(&operation(number), &[]).expect("begun");
        let ended = entry(Mark::Ended(Outcome::Undone));
        store.end_operation(OperationId(id(number)), &ended).expect("ended");
        let cycle = CycleRecord {
            begun: Timestamp(number as u64),
            latency: std::time::Duration::ZERO,
            bytes: 0,
            sent_bytes: None,
            outcome: CycleOutcome::Acknowledged,
        };
        store.add_cycle(ID, &cycle, Timestamp(0)).expect("added");
    }
    let ids = |before, of: Option<&[RelationshipId]>, limit| -> Vec<OperationId> {
        let page = store.operations(before, of, limit).expect("a list");
        page.into_iter().map(|(operation, _)| operation.id).collect()
    };
    // They began in the same millisecond: the id decides.
    let all = [9, 8, 7].map(|number| OperationId(id(number)));
    assert_eq!(ids(None, None, 9), all);
    assert_eq!(ids(None, None, 2), all[..2]);
    assert_eq!(ids(Some(all[1]), Some(&[ID]), 9), all[2..]);
    assert!(ids(None, Some(&[]), 9).is_empty() && ids(None, Some(&[RelationshipId(id(5))]), 9).is_empty());

    let begun = |before, limit| -> Vec<(u64, u64)> {
        let page = store.cycles(ID, before, limit).expect("a list");
        page.into_iter().map(|(number, cycle)| (number, cycle.begun.millis())).collect()
    };
    let first = begun(u64::MAX, 2);
    assert_eq!(first.iter().map(|it| it.1).collect::<Vec<_>>(), [9, 8]);
    assert_eq!(begun(first[1].0, 9).iter().map(|it| it.1).collect::<Vec<_>>(), [7]);
}

//! Authority changes hands once, in one place, and never backwards.

use choreography::authority::{Denied, HandOverVerdict};
use choreography::{Mark, Operation, Outcome, Side, Step};
use domain::{Epoch, OperationId, Phase, RelationshipId, Timestamp};

use super::{entry, id, operation, primary, standing, store};
use crate::{AbandonVerdict, Store, StoreError};

const AT: Timestamp = Timestamp(6);

fn take(store: &Store, operation: &Operation) -> HandOverVerdict {
    let done = entry(Mark::Done(Step::HandOver, String::new()));
    store.hand_over(operation, &[], &Phase::Unprotected { since: AT }, &done).expect("a verdict")
}

fn cancel() -> choreography::Entry {
    entry(Mark::Cancel("a test".into()))
}

#[test]
fn a_hand_over_happens_once_and_raises_the_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let relationship = operation(7).relationship;
    store.unverified(relationship, AT, Some("a file is missing")).expect("a write");
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::Taken);
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::AlreadyTaken);
    assert_eq!(store.comparisons(relationship).expect("a read").unverified, None, "of the epoch before");
    assert_eq!(take(&store, &operation(8)), HandOverVerdict::Epoch(Epoch::FIRST.next()));
    assert_eq!(standing(&store), (Epoch::FIRST.next(), Phase::Unprotected { since: AT }));
    let verdict = store.abandon(OperationId(id(7)), &cancel()).expect("a verdict");
    assert_eq!(verdict, AbandonVerdict::AlreadyHandedOver);
}

#[test]
fn a_promise_is_kept_also_after_a_crash_and_for_an_operation_never_heard_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let before = store(&dir);
    let verdict = before.abandon(OperationId(id(7)), &cancel()).expect("a verdict");
    assert_eq!(verdict, AbandonVerdict::Promised);
    std::mem::forget(before); // as after kill -9: nothing is closed
    let store = store(&dir);
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::Abandoned);
    let late = store.begin_operation(&operation(7), &[]);
    assert!(
        matches!(late, Err(StoreError::Denied(Denied::Abandoned(_)))),
        "an announcement after its cancellation"
    );
    assert_eq!(standing(&store), (Epoch::FIRST, Phase::Receiving));
}

#[test]
fn an_operation_that_this_host_saw_cancelled_or_ended_is_not_taken_later() {
    for mark in [Mark::Cancel("by its host".into()), Mark::Ended(Outcome::Undone)] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        store.begin_operation(&operation(7), &[entry(mark)]).expect("begun");
        assert_eq!(take(&store, &operation(7)), HandOverVerdict::Abandoned);
    }
}

#[test]
fn the_other_hosts_word_is_no_hand_over() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let claimed = entry(Mark::Done(Step::HandOver, "believe me".into()));
    store.begin_operation(&operation(7), &[claimed]).expect("begun");
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::Taken);
}

#[test]
fn of_a_hand_over_and_a_promise_at_the_same_time_exactly_one_wins() {
    for number in 100..140 {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        // A second connection, as after a restart whose old process still finishes a call.
        let other = Store::open(&dir.path().join("state.db")).expect("a store");
        let operation = operation(number);
        let (taken, promised) = std::thread::scope(|scope| {
            let taken = scope.spawn(|| take(&store, &operation) == HandOverVerdict::Taken);
            let promised = other.abandon(operation.id, &cancel()).expect("a verdict");
            (taken.join().expect("no panic"), promised == AbandonVerdict::Promised)
        });
        assert!(taken != promised, "taken {taken}, promised {promised}");
    }
}

#[test]
fn of_many_hand_overs_of_one_epoch_exactly_one_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let taken = std::thread::scope(|scope| {
        let store = &store;
        let all: Vec<_> =
            (100..108).map(|number| scope.spawn(move || take(store, &operation(number)))).collect();
        let verdicts = all.into_iter().map(|thread| thread.join().expect("no panic"));
        verdicts.filter(|verdict| *verdict == HandOverVerdict::Taken).count()
    });
    assert_eq!(taken, 1);
}

#[test]
fn a_hand_over_waits_for_another_operation_and_asks_a_replica_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.begin_operation(&operation(8), &[]).expect("begun");
    let done = entry(Mark::Done(Step::HandOver, String::new()));
    let refused = store.hand_over(&operation(7), &[], &Phase::Unprotected { since: AT }, &done);
    assert!(matches!(refused, Err(StoreError::Denied(Denied::Busy(open))) if open == operation(8).id));

    let dir = tempfile::tempdir().expect("a directory");
    let primary = primary(&dir);
    let refused = primary.hand_over(&operation(7), &[], &Phase::Unprotected { since: AT }, &done);
    assert!(matches!(refused, Err(StoreError::Denied(Denied::Phase { .. }))));
    assert_eq!(standing(&primary), (Epoch::FIRST, Phase::Replicating));
}

#[test]
fn the_old_primary_locks_and_unlocks_until_it_is_demoted_and_never_after() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = primary(&dir);
    let operation = Operation { side: Side::OldPrimary, ..operation(7) };
    let locked = entry(Mark::Done(Step::Lock, String::new()));
    let undone = entry(Mark::Undone(Step::Lock));
    store.begin_operation(&operation, &[]).expect("begun");
    store.lock(&operation, &locked).expect("locked");
    store.lock(&operation, &locked).expect("repeated");
    assert_eq!(standing(&store).1, Phase::Yielding);
    store.unlock(&operation, &undone).expect("unlocked");
    assert_eq!(standing(&store).1, Phase::Replicating);
    store.lock(&operation, &locked).expect("locked again");

    let demoted = entry(Mark::Done(Step::Demote, String::new()));
    let stopped = Phase::Stopped { since: AT };
    store.demote(&operation, &stopped, &demoted).expect("demoted");
    store.unlock(&operation, &undone).expect("nothing is locked any more");
    assert!(matches!(store.lock(&operation, &locked), Err(StoreError::Denied(Denied::Epoch { .. }))));
    assert_eq!(standing(&store), (Epoch::FIRST.next(), stopped.clone()));

    // Reversed meanwhile: a repeated demotion does not take that back.
    store.set_phase(RelationshipId(id(1)), &Phase::Receiving).expect("reversed");
    store.demote(&operation, &stopped, &demoted).expect("repeated");
    assert_eq!(standing(&store), (Epoch::FIRST.next(), Phase::Receiving));
}

#[test]
fn an_old_operation_changes_nothing_after_the_way_home() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = primary(&dir);
    let away = Operation { side: Side::OldPrimary, ..operation(7) };
    let home = Operation { proposed_epoch: Epoch::FIRST.next().next(), ..operation(8) };
    let demoted = entry(Mark::Done(Step::Demote, String::new()));
    store.begin_operation(&away, &[]).expect("begun");
    store.demote(&away, &Phase::Receiving, &demoted).expect("demoted");
    store.end_operation(away.id, &entry(Mark::Ended(Outcome::Completed))).expect("ended");
    assert_eq!(take(&store, &home), HandOverVerdict::Taken);
    let after = standing(&store);
    store.demote(&away, &Phase::Receiving, &demoted).expect("a late repetition");
    assert!(store.lock(&away, &entry(Mark::Done(Step::Lock, String::new()))).is_err());
    assert_eq!(standing(&store), after);
}

#[test]
fn a_phase_changes_by_the_way_only_within_its_role_and_beside_the_lock() {
    let at = AT;
    let phases = [
        Phase::InitialPending { start: at },
        Phase::InitialReplication,
        Phase::Replicating,
        Phase::Resynchronizing { cause: "a test".into() },
        Phase::Yielding,
        Phase::Unprotected { since: at },
        Phase::Receiving,
        Phase::Stopped { since: at },
    ];
    for from in &phases {
        for to in &phases {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(&dir.path().join("state.db")).expect("a store");
            let relationship = domain::Relationship { phase: from.clone(), ..super::relationship() };
            store.insert_relationship(&relationship, None).expect("a relationship");
            let is_lock = (*from == Phase::Yielding) != (*to == Phase::Yielding);
            let allowed = from.role() == to.role() && !is_lock;
            assert_eq!(store.set_phase(relationship.id, to).is_ok(), allowed, "{from:?} to {to:?}");
            let expected = if allowed { to } else { from };
            assert_eq!(standing(&store), (Epoch::FIRST, expected.clone()));
        }
    }
}

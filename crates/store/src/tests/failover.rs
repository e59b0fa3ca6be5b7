//! Failovers that nobody planned: authority changes on one host alone, and no crash or hasty hand makes two of it.

use choreography::authority::{Denied, HandOverVerdict};
use choreography::{Mark, Operation, Outcome, Procedure, Side, Step};
use domain::fixture::point;
use domain::{DiskTarget, Divergence, Epoch, Phase, PointId, RecoveryPoint, Timestamp};

use super::{entry, operation, primary, standing, store};
use crate::StoreError;

const AT: Timestamp = Timestamp(6);

fn divergence(common: &RecoveryPoint) -> Divergence {
    let target = DiskTarget::new("vda").expect("a target");
    Divergence { since: common.id, at: AT, disks: vec![(target, Some(vec![(0, 65536)]))], covered_by: None }
}

fn failed_over(point: PointId) -> Phase {
    Phase::FailedOver { since: AT, point, timer: None }
}

#[test]
fn a_failover_raises_the_epoch_once_and_taking_it_back_raises_it_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let relationship = operation(7).relationship;
    let done = |step| entry(Mark::Done(step, String::new()));
    let phase = failed_over(point(2).id);
    store.begin_operation(&operation(7), &[]).expect("begun");
    for _ in 0..2 {
        store.take_over(&operation(7), &phase, &done(Step::TakeOver)).expect("taken");
        assert_eq!(standing(&store), (Epoch::FIRST.next(), phase.clone()));
    }
    let late = store.hand_over(&operation(8), &[], &Phase::Unprotected { since: AT }, &done(Step::HandOver));
    assert_eq!(late.expect("a verdict"), HandOverVerdict::Epoch(Epoch::FIRST.next()), "a late hand over");
    let back = Operation {
        procedure: Procedure::CancelFailover,
        proposed_epoch: Epoch::FIRST.next().next(),
        ..operation(9)
    };
    store.end_operation(operation(7).id, &entry(Mark::Ended(Outcome::Completed))).expect("ended");
    store.begin_operation(&back, &[]).expect("begun");
    for _ in 0..2 {
        store.give_back(&back, &done(Step::GiveBack)).expect("given back");
        assert_eq!(standing(&store), (Epoch::FIRST.next().next(), Phase::Receiving));
    }
    assert!(store.settle(relationship, None, AT).is_ok(), "nothing to settle any more");
    assert_eq!(standing(&store).1, Phase::Receiving);
}

#[test]
fn a_primary_cannot_fail_over_and_a_replica_cannot_give_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let done = entry(Mark::Done(Step::TakeOver, String::new()));
    let primary = primary(&dir);
    let refused = primary.take_over(&operation(7), &failed_over(point(2).id), &done);
    assert!(matches!(refused, Err(StoreError::Denied(Denied::Phase { .. }))), "{refused:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let refused = store(&dir).give_back(&operation(7), &done);
    assert!(matches!(refused, Err(StoreError::Denied(Denied::Phase { .. }))), "{refused:?}");
}

#[test]
fn what_is_settled_forgets_newer_points_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let relationship = operation(7).relationship;
    for ordinal in 1..=4 {
        store.add_point(relationship, &point(ordinal), AT).expect("added");
    }
    let done = entry(Mark::Done(Step::TakeOver, String::new()));
    store.begin_operation(&operation(7), &[]).expect("begun");
    store.take_over(&operation(7), &failed_over(point(2).id), &done).expect("taken");
    let (own, settled) = (operation(7).id, entry(Mark::Done(Step::Settle, String::new())));
    assert!(
        matches!(store.settle(relationship, None, AT), Err(StoreError::Denied(Denied::Busy(_)))),
        "within another"
    );
    for _ in 0..2 {
        store.settle(relationship, Some((own, &settled)), AT).expect("settled");
        let (_, entries) = store.operation(own).expect("a read").expect("there");
        let told = entries.iter().filter(|entry| **entry == settled).count();
        assert_eq!(told, 1, "whoever finds it settled finds it in the journal, too: {entries:?}");
        let ordinals: Vec<u64> =
            store.points(relationship).expect("points").iter().map(|point| point.ordinal).collect();
        assert_eq!((ordinals, standing(&store).1), (vec![1, 2], Phase::Unprotected { since: AT }));
    }
}

#[test]
fn what_is_left_of_a_failovers_time_is_kept_for_that_failover_and_that_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relationship, of) = (operation(7).relationship, (Timestamp(10), Timestamp(20)));
    assert_eq!(store(&dir).countdown(relationship, of).expect("a read"), None);
    for seconds in [9, 8] {
        let left = std::time::Duration::from_secs(seconds);
        store(&dir).keep_countdown(relationship, of, left).expect("kept");
        assert_eq!(store(&dir).countdown(relationship, of).expect("a read"), Some(left));
    }
    for other in [(Timestamp(11), Timestamp(20)), (Timestamp(10), Timestamp(10))] {
        assert_eq!(store(&dir).countdown(relationship, other).expect("a read"), None);
    }
}

#[test]
fn an_overtaken_primary_may_not_run_until_it_steps_down_or_is_asked_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = primary(&dir);
    let relationship = operation(7).relationship;
    let higher = Epoch::FIRST.next();
    store.hear(relationship, true, higher).expect("superseded");
    let asked_back = higher.next();
    store.hear(relationship, false, asked_back).expect("adopted");
    let record = store.relationship(relationship).expect("read").expect("there");
    assert_eq!((record.relationship.epoch, record.relationship.phase), (asked_back, Phase::Replicating));
    store.hear(relationship, false, higher).expect("an epoch that has passed changes nothing");
    assert_eq!(standing(&store).0, asked_back);

    for ordinal in 1..=3 {
        store.add_point(relationship, &point(ordinal), AT).expect("added");
    }
    let common = point(2);
    let divergence = divergence(&common);
    let overtaking = asked_back.next();
    for _ in 0..2 {
        store.step_down(relationship, overtaking, &common, &divergence).expect("stepped down");
        assert_eq!(standing(&store), (overtaking, Phase::Receiving));
        assert_eq!(store.points(relationship).expect("points").last(), Some(&common));
        assert_eq!(store.divergence(relationship).expect("read"), Some(divergence.clone()));
    }
    let covered = || store.divergence(relationship).expect("read").expect("there").covered_by;
    store.add_point(relationship, &RecoveryPoint { epoch: asked_back, ..point(3) }, AT).expect("added");
    assert_eq!(covered(), None, "a point of an epoch that has passed covers nothing");
    store.add_point(relationship, &RecoveryPoint { epoch: overtaking, ..point(4) }, AT).expect("added");
    assert_eq!(covered(), Some(point(4).id));
    store.forget_divergence(relationship).expect("forgotten");
    assert_eq!(store.divergence(relationship).expect("read"), None);
}

#[test]
fn nothing_takes_over_or_merges_until_what_differs_is_set_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = primary(&dir);
    let relationship = operation(7).relationship;
    let (higher, common) = (Epoch::FIRST.next(), point(2));
    store.step_down(relationship, higher, &common, &divergence(&common)).expect("stepped down");
    let planned = Operation { proposed_epoch: higher.next(), ..operation(7) };
    let failover = Operation { procedure: Procedure::Failover, ..planned.clone() };
    let done = |step| entry(Mark::Done(step, String::new()));
    let is_diverged =
        |result: Result<(), StoreError>| matches!(result, Err(StoreError::Denied(Denied::Diverged)));
    assert!(is_diverged(store.begin_operation(&planned, &[])));
    let handed = store.hand_over(&planned, &[], &Phase::Unprotected { since: AT }, &done(Step::HandOver));
    assert!(is_diverged(handed.map(drop)), "one that was announced before");
    store.begin_operation(&failover, &[]).expect("a disaster does not wait to begin");
    assert!(is_diverged(store.take_over(&failover, &failed_over(common.id), &done(Step::TakeOver))));
    assert_eq!(standing(&store), (higher, Phase::Receiving));
    store.forget_divergence(relationship).expect("set aside");
    store.take_over(&failover, &failed_over(common.id), &done(Step::TakeOver)).expect("taken");
}

#[test]
fn of_cancelling_and_making_final_the_first_wins() {
    let relationship = operation(7).relationship;
    let cancel = Operation {
        procedure: Procedure::CancelFailover,
        proposed_epoch: Epoch::FIRST.next().next(),
        ..operation(9)
    };
    let back = entry(Mark::Done(Step::GiveBack, String::new()));
    for settled_first in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let done = entry(Mark::Done(Step::TakeOver, String::new()));
        store.begin_operation(&operation(7), &[]).expect("begun");
        store.take_over(&operation(7), &failed_over(point(2).id), &done).expect("taken");
        store.end_operation(operation(7).id, &entry(Mark::Ended(Outcome::Completed))).expect("ended");
        if settled_first {
            store.settle(relationship, None, AT).expect("settled");
            let late = store.begin_operation(&cancel, &[]);
            assert!(matches!(late, Err(StoreError::Denied(Denied::NotFrom { .. }))), "{late:?}");
            assert!(matches!(store.give_back(&cancel, &back), Err(StoreError::Denied(Denied::Phase { .. }))));
        } else {
            store.begin_operation(&cancel, &[]).expect("begun");
            let late = store.settle(relationship, None, AT);
            assert!(matches!(late, Err(StoreError::Denied(Denied::Busy(_)))), "{late:?}");
            store.give_back(&cancel, &back).expect("given back");
        }
    }
}

#[test]
fn a_failover_that_hangs_behind_its_point_of_no_return_is_left_when_it_is_cancelled_and_none_before() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let failover = Operation { procedure: Procedure::Failover, ..operation(7) };
    let cancel =
        |epoch| Operation { procedure: Procedure::CancelFailover, proposed_epoch: epoch, ..operation(9) };
    let checked = entry(Mark::Done(Step::Check, String::new()));
    store.begin_operation(&failover, std::slice::from_ref(&checked)).expect("begun");
    let early = store.begin_operation(&cancel(Epoch::FIRST.next()), std::slice::from_ref(&checked));
    assert!(matches!(early, Err(StoreError::Denied(Denied::Busy(_)))), "{early:?}");
    let done = entry(Mark::Done(Step::TakeOver, String::new()));
    store.take_over(&failover, &failed_over(point(2).id), &done).expect("taken");
    store.begin_operation(&cancel(Epoch::FIRST.next().next()), &[checked]).expect("begun");
    let (_, entries) = store.operation(failover.id).expect("a read").expect("there");
    let progress = choreography::fold(&entries);
    assert_eq!(progress.outcome, Some(Outcome::Completed));
    assert!(failover.procedure.steps().all(|step| progress.is_settled(step)), "{progress:?}");
    let open = store.open_operation(failover.relationship).expect("a read").expect("open").0;
    assert_eq!(open.id, operation(9).id);
}

#[test]
fn a_handover_that_is_undone_after_the_other_side_failed_over_and_gave_back_is_unlocked() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = primary(&dir);
    let operation = Operation { side: Side::OldPrimary, ..operation(7) };
    store.begin_operation(&operation, &[]).expect("begun");
    store.lock(&operation, &entry(Mark::Done(Step::Lock, String::new()))).expect("locked");
    let asked_back = Epoch::FIRST.next().next();
    store.hear(operation.relationship, false, asked_back).expect("adopted");
    store.unlock(&operation, &entry(Mark::Undone(Step::Lock))).expect("unlocked");
    assert_eq!(standing(&store), (asked_back, Phase::Replicating));
}

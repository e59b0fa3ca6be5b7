//! A test failover pins its point until it has ended, and none begins beside an operation.

use choreography::authority::Denied;
use choreography::{Mark, Operation, Outcome, Procedure, Step};
use domain::{Epoch, Phase, PointId, RelationshipId, TestId, Timestamp, VmId};

use super::{entry, id, operation, store};
use crate::{StoreError, TestFailover, TestState};

fn test(number: u128, point: u128) -> TestFailover {
    TestFailover {
        id: TestId(id(number)),
        relationship: RelationshipId(id(1)),
        vm: VmId(id(number + 100)),
        point: PointId(id(point)),
        state: TestState::Making,
        begun: Timestamp(u64::try_from(number).expect("small")),
        form: "{}".into(),
    }
}

#[test]
fn a_point_is_pinned_from_before_anything_is_made_until_all_that_stood_on_it_has_ended() {
    let dir = tempfile::tempdir().expect("a directory");
    let pins = |store: &crate::Store| store.pins(RelationshipId(id(1))).expect("pins");
    for (number, point) in [(10, 5), (11, 5), (12, 6)] {
        store(&dir).begin_test(&test(number, point)).expect("begun");
    }
    let store = store(&dir);
    assert_eq!(store.tests().expect("listed").first().map(|it| it.id), Some(TestId(id(12))));
    let end = |number: u128| {
        let states = [TestState::Making, TestState::Standing, TestState::Removing, TestState::Ended];
        for pair in states.windows(2) {
            assert!(!pins(&store).is_empty());
            assert!(store.move_test(TestId(id(number)), pair[0], pair[1]).expect("moved"));
            assert!(!store.move_test(TestId(id(number)), pair[0], pair[1]).expect("not again"));
        }
    };
    assert_eq!(pins(&store).len(), 2);
    end(10);
    assert_eq!(pins(&store).len(), 2, "another one stands on the same point");
    end(11);
    assert_eq!(pins(&store), [PointId(id(6))]);
    store.forget_test(TestId(id(12))).expect("no error");
    assert!(store.test(TestId(id(12))).expect("read").is_some(), "what has not ended is not forgotten");
    store.forget_test(TestId(id(10))).expect("forgotten");
    assert_eq!(store.test(TestId(id(10))).expect("read"), None);
}

#[test]
fn none_begins_beside_an_operation() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.begin_operation(&operation(9), &[]).expect("begun");
    assert!(matches!(store.begin_test(&test(10, 5)), Err(StoreError::Denied(Denied::Busy(_)))));
    assert!(store.pins(RelationshipId(id(1))).expect("pins").is_empty());
}

#[test]
fn no_operation_begins_beside_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.begin_test(&test(10, 5)).expect("begun");
    assert!(matches!(store.begin_operation(&operation(9), &[]), Err(StoreError::Denied(Denied::Tested))));
    for (from, to) in [(TestState::Making, TestState::Removing), (TestState::Removing, TestState::Ended)] {
        store.move_test(TestId(id(10)), from, to).expect("moved");
    }
    store.begin_operation(&operation(9), &[]).expect("begun");
}

#[test]
fn a_failover_goes_past_one_and_is_taken_back_past_it_and_what_it_reads_is_not_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.begin_test(&test(10, 5)).expect("begun");
    let failover = Operation { procedure: Procedure::Failover, ..operation(9) };
    store.begin_operation(&failover, &[]).expect("a disaster does not wait");
    let phase = Phase::FailedOver { since: Timestamp(6), point: PointId(id(5)), timer: None };
    store.take_over(&failover, &phase, &entry(Mark::Done(Step::TakeOver, String::new()))).expect("taken");
    store.end_operation(failover.id, &entry(Mark::Ended(Outcome::Completed))).expect("ended");
    let then = |number, procedure| Operation {
        procedure,
        proposed_epoch: Epoch::FIRST.next().next(),
        ..operation(number)
    };
    let complete = store.begin_operation(&then(11, Procedure::CompleteFailover), &[]);
    assert!(matches!(complete, Err(StoreError::Denied(Denied::Tested))), "{complete:?}");
    let cancel = then(12, Procedure::CancelFailover);
    store.begin_operation(&cancel, &[]).expect("its files stay as they are");
    store.give_back(&cancel, &entry(Mark::Done(Step::GiveBack, String::new()))).expect("given back");
    assert_eq!(store.pins(RelationshipId(id(1))).expect("pins"), [PointId(id(5))]);
}

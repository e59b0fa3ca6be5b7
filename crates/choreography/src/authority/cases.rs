//! Each rule, case by case: from where it leads where, and what stands in its way.

use domain::{HostId, PointId, RelationshipId};
use uuid::Uuid;

use super::*;
use crate::operation::Options;

const AT: Timestamp = Timestamp(1);
/// The epoch in which all begin; the next one is 3.
const NOW: u64 = 2;

fn epoch(number: u64) -> Epoch {
    Epoch::new(number).expect("no epoch is 0")
}

fn phases() -> [Phase; 9] {
    let point = PointId(Uuid::from_u128(1));
    [
        Phase::InitialPending { start: AT },
        Phase::InitialReplication,
        Phase::Replicating,
        Phase::Resynchronizing { cause: "a test".into() },
        Phase::Yielding,
        Phase::Unprotected { since: AT },
        Phase::FailedOver { since: AT, point, timer: None },
        Phase::Receiving,
        Phase::Stopped { since: AT },
    ]
}

fn failed_over() -> Phase {
    phases()[6].clone()
}

/// Nothing stands in the way of anything.
fn at(phase: Phase) -> Authority {
    Authority { epoch: epoch(NOW), phase, superseded_by: None, diverged: false, tested: false, open: None }
}

fn id(number: u128) -> OperationId {
    OperationId(Uuid::from_u128(number))
}

fn operation(procedure: Procedure, side: Side, proposed: u64) -> Operation {
    Operation {
        id: id(7),
        procedure,
        relationship: RelationshipId(Uuid::from_u128(1)),
        old_primary: HostId(Uuid::from_u128(1)),
        side,
        proposed_epoch: epoch(proposed),
        options: Options::default(),
        requested_by: "a test".into(),
        begun: AT,
    }
}

/// Where a procedure begins.
fn begins(procedure: Procedure, side: Side, phase: &Phase) -> bool {
    match (procedure, side) {
        (Procedure::PlannedFailover, Side::OldPrimary) => phase.role() == Role::Primary,
        (Procedure::PlannedFailover, Side::NewPrimary) | (Procedure::Failover, _) => {
            phase.role() == Role::Replica
        }
        (Procedure::CancelFailover | Procedure::CompleteFailover, _) => *phase == failed_over(),
    }
}

#[test]
fn a_vm_runs_where_its_phase_lets_it_and_no_higher_epoch_is_known() {
    for phase in phases() {
        for (by, overtaken) in [(None, false), (Some(1), false), (Some(NOW), false), (Some(3), true)] {
            let authority = Authority { superseded_by: by.map(epoch), ..at(phase.clone()) };
            assert_eq!(authority.may_run(), phase.may_run() && !overtaken, "{authority:?}");
        }
    }
}

#[test]
fn a_phase_changes_within_its_role_and_beside_the_lock() {
    for from in phases() {
        for to in phases() {
            let before = at(from.clone());
            let locks = [&from, &to].iter().filter(|phase| ***phase == Phase::Yielding).count() == 1;
            let expected = if from.role() == to.role() && !locks {
                Ok(Authority { phase: to.clone(), ..before.clone() })
            } else {
                Err(Denied::Phase { from: from.words(), to: to.words() })
            };
            assert_eq!(before.go_to(to), expected);
        }
    }
}

#[test]
fn an_operation_begins_where_its_procedure_does_if_nothing_stands_in_its_way() {
    for procedure in Procedure::ALL {
        for side in [Side::OldPrimary, Side::NewPrimary] {
            for phase in phases() {
                for case in 0..8_u8 {
                    let [tested, diverged, refused] = [1, 2, 4].map(|bit| case & bit != 0);
                    let authority = Authority { tested, diverged, ..at(phase.clone()) };
                    let operation = operation(procedure, side, 3);
                    let begun = authority.begin(&operation, Asked { taken: false, refused });
                    let changes_files =
                        matches!(procedure, Procedure::PlannedFailover | Procedure::CompleteFailover);
                    let expected = if refused {
                        Err(Denied::Abandoned(operation.id))
                    } else if !begins(procedure, side, &phase) {
                        Err(Denied::NotFrom { procedure: procedure.name(), phase: phase.words() })
                    } else if tested && changes_files {
                        Err(Denied::Tested)
                    } else if diverged && procedure != Procedure::Failover {
                        Err(Denied::Diverged)
                    } else {
                        Ok(None)
                    };
                    assert_eq!(begun, expected, "{procedure:?} {side:?} {authority:?}");
                }
            }
        }
    }
}

#[test]
fn what_one_host_does_alone_begins_in_the_epoch_in_which_it_was_prepared() {
    let beginnings = [
        (Procedure::Failover, Phase::Receiving),
        (Procedure::CancelFailover, failed_over()),
        (Procedure::CompleteFailover, failed_over()),
    ];
    for (procedure, phase) in beginnings {
        for proposed in [2, 3, 4] {
            let operation = operation(procedure, Side::NewPrimary, proposed);
            let expected = if proposed == 3 {
                Ok(None)
            } else {
                let (operation, proposed) = (operation.id, operation.proposed_epoch);
                Err(Denied::Epoch { operation, proposed, known: epoch(NOW) })
            };
            assert_eq!(at(phase.clone()).begin(&operation, Asked::default()), expected, "{procedure:?}");
        }
    }
    // What was agreed with the other host is compared when its lock is set.
    let late = operation(Procedure::PlannedFailover, Side::NewPrimary, 2);
    assert_eq!(at(Phase::Receiving).begin(&late, Asked::default()), Ok(None));
}

#[test]
fn an_operation_begins_beside_no_other_and_a_cancellation_ends_a_failover_that_hangs() {
    let from = |procedure| match procedure {
        Procedure::PlannedFailover | Procedure::Failover => Phase::Receiving,
        Procedure::CancelFailover | Procedure::CompleteFailover => failed_over(),
    };
    for procedure in Procedure::ALL {
        for other in Procedure::ALL {
            for took_effect in [false, true] {
                let begin = |number| {
                    let open = Some(Open { id: id(number), procedure: other, took_effect });
                    let authority = Authority { open, ..at(from(procedure)) };
                    authority.begin(&operation(procedure, Side::NewPrimary, 3), Asked::default())
                };
                let hangs =
                    (procedure, other) == (Procedure::CancelFailover, Procedure::Failover) && took_effect;
                let expected = if hangs { Ok(Some(id(8))) } else { Err(Denied::Busy(id(8))) };
                assert_eq!(begin(8), expected, "{procedure:?} beside {other:?} {took_effect}");
                let itself = if hangs { Some(id(7)) } else { None };
                assert_eq!(begin(7), Ok(itself), "{procedure:?} repeated");
            }
        }
    }
}

#[test]
fn the_lock_is_set_on_a_primary_and_only_a_lock_is_taken_back() {
    for phase in phases() {
        let before = at(phase.clone());
        let locked = before.lock(&operation(Procedure::PlannedFailover, Side::OldPrimary, 3));
        match phase.role() {
            Role::Primary => {
                assert_eq!(locked, Ok(Authority { phase: Phase::Yielding, ..before.clone() }));
            }
            Role::Replica => {
                assert_eq!(locked, Err(Denied::Phase { from: phase.words(), to: Phase::Yielding.words() }));
            }
        }
        let unlocked = if phase == Phase::Yielding { Phase::Replicating } else { phase };
        assert_eq!(before.unlock(), Authority { phase: unlocked, ..before });
    }
}

#[test]
fn a_role_changes_in_the_next_epoch_and_neither_late_nor_early() {
    let end = Phase::Unprotected { since: AT };
    type Rule = fn(&Authority, &Operation) -> Ruling;
    type Begins = fn(&Phase) -> bool;
    let rules: [(Rule, Begins, Phase); 3] = [
        (|it, by| it.demote(by, Phase::Receiving), |from| from.role() == Role::Primary, Phase::Receiving),
        (
            |it, by| it.take_over(by, Phase::Unprotected { since: AT }),
            |from| from.role() == Role::Replica,
            end.clone(),
        ),
        (Authority::give_back, |from| *from == failed_over(), Phase::Receiving),
    ];
    for (rule, begins, to) in rules {
        for from in phases() {
            let before = at(from.clone());
            let ruling =
                |proposed| rule(&before, &operation(Procedure::Failover, Side::NewPrimary, proposed));
            for passed in [1, NOW] {
                assert_eq!(ruling(passed), Ok(before.clone()), "a word of an epoch that has passed");
            }
            let early = Denied::Epoch { operation: id(7), proposed: epoch(4), known: epoch(NOW) };
            assert_eq!(ruling(4), Err(early));
            let expected = if begins(&from) {
                Ok(Authority { epoch: epoch(3), phase: to.clone(), ..before.clone() })
            } else {
                Err(Denied::Phase { from: from.words(), to: to.words() })
            };
            assert_eq!(ruling(3), expected, "{from:?}");
        }
    }
    let diverged = Authority { diverged: true, ..at(Phase::Receiving) };
    let failover = operation(Procedure::Failover, Side::NewPrimary, 3);
    assert_eq!(diverged.take_over(&failover, end), Err(Denied::Diverged));
}

#[test]
fn a_hand_over_is_taken_once_by_a_replica_that_is_free() {
    let end = Phase::Unprotected { since: AT };
    let (asked, free) = (Asked::default(), at(Phase::Receiving));
    let ask = |host: &Authority, asked, proposed| {
        let operation = operation(Procedure::PlannedFailover, Side::NewPrimary, proposed);
        host.hand_over(&operation, asked, Phase::Unprotected { since: AT })
    };
    let taken = Authority { epoch: epoch(3), phase: end.clone(), ..free.clone() };
    assert_eq!(ask(&free, asked, 3), Ok((HandOverVerdict::Taken, taken.clone())));
    assert_eq!(ask(&taken, Asked { taken: true, ..asked }, 3), Ok((HandOverVerdict::AlreadyTaken, taken)));
    for (asked, proposed, verdict) in [
        (Asked { refused: true, ..asked }, 3, HandOverVerdict::Abandoned),
        (asked, NOW, HandOverVerdict::Epoch(epoch(NOW))),
        (asked, 4, HandOverVerdict::Epoch(epoch(NOW))),
    ] {
        assert_eq!(ask(&free, asked, proposed), Ok((verdict, free.clone())));
    }
    let primary = at(Phase::Replicating);
    let refused = Denied::Phase { from: Phase::Replicating.words(), to: end.words() };
    assert_eq!(ask(&primary, asked, 3), Err(refused));
    let open =
        |number| Some(Open { id: id(number), procedure: Procedure::PlannedFailover, took_effect: false });
    assert_eq!(ask(&Authority { open: open(8), ..free.clone() }, asked, 3), Err(Denied::Busy(id(8))));
    assert!(ask(&Authority { open: open(7), ..free.clone() }, asked, 3).is_ok());
    assert_eq!(ask(&Authority { diverged: true, ..free }, asked, 3), Err(Denied::Diverged));
}

#[test]
fn only_a_failover_is_made_final_by_the_operation_that_is_open_and_beside_no_test() {
    let open = Some(Open { id: id(7), procedure: Procedure::CompleteFailover, took_effect: false });
    for phase in phases() {
        let before = Authority { tested: true, open, ..at(phase.clone()) };
        if phase != failed_over() {
            assert_eq!(before.settle(None, AT), Ok(before.clone()), "nothing to make final");
        }
    }
    let free = at(failed_over());
    let is_final = |it: &Authority| Ok(Authority { phase: Phase::Unprotected { since: AT }, ..it.clone() });
    assert_eq!(free.settle(None, AT), is_final(&free));
    assert_eq!(free.settle(Some(id(7)), AT), is_final(&free));
    let busy = Authority { open, ..free.clone() };
    assert_eq!(busy.settle(Some(id(7)), AT), is_final(&busy));
    for other in [None, Some(id(8))] {
        assert_eq!(busy.settle(other, AT), Err(Denied::Busy(id(7))));
    }
    let tested = Authority { tested: true, ..free };
    assert_eq!(tested.settle(None, AT), Err(Denied::Tested));
    assert_eq!(Authority { open, ..tested }.settle(Some(id(7)), AT), Err(Denied::Tested));
}

#[test]
fn a_primary_steps_down_into_a_higher_epoch_and_remembers_that_its_disks_differ() {
    for phase in phases() {
        let before = at(phase.clone());
        for passed in [1, NOW] {
            assert_eq!(before.step_down(epoch(passed)), Ok(before.clone()));
        }
        let expected = match phase.role() {
            Role::Primary => {
                let (epoch, phase) = (epoch(5), Phase::Receiving);
                Ok(Authority { epoch, phase, diverged: true, ..before.clone() })
            }
            Role::Replica => Err(Denied::Phase { from: phase.words(), to: Phase::Receiving.words() }),
        };
        assert_eq!(before.step_down(epoch(5)), expected);
        let open = Some(Open { id: id(8), procedure: Procedure::PlannedFailover, took_effect: false });
        assert_eq!(Authority { open, ..before }.step_down(epoch(5)), Err(Denied::Busy(id(8))));
    }
}

#[test]
fn a_primary_hears_of_higher_epochs_and_a_replica_of_none() {
    for phase in phases() {
        let before = at(phase.clone());
        let is_primary = phase.role() == Role::Primary;
        for number in 1..5 {
            let (theirs, higher) = (epoch(number), number > NOW && is_primary);
            let primary = if higher { Standing::Overtaken(theirs) } else { Standing::Agreed };
            let replica = if higher { Standing::AskedBack(theirs) } else { Standing::Agreed };
            assert_eq!((before.hear(true, theirs), before.hear(false, theirs)), (primary, replica));

            let asked_back = before.heed(Standing::AskedBack(theirs));
            let rises = if higher { theirs } else { before.epoch };
            assert_eq!(asked_back, Authority { epoch: rises, ..before.clone() });
            let overtaken = before.heed(Standing::Overtaken(theirs));
            assert_eq!(overtaken, Authority { superseded_by: Some(theirs), ..before.clone() });
            let again = overtaken.heed(Standing::Overtaken(epoch(3)));
            assert_eq!(again.superseded_by, Some(theirs.max(epoch(3))), "an older word is no news");
        }
        assert_eq!(before.heed(Standing::Agreed), before);
    }
}

#[test]
fn what_stays_of_a_side_that_ends_it_is_its_epoch_and_role_and_an_open_operation_keeps_it() {
    for phase in phases() {
        let before = at(phase.clone());
        assert_eq!(before.forget(), Ok(Forgotten { epoch: epoch(NOW), role: phase.role() }));
        let open = Some(Open { id: id(8), procedure: Procedure::Failover, took_effect: true });
        assert_eq!(Authority { open, ..before }.forget(), Err(Denied::Busy(id(8))));
    }
}

#[test]
fn files_go_with_a_replica_that_is_not_at_home_and_holds_nothing_that_lies_nowhere_else() {
    for phase in phases() {
        let replica = phase.role() == Role::Replica;
        for (asked, at_home, diverged) in (0..8).map(|bits| (bits & 1 == 1, bits & 2 == 2, bits & 4 == 4)) {
            let before = Authority { diverged, ..at(phase.clone()) };
            let ruling = match asked && replica && !at_home {
                true if diverged => Err(Denied::Diverged),
                goes => Ok(goes),
            };
            assert_eq!(before.deletes_files(asked, at_home), ruling, "{before:?} {asked} {at_home}");
        }
    }
}

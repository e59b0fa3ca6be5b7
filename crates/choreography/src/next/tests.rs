//! Small worlds, walked whole: every place where an operation can stop has a next step, and never a wrong one.

use domain::{Epoch, HostId, OperationId, RelationshipId, Timestamp};
use uuid::Uuid;

use super::{
    Advice, Next, PATIENCE_MS, RestingState, advice, may_cancel, may_leave_out, next, resting_state,
};
use crate::journal::{Entry, FORCED, Mark, StepState, fold};
use crate::operation::{Operation, Options, Outcome, Side};
use crate::table::{Place, Procedure, Step, Undo, spec};

fn operation(side: Side, reverse: bool, start: bool) -> Operation {
    Operation {
        id: OperationId(Uuid::from_u128(1)),
        procedure: Procedure::PlannedFailover,
        relationship: RelationshipId(Uuid::from_u128(2)),
        old_primary: HostId(Uuid::from_u128(3)),
        side,
        proposed_epoch: Epoch::FIRST.next(),
        options: Options { reverse, start, ..Options::default() },
        requested_by: "root".into(),
        begun: Timestamp(0),
    }
}

struct Journal(Vec<Entry>);

impl Journal {
    fn write(&mut self, mark: Mark) {
        let at = Timestamp(self.0.len() as u64);
        self.0.push(Entry { at, host: HostId(Uuid::from_u128(3)), mark });
    }
}

/// Runs one host to its end, with the other host's steps done as soon as they are awaited; returns what it did.
fn run(operation: &Operation, journal: &mut Journal) -> Vec<Next> {
    let mut trace = Vec::new();
    for _ in 0..64 {
        let step = next(operation, &fold(&journal.0));
        trace.push(step.clone());
        match step {
            Next::Do(step) | Next::Await(step) => {
                journal.write(Mark::Intent(step));
                journal.write(Mark::Done(step, String::new()));
            }
            Next::Skip(step, reason) => journal.write(Mark::Skipped(step, reason.into())),
            Next::Abandon => journal.write(Mark::Undone(Step::Announce)),
            Next::TakeBack(step) => journal.write(Mark::Undone(step)),
            Next::End(outcome) => journal.write(Mark::Ended(outcome)),
            Next::Nothing => return trace,
        }
    }
    panic!("the operation does not end: {trace:?}");
}

#[test]
fn each_host_does_its_own_steps_in_order_and_the_operation_completes() {
    for side in [Side::OldPrimary, Side::NewPrimary] {
        for (reverse, start) in [(true, true), (true, false), (false, true), (false, false)] {
            let operation = operation(side, reverse, start);
            let mut journal = Journal(Vec::new());
            let trace = run(&operation, &mut journal);
            let done: Vec<Step> = trace
                .iter()
                .filter_map(|next| match next {
                    Next::Do(step) => Some(*step),
                    _ => None,
                })
                .collect();
            assert!(done.is_sorted());
            // What is not asked for is written down by the one whose step it is; nobody waits for a demotion that may lag.
            let skips = |step| trace.iter().any(|next| matches!(next, Next::Skip(it, _) if *it == step));
            let is_new = side == Side::NewPrimary;
            assert_eq!((skips(Step::Reverse), skips(Step::Confirm)), (is_new && !reverse, is_new && !start));
            assert!(!trace.contains(&Next::Await(Step::Demote)));
            let mine = if side == Side::OldPrimary { Place::OldPrimary } else { Place::NewPrimary };
            assert!(done.iter().all(|step| spec(*step).place == mine));
            assert_eq!(done.contains(&Step::Reverse), reverse && side == Side::NewPrimary);
            // Without start the VM is defined and tracked all the same, and left off.
            assert_eq!(done.contains(&Step::Start), side == Side::NewPrimary);
            assert_eq!(done.contains(&Step::Confirm), start && side == Side::NewPrimary);
            assert_eq!(fold(&journal.0).outcome, Some(Outcome::Completed));
        }
    }
}

#[test]
fn cancelled_before_the_hand_over_every_effect_is_taken_back_after_the_promise() {
    let operation = operation(Side::OldPrimary, true, true);
    for last in Step::all().filter(|step| *step <= Step::HandOver) {
        let mut journal = Journal(Vec::new());
        for step in Step::all().filter(|step| *step <= last) {
            journal.write(Mark::Intent(step));
            if step < last {
                journal.write(Mark::Done(step, String::new()));
            }
        }
        assert_eq!(may_cancel(Procedure::PlannedFailover, &fold(&journal.0)), Ok(()));
        journal.write(Mark::Cancel("test".into()));
        let trace = run(&operation, &mut journal);
        let promise = trace.iter().position(|next| *next == Next::Abandon);
        assert_eq!(promise.is_some(), last >= Step::Announce, "{last:?}: {trace:?}");
        for step in Step::all().filter(|step| *step <= last && *step > Step::Announce) {
            if matches!(spec(step).undo, Undo::By(_)) {
                let undone = trace.iter().position(|next| *next == Next::TakeBack(step));
                assert!(undone > promise, "{step:?} taken back before the promise: {trace:?}");
            }
        }
        assert_eq!(fold(&journal.0).outcome, Some(Outcome::Undone));
    }
}

#[test]
fn the_lock_is_taken_back_before_the_vm_starts_again() {
    let mut journal = Journal(Vec::new());
    for step in Step::all().filter(|step| *step <= Step::Lock) {
        journal.write(Mark::Done(step, String::new()));
    }
    journal.write(Mark::Cancel("test".into()));
    let trace = run(&operation(Side::OldPrimary, true, true), &mut journal);
    let at = |wanted: Next| trace.iter().position(|next| *next == wanted).expect("in the trace");
    assert!(at(Next::Abandon) < at(Next::TakeBack(Step::Lock)));
    assert!(at(Next::TakeBack(Step::Lock)) < at(Next::TakeBack(Step::ShutDown)));
}

#[test]
fn a_hand_over_that_happened_beats_a_cancellation() {
    let mut journal = Journal(Vec::new());
    for step in Step::all().filter(|step| *step <= Step::FinalSync) {
        journal.write(Mark::Done(step, String::new()));
    }
    journal.write(Mark::Intent(Step::HandOver));
    let operation = operation(Side::OldPrimary, true, true);
    assert_eq!(resting_state(&operation, &fold(&journal.0)), RestingState::InDoubt);
    journal.write(Mark::Cancel("test".into()));
    journal.write(Mark::Done(Step::HandOver, String::new()));
    let progress = fold(&journal.0);
    assert!(may_cancel(Procedure::PlannedFailover, &progress).is_err());
    assert_eq!(next(&operation, &progress), Next::Do(Step::Demote));
    assert_eq!(resting_state(&operation, &progress), RestingState::Forward);
}

#[test]
fn the_new_primary_never_takes_over_by_itself_and_hears_of_a_cancellation() {
    let operation = operation(Side::NewPrimary, true, true);
    let mut journal = Journal(Vec::new());
    for step in Step::all().filter(|step| *step <= Step::FinalSync) {
        journal.write(Mark::Done(step, String::new()));
    }
    assert_eq!(next(&operation, &fold(&journal.0)), Next::Await(Step::HandOver));
    journal.write(Mark::Cancel(format!("{FORCED} by root")));
    assert_eq!(next(&operation, &fold(&journal.0)), Next::End(Outcome::Undone));
}

#[test]
fn a_repeated_journal_line_changes_nothing() {
    let mut journal = Journal(Vec::new());
    let trace_side = operation(Side::OldPrimary, true, true);
    run(&trace_side, &mut journal);
    let once = fold(&journal.0);
    let twice = fold(journal.0.iter().chain(&journal.0));
    assert_eq!(once, twice);
}

#[test]
fn only_what_does_not_move_by_itself_asks_for_a_person_and_only_after_a_while() {
    let operation = operation(Side::OldPrimary, true, true);
    let asked = |mark: Mark| {
        let mut journal = Journal(Vec::new());
        journal.write(Mark::Intent(Step::Announce));
        journal.write(Mark::Done(Step::Announce, String::new()));
        journal.write(Mark::Done(Step::Lock, String::new()));
        journal.write(mark);
        fold(&journal.0)
    };
    let soon = Timestamp(PATIENCE_MS / 2);
    let late = Timestamp(PATIENCE_MS * 2);
    let in_doubt = asked(Mark::Intent(Step::HandOver));
    assert_eq!(advice(&operation, &in_doubt, soon), None);
    assert_eq!(advice(&operation, &in_doubt, late), Some(Advice::Decide));
    let under_way = asked(Mark::Intent(Step::FinalSync));
    assert_eq!(advice(&operation, &under_way, late), None);
}

#[test]
fn a_cancellation_leaves_the_doubt_and_a_persons_word_ends_it() {
    let operation = operation(Side::OldPrimary, true, true);
    let late = Timestamp(PATIENCE_MS * 2);
    let mut journal = Journal(Vec::new());
    for mark in [
        Mark::Done(Step::Lock, String::new()),
        Mark::Intent(Step::HandOver),
        Mark::Cancel("cancelled by root".into()),
    ] {
        journal.write(mark);
    }
    let cancelled = fold(&journal.0);
    assert_eq!(resting_state(&operation, &cancelled), RestingState::InDoubt);
    assert_eq!(advice(&operation, &cancelled, late), Some(Advice::Decide));
    journal.write(Mark::Cancel(format!("{FORCED} by root")));
    let decided = fold(&journal.0);
    assert_eq!(resting_state(&operation, &decided), RestingState::Undoing);
    assert_eq!(advice(&operation, &decided, late), None);
}

#[test]
fn a_step_that_is_tried_again_has_been_tried_since_its_first_try() {
    let mut journal = Journal(Vec::new());
    for mark in [
        Mark::Intent(Step::Start),
        Mark::Failed(Step::Start, "no".into()),
        Mark::Intent(Step::Start),
        Mark::Done(Step::Start, "yes".into()),
    ] {
        journal.write(mark);
    }
    let state = fold(&journal.0).steps.remove(&Step::Start);
    assert!(
        matches!(state, Some(StepState::Done { begun: Timestamp(0), ended: Timestamp(3), .. })),
        "{state:?}"
    );
}

#[test]
fn a_procedure_of_one_host_does_every_step_and_is_turned_round_only_before_it_took_effect() {
    for procedure in Procedure::ALL.into_iter().filter(|procedure| procedure.is_solitary()) {
        let operation = Operation { procedure, ..operation(Side::NewPrimary, false, true) };
        let mut journal = Journal(Vec::new());
        let trace = run(&operation, &mut journal);
        let expected: Vec<Next> =
            procedure.steps().map(Next::Do).chain([Next::End(Outcome::Completed), Next::Nothing]).collect();
        assert_eq!(trace, expected);

        let mut journal = Journal(Vec::new());
        for step in procedure.steps() {
            let mut turned_round = Journal(journal.0.clone());
            turned_round.write(Mark::Cancel("somebody".into()));
            let progress = fold(&turned_round.0);
            let took_effect = may_cancel(procedure, &fold(&journal.0)).is_err();
            let wanted = if took_effect { Next::Do(step) } else { Next::End(Outcome::Undone) };
            assert_eq!(next(&operation, &progress), wanted, "{procedure:?} before {}", step.name());
            journal.write(Mark::Done(step, String::new()));
        }
    }
}

#[test]
fn what_does_not_stand_its_own_test_is_ended_where_it_is() {
    let operation = Operation { procedure: Procedure::Failover, ..operation(Side::NewPrimary, false, true) };
    let mut journal = Journal(Vec::new());
    for step in [Step::Check, Step::TakeOver, Step::Start] {
        journal.write(Mark::Done(step, String::new()));
    }
    journal.write(Mark::GivenUp("it does not boot".into()));
    journal.write(Mark::Failed(Step::Confirm, "it does not boot".into()));
    assert_eq!(next(&operation, &fold(&journal.0)), Next::End(Outcome::GivenUp), "no users are sent there");
    journal.write(Mark::Ended(Outcome::GivenUp));
    assert_eq!(next(&operation, &fold(&journal.0)), Next::Nothing);
}

#[test]
fn a_merge_that_is_left_out_is_no_obstacle_and_nothing_else_can_be() {
    for procedure in Procedure::ALL {
        let operation = Operation { procedure, ..operation(Side::NewPrimary, false, true) };
        let mut journal = Journal(Vec::new());
        for step in procedure.steps() {
            let left_out = may_leave_out(procedure, &fold(&journal.0));
            assert_eq!(
                left_out,
                (step == Step::Merge).then_some(step),
                "{procedure:?} before {}",
                step.name()
            );
            if let Some(step) = left_out {
                let mut journal = Journal(journal.0.clone());
                journal.write(Mark::Failed(step, "no room".into()));
                journal.write(Mark::Skipped(step, "left out".into()));
                let progress = fold(&journal.0);
                assert_eq!(next(&operation, &progress), Next::Do(Step::Report));
                assert_eq!(may_leave_out(procedure, &progress), None);
            }
            journal.write(Mark::Done(step, String::new()));
        }
    }
}

#[test]
fn what_failed_after_it_was_done_is_heard_only_when_it_is_being_taken_back() {
    let lines = |marks: &[Mark]| {
        let mut journal = Journal(Vec::new());
        marks.iter().for_each(|mark| journal.write(mark.clone()));
        fold(&journal.0).steps.remove(&Step::Lock)
    };
    let (done, failed) = (Mark::Done(Step::Lock, String::new()), Mark::Failed(Step::Lock, "no".into()));
    let late = lines(&[done.clone(), failed.clone()]);
    assert!(matches!(late, Some(StepState::Done { .. })), "{late:?}");
    let taken_back = lines(&[done, Mark::Cancel("root".into()), failed.clone()]);
    assert!(matches!(taken_back, Some(StepState::Failed { .. })), "{taken_back:?}");
    let tried = lines(&[failed]);
    assert!(matches!(tried, Some(StepState::Failed { .. })), "{tried:?}");
}

#[test]
fn each_resting_state_is_called_something_of_its_own() {
    let all = [
        RestingState::UnderWay,
        RestingState::Undoing,
        RestingState::InDoubt,
        RestingState::Forward,
        RestingState::Ended,
    ];
    let words: std::collections::BTreeSet<&str> = all.into_iter().map(RestingState::words).collect();
    assert!(words.len() == all.len() && words.iter().all(|words| words.len() > 3), "{words:?}");
}

#[test]
fn a_step_is_given_its_time_from_its_first_try_and_taking_back_from_its_last() {
    let lines = |marks: &[(u64, Mark)]| {
        let host = HostId(Uuid::from_u128(3));
        let entries = marks.iter().map(|(at, mark)| Entry { at: Timestamp(*at), host, mark: mark.clone() });
        fold(&entries.collect::<Vec<_>>())
    };
    let failed = |step| Mark::Failed(step, "no".into());
    let behind = lines(&[
        (0, Mark::Done(Step::HandOver, String::new())),
        (1_000, Mark::Intent(Step::Start)),
        (20_000, failed(Step::Start)),
    ]);
    let operation = operation(Side::NewPrimary, true, true);
    assert_eq!(resting_state(&operation, &behind), RestingState::Forward);
    assert_eq!(advice(&operation, &behind, Timestamp(1_000 + PATIENCE_MS)), None);
    assert_eq!(advice(&operation, &behind, Timestamp(1_001 + PATIENCE_MS)), Some(Advice::MendAndResume));

    let turned = lines(&[
        (0, Mark::Intent(Step::Lock)),
        (5_000, failed(Step::Lock)),
        (6_000, Mark::Cancel("root".into())),
    ]);
    assert_eq!(resting_state(&operation, &turned), RestingState::Undoing);
    assert_eq!(advice(&operation, &turned, Timestamp(5_000 + PATIENCE_MS)), None);
    assert_eq!(advice(&operation, &turned, Timestamp(5_001 + PATIENCE_MS)), Some(Advice::MendAndResume));

    // What moves by itself asks nobody, however long.
    for side in [Side::OldPrimary, Side::NewPrimary] {
        let operation = Operation { side, ..operation.clone() };
        let tries = lines(&[(0, Mark::Intent(Step::PreSync)), (9, failed(Step::PreSync))]);
        assert_eq!(resting_state(&operation, &tries), RestingState::UnderWay);
        assert_eq!(advice(&operation, &tries, Timestamp(100 * PATIENCE_MS)), None);
    }
}

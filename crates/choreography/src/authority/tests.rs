//! Whatever is asked of a host, in whatever order: the epoch never goes back, and the right to run comes by two rules only.

use domain::{HostId, PointId, RelationshipId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::operation::Options;

const AT: Timestamp = Timestamp(1);

fn epoch(number: u64) -> Epoch {
    Epoch::new(number).expect("no epoch is 0")
}

fn phases() -> impl Strategy<Value = Phase> {
    let point = PointId(Uuid::from_u128(1));
    prop_oneof![
        Just(Phase::InitialReplication),
        Just(Phase::Replicating),
        Just(Phase::Resynchronizing { cause: "a test".into() }),
        Just(Phase::Yielding),
        Just(Phase::Unprotected { since: AT }),
        Just(Phase::FailedOver { since: AT, point, timer: None }),
        Just(Phase::Receiving),
        Just(Phase::Stopped { since: AT }),
    ]
}

fn procedures() -> impl Strategy<Value = Procedure> {
    prop::sample::select(Procedure::ALL.to_vec())
}

fn opens() -> impl Strategy<Value = Option<Open>> {
    let open = (1..3_u128, procedures(), any::<bool>()).prop_map(|(id, procedure, took_effect)| Open {
        id: OperationId(Uuid::from_u128(id)),
        procedure,
        took_effect,
    });
    prop::option::of(open)
}

fn authorities() -> impl Strategy<Value = Authority> {
    let superseded_by = prop::option::of((1..6_u64).prop_map(epoch));
    (1..5_u64, phases(), superseded_by, any::<bool>(), any::<bool>(), opens()).prop_map(
        |(number, phase, superseded_by, diverged, tested, open)| Authority {
            epoch: epoch(number),
            phase,
            superseded_by,
            diverged,
            tested,
            open,
        },
    )
}

fn operations() -> impl Strategy<Value = Operation> {
    (1..3_u128, procedures(), any::<bool>(), 1..7_u64).prop_map(|(id, procedure, is_new, proposed)| {
        Operation {
            id: OperationId(Uuid::from_u128(id)),
            procedure,
            relationship: RelationshipId(Uuid::from_u128(1)),
            old_primary: HostId(Uuid::from_u128(1)),
            side: if is_new { Side::NewPrimary } else { Side::OldPrimary },
            proposed_epoch: epoch(proposed),
            options: Options::default(),
            requested_by: "a test".into(),
            begun: AT,
        }
    })
}

proptest! {
    #[test]
    fn the_epoch_never_goes_back_and_the_right_to_run_comes_by_two_rules_only(
        before in authorities(),
        operation in operations(),
        (asked_taken, asked_refused) in any::<(bool, bool)>(),
        phase in phases(),
        (they_are_primary, theirs) in (any::<bool>(), 1..7_u64),
    ) {
        let asked = Asked { taken: asked_taken, refused: asked_refused };
        let handed = before.hand_over(&operation, asked, Phase::Unprotected { since: AT });
        let taken = before.take_over(&operation, phase.clone());
        let standing = before.hear(they_are_primary, epoch(theirs));
        let others = [
            before.go_to(phase.clone()),
            before.lock(&operation),
            Ok(before.unlock()),
            before.demote(&operation, phase),
            before.give_back(&operation),
            before.settle(Some(operation.id), AT),
            before.step_down(epoch(theirs)),
            Ok(before.heed(standing)),
        ];
        for after in others.iter().flatten() {
            prop_assert!(after.epoch >= before.epoch);
            let was_primary = before.phase.role() == Role::Primary;
            prop_assert!(was_primary || after.phase.role() == Role::Replica, "{after:?}");
            // Of what was overtaken, only the epoch that rose to it gives the right back.
            let overtaken = before.superseded_by.is_some_and(|by| by > after.epoch);
            prop_assert!(!(overtaken && after.may_run()), "{after:?}");
        }
        if let Ok((HandOverVerdict::Taken, after)) = &handed {
            prop_assert!(!asked.refused && !asked.taken && !before.diverged);
            prop_assert_eq!((before.phase.role(), after.epoch), (Role::Replica, before.epoch.next()));
        }
        if let Ok((verdict, after)) = &handed && *verdict != HandOverVerdict::Taken {
            prop_assert_eq!(after, &before);
        }
        if let Ok(after) = taken && after != before {
            prop_assert!(before.phase.role() == Role::Replica && !before.diverged);
            prop_assert_eq!((after.phase.role(), after.epoch), (Role::Primary, before.epoch.next()));
        }
    }

    #[test]
    fn what_is_repeated_changes_nothing_more(before in authorities(), operation in operations(), rises in 1..7_u64) {
        let rules: [fn(&Authority, &Operation) -> Ruling; 5] = [
            Authority::lock,
            |it, operation| it.demote(operation, Phase::Receiving),
            |it, operation| it.take_over(operation, Phase::Unprotected { since: AT }),
            Authority::give_back,
            |it, _| it.settle(it.open.map(|open| open.id), AT),
        ];
        for rule in rules {
            if let Ok(once) = rule(&before, &operation) {
                prop_assert_eq!(rule(&once, &operation), Ok(once));
            }
        }
        if let Ok(once) = before.step_down(epoch(rises)) {
            prop_assert_eq!(once.step_down(epoch(rises)), Ok(once));
        }
    }
}

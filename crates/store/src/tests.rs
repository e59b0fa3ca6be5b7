//! Authority changes hands once, and what was written is there after the process died.

use choreography::{Entry, Mark, Operation, Options, Side, Step};
use domain::{
    Compression, DiskChoice, DiskTarget, Epoch, Frequency, HostId, OperationId, Phase, Relationship,
    RelationshipId, Settings, Thresholds, Timestamp, VmId,
};
use uuid::Uuid;

use super::{AbandonVerdict, Guard, GuardVerdict, HandOverVerdict, Store, StoreError};

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn relationship() -> Relationship {
    Relationship {
        id: RelationshipId(id(1)),
        vm: VmId(id(2)),
        vm_name: "it's a \"VM\"/ü".into(),
        peer: HostId(id(3)),
        epoch: Epoch::FIRST,
        phase: Phase::Receiving,
        paused_since: None,
        settings: Settings {
            frequency: Frequency::DEFAULT,
            compression: Compression::Adaptive,
            disks: vec![(DiskTarget::new("vda").expect("a target"), DiskChoice::Replicated)],
            rate_limit_bytes_per_second: Some(7),
            network_map: vec![("br0".into(), "br1".into())],
            thresholds: Thresholds::default(),
        },
    }
}

fn operation(number: u128) -> Operation {
    Operation {
        id: OperationId(id(number)),
        relationship: RelationshipId(id(1)),
        old_primary: HostId(id(3)),
        side: Side::NewPrimary,
        proposed_epoch: Epoch::FIRST.next(),
        options: Options::default(),
        requested_by: "root".into(),
        begun: Timestamp(5),
    }
}

fn entry(mark: Mark) -> Entry {
    Entry { at: Timestamp(6), host: HostId(id(3)), mark }
}

fn store(dir: &tempfile::TempDir) -> Store {
    let store = Store::open(&dir.path().join("state.db")).expect("a store");
    if store.relationships().expect("a list").is_empty() {
        store.insert_relationship(&relationship(), None).expect("a relationship");
    }
    store
}

fn take(store: &Store, operation: &Operation) -> HandOverVerdict {
    let phase = Phase::Unprotected { since: Timestamp(6) };
    store
        .hand_over(operation, &[], &phase, &entry(Mark::Done(Step::HandOver, String::new())))
        .expect("a verdict")
}

#[test]
fn a_relationship_comes_back_as_it_was_and_a_second_one_for_the_vm_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::mem::forget(store(&dir).connection()); // as after kill -9: nothing is closed
    let record = store(&dir).relationship(RelationshipId(id(1))).expect("a read").expect("a row");
    assert_eq!(record.relationship, relationship());
    let second = Relationship { id: RelationshipId(id(9)), ..relationship() };
    assert!(matches!(store(&dir).insert_relationship(&second, None), Err(StoreError::Duplicate)));
}

#[test]
fn a_hand_over_happens_once_and_raises_the_epoch() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::Taken);
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::AlreadyTaken);
    assert_eq!(take(&store, &operation(8)), HandOverVerdict::Epoch(Epoch::FIRST.next()));
    let record = store.relationship(RelationshipId(id(1))).expect("a read").expect("a row");
    assert_eq!(record.relationship.epoch, Epoch::FIRST.next());
    let verdict = store.abandon(OperationId(id(7)), &entry(Mark::Cancel("late".into()))).expect("a verdict");
    assert_eq!(verdict, AbandonVerdict::AlreadyHandedOver);
}

#[test]
fn a_promise_is_kept_also_for_an_operation_never_heard_of() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let verdict = store.abandon(OperationId(id(7)), &entry(Mark::Cancel("early".into()))).expect("a verdict");
    assert_eq!(verdict, AbandonVerdict::Promised);
    assert_eq!(take(&store, &operation(7)), HandOverVerdict::Abandoned);
}

#[test]
fn of_a_hand_over_and_a_promise_at_the_same_time_exactly_one_wins() {
    for number in 100..140 {
        let dir = tempfile::tempdir().expect("a directory");
        let store = store(&dir);
        let operation = operation(number);
        let (taken, promised) = std::thread::scope(|scope| {
            let taken = scope.spawn(|| take(&store, &operation) == HandOverVerdict::Taken);
            let cancel = entry(Mark::Cancel("race".into()));
            let promised =
                store.abandon(operation.id, &cancel).expect("a verdict") == AbandonVerdict::Promised;
            (taken.join().expect("no panic"), promised)
        });
        assert!(taken != promised);
    }
}

#[test]
fn one_operation_at_a_time_and_lines_are_kept_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let intent = entry(Mark::Intent(Step::Check));
    store.begin_operation(&operation(7), std::slice::from_ref(&intent)).expect("begun");
    store.begin_operation(&operation(7), std::slice::from_ref(&intent)).expect("repeated");
    assert!(matches!(store.begin_operation(&operation(8), &[]), Err(StoreError::Busy(_))));
    let (found, entries) = store.open_operation(RelationshipId(id(1))).expect("a read").expect("open");
    assert_eq!((found, entries), (operation(7), vec![intent]));
    let ended = entry(Mark::Ended(choreography::Outcome::Completed));
    store.end_operation(OperationId(id(7)), &ended).expect("ended");
    store.begin_operation(&operation(8), &[]).expect("the next one");
}

#[test]
fn the_guard_refuses_a_replica_in_one_line_and_lets_a_primary_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let guard = Guard::open(&dir.path().join("state.db")).expect("a guard");
    let vm = id(2).to_string();
    let GuardVerdict::Refused(line) = guard.verdict(&vm).expect("a verdict") else { panic!("not refused") };
    assert!(!line.contains('\n') && line.contains("two writers"));
    store.set_phase(RelationshipId(id(1)), &Phase::Replicating).expect("a phase");
    assert_eq!(guard.verdict(&vm).expect("a verdict"), GuardVerdict::Allowed);
    assert_eq!(guard.verdict("other").expect("a verdict"), GuardVerdict::NotProtected);
}

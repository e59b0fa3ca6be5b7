//! Rows come back as they were written, and repeating is fine.

use choreography::authority::Denied;
use std::time::Duration;

use choreography::{Entry, Mark, Operation, Outcome, Procedure, Step};
use domain::fixture::point;
use domain::{
    CycleOutcome, CycleRecord, Health, HostId, Notice, OperationId, Phase, RecoveryPoint, Relationship,
    RelationshipId, Timestamp, VmId,
};

use super::{entry, id, operation, relationship, store};
use crate::{ConsoleSession, Event, EventSeverity, EventsOf, InviteVerdict, Peer, Pending, StoreError};

const ID: RelationshipId = RelationshipId(uuid::Uuid::from_u128(1));

fn peer(number: u128) -> Peer {
    Peer {
        host: HostId(id(number)),
        name: format!("host{number}"),
        address: "192.0.2.1".into(),
        port: 4711,
        certificate_der: vec![number as u8; 9],
        next_certificate_der: None,
        paired_at: Timestamp(3),
    }
}

#[test]
fn a_relationship_comes_back_as_it_was_and_a_second_one_for_the_vm_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::mem::forget(store(&dir)); // as after kill -9: nothing is closed
    let store = store(&dir);
    let record = store.relationship(ID).expect("a read").expect("a row");
    assert_eq!(record.relationship, relationship());
    assert_eq!(store.relationship_by_vm(VmId(id(2))).expect("a read"), Some(record));
    let second = Relationship { id: RelationshipId(id(9)), ..relationship() };
    assert!(matches!(store.insert_relationship(&second, None), Err(StoreError::Duplicate)));
}

#[test]
fn a_session_of_the_console_outlives_the_process_until_it_is_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let before = store(&dir);
    let session = |number: u8| ConsoleSession {
        token_hash: [number; 32],
        user: "anna".into(),
        role: "operator".into(),
        by_link: number == 2,
        address: "2001:db8::1".into(),
        begun: Timestamp(1),
        used: Timestamp(2),
        role_seen: Timestamp(3),
    };
    for number in [1, 2] {
        before.keep_console_session(&session(number)).expect("kept");
    }
    let used = ConsoleSession { used: Timestamp(9), ..session(2) };
    before.keep_console_session(&used).expect("its new state");
    before.forget_console_session(&session(1).token_hash).expect("forgotten");
    before.forget_console_session(&session(1).token_hash).expect("repeated");
    std::mem::forget(before); // as after kill -9: nothing is closed
    assert_eq!(store(&dir).console_sessions().expect("a list"), [used]);
}

#[test]
fn every_setter_is_durable_and_none_speaks_of_a_relationship_that_is_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let before = store(&dir);
    before.set_paused(ID, Some(Timestamp(8))).expect("set");
    before.set_paused_on_peer(ID, true).expect("set");
    before.set_vm_name(ID, "new name").expect("set");
    before.set_home_definition(ID, "<domain/>").expect("set");
    before.set_directory(ID, "/a/directory".as_ref()).expect("set");
    before.set_failure(ID, Some("the link")).expect("set");
    before.set_offline_seal(ID, Some("{}")).expect("set");
    before.set_synchronized(ID, Timestamp(9)).expect("set");
    let notice = |severity| Notice { severity, what: "what".into(), cure: "cure".into() };
    let notices = [notice(Health::Warning), notice(Health::Critical)];
    before.set_notices(ID, &notices).expect("set");
    before.set_seen(ID, "{}").expect("set");
    before.confirm_boot(ID, "a boot").expect("set");
    let expected = before.relationship(ID).expect("a read").expect("a row");
    std::mem::forget(before);
    let store = store(&dir);
    assert_eq!(store.relationship(ID).expect("a read"), Some(expected.clone()));
    assert_eq!(expected.notices, notices);
    assert_eq!(expected.confirmed_boot.as_deref(), Some("a boot"));

    store.remove_relationship(ID).expect("removed");
    store.remove_relationship(ID).expect("repeated");
    assert!(matches!(store.set_paused(ID, None), Err(StoreError::NoRelationship(ID))));
    assert!(matches!(store.set_phase(ID, &Phase::Receiving), Err(StoreError::NoRelationship(ID))));
    assert!(store.add_point(ID, &point(0), Timestamp(1)).is_err());
}

#[test]
fn the_last_point_is_the_head_and_a_primary_forgets_old_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.set_failure(ID, Some("the link")).expect("set");
    for ordinal in 0..70 {
        store.add_point(ID, &point(ordinal), Timestamp(ordinal)).expect("added");
        store.add_point(ID, &point(ordinal), Timestamp(ordinal)).expect("repeated");
        store.forget_old_points(ID, &point(ordinal)).expect("forgotten");
    }
    let points = store.points(ID).expect("points");
    assert_eq!(points.last(), Some(&point(69)));
    assert!(points.windows(2).all(|pair| pair[0].ordinal + 1 == pair[1].ordinal));
    assert_eq!(points.first().map(|point| point.ordinal), Some(5));
    let record = store.relationship(ID).expect("a read").expect("a row");
    assert_eq!((record.last_failure, record.last_synchronized), (None, Some(Timestamp(69))));
}

#[test]
fn the_points_of_a_replica_are_those_that_its_files_hold_and_the_head_is_never_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    for ordinal in 0..5 {
        store.add_point(ID, &point(ordinal), Timestamp(ordinal)).expect("added");
    }
    let tagged = RecoveryPoint { tag: Some("before the upgrade".into()), ..point(7) };
    let check = |held: &[RecoveryPoint], expected: &[RecoveryPoint]| {
        for _ in 0..2 {
            store.set_points(ID, held).expect("set");
            assert_eq!(store.points(ID).expect("points"), expected);
        }
    };
    check(&[point(1), point(4)], &[point(1), point(4)]);
    check(&[point(0), point(3), point(4)], &[point(0), point(3), point(4)]);
    check(&[point(3)], &[point(3), point(4)]);
    check(&[point(4), tagged.clone()], &[point(4), tagged.clone()]);
    check(&[], &[tagged]);
}

#[test]
fn a_freeze_is_known_until_it_was_thawed_and_its_result_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let before = store(&dir);
    assert_eq!(before.last_freeze(ID).expect("a read"), None);
    before.begin_freeze(ID, Timestamp(5)).expect("begun");
    std::mem::forget(before);
    let store = store(&dir);
    assert_eq!(store.frozen().expect("a list"), [ID]);
    store.end_freeze(ID).expect("ended");
    store.end_freeze(ID).expect("repeated");
    assert!(store.frozen().expect("a list").is_empty());
    store.set_freeze_result(ID, Timestamp(6), Some("no agent")).expect("kept");
    store.begin_freeze(ID, Timestamp(7)).expect("begun");
    let last = store.last_freeze(ID).expect("a read").expect("a row");
    assert_eq!((last.tried, last.failure.as_deref()), (Timestamp(7), Some("no agent")));
    store.set_freeze_result(ID, Timestamp(8), None).expect("kept");
    assert_eq!(store.last_freeze(ID).expect("a read").and_then(|last| last.failure), None);
    store.remove_relationship(ID).expect("removed");
    assert!(store.frozen().expect("a list").is_empty());
}

#[test]
fn one_operation_at_a_time_and_lines_are_kept_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let intent = entry(Mark::Intent(Step::Check));
    store.begin_operation(&operation(7), std::slice::from_ref(&intent)).expect("begun");
    store.begin_operation(&operation(7), std::slice::from_ref(&intent)).expect("repeated");
    assert!(matches!(store.begin_operation(&operation(8), &[]), Err(StoreError::Denied(Denied::Busy(_)))));
    assert!(matches!(store.remove_relationship(ID), Err(StoreError::Denied(Denied::Busy(_)))));
    let found = store.open_operation(ID).expect("a read");
    assert_eq!(found, Some((operation(7), vec![intent])));
    let ended = entry(Mark::Ended(Outcome::Completed));
    assert!(!store.has_ended(OperationId(id(7))).expect("a read"));
    store.end_operation(OperationId(id(7)), &ended).expect("ended");
    assert!(store.has_ended(OperationId(id(7))).expect("a read"));
    store.begin_operation(&operation(8), &[]).expect("the next one");
    assert_eq!(store.operations(None, None, 10).expect("a list").len(), 2);
}

#[test]
fn a_peer_that_never_stops_telling_does_not_fill_the_disk_and_our_own_lines_still_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.begin_operation(&operation(7), &[]).expect("begun");
    let told = |number: u64| Entry { at: Timestamp(number), ..entry(Mark::Intent(Step::Check)) };
    let flood: Vec<Entry> = (0..10_000).map(told).collect();
    for _ in 0..2 {
        store.append_peers_entries(OperationId(id(7)), &flood).expect("taken");
    }
    store.append_entries(OperationId(id(7)), &[told(20_000)]).expect("our own");
    let (_, journal) = store.operation(OperationId(id(7))).expect("a read").expect("it is there");
    assert_eq!(journal.len(), 4097);
    assert_eq!(journal.last(), Some(&told(20_000)));
}

#[test]
fn an_operation_that_is_announced_again_and_again_does_not_fill_the_disk_either() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let told = |number: u64| Entry { at: Timestamp(number), ..entry(Mark::Intent(Step::Check)) };
    for number in 0..3 {
        let flood: Vec<Entry> = (number * 2000..(number + 1) * 2000).map(told).collect();
        store.begin_peers_operation(&operation(7), &flood).expect("begun, or repeated");
    }
    let (_, journal) = store.operation(OperationId(id(7))).expect("a read").expect("it is there");
    assert_eq!(journal.len(), 4096);
}

#[test]
fn the_id_of_another_operation_is_refused_whoever_announces_it_or_hands_over_by_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let other = Relationship { id: RelationshipId(id(9)), vm: VmId(id(99)), ..relationship() };
    store.insert_relationship(&other, None).expect("a relationship");
    store.begin_operation(&operation(7), &[]).expect("begun");
    let before = store.operation(OperationId(id(7))).expect("a read");
    let theirs = Operation { relationship: other.id, ..operation(7) };
    let alone = Operation { procedure: Procedure::Failover, ..operation(7) };
    let ended = entry(Mark::Ended(Outcome::Undone));
    let phase = Phase::Unprotected { since: Timestamp(9) };
    for another in [theirs, alone] {
        let begun = store.begin_peers_operation(&another, std::slice::from_ref(&ended));
        assert!(matches!(begun, Err(StoreError::OtherOperation(_))), "{begun:?}");
        let taken = store.hand_over(&another, &[], &phase, &ended);
        assert!(matches!(taken, Err(StoreError::OtherOperation(_))), "{taken:?}");
    }
    assert_eq!(store.operation(OperationId(id(7))).expect("a read"), before);
}

#[test]
fn a_token_is_good_once_and_in_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let (good, old) = ([1; 32], [2; 32]);
    store.add_invite(&good, Timestamp(100), Timestamp(0)).expect("an invite");
    store.add_invite(&old, Timestamp(50), Timestamp(0)).expect("an invite");
    let admit = |hash: &[u8; 32], number| store.admit(hash, Timestamp(50), &peer(number)).expect("a verdict");
    assert_eq!(admit(&[3; 32], 10), InviteVerdict::Unknown);
    assert_eq!(admit(&old, 10), InviteVerdict::Expired);
    assert!(store.peers().expect("a list").is_empty(), "nobody is pinned by a bad token");
    let accepted = std::thread::scope(|scope| {
        let (admit, good) = (&admit, &good);
        let all: Vec<_> = (10..14).map(|number| scope.spawn(move || admit(good, number))).collect();
        let verdicts: Vec<_> = all.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        verdicts.into_iter().filter(|verdict| *verdict == InviteVerdict::Accepted).count()
    });
    assert_eq!((accepted, store.peers().expect("a list").len()), (1, 1));
    assert_eq!(admit(&good, 20), InviteVerdict::Used);
}

#[test]
fn a_peer_is_found_by_both_certificates_and_kept_while_it_is_needed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.add_peer(&peer(3)).expect("a peer");
    store.add_peer(&peer(4)).expect("a peer");
    let host = HostId(id(3));
    store.set_next_certificate(host, b"next").expect("announced");
    let by = |der: &[u8]| store.peer_by_certificate(der).expect("a read").map(|peer| peer.host);
    assert_eq!((by(&[3; 9]), by(b"next"), by(b"stranger")), (Some(host), Some(host), None));
    store.promote_certificate(host).expect("promoted");
    store.promote_certificate(host).expect("repeated");
    assert_eq!((by(&[3; 9]), by(b"next")), (None, Some(host)));
    assert!(matches!(store.remove_peer(host), Err(StoreError::PeerInUse)));
    store.remove_peer(HostId(id(4))).expect("removed");
    assert_eq!(store.peer(HostId(id(4))).expect("a read"), None);
}

#[test]
fn the_hosts_identity_is_made_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = store(&dir).host_identity(HostId(id(50))).expect("an id");
    let second = store(&dir).host_identity(HostId(id(51))).expect("an id");
    assert_eq!((first, second), (HostId(id(50)), HostId(id(50))));
}

#[test]
fn cycles_and_events_come_back_and_go_when_they_are_old() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    for (begun, outcome) in
        [(1, CycleOutcome::Acknowledged), (2, CycleOutcome::Failed), (3, CycleOutcome::Missed)]
    {
        let (begun, latency) = (Timestamp(begun), Duration::from_millis(7));
        let cycle = CycleRecord { begun, latency, bytes: 5, sent_bytes: Some(3), outcome };
        store.add_cycle(ID, &cycle, Timestamp(2)).expect("added");
    }
    let cycles = store.cycles_since(ID, Timestamp(0)).expect("a list");
    let outcomes: Vec<_> = cycles.iter().map(|cycle| cycle.outcome).collect();
    assert_eq!(outcomes, [CycleOutcome::Failed, CycleOutcome::Missed]);
    assert!(cycles.iter().all(|cycle| (cycle.bytes, cycle.sent_bytes) == (5, Some(3))));
    store.reset_statistics(ID).expect("reset");
    assert!(store.cycles_since(ID, Timestamp(0)).expect("a list").is_empty());

    for (number, vm) in [(100, Some("one")), (101, Some("two")), (102, None)] {
        let (at, text) = (Timestamp(1), "it happened".to_owned());
        let (severity, vm_name) = (EventSeverity::Warning, vm.map(str::to_owned));
        store.add_event(&Event { sequence: 0, at, number, severity, vm_name, text }).expect("kept");
    }
    let numbers = |of, between, limit| -> Vec<u32> {
        let events = store.events(of, between, limit).expect("a list");
        events.iter().map(|event| event.number).collect()
    };
    assert_eq!(numbers(EventsOf::All, (0, u64::MAX), 2), [101, 102], "the newest, oldest first");
    assert_eq!(numbers(EventsOf::All, (1, 9), 9), [101, 102]);
    assert_eq!(numbers(EventsOf::Vm("one"), (0, 9), 9), [100]);
    assert_eq!(numbers(EventsOf::All, (0, 3), 1), [101], "the page before");
    assert_eq!(numbers(EventsOf::Relationships(&[]), (0, 9), 9), Vec::<u32>::new());
}

#[test]
fn a_relationship_has_the_events_since_it_began_and_not_those_of_an_older_vm_of_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    let happened = |number, vm: &str| {
        let (at, text, vm_name) = (Timestamp(1), "it happened".to_owned(), Some(vm.to_owned()));
        let event = Event { sequence: 0, at, number, severity: EventSeverity::Info, vm_name, text };
        store.add_event(&event).expect("kept");
    };
    let of = |id| -> Vec<u32> {
        let events = store.events(EventsOf::Relationships(&[id]), (0, 9), 9).expect("a list");
        events.iter().map(|event| event.number).collect()
    };
    happened(100, "old");
    let record = store.relationship(ID).expect("a read").expect("a record");
    happened(101, &record.relationship.vm_name);
    // The VM, or a peer that sends its definition, takes the name of one that was there before.
    store.set_vm_name(ID, "old").expect("renamed");
    happened(102, "old");
    assert_eq!(of(ID), [101, 102]);
    let other = RelationshipId(id(77));
    let second = Relationship { id: other, vm: VmId(id(78)), vm_name: "old".into(), ..relationship() };
    store.insert_relationship(&second, None).expect("inserted");
    happened(103, "old");
    assert_eq!((of(ID), of(other)), (vec![101, 102], vec![]), "of which of the two is not known");
}

#[test]
fn what_waits_is_the_last_word_of_the_primary_and_goes_with_the_relationship() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    assert_eq!(store.pending(ID).expect("a read"), None);
    for bytes in [7, u64::MAX >> 1] {
        let pending = Pending { bytes, at: Timestamp(bytes) };
        store.set_pending(ID, &pending).expect("a write");
        assert_eq!(store.pending(ID).expect("a read"), Some(pending));
    }
    store.remove_relationship(ID).expect("removed");
    assert_eq!(store.pending(ID).expect("a read"), None);
}

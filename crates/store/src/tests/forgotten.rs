//! Of a relationship that ended here stays what the other host's stale copy must hear, until that has ended too.

use choreography::authority::{Denied, Forgotten};
use choreography::{Mark, Outcome};
use domain::{Epoch, Phase, RelationshipId, Role, Timestamp};

use super::{entry, id, operation, relationship, store};
use crate::forgotten::Ended;
use crate::{Guard, GuardVerdict, IfStale, Store, StoreError};

const ID: fn() -> RelationshipId = || RelationshipId(id(1));

#[test]
fn epoch_and_role_outlive_the_relationship_and_the_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let primary = store(&dir);
    let phase = Phase::FailedOver { since: Timestamp(6), point: domain::fixture::point(1).id, timer: None };
    let done = entry(Mark::Done(choreography::Step::TakeOver, String::new()));
    primary.begin_operation(&operation(7), &[]).expect("begun");
    primary.take_over(&operation(7), &phase, &done).expect("taken");
    let busy = primary.forget_relationship(ID(), IfStale::StaysOff);
    assert!(matches!(busy, Err(StoreError::Denied(Denied::Busy(_)))), "{busy:?}");
    assert_eq!(primary.ended(ID()).expect("read"), None);
    primary.end_operation(operation(7).id, &entry(Mark::Ended(Outcome::Completed))).expect("ended");
    for _ in 0..2 {
        primary.forget_relationship(ID(), IfStale::StaysOff).expect("forgotten");
    }
    drop(primary);

    let store = Store::open(&dir.path().join("state.db")).expect("a store");
    assert_eq!(store.relationship(ID()).expect("read"), None);
    let was = Forgotten { epoch: Epoch::FIRST.next(), role: Role::Primary };
    let ended = Ended { vm: relationship().vm, peer: relationship().peer, was };
    assert_eq!(store.ended(ID()).expect("read"), Some(ended));
    store.forget_ended(ID()).expect("gone");
    assert_eq!(store.ended(ID()).expect("read"), None);
}

#[test]
fn nothing_is_kept_of_one_that_never_came_to_be_and_nothing_for_a_peer_that_is_removed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&dir);
    store.remove_relationship(ID()).expect("removed");
    assert_eq!(store.ended(ID()).expect("read"), None);
    store.insert_relationship(&relationship(), None).expect("once more");
    store.forget_relationship(ID(), IfStale::StaysOff).expect("forgotten");
    assert!(store.ended(ID()).expect("read").is_some_and(|ended| ended.was.role == Role::Replica));
    store.remove_peer(relationship().peer).expect("removed");
    assert_eq!(store.ended(ID()).expect("read"), None);
}

#[test]
fn a_stale_copy_stays_off_when_its_relationship_ends_until_a_person_frees_it_or_it_is_replicated_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = super::primary(&dir);
    let (vm, name) = (relationship().vm, relationship().vm_name);
    let verdict = || {
        let guard = Guard::open(&dir.path().join("state.db")).expect("it opens").expect("there is one");
        let by_id = guard.verdict(vm).expect("a verdict");
        assert_eq!(by_id, guard.verdict_by_name(&name).expect("a verdict"));
        by_id
    };
    let is_refused = || match verdict() {
        GuardVerdict::Refused(line) => {
            assert!(line.contains("virt-replica remove --this-host-only") && !line.contains('\n'), "{line}");
            true
        }
        other => {
            assert_eq!(other, GuardVerdict::NotProtected);
            false
        }
    };
    let superseded = || store.hear(ID(), true, Epoch::FIRST.next()).expect("heard");
    let end = |if_stale| store.forget_relationship(ID(), if_stale).expect("forgotten");
    let again = |phase: Phase| {
        let new = domain::Relationship { phase, ..relationship() };
        store.insert_relationship(&new, None).expect("once more");
    };

    end(IfStale::StaysOff);
    assert!(!is_refused(), "nobody had taken it over");
    again(Phase::Replicating);
    superseded();
    end(IfStale::StaysOff);
    store.forget_ended(ID()).expect("the other side ended it, too");
    store.remove_peer(relationship().peer).expect("removed");
    assert!(is_refused());
    let kept = store.stale_copy(&name).expect("read").expect("a stale copy");
    assert_eq!(Some(&kept), store.stale_copy(&vm.to_string()).expect("read").as_ref());
    store.free_stale_copy(vm).expect("freed");
    assert!(!is_refused());

    again(Phase::Replicating);
    superseded();
    end(IfStale::StaysOff);
    again(Phase::Receiving);
    store.remove_relationship(ID()).expect("removed");
    assert!(!is_refused(), "it was a replica since");
    again(Phase::Replicating);
    superseded();
    end(IfStale::MayStart);
    assert!(!is_refused(), "a person gave the other host up");
}

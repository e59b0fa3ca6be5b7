//! Of a relationship that ended here stays what the other host's stale copy must hear, until that has ended too.

use choreography::authority::{Denied, Forgotten};
use choreography::{Mark, Outcome};
use domain::{Epoch, Phase, RelationshipId, Role, Timestamp};

use super::{entry, id, operation, relationship, store};
use crate::forgotten::Ended;
use crate::{Store, StoreError};

const ID: fn() -> RelationshipId = || RelationshipId(id(1));

#[test]
fn epoch_and_role_outlive_the_relationship_and_the_daemon() {
    let dir = tempfile::tempdir().expect("a directory");
    let primary = store(&dir);
    let phase = Phase::FailedOver { since: Timestamp(6), point: domain::fixture::point(1).id, timer: None };
    let done = entry(Mark::Done(choreography::Step::TakeOver, String::new()));
    primary.begin_operation(&operation(7), &[]).expect("begun");
    primary.take_over(&operation(7), &phase, &done).expect("taken");
    let busy = primary.forget_relationship(ID());
    assert!(matches!(busy, Err(StoreError::Denied(Denied::Busy(_)))), "{busy:?}");
    assert_eq!(primary.ended(ID()).expect("read"), None);
    primary.end_operation(operation(7).id, &entry(Mark::Ended(Outcome::Completed))).expect("ended");
    for _ in 0..2 {
        primary.forget_relationship(ID()).expect("forgotten");
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
    store.forget_relationship(ID()).expect("forgotten");
    assert!(store.ended(ID()).expect("read").is_some_and(|ended| ended.was.role == Role::Replica));
    store.remove_peer(relationship().peer).expect("removed");
    assert_eq!(store.ended(ID()).expect("read"), None);
}

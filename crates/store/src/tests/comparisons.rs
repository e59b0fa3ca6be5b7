//! What was asked for stays asked for until it is done, also when two things are asked for at once.

use domain::{Doubt, Epoch, RelationshipId, Timestamp};

use super::{id, store};
use crate::Comparisons;

#[test]
fn wishes_are_kept_apart_and_end_with_what_fulfils_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let relationship = RelationshipId(id(1));
    let before = store(&dir);
    assert_eq!(before.comparisons(relationship).expect("a read"), Comparisons::default());
    before.want_resynchronization(relationship, "a person").expect("a write");
    before.want_verification(relationship, Timestamp(5)).expect("a write");
    std::mem::forget(before); // as after kill -9
    let store = store(&dir);
    let now = || store.comparisons(relationship).expect("a read");
    let both = Comparisons {
        resynchronize: Some("a person".into()),
        verify_since: Some(Timestamp(5)),
        ..Comparisons::default()
    };
    assert_eq!(now(), both);
    store.begin_resynchronization(relationship).expect("a write");
    store.resynchronized(relationship).expect("a write");
    assert_eq!(now(), Comparisons { resynchronize: None, ..both });
    store.mismatched(relationship, "2 blocks").expect("a write");
    let wrong = Comparisons { mismatch: Some("2 blocks".to_owned()), ..Comparisons::default() };
    assert_eq!(now(), wrong);
    store.begin_resynchronization(relationship).expect("a write");
    store.resynchronized(relationship).expect("a write");
    store.verified(relationship, Timestamp(9)).expect("a write");
    assert_eq!(now(), Comparisons { verified: Some(Timestamp(9)), ..Comparisons::default() });
    store.remove_relationship(relationship).expect("a write");
    assert_eq!(now(), Comparisons::default());
}

#[test]
fn that_a_replica_could_not_be_verified_is_remembered_until_it_was_read_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relationship, store) = (RelationshipId(id(1)), store(&dir));
    let now = || store.comparisons(relationship).expect("a read").unverified;
    let failed = || {
        store.want_verification(relationship, Timestamp(5)).expect("a write");
        store.unverified(relationship, Timestamp(7), Some("a file is missing")).expect("a write");
        assert_eq!(now(), Some((Timestamp(7), Some("a file is missing".to_owned()))));
        assert_eq!(store.comparisons(relationship).expect("a read").verify_since, None);
    };
    failed();
    store.verified(relationship, Timestamp(8)).expect("a write");
    assert_eq!(now(), None);
    failed();
    store.mismatched(relationship, "2 blocks").expect("a write");
    assert_eq!(now(), None, "what was found says more");
    failed();
    store.begin_resynchronization(relationship).expect("a write");
    store.resynchronized(relationship).expect("a write");
    assert_eq!(now(), None);
    store.unverified(relationship, Timestamp(9), None).expect("a write");
    assert_eq!(now(), Some((Timestamp(9), None)), "the replica is not to blame");
}

#[test]
fn what_is_wanted_after_the_freeze_of_a_resynchronization_stays_wanted_past_its_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relationship, before) = (RelationshipId(id(1)), store(&dir));
    before.want_resynchronization(relationship, "a person").expect("a write");
    before.begin_resynchronization(relationship).expect("a write");
    before.want_resynchronization(relationship, "disk vda shrank").expect("a write");
    drop(before);
    let store = store(&dir);
    let wanted = || store.comparisons(relationship).expect("a read").resynchronize;
    store.resynchronized(relationship).expect("a write");
    assert_eq!(wanted().as_deref(), Some("disk vda shrank"));
    store.begin_resynchronization(relationship).expect("a write");
    store.resynchronized(relationship).expect("a write");
    assert_eq!(wanted(), None);
}

#[test]
fn what_is_doubted_outlives_the_daemon_and_the_newest_word_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relationship, before) = (RelationshipId(id(1)), store(&dir));
    assert_eq!(before.doubt(relationship).expect("a read"), None);
    let doubt = |ordinal| Doubt { epoch: Epoch::FIRST, ordinal, what: format!("{ordinal} blocks") };
    for ordinal in [2, 5] {
        before.set_doubt(relationship, &doubt(ordinal)).expect("a write");
    }
    drop(before);
    let store = store(&dir);
    store.resynchronized(relationship).expect("what repairs the newest point repairs none below it");
    assert_eq!(store.doubt(relationship).expect("a read"), Some(doubt(5)));
}

#[test]
fn an_import_outlives_the_daemon_and_there_is_one_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let (relationship, before) = (RelationshipId(id(1)), store(&dir));
    let [first, second] = ["/carried/one.vrdelta", "/carried/two.vrdelta"].map(std::path::Path::new);
    assert!(before.begin_import(relationship, first).expect("a write"));
    assert!(!before.begin_import(relationship, second).expect("a write"), "one is being taken already");
    drop(before);
    let store = store(&dir);
    assert_eq!(store.imports().expect("a read"), [(relationship, first.to_owned())]);
    store.end_import(relationship).expect("a write");
    assert!(store.begin_import(relationship, second).expect("a write"));
    store.remove_relationship(relationship).expect("a write");
    assert_eq!(store.imports().expect("a read"), []);
}

//! What was written is there after the process died, is as it was, and repeating a method changes nothing.

mod audit;
mod authority;
mod comparisons;
mod failover;
mod forgotten;
mod guard;
mod records;
mod schema;
mod test_failovers;

use choreography::{Entry, Mark, Operation, Options, Procedure, Side};
use domain::{Epoch, HostId, OperationId, Phase, Relationship, RelationshipId, Settings, Timestamp, fixture};
use uuid::Uuid;

use super::Store;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// Whatever can be chosen is chosen.
fn relationship() -> Relationship {
    let of_default = fixture::relationship(Phase::Receiving);
    let settings = Settings {
        rate_limit_bytes_per_second: Some(7),
        network_map: vec![("br0".into(), "br1".into())],
        retention: "12xall,24x1h,7x1d".parse().expect("a retention"),
        application_consistent_every: Some(std::time::Duration::from_secs(3600)),
        new_disks: domain::NewDisks::Warn,
        ..of_default.settings
    };
    Relationship { settings, ..of_default }
}

fn operation(number: u128) -> Operation {
    Operation {
        id: OperationId(id(number)),
        procedure: Procedure::PlannedFailover,
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

/// A store in which this host is primary.
fn primary(dir: &tempfile::TempDir) -> Store {
    let store = Store::open(&dir.path().join("state.db")).expect("a store");
    let relationship = Relationship { phase: Phase::Replicating, ..relationship() };
    store.insert_relationship(&relationship, None).expect("a relationship");
    store
}

fn standing(store: &Store) -> (Epoch, Phase) {
    let record = store.relationship(RelationshipId(id(1))).expect("a read").expect("a row");
    (record.relationship.epoch, record.relationship.phase)
}

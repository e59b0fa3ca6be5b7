//! What the other host asks of this one, and is refused: nothing here has changed then.

use std::path::PathBuf;

use bytes::Bytes;
use choreography::{Entry, Mark, Operation, Options, Outcome, Procedure, Side, Step};
use domain::fixture::vda;
use domain::{DiskChoice, HostId, OperationId, RelationshipId, Settings, Timestamp};
use layer::{Backing, BackingFormat, Manifest, ManifestDisk, ReplicaDirectory, Storage};
use transport::PeerHandler;
use uuid::Uuid;
use wire::message::form::{CheckForm, EntryForm, OperationForm, PointForm, SettingsForm};
use wire::message::{Answer, DiskRequirement, Request, Requirements};

use crate::host::{Host, SIZE, VM, disk, with_host_alone};
use crate::hypervisor::Form;

fn needs(vm: u128, name: &str, disks: Vec<DiskRequirement>) -> Requirements {
    let form = Form { id: Uuid::from_u128(vm), name: name.into(), disk: "/there.qcow2".into() };
    Requirements {
        vm: form.id,
        name: name.into(),
        domain_xml: serde_json::to_string(&form).expect("plain data"),
        memory_bytes: 1,
        disks,
        bridges: Vec::new(),
        networks: Vec::new(),
        relationship: None,
    }
}

fn disk_of(virtual_size: u64, replicated: bool) -> DiskRequirement {
    DiskRequirement { target: "vda".into(), virtual_size, allocated_bytes: None, replicated }
}

fn enable(relationship: u128, requirements: Requirements) -> Request {
    let choice = match requirements.disks.iter().all(|disk| disk.replicated) {
        true => DiskChoice::Replicated,
        false => DiskChoice::Excluded,
    };
    let settings = SettingsForm::from(&Settings::of(vec![(vda(), choice)]));
    let relationship = Uuid::from_u128(relationship);
    Request::Enable { relationship, epoch: 1, settings, requirements, seeds: Vec::new() }
}

fn remove(relationship: u128, delete_replica: bool) -> Request {
    Request::Remove { relationship: Uuid::from_u128(relationship), epoch: 1, delete_replica }
}

/// What lies in the storage of a relationship.
fn files_of(host: &Host, relationship: u128) -> Option<PathBuf> {
    let storage = Storage::open(&disk(host.base()).join("storage")).expect("storage");
    storage.of_relationship(RelationshipId(Uuid::from_u128(relationship))).expect("listed")
}

fn is_known(host: &Host, relationship: u128) -> bool {
    let id = RelationshipId(Uuid::from_u128(relationship));
    host.engine.store().relationship(id).expect("readable").is_some()
}

#[test]
fn a_directory_whose_base_is_a_disk_of_this_host_never_becomes_a_peers_replica() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        // As it is left when the VM went away once, came home, and its relationship ended.
        let own = base.path().join("own.qcow2");
        std::fs::write(&own, "the user's").expect("written");
        let backing = Backing::new(own.to_str().expect("text"), BackingFormat::Qcow2).expect("a base");
        let manifest = Manifest {
            vm_name: "at home".into(),
            vm: Uuid::from_u128(70).into(),
            relationship: Uuid::from_u128(77).into(),
            disks: vec![ManifestDisk::on(vda(), SIZE, backing)],
            points: Vec::new(),
            autostart: false,
        };
        let storage = Storage::open(&disk(host.base()).join("storage")).expect("storage");
        let kept = ReplicaDirectory::create(&storage, manifest).expect("a directory");
        let file = kept.path().join("manifest.json");
        let before = std::fs::read(&file).expect("readable");
        for name in ["at home", "at/home", "at:home", "elsewhere"] {
            let again = enable(77, needs(78, name, vec![disk_of(SIZE, true)]));
            let refused = host.asked(&again).await.expect_err("refused");
            assert!(refused.contains("lie on the replica server already"), "{name}: {refused}");
            host.asked(&remove(77, true)).await.expect("nothing is there for the peer");
            assert!(!is_known(host, 77), "{name}");
            assert_eq!(std::fs::read(&file).expect("readable"), before, "{name}");
        }
        assert_eq!(std::fs::read(&own).expect("readable"), b"the user's");
    });
}

#[test]
fn what_a_person_kept_of_a_replica_is_neither_used_nor_deleted_by_a_peer_that_asks_for_it_again() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        let good = enable(79, needs(78, "vm2", vec![disk_of(SIZE, true)]));
        host.asked(&good).await.expect("a replica");
        host.asked(&good).await.expect("a repetition is no error");
        host.asked(&remove(79, false)).await.expect("removed, and kept");
        let kept = files_of(host, 79).expect("kept");
        let before = std::fs::read(kept.join("manifest.json")).expect("readable");
        let bad = enable(79, needs(78, "vm2", vec![disk_of(7, false)]));
        for again in [good, bad] {
            assert!(host.asked(&again).await.is_err());
            host.asked(&remove(79, true)).await.expect("nothing is there for the peer");
            assert_eq!(std::fs::read(kept.join("manifest.json")).expect("readable"), before);
        }
    });
}

#[test]
fn of_a_replica_that_cannot_be_made_nothing_stays() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        let refused = host.asked(&enable(79, needs(78, "vm2", vec![disk_of(7, false)]))).await;
        let refused = refused.expect_err("no disk has seven bytes");
        assert!(refused.contains("a disk of 7 bytes"), "{refused}");
        assert_eq!((files_of(host, 79), is_known(host, 79)), (None, false));
    });
}

fn announced(host: &Host, procedure: Procedure) -> Operation {
    let record = host.record();
    Operation {
        id: OperationId(Uuid::from_u128(50)),
        procedure,
        relationship: record.relationship.id,
        old_primary: host.peer.host,
        side: Side::NewPrimary,
        proposed_epoch: record.relationship.epoch.next(),
        options: Options { force: true, destroy: true, ..Options::default() },
        requested_by: "somebody".into(),
        begun: Timestamp(1),
    }
}

#[test]
fn a_peer_begins_no_failover_here_and_writes_no_lines_in_our_name() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        host.receive_next().await.expect("received");
        let before = host.record().relationship;
        let head = PointForm::from(&host.head().expect("a point"));
        let line = |host, mark| EntryForm::from(&Entry { at: Timestamp(1), host, mark });
        let there = Mark::Done(Step::Check, "it is well".into());
        let entries = vec![
            line(host.peer.host, there.clone()),
            line(host.engine.host(), Mark::Done(Step::Start, "it runs".into())),
            line(host.peer.host, Mark::Done(Step::HandOver, "taken".into())),
            line(host.peer.host, Mark::Ended(Outcome::Completed)),
        ];
        let store = host.engine.store();
        let alone = Procedure::ALL.into_iter().filter(|procedure| procedure.is_solitary());
        let mut wrong: Vec<Operation> = alone.map(|procedure| announced(host, procedure)).collect();
        let planned = announced(host, Procedure::PlannedFailover);
        wrong.push(Operation { old_primary: HostId(Uuid::from_u128(9)), ..planned.clone() });
        for operation in wrong {
            let operation = OperationForm::from(&operation);
            let announce = Request::Announce { operation: operation.clone(), entries: entries.clone() };
            let hand_over = Request::HandOver {
                operation: operation.clone(),
                entries: entries.clone(),
                head: head.clone(),
            };
            for request in [announce, hand_over] {
                let refused = host.asked(&request).await.expect_err("refused");
                assert!(refused.contains("does not understand"), "{refused}");
            }
            let known = store.operation(OperationId(operation.id)).expect("readable");
            assert!(known.is_none(), "{known:?}");
        }
        assert_eq!(host.record().relationship, before);
        // What both hosts do together is announced as ever, without the options that are a person's here.
        let operation = OperationForm::from(&planned);
        host.asked(&Request::Announce { operation, entries }).await.expect("announced");
        let (kept, journal) = store.operation(planned.id).expect("readable").expect("begun");
        assert_eq!(kept.options, Options::default());
        let marks: Vec<Mark> = journal.into_iter().map(|entry| entry.mark).collect();
        assert!(marks.contains(&there), "{marks:?}");
        let ours = |mark: &Mark| matches!(mark, Mark::Done(Step::Start | Step::HandOver, _) | Mark::Ended(_));
        assert!(!marks.iter().any(ours), "{marks:?}");
    });
}

async fn failures(host: &Host, requirements: Requirements) -> Vec<(String, String)> {
    let message = serde_json::to_vec(&Request::Survey { requirements }).expect("plain data");
    let answer = host.engine.command(host.peer.clone(), Bytes::from(message)).await;
    let answer = serde_json::from_slice(&answer.expect("answered")).expect("an answer");
    let Answer::Survey { checks } = answer else { panic!("{answer:?}") };
    checks.into_iter().filter_map(|CheckForm { failure, .. }| failure).collect()
}

#[test]
fn a_peer_hears_that_a_name_or_a_uuid_is_taken_and_not_what_has_it() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        let vm = host.record().relationship.vm.to_string();
        let [(found, cure)] = &failures(host, needs(99, VM, Vec::new())).await[..] else {
            panic!("the name is taken, and nothing else")
        };
        assert!(found.contains("the name \"vm\" is taken on alone"), "{found}");
        assert!(
            cure.contains("virsh domrename vm NEWNAME") && !(found.contains(&vm) || cure.contains(&vm)),
            "{cure}"
        );
        // It is the VM of a relationship and the name of another.
        let id = host.record().relationship.vm.0.as_u128();
        let [(found, cure)] = &failures(host, needs(id, "guess", Vec::new())).await[..] else {
            panic!("the UUID is taken, and nothing else")
        };
        assert_eq!(found, &format!("the UUID {vm} is taken on alone"));
        assert!(!cure.contains(&format!(" {VM} ")) && !cure.contains(&format!("{VM:?}")), "{cure}");
    });
}

#[test]
fn numbers_of_a_peer_that_have_no_sum_and_more_disks_than_a_vm_has_are_refused() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        let disk = |number: u128| DiskRequirement {
            target: format!("vd{number}"),
            allocated_bytes: Some(u64::MAX),
            ..disk_of(SIZE, true)
        };
        let two = failures(host, needs(99, "vm2", (0..2).map(disk).collect())).await;
        assert!(two.iter().any(|(found, _)| found.contains("are to be stored")), "{two:?}");
        let many = needs(99, "vm2", (0..65).map(disk).collect());
        let twice = needs(99, "vm2", vec![disk_of(SIZE, true), disk_of(SIZE, true)]);
        for wrong in [many, twice] {
            for request in [Request::Survey { requirements: wrong.clone() }, enable(79, wrong)] {
                let refused = host.asked(&request).await.expect_err("refused");
                assert!(refused.contains("sent disks ="), "{refused}");
            }
        }
        assert_eq!((files_of(host, 79), is_known(host, 79)), (None, false));
    });
}

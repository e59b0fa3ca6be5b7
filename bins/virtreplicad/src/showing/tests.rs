//! A host that is paired with two others: each is answered about what it has part in, and about nothing else.
//!
//! Real engine, store and TLS. Nothing here needs libvirt: whoever asks it is told that it is not there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::dto::{self, Paged};
use choreography::{Entry, Mark, Operation, Options, Procedure, Side, Step};
use domain::{Epoch, HostId, OperationId, Phase, Relationship, RelationshipId, Timestamp, fixture};
use engine::Engine;
use futures_util::stream;
use libvirt::Libvirt;
use store::{Event, EventSeverity, Store};
use transport::{
    BoxError, ClientOptions, DeltaOptions, Identity, Introduction, MemoryTrust, PeerClient, PeerRecord,
    PeerServer, ServerOptions, TransportError, TrustStore,
};
use uuid::Uuid;
use wire::DeltaHeader;
use wire::delta::DeltaDisk;
use wire::message::form::{EntryForm, OperationForm, OptionsForm, PointForm, SettingsForm};
use wire::message::{Answer, Request, Requirements, Unfinished, View, ViewOf};

use super::{Turns, unbelievable};
use crate::changes::Changes;
use crate::service::Daemon;

const SOON: Duration = Duration::from_secs(20);
const AT: Timestamp = Timestamp(1_700_000_000_000);
/// Of the fixture's relationship: who is its other side.
const FRIEND: u128 = 3;
const OTHER: u128 = 9;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    _server: PeerServer,
    friend: PeerClient,
    other: PeerClient,
}

fn relationship() -> Relationship {
    fixture::relationship(Phase::Receiving)
}

fn operation() -> Operation {
    Operation {
        id: OperationId(Uuid::from_u128(7)),
        procedure: Procedure::PlannedFailover,
        relationship: relationship().id,
        old_primary: HostId(Uuid::from_u128(FRIEND)),
        side: Side::NewPrimary,
        proposed_epoch: Epoch::FIRST.next(),
        options: Options::default(),
        requested_by: "root".into(),
        begun: AT,
    }
}

/// The host, with a replica of the first peer's VM and an operation under way; both peers are at its door.
async fn world() -> World {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("state.db")).expect("a store");
    let host = store.host_identity(HostId(Uuid::new_v4())).expect("an identity");
    let relationship = relationship();
    store.insert_relationship(&relationship, None).expect("inserted");
    store.add_point(relationship.id, &fixture::point(1), AT).expect("a point");
    store.begin_operation(&operation(), &[]).expect("begun");
    for (vm_name, text) in [(Some(relationship.vm_name), "of their VM"), (None, "of the host")] {
        let (severity, text) = (EventSeverity::Info, text.to_owned());
        store.add_event(&Event { sequence: 0, at: AT, number: 2001, severity, vm_name, text }).expect("told");
    }

    let place = |name: &str| dir.path().join(name);
    let config = engine::Config {
        host_name: "hvhost01".into(),
        version: "test".into(),
        storage: place("storage"),
        scratch: place("scratch"),
        sockets: place("nbd"),
        hook: place("hook"),
        spool_bytes_max: 1 << 20,
        reports: place("reports"),
        evidence: place("evidence"),
        resynchronizations_max: 1,
        redirect_hooks: place("redirect.d"),
        program: "/bin/true".into(),
        holds: None,
    };
    let now = engine::clock::now();
    let identity = Arc::new(Identity::open_or_create(dir.path(), "hvhost01", now).expect("a key"));
    let trust: Arc<dyn TrustStore> = Arc::new(engine::Trust(store.clone()));
    let hypervisor = Arc::new(Libvirt::new("none:///"));
    let engine = Engine::new(config, host, store.clone(), hypervisor, trust.clone(), identity.clone());
    let own = Introduction { host, name: "hvhost01".into(), address: Some("127.0.0.1".into()), port: 0 };
    let listen: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let (handler, options) = (Arc::new(engine.clone()), ServerOptions::new(own.clone()));
    let server = PeerServer::bind(listen, identity.clone(), trust.clone(), handler, options).await;
    let server = server.expect("listens");
    let here = PeerRecord {
        host,
        name: "hvhost01".into(),
        address: "127.0.0.1".into(),
        port: server.local_address().port(),
        certificate_der: identity.certificate_der(),
        next_certificate_der: None,
        paired_at: AT,
    };
    let paired = |number: u128, name: &str| {
        let identity = Identity::open_or_create(&place(name), name, now).expect("a key");
        let host = HostId(Uuid::from_u128(number));
        let certificate_der = identity.certificate_der();
        trust
            .add_peer(&PeerRecord { host, name: name.into(), certificate_der, ..here.clone() })
            .expect("paired");
        let theirs = MemoryTrust::new();
        theirs.add_peer(&here).expect("paired");
        PeerClient::new(here.host, Arc::new(identity), Arc::new(theirs), ClientOptions::default())
    };
    let (friend, other) = (paired(FRIEND, "friend"), paired(OTHER, "other"));
    let daemon = Daemon {
        changes: Changes::of(&engine),
        showing: Turns::default(),
        door: None,
        engine: engine.clone(),
        identity,
        trust,
        own,
        advertise: Vec::new(),
        listen,
    };
    engine.show_peers(Arc::new(daemon));
    World { _dir: dir, store, _server: server, friend, other }
}

async fn ask(peer: &PeerClient, request: &Request) -> Result<Answer, TransportError> {
    let message = serde_json::to_vec(request).expect("plain data becomes JSON");
    let answer = peer.command(message.into(), SOON).await?;
    Ok(serde_json::from_slice(&answer).expect("an answer"))
}

/// Whether a request is about a relationship. A kind that is new belongs into [`requests`], too.
fn is_about_a_relationship(request: &Request) -> bool {
    match request {
        Request::Hello {} | Request::View(_) => false,
        Request::Survey { .. }
        | Request::Enable { .. }
        | Request::Beliefs { .. }
        | Request::Settings { .. }
        | Request::Paused { .. }
        | Request::PlanFailover { .. }
        | Request::Announce { .. }
        | Request::Abandon { .. }
        | Request::HandOver { .. }
        | Request::Reverse { .. }
        | Request::News { .. }
        | Request::Remove { .. }
        | Request::Points { .. }
        | Request::RemovePoint { .. }
        | Request::LeftToMerge { .. }
        | Request::Digests { .. }
        | Request::Doubt { .. }
        | Request::Pending { .. } => true,
    }
}

/// Everything that can be asked about the relationship.
fn requests(of: RelationshipId) -> Vec<Request> {
    let (relationship, epoch) = (of.0, Epoch::FIRST.number());
    let (point, head) = (fixture::point_id(1).0, PointForm::from(&fixture::point(1)));
    let settings = SettingsForm::from(&self::relationship().settings);
    let operation = OperationForm { relationship, ..OperationForm::from(&self::operation()) };
    let entry =
        Entry { at: AT, host: HostId(Uuid::from_u128(OTHER)), mark: Mark::Done(Step::Check, "x".into()) };
    let entries = vec![EntryForm::from(&entry)];
    let requirements = Requirements {
        vm: self::relationship().vm.0,
        name: "vm".into(),
        domain_xml: "<domain/>".into(),
        memory_bytes: 1,
        disks: Vec::new(),
        bridges: Vec::new(),
        networks: Vec::new(),
        relationship: Some(relationship),
    };
    vec![
        Request::Survey { requirements: requirements.clone() },
        Request::Enable { relationship, epoch, settings: settings.clone(), requirements, seeds: Vec::new() },
        Request::Beliefs {
            relationship,
            epoch: 1000,
            unfinished: Some(Unfinished { point, ordinal: 1 }),
            is_primary: true,
        },
        Request::Settings { relationship, epoch, settings: settings.clone() },
        Request::Paused { relationship, epoch, paused: true },
        Request::PlanFailover {
            relationship,
            epoch,
            options: OptionsForm::from(&Options::default()),
            requested_by: "root".into(),
            dry_run: false,
        },
        Request::Announce { operation: operation.clone(), entries: entries.clone() },
        Request::Abandon { operation: operation.id, relationship },
        Request::HandOver { operation: operation.clone(), entries: entries.clone(), head: head.clone() },
        Request::Reverse { relationship, epoch, head, settings, dry_run: false },
        Request::News { operation: operation.id, entries },
        Request::Points { relationship, epoch },
        Request::RemovePoint { relationship, epoch, point, dry_run: false },
        Request::LeftToMerge { relationship, epoch },
        Request::Digests {
            relationship,
            epoch,
            point: Some(point),
            disk: "vda".into(),
            offset: 0,
            length: 65536,
        },
        Request::Doubt { relationship, epoch, ordinal: 1, what: "a lie".into() },
        Request::Pending { relationship, epoch, bytes: 1 },
    ]
}

/// All that is kept of the relationship.
fn kept(store: &Store) -> String {
    let id = relationship().id;
    let operations = store.operations(None, None, 100).expect("a list");
    format!(
        "{:?} {:?} {operations:?} {:?} {:?} {:?}",
        store.relationships().expect("a list"),
        store.points(id).expect("a list"),
        store.doubt(id).expect("read"),
        store.pending(id).expect("read"),
        store.divergence(id).expect("read"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_peers_vm_is_told_or_changed() {
    let world = world().await;
    let before = kept(&world.store);
    for request in requests(relationship().id) {
        assert!(is_about_a_relationship(&request));
        let refused = ask(&world.other, &request).await.expect_err("refused");
        let TransportError::Refused(refused) = refused else { panic!("{request:?}: {refused:?}") };
        assert_eq!(refused.code, "not-found", "{request:?}: {}", refused.message);
        for told in [relationship().vm_name.as_str(), "friend", "epoch"] {
            assert!(!refused.message.contains(told), "{request:?}: {}", refused.message);
        }
        assert_eq!(kept(&world.store), before, "{request:?}");
    }
    // Whose side has ended it need not be told so: this is answered as a repetition is.
    let (relationship, epoch) = (relationship().id.0, 1);
    let remove = Request::Remove { relationship, epoch, delete_replica: true };
    assert_eq!(ask(&world.other, &remove).await.expect("answered"), Answer::Done {});
    assert_eq!(kept(&world.store), before);
    // The same question of the one whose it is.
    let beliefs = Request::Beliefs { relationship, epoch, unfinished: None, is_primary: false };
    assert!(matches!(ask(&world.friend, &beliefs).await.expect("answered"), Answer::Beliefs(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_of_another_peers_vm_is_refused() {
    let world = world().await;
    let before = kept(&world.store);
    let header = DeltaHeader {
        relationship: relationship().id.0,
        epoch: 1,
        point: Uuid::from_u128(2000),
        parent: Some(fixture::point_id(1).0),
        ordinal: 2,
        instant_ms: AT.millis(),
        consistency: "crash".into(),
        disks: vec![DeltaDisk { target: "vda".into(), virtual_size: 1 << 20 }],
        resume_at: None,
        domain_xml: "<domain/>".into(),
        attachments: Vec::new(),
        expected_bytes: 0,
        tag: None,
        autostart: None,
    };
    let delta = || stream::iter([Ok::<_, BoxError>(header.to_bytes())]);
    let refused = world.other.send_delta(delta(), DeltaOptions::default()).await.expect_err("refused");
    assert!(refused.to_string().contains("is not the primary server of this relationship"), "{refused}");
    // The friend's gets further: there is no replica directory here.
    let failed = world.friend.send_delta(delta(), DeltaOptions::default()).await.expect_err("no directory");
    assert!(!failed.to_string().contains("is not the primary server"), "{failed}");
    assert_eq!(kept(&world.store), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_peer_is_shown_what_it_has_part_in() {
    let world = world().await;
    async fn shown<T: serde::de::DeserializeOwned>(peer: &PeerClient, of: ViewOf, vm: Option<&str>) -> T {
        let view = View { of, after: None, limit: 1000, vm: vm.map(str::to_owned), since: None };
        match ask(peer, &Request::View(view)).await.expect("answered") {
            Answer::Relayed { json } => serde_json::from_str::<Paged<T>>(&json).expect("a page").shown,
            other => panic!("{other:?}"),
        }
    }
    let vm = relationship().vm_name;
    for (peer, count) in [(&world.friend, 1), (&world.other, 0)] {
        let relationships: Vec<dto::RelationshipSummary> = shown(peer, ViewOf::Relationships, None).await;
        let operations: Vec<dto::OperationView> = shown(peer, ViewOf::Operations, None).await;
        let events: Vec<dto::Event> = shown(peer, ViewOf::Events, None).await;
        let of_vm: Vec<dto::Event> = shown(peer, ViewOf::Events, Some(&vm)).await;
        let host: dto::HostView = shown(peer, ViewOf::Host, None).await;
        assert_eq!([relationships.len(), operations.len(), events.len(), of_vm.len()], [count; 4]);
        assert_eq!((host.primaries, host.replicas), (0, count as u64));
        assert!(events.iter().all(|event| event.vm.as_ref() == Some(&vm)));
    }
}

#[tokio::test]
async fn a_peer_waits_for_itself_and_for_no_other() {
    let turns = Turns::default();
    let peer = |number| HostId(uuid::Uuid::from_u128(number));
    let soon = |number| tokio::time::timeout(std::time::Duration::from_millis(50), turns.of(peer(number)));
    let held = soon(1).await.expect("nobody else asks");
    assert!(soon(1).await.is_err() && soon(2).await.is_ok());
    drop(held);
    assert!(soon(1).await.is_ok());
}

#[test]
fn a_peers_list_has_an_end() {
    let page = |count: u8, next: Option<&str>| Paged {
        shown: vec![(); count.into()],
        next: next.map(str::to_owned),
    };
    for good in [page(0, None), page(1, None), page(2, None), page(2, Some("b"))] {
        assert_eq!(unbelievable(2, Some("a".to_owned()), &good), None, "{good:?}");
    }
    for bad in [page(3, None), page(0, Some("b")), page(1, Some("b")), page(2, Some("a"))] {
        assert!(unbelievable(2, Some("a".to_owned()), &bad).is_some(), "{bad:?}");
    }
}

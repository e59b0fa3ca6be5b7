//! Commands that are refused: what is said of the reason and of the cure, and that nothing has changed.

use std::sync::Arc;

use bytes::Bytes;
use choreography::{Options, Procedure};
use domain::fixture::point_id;
use domain::{HostId, Phase, Timestamp};
use engine::{Code, Refusal, ReverseRequest, Trust};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hypervisor::Hypervisor;
use store::{Peer, Store};
use tokio::time::Duration;
use transport::{
    DeltaBody, ErrorClass, Identity, Introduction, PeerHandler, PeerRecord, PeerServer, ServerOptions,
};
use uuid::Uuid;
use wire::message::{Answer, Request};

use crate::host::{Host, VM, with_host, with_host_alone};
use crate::life::{RECEIVED, begin};

/// It is refused with this reason and this cure, and everything is as it was.
fn refused(host: &Host, refusal: Refusal, reason: &str, cure: &str) {
    assert_eq!(refusal.code, Code::Refused, "{refusal}");
    assert!(refusal.detail.contains(reason), "{reason:?} is not in {:?}", refusal.detail);
    assert!(refusal.cure.contains(cure), "{cure:?} is not in {:?}", refusal.cure);
    let open = host.engine.store().open_operation(host.record().relationship.id).expect("readable");
    assert!(open.is_none(), "{open:?}");
}

async fn failed_over(host: &Host) {
    for _ in 0..RECEIVED {
        host.receive_next().await.expect("received");
    }
    begin(host, Procedure::Failover).await.expect("begun");
    idle(host).await;
    assert!(matches!(host.record().relationship.phase, Phase::FailedOver { .. }) && host.hypervisor.runs());
}

async fn idle(host: &Host) {
    while host.engine.store().open_operation(host.record().relationship.id).expect("readable").is_some() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn fail_over_again(host: &Host) -> Refusal {
    let options = Options { point: Some(point_id(RECEIVED)), force: true, ..Options::default() };
    let planned = host.engine.plan_failover_alone(&host.record(), &options).await;
    planned.map(drop).expect_err("refused")
}

#[test]
fn a_failover_on_the_host_that_is_primary_is_refused_with_what_to_type_instead() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        failed_over(host).await;
        let again =
            format!("virt-replica cancel-failover {VM}, then virt-replica failover --point POINT {VM}");
        refused(host, fail_over_again(host).await, "belongs to this host already", &again);
        begin(host, Procedure::CompleteFailover).await.expect("begun");
        idle(host).await;
        let start = format!("virsh start {VM}");
        refused(host, fail_over_again(host).await, "belongs to this host already", &start);
        assert!(matches!(host.record().relationship.phase, Phase::Unprotected { .. }));
    });
}

#[test]
fn a_failover_that_names_no_point_begins_from_the_newest_whatever_arrives_while_it_is_planned() {
    let base = tempfile::tempdir().expect("a folder");
    let holds = base.path().join("holds");
    std::fs::create_dir(&holds).expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        host.receive_next().await.expect("received");
        let options = Options::default();
        let late = host.engine.plan_failover_alone(&host.record(), &options).await.expect("planned");
        let newest = host.receive_next().await.expect("it is not begun yet");
        let begin = async |plan| {
            let begun =
                host.engine.begin_failover_alone(&host.record(), plan, Options::default(), "a test").await;
            begun.expect("not refused").is_some()
        };
        assert!(!begin(&late).await, "the point is not the newest any more");
        assert!(
            host.engine.store().open_operation(host.record().relationship.id).expect("readable").is_none()
        );
        let plan = host.engine.plan_failover_alone(&host.record(), &options).await.expect("planned");
        let (place, held) = (holds.join("take over.before"), holds.join("take over.before.held"));
        std::fs::write(&place, "").expect("writable");
        assert!(begin(&plan).await);
        let refusal = host.receive_next().await.expect_err("it is begun");
        assert!(refusal.contains("a failover is under way on the replica server"), "{refusal}");
        while !held.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::remove_file(held).expect("removed");
        idle(host).await;
        let phase = host.record().relationship.phase;
        assert!(matches!(phase, Phase::FailedOver { point, .. } if point == point_id(newest)), "{phase:?}");
    });
}

#[test]
fn a_failover_is_not_completed_while_its_vm_has_not_started() {
    let base = tempfile::tempdir().expect("a folder");
    with_host_alone(base.path(), async |host: &Host| {
        failed_over(host).await;
        let record = host.record();
        host.hypervisor.turn_off(record.relationship.vm).expect("off");
        let refusal = host.engine.begin_complete(&record, "a test").await.expect_err("refused");
        let cure = format!(
            "virsh start {VM}, see that it is well, then again; or virt-replica cancel-failover {VM}"
        );
        refused(
            host,
            refusal,
            "the VM has not started: the other recovery points may still be needed",
            &cure,
        );
        assert_eq!(host.record().relationship, record.relationship);
        assert_eq!(host.directory().manifest().points.len() as u64, RECEIVED, "none is given up");
    });
}

/// A host that was installed anew: it is paired, and knows no relationship.
struct Forgetful;

impl PeerHandler for Forgetful {
    fn command(&self, _peer: PeerRecord, message: Bytes) -> BoxFuture<'_, Result<Bytes, transport::Refusal>> {
        let answer = match serde_json::from_slice(&message) {
            Ok(Request::Hello {}) => {
                let (name, version) = ("dead".to_owned(), "tested".to_owned());
                let clock_ms = Timestamp(1_700_000_000_000).millis();
                let answer = Answer::Hello { host: Uuid::from_u128(3), name, version, clock_ms };
                Ok(Bytes::from(serde_json::to_vec(&answer).expect("plain data")))
            }
            _ => Err(transport::Refusal::new(
                "not-found",
                ErrorClass::Permanent,
                "no relationship of that id".to_owned(),
            )),
        };
        async move { answer }.boxed()
    }

    fn delta(&self, _peer: PeerRecord, _body: DeltaBody) -> BoxFuture<'_, Result<Bytes, transport::Refusal>> {
        async { Err(transport::Refusal::new("not-found", ErrorClass::Permanent, "none".to_owned())) }.boxed()
    }
}

#[test]
fn a_reverse_to_a_host_that_does_not_know_the_relationship_is_refused_before_anything_is_final() {
    let (base, there) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let ours = Identity::open_or_create(base.path(), "alone", engine::clock::now()).expect("an identity");
    let theirs = Identity::open_or_create(there.path(), "dead", engine::clock::now()).expect("an identity");
    let (certificate, theirs) = (theirs.certificate_der(), Arc::new(theirs));
    let store = Store::open(&there.path().join("state.db")).expect("a store");
    let known = Peer {
        host: HostId(Uuid::from_u128(4)),
        name: "alone".into(),
        address: "127.0.0.1".into(),
        port: 1,
        certificate_der: ours.certificate_der(),
        next_certificate_der: None,
        paired_at: Timestamp(1),
    };
    store.add_peer(&known).expect("a peer");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let own = Introduction { host: HostId(Uuid::from_u128(3)), name: "dead".into(), address: None, port: 0 };
    let any = "127.0.0.1:0".parse().expect("an address");
    let options = ServerOptions::new(own);
    let server =
        runtime.block_on(PeerServer::bind(any, theirs, Arc::new(Trust(store)), Arc::new(Forgetful), options));
    let server = server.expect("it listens");
    with_host(base.path(), (server.local_address().port(), certificate), async |host: &Host| {
        for _ in 0..RECEIVED {
            host.receive_next().await.expect("received");
        }
        let options = Options { point: Some(point_id(RECEIVED - 1)), force: true, ..Options::default() };
        let plan = host.engine.plan_failover_alone(&host.record(), &options).await.expect("planned");
        let begun = host.engine.begin_failover_alone(&host.record(), &plan, options, "a test").await;
        assert!(begun.expect("not refused").is_some());
        idle(host).await;
        let before = host.record().relationship;
        let asked = ReverseRequest { peer: None, settings: None };
        let refusal = host.engine.reverse(&host.record(), &asked).await.expect_err("refused");
        let reason = "dead answers, and has ended the relationship: it holds no replica of the VM any more";
        refused(host, refusal, reason, &format!("virt-replica remove {VM}"));
        assert_eq!(host.record().relationship, before, "the failover can still be taken back");
        assert_eq!(host.directory().manifest().points.len() as u64, RECEIVED, "none is given up");
        drop(server);
    });
}

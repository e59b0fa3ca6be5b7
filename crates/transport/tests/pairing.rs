//! Who may come in, and what everybody else is told.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Host, SOON, now, paired};
use domain::Timestamp;
use transport::identity::VALIDITY;
use transport::{ErrorClass, Identity, PairingError, PeerRecord, TransportError, TrustStore};

#[tokio::test]
async fn after_pairing_both_hosts_can_speak_to_each_other() {
    let (first, second) = paired().await;
    let who = |host: &Host, peer: &Host| {
        let client = host.client_of(peer);
        async move { client.command(Bytes::from_static(b"who"), SOON).await }
    };
    assert_eq!(who(&second, &first).await.expect("answered"), "hvhost02");
    assert_eq!(who(&first, &second).await.expect("answered"), "hvhost01");
    let pinned = first.trust.peer(second.own.host).expect("a store").expect("pinned");
    assert_eq!((pinned.address.as_str(), pinned.port), ("127.0.0.1", second.own.port));
}

#[tokio::test]
async fn every_bad_token_is_refused_with_its_own_reason() {
    let (first, second) = (Host::start("hvhost01").await, Host::start("hvhost02").await);
    let other = Host::start("hvhost03").await;
    let good = first.invite(SOON);

    let mistyped = format!("{}x", &good[..good.len() - 1]);
    assert!(matches!(second.join("rubbish").await, Err(PairingError::Malformed(_))));
    assert!(matches!(second.join(&mistyped).await, Err(PairingError::Malformed(_))));
    assert!(matches!(first.join(&good).await, Err(PairingError::OwnToken)));

    let expired = first.invite(Duration::ZERO);
    assert!(matches!(second.join(&expired).await, Err(PairingError::Expired)));

    second.join(&good).await.expect("joins");
    second.join(&good).await.expect("the same host may repeat it, the answer may have been lost");
    assert!(matches!(other.join(&good).await, Err(PairingError::Used)));
    assert!(other.trust.peer(first.own.host).expect("a store").is_none(), "nothing was pinned");

    // The same host after its daemon forgot all invites, and a token of a host that is gone.
    let forgetful = Host::start("hvhost04").await;
    let token = forgetful.invite(SOON);
    let Host { server, identity, own, .. } = forgetful;
    server.stop().await;
    assert!(matches!(
        second.join(&token).await,
        Err(PairingError::Transport(TransportError::Unreachable { .. }))
    ));
    let reborn = reborn(identity, own.port).await;
    assert!(matches!(second.join(&token).await, Err(PairingError::Wrong)));
    drop(reborn);
}

/// The same key at the same port, but with an empty store.
async fn reborn(identity: Arc<Identity>, port: u16) -> transport::PeerServer {
    let host = Host::start("unused").await;
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    let options = transport::ServerOptions::new(host.own.clone());
    transport::PeerServer::bind(address, identity, host.trust.clone(), host.engine.clone(), options)
        .await
        .expect("listens")
}

#[tokio::test]
async fn a_wrong_secret_is_wrong_and_many_shut_the_door_for_all() {
    let (first, second) = (Host::start("hvhost01").await, Host::start("hvhost02").await);
    let good = first.invite(SOON);
    // Made with the right key, but stored elsewhere.
    let addresses = ["127.0.0.1".to_owned()];
    let wrong = transport::Invite::create(
        second.trust.as_ref(),
        &first.identity,
        &addresses,
        first.own.port,
        SOON,
        now(),
    );
    let wrong = wrong.expect("an invite").token;
    for _ in 0..10 {
        assert!(matches!(second.join(&wrong).await, Err(PairingError::Wrong)));
    }
    assert!(matches!(second.join(&wrong).await, Err(PairingError::TooManyAttempts)));
    assert!(matches!(second.join(&good).await, Err(PairingError::TooManyAttempts)));
}

#[tokio::test]
async fn another_host_at_the_tokens_address_is_noticed() {
    let (first, second) = (Host::start("hvhost01").await, Host::start("hvhost02").await);
    let middle = Host::start("middle").await;
    let addresses = ["127.0.0.1".to_owned()];
    let token = transport::Invite::create(
        first.trust.as_ref(),
        &first.identity,
        &addresses,
        middle.own.port,
        SOON,
        now(),
    );
    let token = token.expect("an invite").token;
    assert!(matches!(second.join(&token).await, Err(PairingError::FingerprintMismatch { .. })));
}

#[tokio::test]
async fn a_host_is_sought_where_a_person_says_it_is_and_nobody_else_is_believed_there() {
    let (first, second) = (Host::start("hvhost01").await, Host::start("hvhost02").await);
    let middle = Host::start("middle").await;
    // Behind a router that the host does not know of: where it says it is, nobody listens.
    let addresses = ["127.0.0.1".to_owned()];
    let token = transport::Invite::create(first.trust.as_ref(), &first.identity, &addresses, 1, SOON, now())
        .expect("an invite")
        .token;
    assert!(matches!(second.join(&token).await, Err(PairingError::Transport(_))));
    for nonsense in ["", ":1", "host:", "host:99999", "a:b:1", "host:0"] {
        let refused = second.join_at(&token, Some(nonsense)).await;
        assert!(matches!(refused, Err(PairingError::NoAddress { .. })), "{nonsense}");
    }
    let elsewhere = format!("127.0.0.1:{}", middle.own.port);
    assert!(matches!(
        second.join_at(&token, Some(&elsewhere)).await,
        Err(PairingError::FingerprintMismatch { .. })
    ));
    let there = format!("127.0.0.1:{}", first.own.port);
    let peer = second.join_at(&token, Some(&there)).await.expect("joins");
    assert_eq!((peer.address.as_str(), peer.port), ("127.0.0.1", first.own.port));
}

#[tokio::test]
async fn of_two_hosts_with_one_token_exactly_one_comes_in() {
    let first = Host::start("hvhost01").await;
    let (second, third) = (Host::start("hvhost02").await, Host::start("hvhost03").await);
    let token = first.invite(SOON);
    let (one, other) = tokio::join!(second.join(&token), third.join(&token));
    assert_ne!(one.is_ok(), other.is_ok());
}

#[tokio::test]
async fn a_stranger_finds_a_shut_door_with_and_without_open_invites() {
    let (first, stranger) = (Host::start("hvhost01").await, Host::start("stranger").await);
    stranger.trust.add_peer(&first.record()).expect("pinned on one side only");
    for _ in 0..2 {
        let error = stranger.client_of(&first).command(Bytes::from_static(b"who"), SOON).await;
        let error = error.expect_err("refused");
        assert!(matches!(error, TransportError::NotAccepted { .. }), "{error:?}");
        assert_eq!(error.class(), ErrorClass::NeedsOperator);
        let delta = stranger.client_of(&first).send_delta(common::pieces(3), Default::default()).await;
        assert!(matches!(delta, Err(TransportError::NotAccepted { .. })), "{delta:?}");
        first.invite(SOON);
    }
    assert_eq!(first.engine.delta_bytes.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_peer_that_is_removed_is_a_stranger_at_once_on_open_connections_too() {
    let (first, second) = paired().await;
    let client = second.client_of(&first);
    client.command(Bytes::from_static(b"who"), SOON).await.expect("answered");
    first.trust.remove_peer(second.own.host);
    let error = client.command(Bytes::from_static(b"who"), SOON).await.expect_err("refused");
    assert!(matches!(error, TransportError::NotAccepted { .. }), "{error:?}");
}

#[tokio::test]
async fn a_replaced_certificate_is_refused() {
    let (first, second) = paired().await;
    let record = second.trust.peer(first.own.host).expect("a store").expect("pinned");
    let reinstalled = Host::start("hvhost01").await;
    let moved = PeerRecord { port: reinstalled.own.port, ..record };
    second.trust.add_peer(&moved).expect("stored");
    let error =
        second.client_of(&first).command(Bytes::from_static(b"who"), SOON).await.expect_err("refused");
    assert!(matches!(error, TransportError::CertificateNotPinned { .. }), "{error:?}");
}

#[tokio::test]
async fn an_expired_certificate_is_said_to_be_expired_on_either_side() {
    let long_ago = Timestamp(now().millis() - VALIDITY.as_millis() as u64 - 1000);
    let fresh = Host::start("fresh").await;
    let stale = Host::start_with("stale", long_ago, |_| {}).await;
    fresh.trust.add_peer(&stale.record()).expect("stored");
    stale.trust.add_peer(&fresh.record()).expect("stored");
    let error = fresh.client_of(&stale).command(Bytes::from_static(b"who"), SOON).await.expect_err("refused");
    assert!(matches!(error, TransportError::CertificateExpired { .. }), "{error:?}");
    let error = stale.client_of(&fresh).command(Bytes::from_static(b"who"), SOON).await.expect_err("refused");
    assert!(matches!(error, TransportError::OwnCertificateExpired { .. }), "{error:?}");
}

/// The handshake is done here before the other side has looked at our certificate: its word comes before, in or after the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_reason_of_a_refusal_arrives_whenever_it_comes() {
    let long_ago = Timestamp(now().millis() - VALIDITY.as_millis() as u64 - 1000);
    let fresh = Host::start("fresh").await;
    let stale = Arc::new(Host::start_with("stale", long_ago, |_| {}).await);
    fresh.trust.add_peer(&stale.record()).expect("stored");
    stale.trust.add_peer(&fresh.record()).expect("stored");
    let fresh = Arc::new(fresh);
    for _ in 0..20 {
        let asked = (0..16).map(|_| {
            let (stale, fresh) = (stale.clone(), fresh.clone());
            tokio::spawn(
                async move { stale.client_of(&fresh).command(vec![b' '; 100_000].into(), SOON).await },
            )
        });
        for answer in asked.collect::<Vec<_>>() {
            let error = answer.await.expect("no panic").expect_err("refused");
            assert!(matches!(error, TransportError::OwnCertificateExpired { .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn certificates_are_replaced_without_pairing_again() {
    let (first, second) = paired().await;
    let (to_first, to_second) = (second.client_of(&first), first.client_of(&second));
    let next = first.identity.prepare_next(now()).expect("prepared");
    to_second.announce_certificate(next.clone()).await.expect("announced");
    to_second.announce_certificate(next.clone()).await.expect("repeated");
    // Before the switch the old one is good, after it the new one, in both directions.
    to_first.command(Bytes::from_static(b"who"), SOON).await.expect("answered");
    first.identity.switch().expect("switched");
    second.client_of(&first).command(Bytes::from_static(b"who"), SOON).await.expect("answered");
    first.client_of(&second).command(Bytes::from_static(b"who"), SOON).await.expect("answered");
    // Connections that were kept are of the old one.
    to_first.command(Bytes::from_static(b"who"), SOON).await.expect("answered");
    to_second.command(Bytes::from_static(b"who"), SOON).await.expect("answered");
    let pinned = second.trust.peer(first.own.host).expect("a store").expect("pinned");
    assert_eq!((pinned.certificate_der, pinned.next_certificate_der), (next, None));
}

#[tokio::test]
async fn a_switch_that_was_not_announced_is_refused() {
    let (first, second) = paired().await;
    first.identity.prepare_next(now()).expect("prepared");
    first.identity.switch().expect("switched");
    let error =
        second.client_of(&first).command(Bytes::from_static(b"who"), SOON).await.expect_err("refused");
    assert!(matches!(error, TransportError::CertificateNotPinned { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_does_not_let_a_host_take_the_place_of_another() {
    let (first, second) = paired().await;
    let mut thief = Host::start("thief").await;
    thief.own.host = second.own.host;
    let token = first.invite(SOON);
    assert!(matches!(thief.join(&token).await, Err(PairingError::HostKnown { .. })));
    let pinned = first.trust.peer(second.own.host).expect("a store").expect("pinned");
    assert_eq!(pinned.certificate_der, second.identity.certificate_der());
    // The token is not spent by the attempt.
    let third = Host::start("hvhost03").await;
    third.join(&token).await.expect("joins");
}

#[tokio::test]
async fn a_host_whose_certificate_expired_pairs_again_with_a_new_one() {
    let long_ago = Timestamp(now().millis() - VALIDITY.as_millis() as u64 - 1000);
    let fresh = Host::start("fresh").await;
    let stale = Host::start_with("stale", long_ago, |_| {}).await;
    fresh.trust.add_peer(&stale.record()).expect("stored");
    stale.identity.prepare_next(now()).expect("prepared");
    stale.identity.switch().expect("switched");
    stale.join(&fresh.invite(SOON)).await.expect("joins");
    fresh.client_of(&stale).command(Bytes::from_static(b"who"), SOON).await.expect("answered");
}

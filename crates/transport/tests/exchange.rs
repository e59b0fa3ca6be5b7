//! Commands and deltas between two paired hosts, and what happens when the way between them is bad.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{Host, SOON, paired, pieces};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transport::{BoxError, DeltaOptions, ErrorClass, PeerRecord, RateLimiter, TransportError, TrustStore};

fn command(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test]
async fn many_commands_at_once_are_each_answered() {
    let (first, second) = paired().await;
    let client = Arc::new(second.client_of(&first));
    let asked = (0..32).map(|number| {
        let client = client.clone();
        async move {
            let message = Bytes::from(format!("message {number}"));
            assert_eq!(client.command(message.clone(), SOON).await.expect("answered"), message);
        }
    });
    futures_util::future::join_all(asked).await;
}

#[tokio::test]
async fn a_refusal_arrives_as_it_was_said_and_the_connection_stays_good() {
    let (first, second) = paired().await;
    let client = second.client_of(&first);
    let Err(TransportError::Refused(refusal)) = client.command(command("no"), SOON).await else {
        panic!("refused")
    };
    assert_eq!((refusal.code.as_str(), refusal.class), ("told-no", ErrorClass::Permanent));
    client.command(command("yes"), SOON).await.expect("answered");
}

#[tokio::test]
async fn a_command_that_hangs_ends_at_its_deadline() {
    let (first, second) = paired().await;
    let error = second.client_of(&first).command(command("hang"), Duration::from_millis(300)).await;
    assert!(matches!(error, Err(TransportError::Deadline { .. })), "{error:?}");
}

#[tokio::test]
async fn a_command_above_the_limit_is_not_sent() {
    let (first, second) = paired().await;
    let error = second.client_of(&first).command(vec![0; (8 << 20) + 1].into(), SOON).await;
    assert!(matches!(error, Err(TransportError::TooLarge { .. })), "{error:?}");
    let largest = Bytes::from(vec![0; 8 << 20]);
    assert_eq!(second.client_of(&first).command(largest.clone(), SOON).await.expect("answered"), largest);
}

#[tokio::test]
async fn a_daemon_that_restarted_is_found_again() {
    let (first, second) = paired().await;
    let client = second.client_of(&first);
    client.command(command("one"), SOON).await.expect("answered");
    let address = first.server.local_address();
    first.server.stop().await;
    let error = client.command(command("two"), SOON).await.expect_err("nobody there");
    assert_eq!(error.class(), ErrorClass::Transient);
    let options = transport::ServerOptions::new(first.own.clone());
    let server = transport::PeerServer::bind(
        address,
        first.identity.clone(),
        first.trust.clone(),
        first.engine.clone(),
        options,
    );
    let _server = server.await.expect("listens again");
    client.command(command("three"), SOON).await.expect("answered");
}

#[tokio::test]
async fn a_delta_arrives_whole_and_is_measured() {
    let (first, second) = paired().await;
    let answer =
        second.client_of(&first).send_delta(pieces(64), DeltaOptions::default()).await.expect("sealed");
    assert_eq!(answer.body, format!("sealed {}", 64 << 20));
    assert_eq!(answer.sent_bytes, 64 << 20);
}

#[tokio::test]
async fn a_delta_whose_source_fails_is_never_taken_for_whole() {
    let (first, second) = paired().await;
    let mut first = first;
    let failing = pieces(5).chain(stream::iter([Err::<Bytes, BoxError>("the disk went away".into())]));
    let error = second.client_of(&first).send_delta(failing, DeltaOptions::default()).await;
    let Err(TransportError::Source(source)) = error else { panic!("{error:?}") };
    assert_eq!(source.to_string(), "the disk went away");
    let told = tokio::time::timeout(SOON, first.broken.recv()).await.expect("the other side is told");
    assert!(told.expect("a reason").contains("broke off"));
}

#[tokio::test]
async fn a_sender_that_gives_up_leaves_no_receiver_behind() {
    let (mut first, second) = paired().await;
    let endless = pieces(3).chain(stream::pending());
    let client = second.client_of(&first);
    let sending = client.send_delta(endless, DeltaOptions::default());
    assert!(tokio::time::timeout(Duration::from_millis(500), sending).await.is_err());
    tokio::time::timeout(SOON, first.broken.recv()).await.expect("the other side is told");
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_a_delta_reaches_the_sender() {
    let (first, second) = paired().await;
    let refused = stream::iter([Ok::<Bytes, BoxError>(command("refuse me"))]).chain(pieces(200));
    let error = second.client_of(&first).send_delta(refused, DeltaOptions::default()).await;
    let Err(TransportError::Refused(refusal)) = error else { panic!("{error:?}") };
    assert_eq!(refusal.message, "no delta, because it is a test");
}

#[tokio::test]
async fn a_transfer_that_stands_still_ends_as_stalled() {
    let (first, second) = paired().await;
    let stalled = stream::iter([Ok::<Bytes, BoxError>(command("stall me"))]).chain(pieces(200));
    let options = DeltaOptions { stall_max: Duration::from_secs(1), ..DeltaOptions::default() };
    let error = second.client_of(&first).send_delta(stalled, options.clone()).await.expect_err("stalled");
    assert!(matches!(error, TransportError::Stalled { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
    // The same options, and the same progress with them, serve the next attempt.
    let answer = second.client_of(&first).send_delta(pieces(2), options).await.expect("sealed");
    assert_eq!(answer.sent_bytes, 2 << 20);
}

#[tokio::test]
async fn a_slow_source_is_no_stalled_link() {
    let (first, second) = paired().await;
    let slow = pieces(3).then(|piece| async move {
        tokio::time::sleep(Duration::from_millis(700)).await;
        piece
    });
    let options = DeltaOptions { stall_max: Duration::from_millis(400), ..DeltaOptions::default() };
    second.client_of(&first).send_delta(slow, options).await.expect("sealed");
}

#[tokio::test]
async fn the_rate_limit_holds() {
    let (first, second) = paired().await;
    let limit = RateLimiter::new(Some(4 << 20));
    let options = DeltaOptions { limiters: vec![limit, RateLimiter::new(None)], ..DeltaOptions::default() };
    let answer = second.client_of(&first).send_delta(pieces(6), options).await.expect("sealed");
    assert!(answer.elapsed >= Duration::from_millis(1350), "6 MiB at 4 MiB/s took {:?}", answer.elapsed);
}

/// Between two hosts: passes so many bytes of the sender on, then cuts the connection or only stops.
async fn bad_road(to: Host, bytes: usize, cut: bool) -> (u16, tokio::task::JoinHandle<Host>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let road = tokio::spawn(async move {
        let (from, _) = listener.accept().await.expect("a connection");
        let onward = TcpStream::connect(to.server.local_address()).await.expect("connects");
        let (mut from_read, mut from_write) = from.into_split();
        let (mut to_read, mut to_write) = onward.into_split();
        let back = tokio::spawn(async move { tokio::io::copy(&mut to_read, &mut from_write).await });
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        while passed < bytes {
            let count = from_read.read(&mut buffer).await.expect("reads");
            to_write.write_all(&buffer[..count]).await.expect("writes");
            passed += count;
        }
        if !cut {
            tokio::time::sleep(SOON).await;
        }
        back.abort();
        to
    });
    (port, road)
}

#[tokio::test]
async fn a_delta_cut_in_the_middle_ends_on_both_sides() {
    let (first, second) = paired().await;
    let host = first.own.host;
    let record = second.trust.peer(host).expect("a store").expect("pinned");
    let (port, road) = bad_road(first, 10 << 20, true).await;
    second.trust.add_peer(&PeerRecord { port, ..record }).expect("stored");
    let begin = Instant::now();
    let error = second.client(host).send_delta(pieces(100), DeltaOptions::default()).await.expect_err("cut");
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
    assert!(begin.elapsed() < SOON);
    let mut first = road.await.expect("the road ends");
    let told = tokio::time::timeout(SOON, first.broken.recv()).await.expect("the other side is told");
    assert!(told.expect("a reason").contains("broke off"));
    assert!(first.engine.delta_bytes.load(Ordering::SeqCst) < 11 << 20);
}

#[tokio::test]
async fn a_road_that_swallows_everything_is_noticed() {
    let (first, second) = paired().await;
    let host = first.own.host;
    let record = second.trust.peer(host).expect("a store").expect("pinned");
    let (port, road) = bad_road(first, 5 << 20, false).await;
    second.trust.add_peer(&PeerRecord { port, ..record }).expect("stored");
    let options = DeltaOptions { stall_max: Duration::from_secs(1), ..DeltaOptions::default() };
    let error = second.client(host).send_delta(pieces(100), options).await.expect_err("stalled");
    assert!(matches!(error, TransportError::Stalled { .. }), "{error:?}");
    road.abort();
}

#[tokio::test]
async fn a_receiver_that_gets_nothing_gives_up() {
    let first = Host::start_with("hvhost01", common::now(), |options| {
        options.delta_idle_max = Duration::from_millis(300);
    });
    let (mut first, second) = (first.await, Host::start("hvhost02").await);
    second.join(&first.invite(SOON)).await.expect("joins");
    let idle = pieces(1).chain(stream::pending());
    let error = second.client_of(&first).send_delta(idle, DeltaOptions::default()).await;
    assert!(error.is_err());
    let told = tokio::time::timeout(SOON, first.broken.recv()).await.expect("noticed").expect("a reason");
    assert!(told.contains("no byte"), "{told}");
}

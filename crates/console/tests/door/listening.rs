//! The way to the console: TLS, its limits, its end, and what every answer carries.

use std::time::Duration;

use axum::http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{self, Browser, World, password};

#[tokio::test]
async fn every_answer_has_the_headers_that_keep_other_sites_out() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let stranger = Browser::default();
    let answers = [
        stranger.get(&world, "/").await,
        stranger.get(&world, "/no/such/file").await,
        stranger.get(&world, "/session").await,
        browser.get(&world, "/session").await,
        browser.get(&world, "/api/v1/thing").await,
        browser.get(&world, "/api/v1/nothing").await,
        stranger.get(&world, "/api/v1/thing").await,
        stranger.post(&world, "/session", "nonsense").await,
    ];
    for answer in &answers {
        let header = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{answer:?}");
        assert!(policy.ends_with("require-trusted-types-for 'script'; trusted-types 'none'"), "{answer:?}");
        assert!(policy.contains("frame-ancestors 'none'; base-uri 'none'") && !policy.contains("unsafe"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin");
        assert!(!header("permissions-policy").is_empty());
    }
    for answer in &answers[2..] {
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{answer:?}");
    }
}

#[tokio::test]
async fn both_versions_of_tls_that_browsers_speak_are_spoken() {
    let world = World::new().await;
    for version in [&TLS12, &TLS13] {
        let tls = world.connect(&[version]).await.unwrap();
        assert_eq!(tls.get_ref().1.protocol_version(), Some(version.version));
    }
}

#[tokio::test]
async fn plain_http_is_told_where_to_go() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.write_all(b"GET /session HTTP/1.1\r\nHost: hvhost01\r\n\r\n").await.unwrap();
    let mut said = String::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("speaks HTTPS only"), "{said}");
}

#[tokio::test]
async fn one_address_cannot_take_all_connections_and_those_it_has_work_on() {
    let world = World::new().await;
    let mut open = Vec::new();
    let mut shut = 0;
    for _ in 0..70 {
        let stream = TcpStream::connect(world.address()).await.unwrap();
        open.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for stream in &mut open {
        // A connection over the limit is at its end; the others wait for our first byte.
        let read = tokio::time::timeout(Duration::from_millis(5), stream.read(&mut [0])).await;
        shut += usize::from(read.is_ok());
    }
    assert_eq!(shut, 70 - 64);
    assert!(world.connect(&[&TLS13]).await.is_err());
    open.clear();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(Browser::default().get(&world, "/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_stop_lets_requests_and_streams_end() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let stream = world.send(browser.request(&world, Method::GET, "/api/v1/stream", "")).await;
    let slow = tokio::spawn({
        let request = Browser::default().request(
            &world,
            Method::POST,
            "/session",
            &password("bob", "wrong").to_string(),
        );
        let tls = world.connect(&[&TLS13]).await.unwrap();
        async move {
            let io = hyper_util::rt::TokioIo::new(tls);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            world::whole(sender.send_request(request).await.unwrap()).await
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = std::time::Instant::now();
    world.door.end_streams();
    let World { listener, kept, .. } = world;
    listener.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(slow.await.unwrap().status, StatusCode::UNAUTHORIZED);
    assert!(stream.into_body().collect().await.is_ok(), "a stream ends whole");
    assert_eq!(kept.sessions.lock().unwrap().len(), 1, "a session outlives the daemon");
}

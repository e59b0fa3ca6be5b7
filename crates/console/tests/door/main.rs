//! The console's door over real connections: who comes in, who does not, and that nothing changed for who does not.

mod refused;
mod world;

use std::time::Duration;

use api::Role;
use axum::http::{Method, StatusCode, header};
use console::{IDLE_MAX, LIFE_MAX, LINK_VALID};
use http_body_util::BodyExt;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use world::{Browser, World, password};

#[tokio::test]
async fn a_password_gives_a_cookie_that_only_the_browser_sees_and_signing_out_ends_it() {
    let world = World::new().await;
    let mut browser = Browser::default();
    assert_eq!(browser.get(&world, "/session").await.problem(), "signed-out");
    let answer = browser.sign_in(&world, password("alice", "right")).await;
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for needed in ["__Host-vr-session=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(needed), "{cookie}");
    }
    let (name, value) = browser.cookie.split_once('=').unwrap();
    assert_eq!((name, value.len()), ("__Host-vr-session", 43), "256 bits");
    let session = browser.get(&world, "/session").await.json();
    assert_eq!((&session["user"], &session["role"]), (&"alice".into(), &"operator".into()));
    assert_eq!((&session["host"], &session["csrf"]), (&"hvhost01".into(), &browser.csrf.as_str().into()));
    assert_eq!(session["expires_ms"], world::NOW_MS + IDLE_MAX.as_millis() as u64);
    assert_eq!(session["ends_ms"], world::NOW_MS + LIFE_MAX.as_millis() as u64);
    // Nothing that is kept opens the door.
    let kept = format!("{:?}", world.kept.sessions.lock().unwrap());
    assert!(!kept.contains(value) && !kept.contains(&browser.csrf));

    assert_eq!(browser.post(&world, "/api/v1/thing", "{}").await.status, StatusCode::OK);
    assert_eq!(world.reached(), ["POST by alice as operator with 2 bytes"]);

    let out = browser.send(&world, Method::DELETE, "/session", "").await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(browser.get(&world, "/session").await.problem(), "signed-out");
    assert_eq!(world.sessions(), 0);
    assert_eq!(*world.kept.record.lock().unwrap(), ["alice SignedIn(Operator)", "alice SignedOut"]);
}

#[tokio::test]
async fn a_link_lets_one_browser_in_once_and_in_time() {
    let world = World::new().await;
    let link = world.door.make_link("root", Role::Administrator).expect("made");
    let mut browser = Browser::default();
    let answer = browser.sign_in(&world, json!({"token": link.token})).await;
    assert_eq!((&answer.json()["user"], &answer.json()["role"]), (&"root".into(), &"administrator".into()));
    let again = Browser::default().sign_in(&world, json!({"token": link.token})).await;
    assert_eq!((again.status, again.problem().as_str()), (StatusCode::UNAUTHORIZED, "signed-out"));
    let late = world.door.make_link("root", Role::Viewer).expect("made");
    world.later(LINK_VALID);
    assert_eq!(
        Browser::default().sign_in(&world, json!({"token": late.token})).await.problem(),
        "signed-out"
    );
    assert_eq!(world.sessions(), 1);
    // Nobody of that name need exist: root vouched, and no group is asked about later.
    world.later(Duration::from_secs(600));
    assert_eq!(browser.get(&world, "/session").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_restart_signs_nobody_out() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let world = world.restarted().await;
    let session = browser.get(&world, "/session").await;
    assert_eq!(session.json()["csrf"], browser.csrf.as_str());
    assert_eq!(browser.post(&world, "/api/v1/thing", "{}").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_person_who_leaves_a_group_loses_its_role_within_minutes() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    world.alice_is_in(&["alice", "virt-replica-viewer"]);
    world.later(Duration::from_secs(301));
    assert_eq!(browser.get(&world, "/session").await.json()["role"], "viewer");
    world.alice_is_in(&["alice"]);
    world.later(Duration::from_secs(301));
    assert_eq!(browser.get(&world, "/api/v1/thing").await.problem(), "signed-out");
    assert_eq!((world.sessions(), world.reached().len()), (0, 0));
    let record = world.kept.record.lock().unwrap().join("\n");
    assert!(record.contains("alice PutOut(\"the account is in no group with a role any more\")"), "{record}");
}

#[tokio::test]
async fn a_directory_that_is_away_puts_nobody_out_for_a_while_and_everybody_in_the_end() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    std::fs::remove_file(world.folder.path().join("alice")).unwrap();
    for _ in 0..2 {
        world.later(Duration::from_secs(14 * 60));
        assert_eq!(browser.get(&world, "/session").await.json()["role"], "operator");
    }
    world.later(Duration::from_secs(3 * 60));
    assert_eq!(browser.get(&world, "/session").await.problem(), "signed-out");
}

#[tokio::test]
async fn a_stream_of_events_ends_with_its_session() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let response = world.send(browser.request(&world, Method::GET, "/api/v1/stream", "")).await;
    let mut body = response.into_body();
    assert!(body.frame().await.expect("a tick").is_ok());
    assert_eq!(world.door.end_sessions(Some("alice")), 1);
    let rest = tokio::time::timeout(Duration::from_secs(5), body.collect()).await;
    assert!(rest.expect("the stream ends").is_ok());
}

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

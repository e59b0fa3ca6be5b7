//! Who comes in, and how long a person stays.

use std::time::{Duration, Instant};

use api::Role;
use axum::http::{Method, StatusCode, header};
use console::{IDLE_MAX, LIFE_MAX, LINK_VALID};
use http_body_util::BodyExt;
use serde_json::json;

use crate::world::{Browser, NOW_MS, World, password};

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
    assert_eq!(session["expires_ms"], NOW_MS + IDLE_MAX.as_millis() as u64);
    assert_eq!(session["ends_ms"], NOW_MS + LIFE_MAX.as_millis() as u64);
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
async fn accounts_that_hang_hold_nobody_up_who_is_signed_in() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    world.accounts_hang();
    world.later(Duration::from_secs(6 * 60));
    let begun = Instant::now();
    let asked = (0..6).map(|_| browser.get(&world, "/api/v1/thing"));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let again = Instant::now();
    assert_eq!(browser.get(&world, "/api/v1/thing").await.status, StatusCode::OK);
    assert!(again.elapsed() < Duration::from_secs(2), "the question that is under way is waited for once");
}

#[tokio::test]
async fn a_page_that_asks_for_many_things_asks_about_its_person_once() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    world.later(Duration::from_secs(6 * 60));
    futures_util::future::join_all((0..6).map(|_| browser.get(&world, "/session"))).await;
    assert_eq!(world.look_ups(), 1);
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

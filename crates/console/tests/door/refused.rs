//! Each refusal: a clear answer, and nothing changed.

use std::time::{Duration, Instant};

use axum::http::{HeaderValue, Method, StatusCode, header};
use console::{IDLE_MAX, LIFE_MAX};
use serde_json::json;

use crate::world::{Browser, FAILURE_TAKES, World, password, whole};

#[tokio::test]
async fn a_wrong_password_an_unknown_name_and_an_account_without_a_role_hear_the_same_after_the_same_time() {
    let world = World::new().await;
    let mut heard = Vec::new();
    for form in [
        password("alice", "wrong"),
        password("nobody", "right"),
        password("carol", "right"),
        password("", ""),
    ] {
        let begun = Instant::now();
        let answer = Browser::default().sign_in(&world, form).await;
        let took = begun.elapsed();
        assert!((FAILURE_TAKES..FAILURE_TAKES * 2).contains(&took), "{took:?}");
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "signed-out"));
        assert!(!answer.headers.contains_key(header::SET_COOKIE));
        heard.push(answer.text);
    }
    assert!(heard.iter().all(|text| *text == heard[0]), "{heard:?}");
    assert_eq!(world.sessions(), 0);
    let record = world.kept.record.lock().unwrap().clone();
    assert_eq!(
        record[..3],
        [
            "alice Refused(\"wrong password\")",
            "nobody Refused(\"no such account\")",
            "carol Refused(\"the account is in no group with a role\")"
        ]
    );
}

#[tokio::test]
async fn guessing_is_slowed_down_also_by_who_hangs_up_and_an_account_that_does_not_exist_likewise() {
    let world = World::new().await;
    for _ in 0..5 {
        let request = Browser::default().request(
            &world,
            Method::POST,
            "/session",
            &password("nobody", "x").to_string(),
        );
        let hung_up = tokio::time::timeout(Duration::from_millis(150), world.send(request)).await;
        assert!(hung_up.is_err(), "no answer comes so early");
    }
    let answer = Browser::default().sign_in(&world, password("alice", "right")).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "too-many"));
    let wait: u64 = answer.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    let link = Browser::default().sign_in(&world, json!({"token": "x"})).await;
    assert_eq!(link.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(world.sessions(), 0);
    let record = world.kept.record.lock().unwrap().clone();
    let unseen: Vec<_> = record.iter().filter(|line| line.contains("not looked at")).collect();
    assert_eq!(unseen, ["alice Refused(\"not looked at: too many tries\")"], "once a minute");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    Browser::of_alice(&world).await;
}

#[tokio::test]
async fn accounts_that_cannot_be_asked_are_said_and_held_against_nobody() {
    let world = World::new().await;
    for _ in 0..7 {
        let answer = Browser::default().sign_in(&world, password("broken", "x")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "failed"));
    }
    assert_eq!(world.sessions(), 0);
}

#[tokio::test]
async fn a_session_that_was_idle_and_one_that_is_old_are_signed_out_and_change_nothing() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    world.later(IDLE_MAX);
    let answer = browser.post(&world, "/api/v1/thing", "{}").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "signed-out"));
    let ended = world.kept.record.lock().unwrap().last().cloned();
    assert_eq!(ended.as_deref(), Some("alice PutOut(\"nothing was asked for half an hour\")"));
    let busy = Browser::of_alice(&world).await;
    for _ in 0..LIFE_MAX.as_secs() / 1200 {
        world.later(Duration::from_secs(1199));
        assert_eq!(busy.get(&world, "/session").await.status, StatusCode::OK);
    }
    world.later(Duration::from_secs(60));
    assert_eq!(busy.post(&world, "/api/v1/thing", "{}").await.problem(), "signed-out");
    assert_eq!((world.reached().len(), world.sessions()), (0, 0));
}

#[tokio::test]
async fn a_change_without_the_sessions_own_token_is_refused() {
    let world = World::new().await;
    let (browser, other) = (Browser::of_alice(&world).await, Browser::of_alice(&world).await);
    let forged = ["", "x", &other.csrf, browser.cookie.split_once('=').unwrap().1];
    for csrf in forged {
        let forger = Browser { csrf: csrf.to_owned(), ..browser.clone() };
        for (method, path) in
            [(Method::POST, "/api/v1/thing"), (Method::DELETE, "/session"), (Method::PUT, "/api/v1/thing")]
        {
            let answer = forger.send(&world, method, path, "{}").await;
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (StatusCode::FORBIDDEN, "forbidden"),
                "{csrf}"
            );
        }
    }
    assert_eq!((world.reached().len(), world.sessions()), (0, 2));
}

#[tokio::test]
async fn a_request_that_another_sites_page_made_is_refused_though_it_has_cookie_and_token() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let form = password("alice", "right").to_string();
    for (name, value) in
        [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
    {
        for (path, body) in [("/api/v1/thing", "{}"), ("/session", form.as_str())] {
            let mut request = browser.request(&world, Method::POST, path, body);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
            let answer = whole(world.send(request).await).await;
            assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::FORBIDDEN, "forbidden"));
        }
    }
    assert_eq!((world.reached().len(), world.sessions()), (0, 1));
    let record = world.kept.record.lock().unwrap().clone();
    let forged: Vec<_> = record.iter().filter(|line| line.contains("Forged")).collect();
    assert!(
        forged.len() == 1 && forged[0].starts_with("alice Forged(\"POST of /api/v1/thing: "),
        "{forged:?}"
    );
}

#[tokio::test]
async fn nobody_reaches_the_api_without_a_session() {
    let world = World::new().await;
    let alice = Browser::of_alice(&world).await;
    let text = alice.cookie.split_once('=').unwrap().1;
    let strangers = [
        String::new(),
        "__Host-vr-session=".to_owned(),
        format!("__Host-vr-session={}", "A".repeat(43)),
        format!("vr-session={text}"),
        format!("__Host-vr-session={text}; __Host-vr-session={}", "A".repeat(43)),
    ];
    for cookie in strangers {
        let stranger = Browser { cookie, csrf: alice.csrf.clone() };
        for answer in
            [stranger.get(&world, "/api/v1/thing").await, stranger.post(&world, "/api/v1/thing", "{}").await]
        {
            assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "signed-out"));
        }
    }
    assert!(world.reached().is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_long_or_not_understood_is_refused_before_anything_happens() {
    let world = World::new().await;
    let browser = Browser::of_alice(&world).await;
    let long = format!("{{\"x\": \"{}\"}}", "y".repeat(64 * 1024));
    for path in ["/api/v1/thing", "/session"] {
        let answer = browser.post(&world, path, &long).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "too-large"));
    }
    let (user, right) = ("alice", "right");
    for form in [
        json!({"user": user, "password": right, "remember": true}),
        json!({"user": user, "password": right, "token": "x"}),
        json!({"user": user}),
        json!({"user": user, "password": 7}),
        json!({}),
        json!([]),
    ] {
        let answer = Browser::default().sign_in(&world, form.clone()).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (StatusCode::BAD_REQUEST, "invalid"),
            "{form}"
        );
    }
    let mut request =
        Browser::default().request(&world, Method::POST, "/session", &password(user, right).to_string());
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(whole(world.send(request).await).await.problem(), "invalid");
    assert_eq!((world.reached().len(), world.sessions()), (0, 1));
}

//! What holds for every route: roles, the audit, tags, pages, what is refused. Asked as a browser asks, after a sign-in.

use std::net::IpAddr;
use std::sync::Arc;

use api::{Caller, Person, Role, Service};
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::recorder::Recorder;

struct Host {
    recorder: Arc<Recorder>,
    router: axum::Router,
}

impl Host {
    fn new() -> Host {
        let recorder = Arc::new(Recorder::default());
        let service: Arc<dyn Service> = recorder.clone();
        Host { recorder, router: api::router(service) }
    }

    async fn ask(
        &self,
        role: Option<Role>,
        request: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Body> {
        let (method, path) = request.split_once(' ').expect("a method and a path");
        let mut asked = Request::builder().method(method).uri(format!("/api/v1{path}"));
        for (name, value) in headers {
            asked = asked.header(*name, *value);
        }
        let mut asked = asked.body(Body::from(body.to_owned())).expect("a request");
        if let Some(role) = role {
            let from = Some(IpAddr::from([192, 0, 2, 7]));
            asked.extensions_mut().insert(Caller { who: Person::Account("anna".into()), from, role });
        }
        self.router.clone().oneshot(asked).await.expect("an answer")
    }

    async fn problem(&self, role: Option<Role>, request: &str, body: &str) -> (StatusCode, Value) {
        let answer = self.ask(role, request, &[], body).await;
        let status = answer.status();
        assert_eq!(answer.headers()["content-type"], "application/problem+json", "{request}");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("a problem"))
    }

    fn seen(&self) -> Vec<String> {
        self.recorder.seen.lock().expect("not poisoned").clone()
    }

    fn audit(&self) -> Vec<String> {
        self.recorder.audit.lock().expect("not poisoned").clone()
    }
}

async fn text(answer: Response<Body>) -> String {
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

const ADMINISTRATOR: Option<Role> = Some(Role::Administrator);
const OPERATOR: Option<Role> = Some(Role::Operator);
const VIEWER: Option<Role> = Some(Role::Viewer);

#[tokio::test]
async fn nobody_asks_without_having_signed_in() {
    let host = Host::new();
    for request in ["GET /relationships", "POST /relationships/vm/pause", "GET /changes", "GET /openapi.json"]
    {
        let (status, problem) = host.problem(None, request, "").await;
        assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &"signed-out".into()), "{request}");
    }
    assert!(host.seen().is_empty() && host.audit().is_empty());
}

/// Every route of the document, asked with each role that it does not allow, and with the one that it needs.
#[tokio::test]
async fn every_route_is_refused_below_its_role_and_reaches_the_service_in_it() {
    let document = api::openapi();
    let roles = [VIEWER, OPERATOR, ADMINISTRATOR].map(|role| role.expect("a role"));
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let needed: Role = serde_json::from_value(operation["x-role"].clone()).expect("a role");
            let request = format!("{} {}", method.to_uppercase(), path.replace(['{', '}'], "x"));
            for role in roles {
                let host = Host::new();
                let answer = host.ask(Some(role), &request, &[], "").await;
                let forbidden = answer.status() == StatusCode::FORBIDDEN;
                assert_eq!(forbidden, role < needed, "{request} as {}", role.words());
                if forbidden {
                    assert!(host.seen().is_empty(), "{request} as {}", role.words());
                    assert!(text(answer).await.contains(needed.words()), "{request} says what it needs");
                }
            }
        }
    }
}

#[tokio::test]
async fn force_and_what_reaches_past_a_vm_need_an_administrator() {
    let requests = [
        ("POST /operations/o/cancel", r#"{"force": true}"#, r#"{"force": false}"#),
        ("POST /relationships/vm/failover", r#"{"force": true}"#, "{}"),
        ("POST /relationships/vm/test-failover", r#"{"probe": "id"}"#, r#"{"probe_port": 22}"#),
        ("POST /relationships", r#"{"vm": "v", "peer": "p", "export": "/"}"#, r#"{"vm": "v", "peer": "p"}"#),
        (
            "POST /relationships",
            r#"{"vm": "v", "peer": "p", "seeds": [["a", "b"]]}"#,
            r#"{"vm": "v", "peer": "p"}"#,
        ),
    ];
    for (request, more, usual) in requests {
        let host = Host::new();
        assert_eq!(host.problem(OPERATOR, request, more).await.0, StatusCode::FORBIDDEN, "{request} {more}");
        assert!(host.seen().is_empty(), "{request} {more}");
        assert_ne!(host.ask(ADMINISTRATOR, request, &[], more).await.status(), StatusCode::FORBIDDEN);
        assert_ne!(host.ask(OPERATOR, request, &[], usual).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(host.seen().len(), 2, "{request}");
    }
}

#[tokio::test]
async fn every_change_is_audited_with_what_came_of_it_and_no_plan_is() {
    let host = Host::new();
    host.ask(OPERATOR, "POST /relationships/vm%201/pause?dry_run=true", &[], "").await;
    host.ask(VIEWER, "GET /relationships", &[], "").await;
    assert!(host.audit().is_empty());
    host.ask(OPERATOR, "POST /relationships/vm%201/pause", &[], "").await;
    host.ask(VIEWER, "POST /relationships/vm/pause", &[], "").await;
    host.ask(OPERATOR, "POST /relationships/vm/points", &[], r#"{"tog": "x"}"#).await;
    host.ask(OPERATOR, "POST /relationships", &[], r#"{"vm": "v", "peer": "p"}"#).await;
    let audit = host.audit();
    assert_eq!(audit[0], "anna pause Some(\"vm 1\") accepted ");
    assert!(
        audit[1].starts_with("anna pause Some(\"vm\") refused Not allowed: anna is viewer"),
        "{}",
        audit[1]
    );
    assert!(
        audit[2].starts_with("anna point-create Some(\"vm\") refused Request not understood"),
        "{}",
        audit[2]
    );
    assert_eq!(audit[3], "anna enable Some(\"v\") peer: \"p\", vm: \"v\" accepted ");
    assert_eq!(audit.len(), 4);
    host.ask(ADMINISTRATOR, "POST /relationships/vm/failover", &[], "").await;
    host.ask(ADMINISTRATOR, "POST /relationships/vm/failover", &[], r#"{"force": true}"#).await;
    host.ask(ADMINISTRATOR, "POST /peers/join", &[], r#"{"token": "vr1secret", "address": "h"}"#).await;
    let audit = host.audit();
    assert!(audit[4].starts_with("anna failover Some(\"vm\") refused"), "{}", audit[4]);
    assert!(audit[5].starts_with("anna failover Some(\"vm\") force: true refused"), "{}", audit[5]);
    assert!(audit[6].contains("address") && !audit[6].contains("secret"), "{}", audit[6]);
}

#[tokio::test]
async fn what_is_not_a_request_is_refused_with_a_cure_and_changes_nothing() {
    let host = Host::new();
    let long = format!(r#"{{"tag": "{}"}}"#, "x".repeat(70_000));
    let refused = [
        ("POST /relationships/vm/points", r#"{"tog": "x"}"#, "invalid"),
        ("POST /relationships/vm/points", "{", "invalid"),
        ("POST /relationships/vm/points", long.as_str(), "too-large"),
        (
            "POST /relationships/vm/test-failover",
            r#"{"boot_timeout_seconds": 18446744073709551615}"#,
            "invalid",
        ),
        ("POST /relationships/vm", r#"{"thresholds": {"missed_cycles_percent_max": 255}}"#, "invalid"),
        ("POST /relationships/vm/pause", r#"{"why": "x"}"#, "invalid"),
        ("POST /relationships/vm/pause?dry_runn=true", "", "invalid"),
        ("POST /relationships/vm/pause?dry_run=perhaps", "", "invalid"),
        ("POST /relationships/%FF/pause", "", "invalid"),
        ("GET /relationships?limits=1", "", "invalid"),
        ("GET /nothing", "", "not-found"),
        ("DELETE /relationships", "", "invalid"),
    ];
    for (request, body, code) in refused {
        let (_, problem) = host.problem(ADMINISTRATOR, request, body).await;
        assert_eq!(problem["code"], code, "{request}");
        assert!(problem["cure"].is_string() || request.starts_with("DELETE"), "{request}: {problem}");
    }
    let form =
        host.ask(OPERATOR, "POST /relationships/vm/points", &[("content-type", "text/plain")], "{}").await;
    assert_eq!(form.status(), StatusCode::BAD_REQUEST);
    assert!(host.seen().is_empty(), "{:?}", host.seen());
}

#[tokio::test]
async fn what_the_asker_has_is_not_sent_again() {
    let host = Host::new();
    let first = host.ask(VIEWER, "GET /relationships", &[], "").await;
    let tag = first.headers()["etag"].to_str().expect("text").to_owned();
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = host.ask(VIEWER, "GET /relationships", &[("if-none-match", &known)], "").await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
        assert_eq!(again.headers()["etag"], tag.as_str());
        assert_eq!(text(again).await, "");
    }
    let other = host.ask(VIEWER, "GET /relationships?limit=1", &[("if-none-match", &tag)], "").await;
    assert_eq!(other.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_change_of_what_has_changed_is_refused() {
    let host = Host::new();
    for tag in ["\"before\"", "\"before.0123\", \"older\""] {
        let stale = host.ask(OPERATOR, "POST /relationships/vm/pause", &[("if-match", tag)], "").await;
        assert_eq!(stale.status(), StatusCode::PRECONDITION_FAILED);
        assert!(text(stale).await.contains("look again"));
    }
    assert!(host.seen().is_empty());
    for tag in ["\"now\"", "\"now.4567\"", "*"] {
        let done = host.ask(OPERATOR, "POST /relationships/vm/pause", &[("if-match", tag)], "").await;
        assert_eq!(done.status(), StatusCode::OK, "{tag}");
    }
    let elsewhere = host.ask(ADMINISTRATOR, "POST /peers/p/remove", &[("if-match", "\"now\"")], "").await;
    assert_eq!(elsewhere.status(), StatusCode::BAD_REQUEST);
    assert_eq!(host.seen().len(), 3);
}

#[tokio::test]
async fn a_page_says_where_the_list_goes_on() {
    let host = Host::new();
    let first = host.ask(VIEWER, "GET /relationships?limit=2", &[], "").await;
    assert_eq!(first.headers()["link"], "</api/v1/relationships?limit=2&after=b%20c>; rel=\"next\"");
    let last = host.ask(VIEWER, "GET /relationships?limit=2&after=b%20c", &[], "").await;
    assert!(last.headers().get("link").is_none());
    let rows: Vec<Value> = serde_json::from_str(&text(last).await).expect("a list");
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn a_listener_is_told_what_has_changed() {
    let host = Host::new();
    let stream = host.ask(VIEWER, "GET /changes", &[], "").await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let told = text(stream).await;
    let expected = ": listening\n\nevent: change\ndata: {\"what\":\"operations\"}\n\nevent: change\ndata: {\"what\":\"test-failovers\"}\n\n";
    assert_eq!(told, expected);
}

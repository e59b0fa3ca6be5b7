//! A console at a real port, with TLS, and browsers that speak to it. What PAM would say, a process says that behaves as a script does:
//! the real PAM is asked in the lab.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use accounts::Accounts;
use api::Caller;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use axum::routing::get;
use console::{
    Audit, BoxError, Certificate, Door, DoorOptions, Entry, Listener, Roles, Session, SessionStore, Source,
    TokenHash, routes,
};
use domain::Timestamp;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub const NOW_MS: u64 = 1_800_000_000_000;
pub const FAILURE_TAKES: Duration = Duration::from_millis(400);

/// alice has the groups in the file of her name; carol's password is right, but she is in no group with a role.
const ACCOUNTS: &str = r#"#!/bin/sh
question=$(cat)
here=${0%/*}
[ -e "$here/slow" ] && exec sleep 30
echo "$question" >> "$here/questions"
case "$question" in
    '{"sign-in":{"name":"alice","password":"right"'*|'{"look-up":{"name":"alice"}}') cat "$here/alice" ;;
    '{"sign-in":{"name":"carol","password":"right"'*) echo '{"good":{"name":"carol","groups":["carol"]}}' ;;
    *'"name":"broken"'*) echo 'PAM: no such module' >&2; exit 1 ;;
    *'"name":"nobody"'*) echo '{"refused":"no such account"}' ;;
    *) sleep 0.1; echo '{"refused":"wrong password"}' ;;
esac
"#;

#[derive(Default)]
pub struct Kept {
    pub sessions: Mutex<HashMap<TokenHash, Session>>,
    pub record: Mutex<Vec<String>>,
}

impl SessionStore for Kept {
    fn sessions(&self) -> Result<Vec<Session>, BoxError> {
        Ok(self.sessions.lock().unwrap().values().cloned().collect())
    }

    fn keep_session(&self, session: &Session) -> Result<(), BoxError> {
        self.sessions.lock().unwrap().insert(session.hash, session.clone());
        Ok(())
    }

    fn forget_session(&self, hash: &TokenHash) -> Result<(), BoxError> {
        self.sessions.lock().unwrap().remove(hash);
        Ok(())
    }
}

impl Audit for Kept {
    fn record(&self, entry: &Entry<'_>) {
        self.record.lock().unwrap().push(format!("{} {:?}", entry.who, entry.deed));
    }
}

/// One host's console.
pub struct World {
    pub folder: tempfile::TempDir,
    pub kept: Arc<Kept>,
    pub door: Arc<Door>,
    pub listener: Listener,
    /// What reached the API, and from whom.
    pub reached: Arc<Mutex<Vec<String>>>,
    clock: Arc<AtomicU64>,
    certificate: Vec<u8>,
}

/// Something that changes, something that is looked at, and a stream that never ends by itself.
fn api(reached: Arc<Mutex<Vec<String>>>) -> Router {
    let note = move |Extension(caller): Extension<Caller>, method: Method, body: Bytes| async move {
        let said = format!("{method} by {} as {} with {} bytes", caller, caller.role.words(), body.len());
        reached.lock().unwrap().push(said);
    };
    let stream = async || {
        let ticks = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"data: tick\n\n")), ()))
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(ticks.boxed()))
    };
    Router::new().route("/api/v1/thing", get(note.clone()).post(note)).route("/api/v1/stream", get(stream))
}

impl World {
    pub async fn new() -> World {
        Self::at_folder(tempfile::tempdir().unwrap(), Arc::default(), Arc::new(AtomicU64::new(NOW_MS))).await
    }

    async fn at_folder(folder: tempfile::TempDir, kept: Arc<Kept>, clock: Arc<AtomicU64>) -> World {
        let program = folder.path().join("accounts");
        if !program.exists() {
            std::fs::write(&program, ACCOUNTS).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let now = clock.clone();
        let door = Door::open(DoorOptions {
            host_name: "hvhost01".to_owned(),
            roles: Roles::default(),
            accounts: Accounts::new(program, "ask"),
            store: kept.clone(),
            audit: kept.clone(),
            clock: Arc::new(move || Timestamp(now.load(Ordering::SeqCst))),
            failure_takes: FAILURE_TAKES,
        })
        .unwrap();
        let source =
            Source::Own { file: folder.path().join("console.pem"), names: vec!["hvhost01".to_owned()] };
        // The certificate is judged by the browser's clock, which is the real one.
        let real = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let certificate = Certificate::open(source, Timestamp(real.as_millis() as u64)).unwrap();
        let der = certificate.der();
        let reached: Arc<Mutex<Vec<String>>> = Arc::default();
        let routes = routes(door.clone(), api(reached.clone()));
        let listener =
            Listener::bind("127.0.0.1:0".parse().unwrap(), Arc::new(certificate), routes).await.unwrap();
        let world = World { folder, kept, door, listener, reached, clock, certificate: der };
        world.alice_is_in(&["alice", "virt-replica-operator"]);
        world
    }

    /// The daemon ends, and starts again over the same files.
    pub async fn restarted(self) -> World {
        self.listener.stop().await;
        Self::at_folder(self.folder, self.kept, self.clock).await
    }

    pub fn alice_is_in(&self, groups: &[&str]) {
        let good = serde_json::json!({"good": {"name": "alice", "groups": groups}});
        std::fs::write(self.folder.path().join("alice"), good.to_string()).unwrap();
    }

    /// From now on nobody who asks about accounts gets an answer.
    pub fn accounts_hang(&self) {
        std::fs::write(self.folder.path().join("slow"), "").unwrap();
    }

    /// How often it was asked whether an account is still good.
    pub fn look_ups(&self) -> usize {
        let questions = std::fs::read_to_string(self.folder.path().join("questions")).unwrap();
        questions.lines().filter(|line| line.contains("look-up")).count()
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_address()
    }

    pub fn later(&self, by: Duration) {
        self.clock.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    pub fn sessions(&self) -> usize {
        self.kept.sessions.lock().unwrap().len()
    }

    pub fn reached(&self) -> Vec<String> {
        self.reached.lock().unwrap().clone()
    }

    /// A TLS connection that trusts nothing but the console's certificate.
    pub async fn connect(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.certificate.clone())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address()).await?;
        let name = ServerName::try_from("hvhost01").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let tls = self.connect(rustls::ALL_VERSIONS).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    }
}

/// What a browser keeps.
#[derive(Default, Clone)]
pub struct Browser {
    pub cookie: String,
    pub csrf: String,
}

/// An answer that has come whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Code of a problem that says what, why and the cure.
    pub fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{self:?}");
        let problem = self.json();
        let said = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(said("title") && said("detail") && said("cure"), "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Browser {
    pub fn request(&self, world: &World, method: Method, path: &str, body: &str) -> Request<Full<Bytes>> {
        let host = format!("hvhost01:{}", world.address().port());
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, &host)
            .header("sec-fetch-site", "same-origin");
        if method != Method::GET {
            request = request.header(header::ORIGIN, format!("https://{host}"));
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if !self.cookie.is_empty() {
            request = request.header(header::COOKIE, &self.cookie);
        }
        if !self.csrf.is_empty() {
            request = request.header("x-csrf-token", &self.csrf);
        }
        request.body(Full::new(body.to_owned().into())).unwrap()
    }

    pub async fn send(&self, world: &World, method: Method, path: &str, body: &str) -> Answer {
        whole(world.send(self.request(world, method, path, body)).await).await
    }

    pub async fn get(&self, world: &World, path: &str) -> Answer {
        self.send(world, Method::GET, path, "").await
    }

    pub async fn post(&self, world: &World, path: &str, body: &str) -> Answer {
        self.send(world, Method::POST, path, body).await
    }

    pub async fn sign_in(&mut self, world: &World, form: Value) -> Answer {
        let answer = self.post(world, "/session", &form.to_string()).await;
        if answer.status == StatusCode::OK {
            let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
            self.cookie = cookie.split(';').next().unwrap().to_owned();
            self.csrf = answer.json()["csrf"].as_str().unwrap().to_owned();
        }
        answer
    }

    pub async fn of_alice(world: &World) -> Browser {
        let mut browser = Browser::default();
        let answer = browser.sign_in(world, password("alice", "right")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        browser
    }
}

pub fn password(user: &str, password: &str) -> Value {
    serde_json::json!({"user": user, "password": password})
}

pub async fn whole(response: Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8_lossy(&bytes).into_owned(),
    }
}

//! Two hosts on the loopback, with real sockets and real keys.
#![allow(dead_code)] // each test file uses its own part

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use domain::{HostId, Timestamp};
use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::mpsc;
use transport::{
    BoxError, ClientOptions, DeltaBody, ErrorClass, Identity, Introduction, Invite, MemoryTrust, PeerClient,
    PeerHandler, PeerRecord, PeerServer, Refusal, ServerOptions, TrustStore, join,
};
use uuid::Uuid;

pub const SOON: Duration = Duration::from_secs(10);

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    Timestamp(since.as_millis() as u64)
}

/// Answers commands with themselves; reads deltas and says how many bytes came; tells of deltas that broke.
pub struct Engine {
    pub delta_bytes: AtomicU64,
    pub broken: mpsc::UnboundedSender<String>,
}

impl PeerHandler for Engine {
    fn command(&self, peer: PeerRecord, message: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            match &message[..] {
                b"who" => Ok(peer.name.into()),
                b"no" => Err(Refusal::new("told-no", ErrorClass::Permanent, "no, because it is a test")),
                b"hang" => std::future::pending().await,
                _ => Ok(message),
            }
        })
    }

    fn delta(&self, _: PeerRecord, mut body: DeltaBody) -> BoxFuture<'_, Result<Bytes, Refusal>> {
        Box::pin(async move {
            let mut sum = 0_u64;
            loop {
                match body.next().await {
                    Ok(Some(piece)) if piece.starts_with(b"refuse me") => {
                        return Err(Refusal::new(
                            "told-no",
                            ErrorClass::Permanent,
                            "no delta, because it is a test",
                        ));
                    }
                    Ok(Some(piece)) if piece.starts_with(b"stall me") => std::future::pending().await,
                    Ok(Some(piece)) => {
                        sum += piece.len() as u64;
                        self.delta_bytes.store(sum, Ordering::SeqCst);
                    }
                    Ok(None) => return Ok(format!("sealed {sum}").into()),
                    Err(error) => {
                        let _ = self.broken.send(error.to_string());
                        return Err(Refusal::new("broken", ErrorClass::Transient, error.to_string()));
                    }
                }
            }
        })
    }
}

pub struct Host {
    pub dir: TempDir,
    pub own: Introduction,
    pub identity: Arc<Identity>,
    pub trust: Arc<MemoryTrust>,
    pub server: PeerServer,
    pub engine: Arc<Engine>,
    pub broken: mpsc::UnboundedReceiver<String>,
}

impl Host {
    pub async fn start(name: &str) -> Host {
        Host::start_with(name, now(), |_| {}).await
    }

    pub async fn start_with(name: &str, certified: Timestamp, set: impl FnOnce(&mut ServerOptions)) -> Host {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Arc::new(Identity::open_or_create(dir.path(), name, certified).expect("an identity"));
        let trust = Arc::new(MemoryTrust::new());
        let (broken, broken_seen) = mpsc::unbounded_channel();
        let engine = Arc::new(Engine { delta_bytes: AtomicU64::new(0), broken });
        let host = HostId(Uuid::new_v4());
        let mut own =
            Introduction { host, name: name.to_owned(), address: Some("127.0.0.1".to_owned()), port: 0 };
        let mut options = ServerOptions::new(own.clone());
        set(&mut options);
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let server = PeerServer::bind(any, identity.clone(), trust.clone(), engine.clone(), options).await;
        let server = server.expect("listens");
        own.port = server.local_address().port();
        Host { dir, own, identity, trust, server, engine, broken: broken_seen }
    }

    pub fn invite(&self, lifetime: Duration) -> String {
        let addresses = ["127.0.0.1".to_owned()];
        let port = self.own.port;
        let invite = Invite::create(self.trust.as_ref(), &self.identity, &addresses, port, lifetime, now());
        invite.expect("an invite").token
    }

    pub async fn join(&self, token: &str) -> Result<PeerRecord, transport::PairingError> {
        self.join_at(token, None).await
    }

    pub async fn join_at(
        &self,
        token: &str,
        at: Option<&str>,
    ) -> Result<PeerRecord, transport::PairingError> {
        join(token, at, &self.own, &self.identity, self.trust.as_ref(), now()).await
    }

    pub fn client_of(&self, peer: &Host) -> PeerClient {
        self.client(peer.own.host)
    }

    pub fn client(&self, peer: HostId) -> PeerClient {
        let trust: Arc<dyn TrustStore> = self.trust.clone();
        PeerClient::new(peer, self.identity.clone(), trust, ClientOptions::default())
    }

    /// What another host pins of this one.
    pub fn record(&self) -> PeerRecord {
        PeerRecord {
            host: self.own.host,
            name: self.own.name.clone(),
            address: "127.0.0.1".to_owned(),
            port: self.own.port,
            certificate_der: self.identity.certificate_der(),
            next_certificate_der: None,
            paired_at: now(),
        }
    }
}

pub async fn paired() -> (Host, Host) {
    let (first, second) = (Host::start("hvhost01").await, Host::start("hvhost02").await);
    let token = first.invite(SOON);
    second.join(&token).await.expect("joins");
    (first, second)
}

/// `count` pieces of 1 MiB.
pub fn pieces(count: usize) -> impl futures_util::Stream<Item = Result<Bytes, BoxError>> + Send + 'static {
    let piece = Bytes::from(vec![7; 1 << 20]);
    futures_util::stream::iter((0..count).map(move |_| Ok(piece.clone())))
}

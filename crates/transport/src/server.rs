//! The listener: takes connections of peers, holds the limits, and hands requests to the engine.
//!
//! ```text
//! accept ──► total limit ──► limit per address ──► TLS (deadline, pinned) ──► limit per peer ──► HTTP/1.1 ──► routes
//! ```
//! A connection over a limit is closed without a word; the other side tries again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use places::Places;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

pub use body::{BodyError, DeltaBody};

use crate::error::Refusal;
use crate::identity::Identity;
use crate::pairing::{Gate, Introduction};
use crate::server::routes::Routes;
use crate::socket::{self, TLS_BUFFER_BYTES};
use crate::tls;
use crate::trust::{PeerRecord, TrustStore};
use crate::version::VersionRange;

mod body;
mod routes;

pub(crate) use routes::{
    CERTIFICATE_PATH, COMMAND_BYTES_MAX, COMMAND_PATH, DELTA_PATH, JOIN_PATH, NOT_PAIRED, store_failed,
};

/// Most connections at once; each costs some hundred KiB at worst.
const CONNECTIONS_MAX: usize = 256;
/// Most connections of one peer: a delta of each of its VMs and some commands.
const CONNECTIONS_PER_PEER_MAX: usize = 64;
/// Most connections of strangers, who only ever send one small request.
const CONNECTIONS_OF_STRANGERS_MAX: usize = 8;
/// Most connections of one address of which nobody knows yet whose they are: a peer may open all of its own at once.
const HANDSHAKES_PER_ADDRESS_MAX: usize = CONNECTIONS_PER_PEER_MAX;
/// A handshake that takes longer is not serious.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, whoever was refused is listened to: its request may be on its way, and a connection that is
/// closed with unread bytes is reset, which takes the reason away from the other side before it was read.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);
const REFUSED_BYTES_MAX: u64 = 64 << 10;
/// Longest wait for the head of the next request, which is also how long an idle connection lives.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Pause after a failed accept, which means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that HTTP buffers per connection.
const HTTP_BUFFER_BYTES: usize = 512 << 10;

/// What the engine does for peers. Called with peers that are pinned at the moment of the request, never with strangers.
pub trait PeerHandler: Send + Sync + 'static {
    /// Answers one JSON message.
    fn command(&self, peer: PeerRecord, message: Bytes) -> BoxFuture<'_, Result<Bytes, Refusal>>;
    /// Takes one delta and answers when it is sealed. A body that is dropped before its end refuses the rest.
    fn delta(&self, peer: PeerRecord, body: DeltaBody) -> BoxFuture<'_, Result<Bytes, Refusal>>;
}

/// What a server is told beside whom to trust.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Who this host is; told to hosts that join.
    pub own: Introduction,
    /// A delta whose next bytes take longer than this is given up; dead paths are noticed much earlier by the kernel.
    pub delta_idle_max: Duration,
    /// Versions of the protocol that are spoken; another range than [`VersionRange::OURS`] is for tests.
    pub versions: VersionRange,
}

impl ServerOptions {
    /// The usual options.
    #[must_use]
    pub fn new(own: Introduction) -> ServerOptions {
        ServerOptions { own, delta_idle_max: Duration::from_secs(120), versions: VersionRange::OURS }
    }
}

/// A listener that runs until it is dropped or stopped.
pub struct PeerServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

/// A listener that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be taken.
    #[error(
        "the replication listener cannot take {address}: does another program use the port? It is set in virtreplicad.toml"
    )]
    Address {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

pub(crate) struct Shared {
    pub(crate) trust: Arc<dyn TrustStore>,
    pub(crate) handler: Arc<dyn PeerHandler>,
    pub(crate) options: ServerOptions,
    pub(crate) gate: Gate,
    acceptor: TlsAcceptor,
    connections: Arc<Semaphore>,
    /// In their handshake.
    by_address: Places<IpAddr>,
    /// By certificate owner's id; strangers share one entry.
    by_peer: Places<Option<domain::HostId>>,
}

impl PeerServer {
    /// Listens at `address` (port 0 takes any) and serves in the background.
    pub async fn bind(
        address: SocketAddr,
        identity: Arc<Identity>,
        trust: Arc<dyn TrustStore>,
        handler: Arc<dyn PeerHandler>,
        options: ServerOptions,
    ) -> Result<PeerServer, BindError> {
        let config = tls::server_config(identity, trust.clone()).map_err(BindError::Tls)?;
        let in_use = |source| BindError::Address { address, source };
        let listener = TcpListener::bind(address).await.map_err(in_use)?;
        let local = listener.local_addr().map_err(in_use)?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            trust,
            handler,
            options,
            gate: Gate::default(),
            acceptor: TlsAcceptor::from(Arc::new(config)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            by_address: Places::default(),
            by_peer: Places::default(),
        });
        let accepting = tokio::spawn(accept_all(listener, shared, stopped));
        Ok(PeerServer { address: local, stop, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener and every connection, in the middle of whatever they do: deltas resume.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

async fn accept_all(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = shared.connections.clone().try_acquire_owned() else {
            tracing::warn!(%from, "connection refused: {CONNECTIONS_MAX} are open");
            continue;
        };
        let (shared, mut stopped) = (shared.clone(), stopped.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, from, shared, permit) => {}
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        });
    }
}

async fn serve(stream: TcpStream, from: SocketAddr, shared: Arc<Shared>, _permit: OwnedSemaphorePermit) {
    let Some(in_handshake) = shared.by_address.take(from.ip(), HANDSHAKES_PER_ADDRESS_MAX) else {
        return tracing::info!(%from, "connection refused: its address has {HANDSHAKES_PER_ADDRESS_MAX} in a handshake");
    };
    let Ok(wire) = socket::prepare(stream) else { return };
    let handshake = shared.acceptor.accept_with(wire, |tls| tls.set_buffer_limit(Some(TLS_BUFFER_BYTES)));
    let tls = match timeout(HANDSHAKE_DEADLINE, handshake.into_fallible()).await {
        Ok(Ok(tls)) => tls,
        Ok(Err((error, wire))) => {
            tracing::info!(%from, %error, "connection refused in its TLS handshake");
            return hear_out(wire).await;
        }
        Err(_) => return tracing::info!(%from, "connection refused: its TLS handshake took too long"),
    };
    drop(in_handshake);
    let certificates = tls.get_ref().1.peer_certificates();
    let Some(certificate) = certificates.and_then(<[_]>::first).map(|der| der.to_vec()) else { return };
    let peer = shared.trust.peer_by_certificate(&certificate).ok().flatten();
    if let Some(peer) = peer.as_ref().filter(|peer| peer.is_next(&certificate)) {
        promote(&shared, peer);
    }
    let most = if peer.is_some() { CONNECTIONS_PER_PEER_MAX } else { CONNECTIONS_OF_STRANGERS_MAX };
    let Some(_place) = shared.by_peer.take(peer.map(|peer| peer.host), most) else {
        return tracing::warn!(%from, "connection refused: this host has too many open");
    };
    let routes = Arc::new(Routes { shared: shared.clone(), certificate, from });
    let service = service_fn(move |request| routes.clone().answer(request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HTTP_BUFFER_BYTES)
        .serve_connection(TokioIo::new(tls), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%from, %error, "connection ended");
    }
}

/// Ends a connection on which the reason was said, so that it arrives.
async fn hear_out(mut wire: socket::Wire) {
    let listen = async {
        wire.shutdown().await?;
        tokio::io::copy(&mut wire.take(REFUSED_BYTES_MAX), &mut tokio::io::sink()).await
    };
    let _ = timeout(REFUSED_WITHIN, listen).await;
}

/// The peer shows the certificate that it had announced: the old one ends here.
fn promote(shared: &Shared, peer: &PeerRecord) {
    match shared.trust.promote_certificate(peer.host) {
        Ok(()) => tracing::info!(peer = %peer.name, "the peer uses its new certificate"),
        Err(error) => tracing::warn!(peer = %peer.name, %error, "the peer's new certificate was not stored"),
    }
}

//! The way to the console: takes connections, holds the limits, speaks TLS and HTTP/1.1.
//!
//! ```text
//! accept ──► total limit ──► limit per network ──► TLS (deadline) ──► HTTP/1.1 (deadline for each head) ──► routes
//! ```
//! A connection over a limit is closed without a word. What is *not* here: who may do what (`guard`, `api`).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use places::{Place, Places};
use rustix::net::sockopt;
use rustls::ServerConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::From;
use crate::certificate::Certificate;
use crate::network::network;

/// Most connections at once.
const CONNECTIONS_MAX: usize = 256;
/// Most connections of one address, or of one network of IPv6: a browser opens six, and several may stand behind one router.
const CONNECTIONS_PER_NETWORK_MAX: usize = 64;
/// A handshake that takes longer is not serious.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the head of the next request, which is also how long an idle connection lives.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// Largest head of a request, bytes, and most headers in it.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// A browser that does not take its answer for so long is gone.
const UNACKNOWLEDGED_MS_MAX: u32 = 30_000;
/// How long requests under way may take to end when the daemon stops.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Pause after a failed accept, which means that file descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first byte of TLS; no request of plain HTTP begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// A listener that runs until it is dropped or stopped.
pub struct Listener {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
    connections: Arc<Semaphore>,
}

/// A listener that cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be taken.
    #[error(
        "the console cannot take {address}: does another program use the port? It is set with `console` in virtreplicad.toml"
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

struct Shared {
    acceptor: TlsAcceptor,
    routes: Router,
    by_network: Places<IpAddr>,
}

impl Listener {
    /// Listens at `address` (port 0 takes any) and serves in the background.
    pub async fn bind(
        address: SocketAddr,
        certificate: Arc<Certificate>,
        routes: Router,
    ) -> Result<Listener, BindError> {
        let config = tls_config(certificate).map_err(BindError::Tls)?;
        let in_use = |source| BindError::Address { address, source };
        let listener = TcpListener::bind(address).await.map_err(in_use)?;
        let local = listener.local_addr().map_err(in_use)?;
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::new(Shared { acceptor, routes, by_network: Places::default() });
        let accepting = tokio::spawn(accept_all(listener, shared, connections.clone(), stopped));
        Ok(Listener { address: local, stop, accepting, connections })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets requests under way end for a moment, then closes the rest.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.accepting).await;
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        let _ = timeout(2 * STOP_GRACE, self.connections.acquire_many(all)).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

/// Browsers bring no certificate, and some still speak TLS 1.2.
fn tls_config(certificate: Arc<Certificate>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn accept_all(
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told_to_stop(&mut stopped) => return,
        };
        let (stream, from) = match accepted {
            Ok((stream, from)) => (stream, from.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "a connection to the console could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::warn!(%from, "connection to the console refused: {CONNECTIONS_MAX} are open");
            continue;
        };
        let Some(place) = place(&shared.by_network, from) else {
            tracing::warn!(%from, "connection to the console refused: its network has too many open");
            continue;
        };
        tokio::spawn(serve(stream, from, shared.clone(), stopped.clone(), (permit, place)));
    }
}

/// One of the connections that whoever is there may have.
fn place(by_network: &Places<IpAddr>, from: IpAddr) -> Option<Place<IpAddr>> {
    by_network.take(network(from), CONNECTIONS_PER_NETWORK_MAX)
}

async fn serve(
    stream: TcpStream,
    from: IpAddr,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    _place: (OwnedSemaphorePermit, Place<IpAddr>),
) {
    let greeted = tokio::select! {
        greeted = timeout(HANDSHAKE_DEADLINE, greet(stream, &shared.acceptor)) => greeted,
        () = told_to_stop(&mut stopped) => return,
    };
    let tls = match greeted {
        Ok(Ok(Some(tls))) => tls,
        Ok(Ok(None)) => return tracing::debug!(%from, "plain HTTP at the console's port"),
        Ok(Err(error)) => {
            return tracing::debug!(%from, %error, "connection to the console refused in its TLS handshake");
        }
        Err(_) => {
            return tracing::debug!(%from, "connection to the console refused: its TLS handshake took too long");
        }
    };
    let service = service_fn(move |request| answer(shared.routes.clone(), From(from), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(tls), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Ok(ended),
        () = told_to_stop(&mut stopped) => {
            served.as_mut().graceful_shutdown();
            timeout(STOP_GRACE, served).await
        }
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%from, %error, "connection to the console ended");
    }
}

async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await; // a sender that is gone means the same
}

async fn answer(
    routes: Router,
    from: From,
    request: hyper::Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request: Request = request.map(Body::new);
    request.extensions_mut().insert(from);
    routes.oneshot(request).await
}

/// The handshake; none: it was plain HTTP, and was told so.
async fn greet(
    mut stream: TcpStream,
    acceptor: &TlsAcceptor,
) -> std::io::Result<Option<tokio_rustls::server::TlsStream<TcpStream>>> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS_MAX)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] == TLS_HANDSHAKE {
        return acceptor.accept(stream).await.map(Some);
    }
    const TEXT: &str = "This port speaks HTTPS only: put https:// before the address.\n";
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
    let text = format!("{head}Content-Length: {}\r\n\r\n{TEXT}", TEXT.len());
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with bytes unread would take the answer back.
    let mut rest = stream.take(HEAD_BYTES_MAX as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_a_network_of_addresses_has_no_more_connections_than_one_with_one() {
        let places = Places::default();
        let address = |network: u16, host: u16| IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host]);
        let taken: Vec<_> = (0..100).filter_map(|host| place(&places, address(1, host))).collect();
        assert_eq!(taken.len(), CONNECTIONS_PER_NETWORK_MAX);
        assert!(place(&places, address(2, 0)).is_some());
    }
}

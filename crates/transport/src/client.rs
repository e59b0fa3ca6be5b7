//! This host's side of every conversation with one peer.
//!
//! Commands use connections that are kept and each has a deadline; they are idempotent, so one that meets a connection which
//! the other side has just closed is sent again once. A delta has a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::HostId;
use futures_util::Stream;
use tokio::time::Instant;

pub use delta::{DeltaAnswer, DeltaOptions, TransferProgress};
pub(crate) use line::Line;

use crate::error::{BoxError, TransportError};
use crate::identity::Identity;
use crate::server::{CERTIFICATE_PATH, COMMAND_BYTES_MAX, COMMAND_PATH};
use crate::tls::Expected;
use crate::trust::{PeerRecord, TrustStore};
use crate::version::VersionRange;

mod delta;
mod line;

/// Most connections for commands that are kept at rest.
const IDLE_LINES_MAX: usize = 4;
/// A connection that rested longer is not used again; the server closes it after 60 s.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How a client waits.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Longest wait for the announcement of a certificate; commands name their own deadline.
    pub announce_deadline: Duration,
    /// Versions of the protocol that are spoken; another range than [`VersionRange::OURS`] is for tests.
    pub versions: VersionRange,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions { announce_deadline: Duration::from_secs(10), versions: VersionRange::OURS }
    }
}

/// Speaks to one peer. Its address and certificates are looked up for each connection, so changes are seen at once.
pub struct PeerClient {
    host: HostId,
    identity: Arc<Identity>,
    trust: Arc<dyn TrustStore>,
    options: ClientOptions,
    idle: Mutex<Vec<(Line, Instant)>>,
}

impl PeerClient {
    /// A client for the peer with this id; connects when it is first used.
    #[must_use]
    pub fn new(
        host: HostId,
        identity: Arc<Identity>,
        trust: Arc<dyn TrustStore>,
        options: ClientOptions,
    ) -> PeerClient {
        PeerClient { host, identity, trust, options, idle: Mutex::default() }
    }

    /// The peer's id.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.host
    }

    /// Sends one JSON message and returns the answer; all of it, connecting included, within `deadline`.
    pub async fn command(&self, message: Bytes, deadline: Duration) -> Result<Bytes, TransportError> {
        if message.len() > COMMAND_BYTES_MAX {
            return Err(TransportError::TooLarge { bytes: message.len(), limit: COMMAND_BYTES_MAX });
        }
        self.post(COMMAND_PATH, message, deadline).await
    }

    /// Tells the peer which certificate this host will show next; afterwards it accepts both. Repeating is fine.
    pub async fn announce_certificate(&self, certificate_der: Vec<u8>) -> Result<(), TransportError> {
        self.post(CERTIFICATE_PATH, certificate_der.into(), self.options.announce_deadline).await.map(drop)
    }

    /// Sends one delta and returns what the peer says when it has sealed it.
    ///
    /// The stream is the whole delta, or what is left of it. A stream that ends with an error breaks the connection, so
    /// that the peer never takes a part for the whole.
    pub async fn send_delta<S>(&self, delta: S, options: DeltaOptions) -> Result<DeltaAnswer, TransportError>
    where
        S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
    {
        let (line, _) = self.connect().await?;
        delta::send(line, delta, options).await
    }

    async fn post(&self, path: &str, message: Bytes, deadline: Duration) -> Result<Bytes, TransportError> {
        let posted = tokio::time::timeout(deadline, self.post_on_some_line(path, message, deadline)).await;
        match posted {
            Ok(answer) => answer,
            Err(_) => {
                let peer = self.record().map_or_else(|_| self.host.to_string(), |peer| peer.name);
                Err(TransportError::Deadline { peer, what: "a command", limit: deadline })
            }
        }
    }

    async fn post_on_some_line(
        &self,
        path: &str,
        message: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError> {
        if let Some(mut line) = self.rested_line() {
            match line.post(path, message.clone(), deadline).await {
                // It ended, or was made with a certificate that this host has replaced since.
                Err(TransportError::Broken { .. } | TransportError::NotAccepted { .. }) => {}
                answer => return self.rest(line, answer),
            }
        }
        let (mut line, _) = self.connect().await?;
        let answer = line.post(path, message, deadline).await;
        self.rest(line, answer)
    }

    /// Keeps the connection when it is good for another command.
    fn rest(&self, line: Line, answer: Result<Bytes, TransportError>) -> Result<Bytes, TransportError> {
        if matches!(answer, Ok(_) | Err(TransportError::Refused(_))) && line.is_open() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_LINES_MAX {
                idle.push((line, Instant::now()));
            }
        }
        answer
    }

    fn rested_line(&self) -> Option<Line> {
        let pinned = self.record().ok();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(line, since)| {
            let trusted = pinned.as_ref().is_some_and(|peer| peer.pins(line.certificate_der()));
            since.elapsed() < IDLE_MAX && line.is_open() && trusted
        });
        idle.pop().map(|(line, _)| line)
    }

    async fn connect(&self) -> Result<(Line, PeerRecord), TransportError> {
        let peer = self.record()?;
        let expected = Expected::Peer(Box::new(peer.clone()));
        let line =
            Line::connect(self.identity.clone(), expected, &peer.name, &peer.address, peer.port).await?;
        let line = line.speaking(self.options.versions);
        if peer.is_next(line.certificate_der()) {
            self.trust.promote_certificate(self.host)?;
        }
        Ok((line, peer))
    }

    fn record(&self) -> Result<PeerRecord, TransportError> {
        self.trust.peer(self.host)?.ok_or(TransportError::UnknownPeer(self.host))
    }
}

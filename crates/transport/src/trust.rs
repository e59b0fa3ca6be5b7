//! Whom this host trusts: peers by certificate, and invites that are open. The state store implements [`TrustStore`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{HostId, Timestamp};

use crate::error::BoxError;

/// Another host that this one trusts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerRecord {
    /// Its id.
    pub host: HostId,
    /// Its name, for people.
    pub name: String,
    /// Where it listens: a name or an IP address.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// Its pinned certificate.
    pub certificate_der: Vec<u8>,
    /// The certificate that it has announced; as good as the pinned one.
    pub next_certificate_der: Option<Vec<u8>>,
    /// When it was paired.
    pub paired_at: Timestamp,
}

impl PeerRecord {
    /// Whether this certificate is one of its own.
    #[must_use]
    pub fn pins(&self, certificate_der: &[u8]) -> bool {
        self.certificate_der == certificate_der || self.is_next(certificate_der)
    }

    /// Whether this is the certificate that it announced.
    #[must_use]
    pub fn is_next(&self, certificate_der: &[u8]) -> bool {
        self.next_certificate_der.as_deref() == Some(certificate_der)
    }
}

/// What became of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InviteVerdict {
    /// It was good, is used now, and the peer is stored.
    Accepted,
    /// Nobody made it here.
    Unknown,
    /// It was used before.
    Used,
    /// It is too old.
    Expired,
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
#[error("the store of trusted hosts cannot be used; see the daemon's log")]
pub struct TrustError(#[source] pub BoxError);

/// Where peers and invites are kept. Calls block, but shortly: they are made inside TLS handshakes.
pub trait TrustStore: Send + Sync + 'static {
    /// The peer that this certificate belongs to, as pinned or as announced.
    fn peer_by_certificate(&self, certificate_der: &[u8]) -> Result<Option<PeerRecord>, TrustError>;
    /// The peer with this id.
    fn peer(&self, host: HostId) -> Result<Option<PeerRecord>, TrustError>;
    /// Pins a peer; one with the same id is replaced, since a token was spent on it.
    fn add_peer(&self, peer: &PeerRecord) -> Result<(), TrustError>;
    /// Remembers the certificate that a peer has announced.
    fn set_next_certificate(&self, host: HostId, certificate_der: &[u8]) -> Result<(), TrustError>;
    /// The peer uses the announced certificate now: it becomes the pinned one and the old one is forgotten. Repeating is fine.
    fn promote_certificate(&self, host: HostId) -> Result<(), TrustError>;
    /// Opens an invite; only the hash of its secret is kept.
    fn add_invite(&self, secret_hash: [u8; 32], expires: Timestamp) -> Result<(), TrustError>;
    /// Uses up an invite and pins the peer, so that of two hosts with one token exactly one is accepted.
    fn admit(
        &self,
        secret_hash: &[u8; 32],
        now: Timestamp,
        peer: &PeerRecord,
    ) -> Result<InviteVerdict, TrustError>;
    /// Whether a stranger may speak to the join door at all: when any invite, be it used or expired, is remembered. Otherwise the
    /// handshake ends with an alert.
    fn strangers_may_knock(&self) -> Result<bool, TrustError>;
}

/// A [`TrustStore`] that forgets with the process; for tests and measurements.
#[derive(Default)]
pub struct MemoryTrust(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    peers: HashMap<HostId, PeerRecord>,
    /// Expiry and whether it was used, by hash.
    invites: HashMap<[u8; 32], (Timestamp, bool)>,
}

impl MemoryTrust {
    /// Trusts nobody.
    #[must_use]
    pub fn new() -> MemoryTrust {
        MemoryTrust::default()
    }

    /// Forgets a peer.
    pub fn remove_peer(&self, host: HostId) {
        self.memory().peers.remove(&host);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrustStore for MemoryTrust {
    fn peer_by_certificate(&self, certificate_der: &[u8]) -> Result<Option<PeerRecord>, TrustError> {
        Ok(self.memory().peers.values().find(|peer| peer.pins(certificate_der)).cloned())
    }

    fn peer(&self, host: HostId) -> Result<Option<PeerRecord>, TrustError> {
        Ok(self.memory().peers.get(&host).cloned())
    }

    fn add_peer(&self, peer: &PeerRecord) -> Result<(), TrustError> {
        self.memory().peers.insert(peer.host, peer.clone());
        Ok(())
    }

    fn set_next_certificate(&self, host: HostId, certificate_der: &[u8]) -> Result<(), TrustError> {
        if let Some(peer) = self.memory().peers.get_mut(&host) {
            peer.next_certificate_der = Some(certificate_der.to_vec());
        }
        Ok(())
    }

    fn promote_certificate(&self, host: HostId) -> Result<(), TrustError> {
        if let Some(peer) = self.memory().peers.get_mut(&host)
            && let Some(next) = peer.next_certificate_der.take()
        {
            peer.certificate_der = next;
        }
        Ok(())
    }

    fn add_invite(&self, secret_hash: [u8; 32], expires: Timestamp) -> Result<(), TrustError> {
        self.memory().invites.insert(secret_hash, (expires, false));
        Ok(())
    }

    fn admit(
        &self,
        secret_hash: &[u8; 32],
        now: Timestamp,
        peer: &PeerRecord,
    ) -> Result<InviteVerdict, TrustError> {
        let mut memory = self.memory();
        let verdict = match memory.invites.get_mut(secret_hash) {
            None => InviteVerdict::Unknown,
            Some((_, true)) => InviteVerdict::Used,
            Some((expires, false)) if now >= *expires => InviteVerdict::Expired,
            Some((_, used)) => {
                *used = true;
                InviteVerdict::Accepted
            }
        };
        if verdict == InviteVerdict::Accepted {
            memory.peers.insert(peer.host, peer.clone());
        }
        Ok(verdict)
    }

    fn strangers_may_knock(&self) -> Result<bool, TrustError> {
        Ok(!self.memory().invites.is_empty())
    }
}

//! Whom this host trusts, kept in the state store.

use domain::{HostId, Timestamp};
use store::{Peer, Store};
use transport::{InviteVerdict, PeerRecord, TrustError, TrustStore};

/// The store as the transport sees it.
pub struct Trust(pub Store);

fn failed(error: store::StoreError) -> TrustError {
    TrustError(error.into())
}

fn record(peer: Peer) -> PeerRecord {
    let Peer { host, name, address, port, certificate_der, next_certificate_der, paired_at } = peer;
    PeerRecord { host, name, address, port, certificate_der, next_certificate_der, paired_at }
}

fn peer(record: &PeerRecord) -> Peer {
    let PeerRecord { host, name, address, port, certificate_der, next_certificate_der, paired_at } =
        record.clone();
    Peer { host, name, address, port, certificate_der, next_certificate_der, paired_at }
}

impl TrustStore for Trust {
    fn peer_by_certificate(&self, certificate_der: &[u8]) -> Result<Option<PeerRecord>, TrustError> {
        let peers = self.0.peers().map_err(failed)?;
        Ok(peers.into_iter().map(record).find(|peer| peer.pins(certificate_der)))
    }

    fn peer(&self, host: HostId) -> Result<Option<PeerRecord>, TrustError> {
        let peers = self.0.peers().map_err(failed)?;
        Ok(peers.into_iter().map(record).find(|peer| peer.host == host))
    }

    fn add_peer(&self, new: &PeerRecord) -> Result<(), TrustError> {
        self.0.add_peer(&peer(new)).map_err(failed)
    }

    fn set_next_certificate(&self, host: HostId, certificate_der: &[u8]) -> Result<(), TrustError> {
        self.0.set_next_certificate(host, certificate_der).map_err(failed)
    }

    fn promote_certificate(&self, host: HostId) -> Result<(), TrustError> {
        self.0.promote_certificate(host).map_err(failed)
    }

    fn add_invite(&self, secret_hash: [u8; 32], expires: Timestamp) -> Result<(), TrustError> {
        self.0.add_invite(&secret_hash, expires, crate::clock::now()).map_err(failed)
    }

    fn admit(
        &self,
        secret_hash: &[u8; 32],
        now: Timestamp,
        new: &PeerRecord,
    ) -> Result<InviteVerdict, TrustError> {
        Ok(match self.0.admit(secret_hash, now, &peer(new)).map_err(failed)? {
            store::InviteVerdict::Accepted => InviteVerdict::Accepted,
            store::InviteVerdict::Unknown => InviteVerdict::Unknown,
            store::InviteVerdict::Used => InviteVerdict::Used,
            store::InviteVerdict::Expired => InviteVerdict::Expired,
        })
    }

    fn strangers_may_knock(&self) -> Result<bool, TrustError> {
        self.0.has_invites().map_err(failed)
    }
}

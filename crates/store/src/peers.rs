//! Peers and invites.

use domain::{HostId, Timestamp};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;

use crate::cached::Cached;
use crate::error::{StoreError, row};
use crate::forgotten::forget_ended_with;
use crate::{Result, Store};

/// Another host that this one trusts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its id.
    pub host: HostId,
    /// Its name, for people.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// Its pinned certificate.
    pub certificate_der: Vec<u8>,
    /// The certificate that it has announced.
    pub next_certificate_der: Option<Vec<u8>>,
    /// When it was paired.
    pub paired_at: Timestamp,
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

impl Store {
    /// All peers, by name.
    pub fn peers(&self) -> Result<Vec<Peer>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM peer ORDER BY name")?;
        let peers = statement.query_map([], |row| Ok(peer_of(row)))?;
        peers.map(|peer| peer?).collect()
    }

    /// One peer.
    pub fn peer(&self, host: HostId) -> Result<Option<Peer>> {
        Ok(self.peers()?.into_iter().find(|peer| peer.host == host))
    }

    /// The peer that a certificate belongs to, as pinned or as announced.
    pub fn peer_by_certificate(&self, certificate_der: &[u8]) -> Result<Option<Peer>> {
        let owns = |peer: &Peer| {
            peer.certificate_der == certificate_der
                || peer.next_certificate_der.as_deref() == Some(certificate_der)
        };
        Ok(self.peers()?.into_iter().find(owns))
    }

    /// Pins a peer; one with the same id is replaced.
    pub fn add_peer(&self, peer: &Peer) -> Result<()> {
        self.write(|transaction| insert_peer(transaction, peer))
    }

    /// Remembers the certificate that a peer has announced.
    pub fn set_next_certificate(&self, host: HostId, certificate_der: &[u8]) -> Result<()> {
        self.write(|transaction| {
            let update = "UPDATE peer SET next_certificate = ?2 WHERE host = ?1";
            transaction.execute_cached(update, params![host.to_string(), certificate_der])?;
            Ok(())
        })
    }

    /// The announced certificate becomes the pinned one.
    pub fn promote_certificate(&self, host: HostId) -> Result<()> {
        self.write(|transaction| {
            let update = "UPDATE peer SET certificate = next_certificate, next_certificate = NULL
                          WHERE host = ?1 AND next_certificate IS NOT NULL";
            transaction.execute_cached(update, [host.to_string()])?;
            Ok(())
        })
    }

    /// Forgets a peer that no relationship uses.
    pub fn remove_peer(&self, host: HostId) -> Result<()> {
        self.write(|transaction| {
            let query = "SELECT count(*) FROM relationship WHERE peer = ?1";
            let used: i64 = transaction.query_row_cached(query, [host.to_string()], |row| row.get(0))?;
            if used > 0 {
                return Err(StoreError::PeerInUse);
            }
            forget_ended_with(transaction, host)?;
            transaction.execute_cached("DELETE FROM peer WHERE host = ?1", [host.to_string()])?;
            Ok(())
        })
    }

    /// Opens an invite; only the hash of its secret is kept. Invites older than a day are forgotten.
    pub fn add_invite(&self, secret_hash: &[u8; 32], expires: Timestamp, now: Timestamp) -> Result<()> {
        const REMEMBERED_MS: u64 = 24 * 3600 * 1000;
        self.write(|transaction| {
            let old = now.millis().saturating_sub(REMEMBERED_MS);
            transaction.execute_cached("DELETE FROM invite WHERE expires_ms < ?1", [old])?;
            let insert = "INSERT INTO invite (secret_hash, expires_ms, used) VALUES (?1, ?2, 0)";
            transaction.execute_cached(insert, params![secret_hash, expires.millis()])?;
            Ok(())
        })
    }

    /// Uses up an invite and pins the peer in one transaction: of two hosts with one token exactly one is accepted.
    pub fn admit(&self, secret_hash: &[u8; 32], now: Timestamp, peer: &Peer) -> Result<InviteVerdict> {
        self.write(|transaction| {
            let query = "SELECT expires_ms, used FROM invite WHERE secret_hash = ?1";
            let found = transaction
                .query_row_cached(query, [secret_hash], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let verdict = match found {
                None => InviteVerdict::Unknown,
                Some((_, true)) => InviteVerdict::Used,
                Some((expires, false)) if now >= Timestamp(expires) => InviteVerdict::Expired,
                Some(_) => InviteVerdict::Accepted,
            };
            if verdict == InviteVerdict::Accepted {
                transaction
                    .execute_cached("UPDATE invite SET used = 1 WHERE secret_hash = ?1", [secret_hash])?;
                insert_peer(transaction, peer)?;
            }
            Ok(verdict)
        })
    }

    /// Whether any invite is remembered.
    pub fn has_invites(&self) -> Result<bool> {
        let query = "SELECT EXISTS (SELECT 1 FROM invite)";
        Ok(self.connection().query_row_cached(query, [], |row| row.get(0))?)
    }
}

fn insert_peer(transaction: &Transaction<'_>, peer: &Peer) -> Result<()> {
    let insert = "INSERT OR REPLACE INTO peer VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.execute_cached(
        insert,
        params![
            peer.host.to_string(),
            peer.name,
            peer.address,
            peer.port,
            peer.certificate_der,
            peer.next_certificate_der,
            peer.paired_at.millis()
        ],
    )?;
    Ok(())
}

fn peer_of(columns: &Row<'_>) -> Result<Peer> {
    let host: String = columns.get("host")?;
    Ok(Peer {
        host: HostId(Uuid::parse_str(&host).map_err(row)?),
        name: columns.get("name")?,
        address: columns.get("address")?,
        port: columns.get("port")?,
        certificate_der: columns.get("certificate")?,
        next_certificate_der: columns.get("next_certificate")?,
        paired_at: Timestamp(columns.get("paired_ms")?),
    })
}

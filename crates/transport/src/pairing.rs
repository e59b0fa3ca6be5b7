//! Two hosts come to know each other: one invites, the other joins with the token; afterwards each pins the other's certificate.
//!
//! ```text
//! joining host                                                        inviting host
//!   connects; the certificate must have the token's fingerprint  ──►
//!   proves the key of its own certificate (TLS)                  ──►
//!   secret, id, name, address                                    ──►  secret unused and young? use it up and pin, at once
//!   pins the certificate it saw                                  ◄──  id, name
//! ```
//! The secret travels inside TLS to the one host that has it already, so it needs no proof of its own. If the answer is
//! lost, the same host may use the same token again.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use domain::{HostId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::client::Line;
use crate::error::{ErrorClass, PairingError, Refusal, TransportError};
use crate::identity::{Identity, validity};
use crate::invite::{ADDRESS_BYTES_MAX, InviteToken, SECRET_BYTES, secret_hash};
use crate::server::JOIN_PATH;
use crate::server::{Shared, store_failed};
use crate::tls::Expected;
use crate::trust::{InviteVerdict, PeerRecord, TrustError, TrustStore};

/// How a host presents itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Introduction {
    /// Its id.
    pub host: HostId,
    /// Its name, for people.
    pub name: String,
    /// Where it can be reached; none lets the other side take the address that the connection came from.
    pub address: Option<String>,
    /// The port of its replication listener.
    pub port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinForm {
    secret: String,
    host: Uuid,
    name: String,
    address: Option<String>,
    port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinedForm {
    host: Uuid,
    name: String,
}

const WRONG: &str = "invite-wrong";
const USED: &str = "invite-used";
const EXPIRED: &str = "invite-expired";
const HOST_KNOWN: &str = "host-known";
const TOO_MANY: &str = "too-many-attempts";

/// Longest name of a host that is kept.
const NAME_CHARS_MAX: usize = 64;
/// Longest wait for the answer to a join.
const JOIN_DEADLINE: Duration = Duration::from_secs(15);

/// Uses a token: connects to the inviting host, joins, and pins its certificate in `trust`. It is sought at `at` (`host[:port]`)
/// where that is given, and else at the token's addresses; whoever answers must show the token's fingerprint either way.
pub async fn join(
    token: &str,
    at: Option<&str>,
    own: &Introduction,
    identity: &std::sync::Arc<Identity>,
    trust: &dyn TrustStore,
    now: Timestamp,
) -> Result<PeerRecord, PairingError> {
    let mut token = InviteToken::parse(token)?;
    if let Some(at) = at {
        let (host, port) =
            place(at, token.port).ok_or_else(|| PairingError::NoAddress { text: at.to_owned() })?;
        (token.addresses, token.port) = (vec![host], port);
    }
    if token.fingerprint == identity.fingerprint() {
        return Err(PairingError::OwnToken);
    }
    let (mut line, address) = reach(&token, identity).await?;
    let form = JoinForm {
        secret: hex(&token.secret),
        host: own.host.0,
        name: own.name.clone(),
        address: own.address.clone(),
        port: own.port,
    };
    let message = serde_json::to_vec(&form).map_err(|error| protocol(&address, &error))?;
    let answer = line.post(JOIN_PATH, message.into(), JOIN_DEADLINE).await.map_err(pairing_error)?;
    let joined: JoinedForm = serde_json::from_slice(&answer).map_err(|error| protocol(&address, &error))?;
    let peer = PeerRecord {
        host: HostId(joined.host),
        name: presentable(&joined.name, &address),
        address,
        port: token.port,
        certificate_der: line.certificate_der().to_vec(),
        next_certificate_der: None,
        paired_at: now,
    };
    if claims_anothers_place(trust, &peer)? {
        return Err(PairingError::HostKnown { name: peer.name });
    }
    trust.add_peer(&peer)?;
    Ok(peer)
}

/// Whether a host presents itself with the id, or the certificate, of another peer. A token lets a host in; it does not
/// let it take over the relationships of a host that is in already. A certificate that has expired may be replaced so.
fn claims_anothers_place(trust: &dyn TrustStore, peer: &PeerRecord) -> Result<bool, TrustError> {
    let other_id =
        trust.peer_by_certificate(&peer.certificate_der)?.is_some_and(|known| known.host != peer.host);
    let other_key = trust.peer(peer.host)?.is_some_and(|known| {
        let expired = validity(&known.certificate_der).is_none_or(|(_, end)| end < peer.paired_at);
        !known.pins(&peer.certificate_der) && !expired
    });
    Ok(other_id || other_key)
}

/// Where a person says that a host is: a name or an address, of IPv6 with or without brackets; without a port at the token's.
fn place(text: &str, port: u16) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((address.to_string(), port));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (text, port),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let one = !bare.contains(':') || (bare != host && bare.parse::<Ipv6Addr>().is_ok());
    let fits = (1..=ADDRESS_BYTES_MAX).contains(&bare.len()) && port != 0;
    (one && fits).then(|| (bare.to_owned(), port))
}

/// The first of the token's addresses that answers; an address where another host answers ends the search.
async fn reach(
    token: &InviteToken,
    identity: &std::sync::Arc<Identity>,
) -> Result<(Line, String), PairingError> {
    let mut last = None;
    for address in &token.addresses {
        let expected = Expected::Fingerprint(token.fingerprint);
        match Line::connect(identity.clone(), expected, "the inviting host", address, token.port).await {
            Ok(line) => return Ok((line, address.clone())),
            Err(TransportError::CertificateNotPinned { .. }) => {
                return Err(PairingError::FingerprintMismatch { address: address.clone() });
            }
            Err(error) => last = Some(error),
        }
    }
    // Proof: a token that was parsed names at least one address.
    Err(last.expect("a token names at least one address").into())
}

fn pairing_error(error: TransportError) -> PairingError {
    match error {
        TransportError::Refused(refusal) => match refusal.code.as_str() {
            WRONG => PairingError::Wrong,
            USED => PairingError::Used,
            EXPIRED => PairingError::Expired,
            HOST_KNOWN => PairingError::HostKnown { name: "this host".to_owned() },
            TOO_MANY => PairingError::TooManyAttempts,
            _ => TransportError::Refused(refusal).into(),
        },
        // The door is shut altogether: no invite is remembered there.
        TransportError::NotAccepted { .. } => PairingError::Wrong,
        other => other.into(),
    }
}

fn protocol(peer: &str, error: &serde_json::Error) -> PairingError {
    TransportError::Protocol { peer: peer.to_owned(), what: error.to_string() }.into()
}

/// The inviting side of [`join`].
pub(crate) async fn admit(
    shared: &Shared,
    certificate: &[u8],
    from: SocketAddr,
    message: &[u8],
) -> Result<Bytes, Refusal> {
    shared.gate.enter()?;
    let (peer, secret) = read_join(message, certificate, from)?;
    if claims_anothers_place(shared.trust.as_ref(), &peer).map_err(store_failed)? {
        shared.gate.count_failure();
        tracing::warn!(%from, host = %peer.host, "a host tried to join in the place of another peer");
        return Err(refusal_of(HOST_KNOWN));
    }
    let verdict = admit_blocking(shared, secret, peer.clone()).await?;
    let code = match verdict {
        InviteVerdict::Accepted => None,
        // The answer to the first attempt was lost: same key, same token, same host.
        InviteVerdict::Used if is_paired(shared, &peer)? => None,
        InviteVerdict::Used => Some(USED),
        InviteVerdict::Expired => Some(EXPIRED),
        InviteVerdict::Unknown => Some(WRONG),
    };
    if let Some(code) = code {
        shared.gate.count_failure();
        tracing::warn!(%from, code, "a host tried to join with a token that is not good");
        return Err(refusal_of(code));
    }
    tracing::info!(%from, peer = %peer.name, "paired");
    let own = &shared.options.own;
    let answer = JoinedForm { host: own.host.0, name: own.name.clone() };
    Ok(serde_json::to_vec(&answer).unwrap_or_default().into())
}

/// Who asks to be let in, and with which secret: what a stranger says before anybody is trusted.
pub fn read_join(
    message: &[u8],
    certificate: &[u8],
    from: SocketAddr,
) -> Result<(PeerRecord, [u8; SECRET_BYTES]), Refusal> {
    let form: JoinForm = serde_json::from_slice(message)
        .map_err(|_| Refusal::new("bad-join", ErrorClass::Permanent, "the request to join cannot be read"))?;
    let peer = PeerRecord {
        host: HostId(form.host),
        name: presentable(&form.name, &from.ip().to_string()),
        address: address_of(&form, from),
        port: form.port,
        certificate_der: certificate.to_vec(),
        next_certificate_der: None,
        paired_at: now(),
    };
    let secret = from_hex(&form.secret).ok_or_else(|| refusal_of(WRONG))?;
    Ok((peer, secret))
}

/// Storing waits for the disk, so not on a thread that serves others.
async fn admit_blocking(
    shared: &Shared,
    secret: [u8; SECRET_BYTES],
    peer: PeerRecord,
) -> Result<InviteVerdict, Refusal> {
    let trust = shared.trust.clone();
    let admitted =
        tokio::task::spawn_blocking(move || trust.admit(&secret_hash(&secret), peer.paired_at, &peer)).await;
    match admitted {
        Ok(verdict) => verdict.map_err(store_failed),
        Err(error) => Err(Refusal::new("store-failed", ErrorClass::Transient, error.to_string())),
    }
}

fn is_paired(shared: &Shared, peer: &PeerRecord) -> Result<bool, Refusal> {
    let known = shared.trust.peer_by_certificate(&peer.certificate_der).map_err(store_failed)?;
    Ok(known.is_some_and(|known| known.host == peer.host))
}

fn refusal_of(code: &str) -> Refusal {
    Refusal::new(
        code,
        ErrorClass::NeedsOperator,
        "this token is not good here; make a new one with `virt-replica peer invite`",
    )
}

fn address_of(form: &JoinForm, from: SocketAddr) -> String {
    let usable = |address: &&String| {
        !address.is_empty()
            && address.len() <= ADDRESS_BYTES_MAX
            && address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-_%".contains(&byte))
    };
    form.address.as_ref().filter(usable).cloned().unwrap_or_else(|| from.ip().to_canonical().to_string())
}

/// A name that can be printed; a name without printable characters becomes `otherwise`.
fn presentable(name: &str, otherwise: &str) -> String {
    let name: String =
        name.chars().filter(|c| !c.is_control() && !c.is_whitespace()).take(NAME_CHARS_MAX).collect();
    if name.is_empty() { otherwise.to_owned() } else { name }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let digits = text.as_bytes();
    let mut bytes = [0; SECRET_BYTES];
    if digits.len() != 2 * SECRET_BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Counts failed attempts to join: after some the door stays shut for a while, for everybody, since addresses are cheap.
#[derive(Default)]
pub(crate) struct Gate(Mutex<VecDeque<Instant>>);

impl Gate {
    /// Failures in [`Gate::WINDOW`] after which nobody may try.
    const FAILURES_MAX: usize = 10;
    const WINDOW: Duration = Duration::from_secs(60);

    fn enter(&self) -> Result<(), Refusal> {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while failures.front().is_some_and(|failure| failure.elapsed() > Self::WINDOW) {
            failures.pop_front();
        }
        if failures.len() < Self::FAILURES_MAX {
            Ok(())
        } else {
            Err(Refusal::new(TOO_MANY, ErrorClass::Transient, "too many wrong tokens; try again in a minute"))
        }
    }

    fn count_failure(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
    }
}

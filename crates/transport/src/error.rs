//! What goes wrong between two hosts, and whether waiting, giving up or a person helps.

use std::error::Error;
use std::io;
use std::time::Duration;

use domain::HostId;
use serde::{Deserialize, Serialize};

use crate::invite::TokenError;
use crate::trust::TrustError;
use crate::version::VersionMismatch;

/// An error of a caller's own.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// What may help.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// The same again later.
    Transient,
    /// Nothing: the request itself is wrong.
    Permanent,
    /// A person.
    NeedsOperator,
}

/// The other host understood and said no.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs, lower-case words with dashes; stable.
    pub code: String,
    /// What may help.
    pub class: ErrorClass,
    /// For people: what, why, and the cure.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: &str, class: ErrorClass, message: impl Into<String>) -> Refusal {
        Refusal { code: code.to_owned(), class, message: message.into() }
    }
}

/// A request that was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No connection.
    #[error(
        "{peer} cannot be reached at {address}: is virtreplicad running there, and does its firewall admit the port?"
    )]
    Unreachable {
        /// Its name.
        peer: String,
        /// Where it was tried.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{peer} did not answer within {} s ({what})", limit.as_secs_f32())]
    Deadline {
        /// Its name.
        peer: String,
        /// What was asked.
        what: &'static str,
        /// How long we waited.
        limit: Duration,
    },
    /// The transfer stands still.
    #[error("the transfer to {peer} stood still for {} s after {sent_bytes} bytes; it goes on from the last durable position", limit.as_secs_f32())]
    Stalled {
        /// Its name.
        peer: String,
        /// How long we waited.
        limit: Duration,
        /// Bytes that had left.
        sent_bytes: u64,
    },
    /// The connection broke.
    #[error("the connection to {peer} broke; it is tried again")]
    Broken {
        /// Its name.
        peer: String,
        /// How.
        #[source]
        source: BoxError,
    },
    /// The other host showed a certificate that is not the pinned one.
    #[error(
        "{peer} shows a certificate that is not the pinned one: the host was reinstalled, its address now belongs to another host, or somebody is in between; if you expect the change, run `virt-replica peer remove {peer}` and pair again"
    )]
    CertificateNotPinned {
        /// Its name.
        peer: String,
    },
    /// The other host's certificate is no longer (or not yet) valid.
    #[error(
        "the certificate of {peer} has expired or is not valid yet: compare the clocks of both hosts; if it has expired, pair again with `virt-replica peer invite` there and `virt-replica peer join` here"
    )]
    CertificateExpired {
        /// Its name.
        peer: String,
    },
    /// The other host does not take our certificate.
    #[error(
        "{peer} does not know this host's certificate: it was removed there, or never paired; pair again with `virt-replica peer invite` there and `virt-replica peer join` here"
    )]
    NotAccepted {
        /// Its name.
        peer: String,
    },
    /// The other host finds our certificate expired.
    #[error(
        "{peer} says that this host's certificate has expired or is not valid yet: compare the clocks of both hosts; if it has expired, pair again with `virt-replica peer invite` and `virt-replica peer join`"
    )]
    OwnCertificateExpired {
        /// Its name.
        peer: String,
    },
    /// No common version.
    #[error(transparent)]
    Version(#[from] VersionMismatch),
    /// The other host said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The stream to send failed at its source.
    #[error("the delta could not be read to its end on this host")]
    Source(#[source] BoxError),
    /// More than a message may have.
    #[error("a message of {bytes} bytes cannot be sent: at most {limit} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The other side is no daemon of ours, or confused.
    #[error("{peer} answered what no virtreplicad says ({what}); is another service on that port?")]
    Protocol {
        /// Its name.
        peer: String,
        /// What was wrong.
        what: String,
    },
    /// There is no such peer.
    #[error("no host {0} is paired with this one; `virt-replica peer list` shows those that are")]
    UnknownPeer(HostId),
    /// Peers could not be looked up.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

impl TransportError {
    /// What may help.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            TransportError::Unreachable { .. }
            | TransportError::Deadline { .. }
            | TransportError::Stalled { .. }
            | TransportError::Broken { .. }
            | TransportError::Trust(_)
            | TransportError::Source(_) => ErrorClass::Transient,
            TransportError::TooLarge { .. } => ErrorClass::Permanent,
            TransportError::CertificateNotPinned { .. }
            | TransportError::CertificateExpired { .. }
            | TransportError::NotAccepted { .. }
            | TransportError::OwnCertificateExpired { .. }
            | TransportError::Version(_)
            | TransportError::Protocol { .. }
            | TransportError::UnknownPeer(_) => ErrorClass::NeedsOperator,
            TransportError::Refused(refusal) => refusal.class,
        }
    }

    /// Nobody answered: whether the other host is there is not known. Whatever else went wrong came from somebody who is there, or
    /// from here.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(
            self,
            TransportError::Unreachable { .. }
                | TransportError::Deadline { .. }
                | TransportError::Stalled { .. }
                | TransportError::Broken { .. }
        )
    }

    /// Gives an error of the connection its meaning: TLS alerts say who distrusts whom.
    pub(crate) fn of_connection(peer: &str, error: BoxError) -> TransportError {
        use rustls::{AlertDescription as Alert, CertificateError as Cert, Error as Tls};
        let peer = peer.to_owned();
        match tls_error(&*error) {
            Some(Tls::InvalidCertificate(Cert::Expired | Cert::NotValidYet)) => {
                TransportError::CertificateExpired { peer }
            }
            Some(Tls::InvalidCertificate(_)) => TransportError::CertificateNotPinned { peer },
            Some(Tls::AlertReceived(Alert::CertificateExpired)) => {
                TransportError::OwnCertificateExpired { peer }
            }
            Some(Tls::AlertReceived(
                Alert::AccessDenied | Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA,
            )) => TransportError::NotAccepted { peer },
            Some(other @ (Tls::InvalidMessage(_) | Tls::PeerIncompatible(_) | Tls::AlertReceived(_))) => {
                TransportError::Protocol { peer, what: other.to_string() }
            }
            _ => TransportError::Broken { peer, source: error },
        }
    }
}

/// The TLS error inside an error, however deep: `io::Error` hides its inner error from `source`.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    // Chains are short; the limit guards against one that loops.
    for _ in 0..16 {
        let error = next?;
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// Pairing failed; nothing was changed on this host.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// The text is no token.
    #[error(transparent)]
    Malformed(#[from] TokenError),
    /// Nothing can be at the place that was given.
    #[error("{text:?} is no address: write HOST, HOST:PORT or [IPv6 address]:PORT")]
    NoAddress {
        /// What was given.
        text: String,
    },
    /// The inviting host never made this token.
    #[error(
        "the inviting host does not know this token: it was made elsewhere or its daemon was reset; make a new one there with `virt-replica peer invite`"
    )]
    Wrong,
    /// It was used before.
    #[error(
        "this token was used already: each pairs one host; make a new one there with `virt-replica peer invite`"
    )]
    Used,
    /// It is too old.
    #[error("this token has expired; make a new one on the inviting host with `virt-replica peer invite`")]
    Expired,
    /// Another host answers at the address in the token.
    #[error(
        "the host that answers at {address} is not the one that made the token: its certificate has another fingerprint; check the address, and that nobody is in between"
    )]
    FingerprintMismatch {
        /// Where it answered.
        address: String,
    },
    /// Its id or certificate belongs to a host that is paired already.
    #[error(
        "{name} is paired already with another key: run `virt-replica peer remove` for it on the host that knows it, then pair again with a new token"
    )]
    HostKnown {
        /// Which host.
        name: String,
    },
    /// Too many wrong tokens of late.
    #[error("the inviting host saw too many wrong tokens and refuses all for a minute; try again then")]
    TooManyAttempts,
    /// The token was made here.
    #[error("this token was made on this very host; use it on the other one")]
    OwnToken,
    /// The inviting host was not reached or did not answer properly.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Peers could not be stored.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

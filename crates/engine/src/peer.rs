//! Asking the other host: one typed question, one typed answer, with a deadline of ours.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::{HostId, Timestamp, shell_word};
use transport::{ClientOptions, ErrorClass, PeerClient, TransportError};
use wire::message::{Answer, Request};

use crate::error::CURE;
use crate::{Code, Engine, Refusal, Result, clock};

/// Long enough for a question that makes the peer look at libvirt and its disks.
const DEADLINE: Duration = Duration::from_secs(30);
/// A greeting makes it look at nothing: who is silent for so long is not there.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

impl Engine {
    pub(crate) fn client(&self, peer: HostId) -> Arc<PeerClient> {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (identity, trust) = (Arc::clone(&self.0.identity), Arc::clone(&self.0.trust));
            Arc::new(PeerClient::new(peer, identity, trust, ClientOptions::default()))
        };
        Arc::clone(clients.entry(peer).or_insert_with(new))
    }

    /// Asks another host.
    pub async fn ask(&self, peer: HostId, request: &Request) -> Result<Answer> {
        let message = Bytes::from(serde_json::to_vec(request).map_err(Refusal::failed)?);
        let deadline = if *request == (Request::Hello {}) { HELLO_DEADLINE } else { DEADLINE };
        self.ask_within(peer, message, deadline).await
    }

    /// The same of a message that is written already, with another deadline.
    pub(crate) async fn ask_within(
        &self,
        peer: HostId,
        message: Bytes,
        deadline: Duration,
    ) -> Result<Answer> {
        let answer = self.exchange(peer, message, deadline).await;
        understood(&answer.map_err(|error| self.unanswered(peer, error))?)
    }

    /// The bare answer, or what the transport says.
    pub(crate) async fn exchange(
        &self,
        peer: HostId,
        message: Bytes,
        deadline: Duration,
    ) -> std::result::Result<Bytes, TransportError> {
        let answer = self.client(peer).command(message, deadline).await;
        if matches!(answer, Ok(_) | Err(TransportError::Refused(_))) {
            self.saw(peer);
        }
        answer
    }

    /// What it said instead of an answer, or why nothing came, with what to type then.
    pub(crate) fn unanswered(&self, peer: HostId, error: TransportError) -> Refusal {
        let refusal = refusal_of(error);
        match refusal.code {
            Code::Unavailable if refusal.cure.is_empty() => {
                Refusal { cure: reach_cure(&self.name_of(peer)), ..refusal }
            }
            _ => refusal,
        }
    }

    /// The other host's clock, when it answers at all; otherwise why not, as the transport tells it.
    pub(crate) async fn clock_of(&self, peer: HostId) -> std::result::Result<Option<u64>, TransportError> {
        let message = serde_json::to_vec(&Request::Hello {}).unwrap_or_default().into();
        let answer = self.client(peer).command(message, DEADLINE).await?;
        self.saw(peer);
        Ok(match serde_json::from_slice(&answer) {
            Ok(Answer::Hello { clock_ms, .. }) => Some(clock_ms),
            _ => None,
        })
    }

    /// A verb that needs the other host is refused before it changes anything when that host does not answer.
    pub async fn must_answer(&self, peer: HostId) -> Result<()> {
        match self.ask(peer, &Request::Hello {}).await {
            Err(silent) if silent.code == Code::Unavailable => Err(Refusal {
                code: Code::Refused,
                detail: format!("nothing was changed: {}", silent.detail),
                ..silent
            }),
            answer => answer.map(drop),
        }
    }

    /// The name of a peer, for people.
    pub(crate) fn name_of(&self, peer: HostId) -> String {
        let peers = self.store().peers().unwrap_or_default();
        peers
            .into_iter()
            .find(|known| known.host == peer)
            .map_or_else(|| peer.to_string(), |known| known.name)
    }
}

/// Reads an answer.
pub(crate) fn understood(answer: &[u8]) -> Result<Answer> {
    serde_json::from_slice(answer).map_err(|error| {
        Refusal::failed(format!("the other host's answer is not understood ({error}); compare versions"))
    })
}

/// What to type when a host does not answer.
pub(crate) fn reach_cure(name: &str) -> String {
    let name = shell_word(name);
    format!("on {name}: systemctl start virtreplicad; then here: virt-replica peer test {name}")
}

/// What the other host said, or why it said nothing.
pub(crate) fn refusal_of(error: TransportError) -> Refusal {
    if let TransportError::Refused(refusal) = &error {
        let code = match refusal.code.as_str() {
            "not-found" => Code::NotFound,
            "busy" => Code::Busy,
            "in-doubt" => Code::InDoubt,
            "refused" => Code::Refused,
            "unavailable" => Code::Unavailable,
            _ => Code::Failed,
        };
        // The other host wrote both into one message, as `Refusal` shows itself.
        let (detail, cure) = refusal.message.split_once(CURE).unwrap_or((&refusal.message, ""));
        return Refusal::new(code, detail, cure);
    }
    let code = match error.class() {
        ErrorClass::Transient => Code::Unavailable,
        ErrorClass::NeedsOperator | ErrorClass::Permanent => Code::Refused,
    };
    Refusal::new(code, error.to_string(), "")
}

/// When a peer was heard last.
pub(crate) struct Seen {
    at: Timestamp,
    /// What the store knows; it is told only now and then.
    kept: Timestamp,
}

/// The store learns after this long that a peer was heard again.
const SEEN_KEPT: Duration = Duration::from_secs(60);

fn seen_key(peer: HostId) -> String {
    format!("seen {peer}")
}

impl Engine {
    /// A peer has spoken: it answered, or it asked.
    pub(crate) fn saw(&self, peer: HostId) {
        let now = clock::now();
        let mut all = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = all.entry(peer).or_insert(Seen { at: now, kept: Timestamp(0) });
        seen.at = now;
        if seen.kept.plus(SEEN_KEPT) <= now {
            seen.kept = now;
            drop(all);
            if let Err(error) = self.store().set_setting(&seen_key(peer), &now.millis().to_string()) {
                tracing::warn!(%error, "when a peer was seen could not be kept");
            }
        }
    }

    /// When a peer was heard last; none: not yet.
    #[must_use]
    pub fn last_seen(&self, peer: HostId) -> Option<Timestamp> {
        let all = self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = || self.store().setting(&seen_key(peer)).ok()??.parse().ok().map(Timestamp);
        all.get(&peer).map(|seen| seen.at).or_else(kept)
    }
}

impl Engine {
    /// Tells a peer which certificate this host shows next.
    pub async fn announce_certificate(&self, peer: HostId, certificate_der: Vec<u8>) -> Result<()> {
        self.client(peer).announce_certificate(certificate_der).await.map_err(refusal_of)
    }
}

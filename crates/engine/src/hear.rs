//! The question that every decision about two sides begins with, asked here and nowhere else: what does the other host believe?
//! What it answers is heeded at once (`standing`), whoever asked and why. *Not* here: what follows from it for a cycle (`cycle`), a
//! start (`confirm`), a failover (`failover`); each of them sees one of four cases.
//!
//! | what comes back | [`Heard`] | for a VM that is to start here ([`OtherHost`]) |
//! |---|---|---|
//! | its beliefs | `Beliefs` | off, runs, unsure or forgot, as they say |
//! | it has no such relationship | `Unknown` | forgot |
//! | another refusal, nonsense, a door that is shut to this host, a greeting and no more | `Unsure` | unsure, with its reason |
//! | nothing | `Silent` | silent |
//!
//! A first packet that is lost is sent again by the kernel after a second, and a connection that rested may lead nowhere: whoever
//! is late is asked a second time, on another connection, and greeted: one that greets is there, whatever it does not say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use choreography::OtherHost;
use choreography::other_host::{Said, Word};
use domain::{Epoch, HostId, RelationshipId, Role};
use futures_util::future::{Either, select};
use store::Record;
use tokio::time::{Instant, sleep, timeout};
use transport::TransportError;
use wire::message::{Answer, Beliefs, Request, Unfinished};

use crate::peer::{refusal_of, understood};
use crate::standing::is_primary;
use crate::{Code, Engine, Refusal, Result, ended};

/// How long a host is waited for on whose word a VM starts here, or does not: two lost packets in a row, or 600 ms to and fro.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// An answer that takes longer is not waited for alone.
const AGAIN_AFTER: Duration = Duration::from_millis(600);
/// A cycle may wait: its question makes the other host look at its disks.
const CYCLE_PATIENCE: Duration = Duration::from_secs(30);
/// How long one that was waited for in vain is hardly waited for: the VM is off meanwhile. It is asked on in the background.
const SILENCE_HOLDS: Duration = Duration::from_secs(60);
const HARDLY: Duration = Duration::from_millis(100);
/// Pause between two questions in the background.
const PAUSE: Duration = Duration::from_secs(1);

/// What came of the question.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It says what it believes, and that was heeded here.
    Beliefs(Box<Beliefs>),
    /// It answers, and has no such relationship.
    Unknown(Refusal),
    /// It answers, and not what was asked: why.
    Unsure(Refusal),
    /// It does not answer: how.
    Silent(Refusal),
}

impl Heard {
    /// The one place that tells silence from an answer.
    fn of(answer: std::result::Result<Bytes, TransportError>) -> Heard {
        match answer.map(|bytes| understood(&bytes)) {
            Ok(Ok(Answer::Beliefs(beliefs))) => Heard::Beliefs(beliefs),
            Ok(Ok(_)) => {
                Heard::Unsure(Refusal::failed("the other host answered something else than its beliefs"))
            }
            Ok(Err(nonsense)) => Heard::Unsure(nonsense),
            Err(silence) if silence.is_silence() => Heard::Silent(refusal_of(silence)),
            Err(said) => match refusal_of(said) {
                unknown if unknown.code == Code::NotFound => Heard::Unknown(unknown),
                said => Heard::Unsure(said),
            },
        }
    }

    /// What it means for a VM that is to start here.
    pub(crate) fn other_host(&self) -> OtherHost {
        OtherHost::of(match self {
            Heard::Beliefs(beliefs) => Said::Word(Word {
                is_primary: is_primary(beliefs),
                runs: beliefs.vm_runs,
                ended: beliefs.ended,
            }),
            Heard::Unknown(_) => Said::KnowsNothing,
            Heard::Unsure(why) => Said::Else(why.detail.clone()),
            Heard::Silent(_) => Said::Nothing,
        })
    }

    /// For whoever goes on with its beliefs alone.
    pub(crate) fn into_beliefs(self) -> Result<Beliefs> {
        match self {
            Heard::Beliefs(beliefs) => Ok(*beliefs),
            Heard::Unknown(why) | Heard::Unsure(why) | Heard::Silent(why) => Err(why),
        }
    }
}

/// The epoch in which the other host was found to be primary, if that is later than this side's: what is here is a stale copy.
pub(crate) fn overtaken_by(record: &Record) -> Option<Epoch> {
    record.superseded_by.filter(|by| *by > record.relationship.epoch)
}

impl Engine {
    /// Asks the other host for its beliefs, tells it ours, and acts on what it says.
    pub(crate) async fn hear(&self, record: &Record, patience: Duration) -> Heard {
        let heard = match question(record, None) {
            Ok(question) => self.ask_twice(record.relationship.peer, question, patience).await,
            Err(error) => Heard::Unsure(error),
        };
        self.heeded(record, heard)
    }

    /// The same at the begin of a cycle, which may go on with what is `unfinished`.
    pub(crate) async fn hear_for_a_cycle(&self, record: &Record, unfinished: Option<Unfinished>) -> Heard {
        let heard = match question(record, unfinished) {
            Ok(question) => {
                Heard::of(self.exchange(record.relationship.peer, question, CYCLE_PATIENCE).await)
            }
            Err(error) => Heard::Unsure(error),
        };
        self.heeded(record, heard)
    }

    fn heeded(&self, record: &Record, heard: Heard) -> Heard {
        ended::note(&self.slot(record.relationship.id), &heard);
        match heard {
            Heard::Beliefs(beliefs) => match self.heed(record, (is_primary(&beliefs), beliefs.epoch)) {
                Ok(_) => Heard::Beliefs(beliefs),
                Err(why) => Heard::Unsure(why),
            },
            Heard::Silent(why) if why.cure.is_empty() => {
                let cure = crate::peer::reach_cure(&self.name_of(record.relationship.peer));
                Heard::Silent(Refusal { cure, ..why })
            }
            other => other,
        }
    }

    /// Until something comes back, or the patience is over.
    async fn ask_twice(&self, peer: HostId, question: Bytes, patience: Duration) -> Heard {
        let ask = |within| {
            let question = question.clone();
            async move { Heard::of(self.exchange(peer, question, within).await) }
        };
        let mut first = Box::pin(ask(patience));
        if let Ok(heard) = timeout(AGAIN_AFTER, &mut first).await {
            return heard;
        }
        let left = patience.saturating_sub(AGAIN_AFTER);
        let either = async {
            let (heard, other) = match select(first, Box::pin(ask(left))).await {
                Either::Left((heard, second)) => (heard, Either::Left(second)),
                Either::Right((heard, first)) => (heard, Either::Right(first)),
            };
            if matches!(heard, Heard::Silent(_)) { other.await } else { heard }
        };
        let greets = AtomicBool::new(false);
        let greeting = async {
            greets.store(self.greets(peer, left).await, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        let heard = match select(Box::pin(either), Box::pin(greeting)).await {
            Either::Left((heard, _)) => heard,
            Either::Right(((), either)) => either.await,
        };
        match heard {
            Heard::Silent(why) if greets.load(Ordering::Relaxed) => Heard::Unsure(Refusal::unavailable(
                format!("it is there, and has not told what it believes within {} s", patience.as_secs()),
                why.cure,
            )),
            heard => heard,
        }
    }

    async fn greets(&self, peer: HostId, within: Duration) -> bool {
        let Ok(hello) = serde_json::to_vec(&Request::Hello {}) else { return false };
        self.exchange(peer, hello.into(), within).await.is_ok()
    }

    /// The same of a host that was waited for in vain a moment ago: it is hardly waited for again. The VM is off meanwhile, and whether
    /// that host came back is found out beside.
    pub(crate) async fn hear_unless_silent(&self, record: &Record, patience: Duration) -> Heard {
        let slot = self.slot(record.relationship.id);
        let is_silent = slot.silent().is_some_and(|since| since.elapsed() < SILENCE_HOLDS);
        let heard = self.hear(record, if is_silent { HARDLY } else { patience }).await;
        if !matches!(heard, Heard::Silent(_)) {
            *slot.silent() = None;
        }
        heard
    }

    /// What the other host says of the VM, before one starts here.
    pub(crate) async fn ask_whether_it_runs(&self, record: &Record) -> OtherHost {
        let heard = self.hear_unless_silent(record, PATIENCE).await;
        let slot = self.slot(record.relationship.id);
        let asks_on = slot.silent().is_some_and(|since| since.elapsed() < SILENCE_HOLDS);
        if matches!(heard, Heard::Silent(_)) && !asks_on {
            *slot.silent() = Some(Instant::now());
            let (engine, id) = (self.clone(), record.relationship.id);
            tokio::spawn(async move { engine.ask_on(id).await });
        }
        heard.other_host()
    }

    /// Asks a silent host on, as patiently, for as long as its silence holds.
    async fn ask_on(&self, id: RelationshipId) {
        let begun = Instant::now();
        while begun.elapsed() < SILENCE_HOLDS {
            sleep(PAUSE).await;
            // Its epoch may have risen meanwhile.
            let Ok(record) = self.record(id) else { return };
            if !matches!(self.hear(&record, PATIENCE).await, Heard::Silent(_)) {
                *self.slot(id).silent() = None;
                return;
            }
        }
    }
}

fn question(record: &Record, unfinished: Option<Unfinished>) -> Result<Bytes> {
    let relationship = &record.relationship;
    let request = Request::Beliefs {
        relationship: relationship.id.0,
        epoch: relationship.epoch.number(),
        unfinished,
        is_primary: relationship.role() == Role::Primary,
    };
    serde_json::to_vec(&request).map(Bytes::from).map_err(Refusal::failed)
}

#[cfg(test)]
mod tests {
    use transport::ErrorClass;

    use super::*;

    fn refused(code: &str) -> TransportError {
        TransportError::Refused(transport::Refusal::new(code, ErrorClass::Permanent, "its own words"))
    }

    /// What a daemon that answers may say: every code that it knows, and one that it may know later.
    #[test]
    fn no_answer_of_a_host_that_is_there_is_taken_for_silence_or_for_off() {
        for code in ["refused", "busy", "unavailable", "in-doubt", "failed", "of-a-later-version"] {
            let heard = Heard::of(Err(refused(code)));
            assert!(matches!(heard, Heard::Unsure(_)), "{code}: {heard:?}");
            assert_eq!(heard.other_host(), OtherHost::Unsure("its own words".into()), "{code}");
            assert!(!heard.other_host().lets_start(false), "{code}");
        }
        assert_eq!(Heard::of(Err(refused("not-found"))).other_host(), OtherHost::Forgot);
        let peer = || "hvhost01".to_owned();
        for there in [
            TransportError::NotAccepted { peer: peer() },
            TransportError::CertificateNotPinned { peer: peer() },
            TransportError::Protocol { peer: peer(), what: "HTTP".into() },
        ] {
            let heard = Heard::of(Err(there));
            assert!(matches!(heard, Heard::Unsure(_)), "{heard:?}");
        }
        for nonsense in [&b"{}"[..], b"no JSON", br#"{"done":{}}"#] {
            let heard = Heard::of(Ok(Bytes::from_static(nonsense)));
            assert!(matches!(heard, Heard::Unsure(_)), "{heard:?}");
        }
    }

    #[test]
    fn only_who_was_not_heard_is_silent() {
        let peer = || "hvhost01".to_owned();
        let limit = PATIENCE;
        for silence in [
            TransportError::Deadline { peer: peer(), what: "a command", limit },
            TransportError::Broken { peer: peer(), source: "reset".into() },
            TransportError::Unreachable {
                peer: peer(),
                address: "192.0.2.1 port 7400".into(),
                source: std::io::ErrorKind::TimedOut.into(),
            },
        ] {
            assert_eq!(Heard::of(Err(silence)).other_host(), OtherHost::Silent);
        }
    }
}

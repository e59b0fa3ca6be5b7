//! A primary whose VM is about to start asks the other host whether it was overtaken: libvirt's start hook asks through here, each
//! time.
//!
//! What was agreed before a boot is taken for granted no more (see `store::boot_id`): the owner asks by itself until there is an
//! answer, and health says so while there is none.

use std::time::Duration;

use domain::{Health, Notice, Phase, Role};
use store::Record;

use crate::hear::{Heard, overtaken_by};
use crate::notice::word;
use crate::{Engine, Refusal, Result, ended};

/// The start hook has two seconds for everything, and asks whoever is late a second time within this.
const PATIENCE: Duration = Duration::from_millis(1400);

/// May this side run the VM?
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StartWord {
    /// The other host was asked just now, and has not overtaken this one.
    Allowed,
    /// The other host has overtaken this one: one line for the person who tried.
    Refused(String),
    /// The other host does not say: one line. The host's setting decides.
    PeerSilent(String),
}

impl Engine {
    /// Somebody starts the VM: may this side run it? If so, this daemon lets go of its files.
    pub async fn about_to_start(&self, record: &Record) -> Result<StartWord> {
        let word = self.may_start(record).await?;
        // To ask the other host takes time, in which a handover may have locked the VM here.
        let now = self.record(record.relationship.id)?.relationship;
        if !matches!(word, StartWord::Refused(_)) && !now.phase.may_run() {
            let peer = self.peer_name(record);
            return Ok(StartWord::Refused(store::may_not_run(&now.phase, &now.vm_name, &peer)));
        }
        if !matches!(word, StartWord::Refused(_)) {
            self.let_go(record.relationship.id).await;
        }
        Ok(word)
    }

    /// Asks the other host, however lately it was heard: a start is rare, and a failover takes less than the time between two
    /// cycles.
    pub(crate) async fn may_start(&self, record: &Record) -> Result<StartWord> {
        let relationship = &record.relationship;
        let (id, name) = (relationship.id, &relationship.vm_name);
        let peer = self.peer_name(record);
        if relationship.role() == Role::Replica {
            return Ok(StartWord::Refused(format!("VM {name} is a replica here and belongs to {peer}")));
        }
        // The other host is asked also by one that was overtaken: it may have taken its failover back.
        let heard = self.hear_unless_silent(record, PATIENCE).await;
        if overtaken_by(&self.record(id)?).is_some() {
            return Ok(StartWord::Refused(store::stale_copy(name, &peer)));
        }
        let why = match heard {
            Heard::Beliefs(_) => {
                self.store().confirm_boot(id, store::boot_id()).map_err(Refusal::failed)?;
                return Ok(StartWord::Allowed);
            }
            // An old primary takes nothing over before it has stepped down, and that it does when this side reverses.
            _ if matches!(relationship.phase, Phase::FailedOver { .. }) => return Ok(StartWord::Allowed),
            // It may have overtaken this one before it forgot, or lost its database: what it was last is not known.
            Heard::Unknown(_) => ended::unknown_words(name, &peer),
            Heard::Unsure(why) => {
                format!("{peer} answers, and does not tell whether VM {name} was moved there: {}", why.detail)
            }
            Heard::Silent(_) if is_confirmed(record) => {
                format!(
                    "{peer} does not answer: whether VM {name} was moved there since it was heard is not known"
                )
            }
            Heard::Silent(_) => format!(
                "this host came back, and {peer} was not heard since: whether VM {name} was moved there is not known"
            ),
        };
        Ok(StartWord::PeerSilent(why))
    }

    pub(crate) fn peer_name(&self, record: &Record) -> String {
        let peer = record.relationship.peer;
        let found = self.store().peer(peer).ok().flatten();
        found.map_or_else(|| peer.to_string(), |peer| peer.name)
    }

    /// What health has to say about it. While cycles succeed, the other host is heard all the time.
    pub(crate) async fn role_notice(&self, record: &Record) -> Result<Option<Notice>> {
        let hears = record.relationship.paused_since.is_none() && record.last_failure.is_none();
        if is_confirmed(record) && hears && overtaken_by(record).is_none() {
            return Ok(None);
        }
        Ok(match self.may_start(record).await? {
            StartWord::Allowed => None,
            // A link that is cut is told by the cycles that fail.
            StartWord::PeerSilent(_) if is_confirmed(record) => None,
            StartWord::Refused(what) => Some(self.stale_notice(record, what).await),
            StartWord::PeerSilent(what) => {
                let peer = self.peer_name(record);
                let cure = match ended::is_noted(&self.slot(record.relationship.id)) {
                    true => ended::unknown_cure(&peer, &word(&record.relationship.vm_name)),
                    false => format!("virt-replica peer test {}", word(&peer)),
                };
                Some(Notice { severity: Health::Critical, what, cure })
            }
        })
    }

    /// This side was overtaken: with the VM off that is a copy to be taken in, with the VM running it is a split brain.
    async fn stale_notice(&self, record: &Record, what: String) -> Notice {
        let (name, vm) = (&record.relationship.vm_name, word(&record.relationship.vm_name));
        let peer = self.peer_name(record);
        let runs = self.vm_state(record).await.ok().flatten().is_some_and(hypervisor::VmState::is_active);
        let severity = Health::Critical;
        match runs {
            true => Notice {
                severity,
                what: format!("split brain: VM {name:?} runs on this host, and {peer} failed it over"),
                cure: format!(
                    "decide which one is to live on. That on {peer}: here virsh shutdown {vm}, then there virt-replica reverse \
                     {vm}. This one: on {peer} virt-replica cancel-failover {vm}. What the other wrote is kept aside"
                ),
            },
            false if ended::is_noted(&self.slot(record.relationship.id)) => {
                Notice { severity, what, cure: ended::stale_cure(&peer, &vm) }
            }
            false => Notice {
                severity,
                what,
                cure: format!(
                    "on {peer}: virt-replica reverse {vm}; what only this host has is kept aside. If {peer} is lost for good, and \
                     this copy is to live on: virt-replica remove --this-host-only {vm}"
                ),
            },
        }
    }
}

/// Whether the other host was heard since this one was booted.
fn is_confirmed(record: &Record) -> bool {
    record.confirmed_boot.as_deref() == Some(store::boot_id())
}

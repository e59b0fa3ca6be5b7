//! One side has ended the relationship, and the other still believes in it: what the first goes on telling, and what the second
//! makes of it.
//!
//! ```text
//!   ended here     epoch and role stay in the store (store::Ended) ──▶ told as beliefs, with whether the VM runs here by its UUID
//!   ended there    a stale copy is superseded by them; a replica is not failed over without --force; a survivor cannot reverse
//! ```
//! Not here: a host that has lost its database. It answers `not-found`, which is no evidence of anything.

use std::sync::atomic::Ordering;

use domain::{Health, Notice, RelationshipId, Role, vm_argument};
use hypervisor::VmState;
use store::{Ended, Record};
use transport::PeerRecord;
use wire::message::{Answer, Beliefs};

use crate::hear::Heard;
use crate::{Code, Engine, Refusal, Result, Slot};

impl Engine {
    /// What this side was when it ended the relationship with that peer; `unknown`, when it had none.
    pub(crate) async fn last_beliefs(
        &self,
        peer: &PeerRecord,
        id: RelationshipId,
        unknown: Refusal,
    ) -> Result<Answer> {
        let Ended { vm, was, .. } = self.ended_with(peer, id)?.ok_or(unknown)?;
        // Nothing guards the VM here any more, in whatever role this side was.
        let state = self.hypervisor(move |it| it.vm_state(vm)).await;
        Ok(Answer::Beliefs(Box::new(Beliefs {
            epoch: was.epoch.number(),
            phase: "Ended".to_owned(),
            receives: false,
            paused: false,
            head: None,
            partial: None,
            is_primary: Some(was.role == Role::Primary),
            vm_runs: state.ok().map(|state| state.is_some_and(VmState::is_active)),
            divergence: None,
            seeded: false,
            lacks: Vec::new(),
            ended: true,
        })))
    }

    /// The other side ends what was ended here before: nobody asks any more.
    pub(crate) fn ended_there_too(&self, peer: &PeerRecord, id: RelationshipId) -> Result<()> {
        match self.ended_with(peer, id)? {
            Some(_) => self.store().forget_ended(id).map_err(Refusal::failed),
            None => Ok(()),
        }
    }

    fn ended_with(&self, peer: &PeerRecord, id: RelationshipId) -> Result<Option<Ended>> {
        let ended = self.store().ended(id).map_err(Refusal::failed)?;
        Ok(ended.filter(|ended| ended.peer == peer.host))
    }
}

/// Keeps whether the other host has ended the relationship, as far as its answer tells.
pub(crate) fn note(slot: &Slot, heard: &Heard) {
    match heard {
        Heard::Beliefs(beliefs) => slot.ended_there.store(beliefs.ended, Ordering::Relaxed),
        Heard::Unknown(_) => slot.ended_there.store(true, Ordering::Relaxed),
        Heard::Unsure(_) | Heard::Silent(_) => {}
    }
}

/// Whether it had, when it was heard last.
pub(crate) fn is_noted(slot: &Slot) -> bool {
    slot.ended_there.load(Ordering::Relaxed)
}

/// Why nothing can be replicated to a host that has ended the relationship.
pub(crate) fn refusal(engine: &Engine, record: &Record) -> Refusal {
    let peer = engine.peer_name(record);
    let found =
        format!("{peer} answers, and has ended the relationship: it holds no replica of the VM any more");
    Refusal::new(Code::Refused, found, begin_anew(&peer, &vm_argument(&record.relationship.vm_name)))
}

fn begin_anew(peer: &str, vm: &str) -> String {
    format!("virt-replica remove {vm}, then virt-replica enable {vm} --peer {}", domain::shell_word(peer))
}

/// What is to be done with a stale copy whose survivor has ended the relationship.
pub(crate) fn stale_cure(peer: &str, vm: &str) -> String {
    format!(
        "the VM belongs to {peer}, which has ended the relationship: here virt-replica remove {vm}, and the copy stays off; to protect \
         it again, virsh undefine {vm} here (its disk files stay), then on {peer}: virt-replica enable {vm}"
    )
}

/// The other host answers, and does not even say what it was last.
pub(crate) fn unknown_words(name: &str, peer: &str) -> String {
    format!(
        "{peer} answers, and knows nothing of the relationship of VM {name}: whether the VM was moved there before is not known"
    )
}

/// What a person has to find out then.
pub(crate) fn unknown_cure(peer: &str, vm: &str) -> String {
    format!("on {peer}: virsh domstate {vm}; when it does not live there, here: {}", begin_anew(peer, vm))
}

/// What a survivor shows of an old primary that has ended the relationship. `runs`: whether the VM runs there; none: not known.
pub(crate) fn notice(engine: &Engine, record: &Record, runs: Option<bool>) -> Notice {
    let (peer, name) = (engine.peer_name(record), &record.relationship.vm_name);
    let vm = vm_argument(name);
    match runs {
        Some(true) => Notice {
            severity: Health::Critical,
            what: format!(
                "VM {name:?} runs on {peer}, which has ended the relationship, and belongs to this host, too: two writers"
            ),
            cure: format!(
                "decide which one is to live on, and keep the disk files of the other. This one: on {peer} virsh shutdown {vm}. \
                 That one: here virsh shutdown {vm}. Then here: virt-replica remove {vm}"
            ),
        },
        _ => Notice {
            severity: Health::Warning,
            what: format!(
                "{peer} has ended the relationship of VM {name:?}: it cannot become the replica by reverse"
            ),
            cure: begin_anew(&peer, &vm),
        },
    }
}

//! A stale copy whose relationship ends: what keeps it off from then on, what a person is told before, and how it is freed. While
//! the relationship lives the guard knows by the epochs (`standing`, `confirm`); here is what is left afterwards.

use domain::{HostId, Role, vm_argument};
use store::{Record, StaleCopy};
use wire::message::Beliefs;

use crate::events::Number;
use crate::hear::{Heard, PATIENCE, overtaken_by};
use crate::standing::is_primary;
use crate::{Code, Engine, Refusal, Result};

impl Engine {
    /// What becomes of stale copies when the relationship ends, in sentences; none: there is none that is known. Each host learns who
    /// the other is, so that none forgets before it knows what it is.
    pub async fn plan_removal(&self, record: &Record, alone: bool) -> Result<Vec<String>> {
        let heard = self.hear(record, PATIENCE).await;
        let record = &self.record(record.relationship.id)?;
        let (here, peer) = (&self.config().host_name, self.peer_name(record));
        let (name, vm) = (&record.relationship.vm_name, vm_argument(&record.relationship.vm_name));
        let stays_off = |host: &str| {
            format!(
                "The copy of {name} on {host} is STALE: it stays refused to start, and does not start with the host any more, until \
                 somebody there says otherwise: virt-replica remove --this-host-only {vm}"
            )
        };
        let is_stale = overtaken_by(record).is_some();
        Ok(match (heard, alone) {
            _ if is_stale && alone => vec![format!(
                "The copy of {name} on {here} is STALE: {peer} took the VM over. From then on NOTHING keeps it from starting; when \
                 the VM still runs on {peer}, there will be two writers."
            )],
            _ if is_stale => vec![stays_off(here)],
            (Heard::Beliefs(theirs), _) if is_stale_there(record, &theirs) => vec![stays_off(&peer)],
            (_, true) if record.relationship.role() == Role::Primary => vec![format!(
                "Should {peer} return with a copy of {name} that is stale, it hears so from here, as long as it is paired with \
                 this host."
            )],
            _ => Vec::new(),
        })
    }

    /// Keeps a stale copy from starting by itself. The guard refuses it, whatever is left of the relationship.
    pub(crate) async fn keep_off(&self, record: &Record) -> Result<()> {
        let vm = record.relationship.vm;
        match self.hypervisor(move |it| it.set_autostart(vm, false)).await {
            Err(error) if error.code != Code::NotFound => Err(error),
            // Not defined any more: nothing starts it.
            _ => Ok(()),
        }
    }

    /// The stale copy that is meant, if one was left here and is not replicated again.
    pub fn stale_copy(&self, named: &str) -> Result<Option<StaleCopy>> {
        self.store().stale_copy(named).map_err(Refusal::failed)
    }

    /// A person says that it is to live here: nothing keeps it from starting any more.
    pub fn free_stale_copy(&self, copy: &StaleCopy, requested_by: &str) -> Result<()> {
        self.store().free_stale_copy(copy.vm).map_err(Refusal::failed)?;
        let text =
            format!("{requested_by} freed the old copy, which {} had taken over: it may start", copy.peer);
        self.event(Number::Forced, &copy.vm_name, text);
        Ok(())
    }

    /// What a host that is trusted no more will not hear from here, in sentences.
    pub fn plan_distrust(&self, peer: HostId) -> Result<Vec<String>> {
        let name = self.name_of(peer);
        let moved = self.store().moved_from(peer).map_err(Refusal::failed)?;
        Ok(moved
            .into_iter()
            .map(|vm| {
                format!(
                    "{vm} was moved away from {name}, which has not learned that its replication ended: should {name} return, \
                     nobody tells it that its copy is stale, and it may START there. When it is lost for good, or the copy is \
                     gone there, that is no matter."
                )
            })
            .collect())
    }
}

fn is_stale_there(record: &Record, theirs: &Beliefs) -> bool {
    let ours = &record.relationship;
    ours.role() == Role::Primary && is_primary(theirs) && theirs.epoch < ours.epoch.number()
}

/// A VM whose old copy is here is not protected as if it were the VM.
pub(crate) fn refusal(copy: &StaleCopy) -> Refusal {
    let vm = vm_argument(&copy.vm_name);
    let found = format!(
        "what is here of VM {:?} is an old copy: {} took it over before their replication ended",
        copy.vm_name, copy.peer
    );
    let cure = format!(
        "to replicate it from {}: virsh undefine {vm} here (its disk files stay), then virt-replica enable {vm} there; if this copy \
         is to live on, and runs nowhere else: virt-replica remove --this-host-only {vm}",
        copy.peer
    );
    Refusal::new(Code::Refused, found, cure)
}

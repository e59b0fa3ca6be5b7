//! What the other host's beliefs do to ours: a primary may have been overtaken by a failover, or be asked back by one that was
//! taken back. A replica is told of nothing here: it changes its role by its own procedures alone. How it is asked: `hear`.

use std::time::Duration;

use choreography::authority::Standing;
use domain::{Epoch, Role, vm_argument};
use store::Record;
use wire::message::Beliefs;

use crate::events::Number;
use crate::hear::Heard;
use crate::{Code, Engine, Recovery, Refusal, Result, ended};

/// Epochs rise by one at each failover: a leap beyond this is no word of a host that can be believed.
const EPOCHS_MISSED_MAX: u64 = 1000;

/// An epoch that the other host speaks of, if failovers that this host has missed can explain it.
pub(crate) fn plausible(ours: Epoch, theirs: u64) -> Result<Epoch> {
    let epoch = Epoch::new(theirs).filter(|_| theirs <= ours.number().saturating_add(EPOCHS_MISSED_MAX));
    epoch.ok_or_else(|| {
        let found = format!("the other host speaks of epoch {theirs}, and this host is in epoch {ours}: no failovers explain that");
        Refusal::new(Code::InDoubt, found, "virt-replica show, on both hosts")
    })
}

/// Whether the beliefs are those of a primary. A daemon of before does not say; its replica is one that receives.
pub(crate) fn is_primary(beliefs: &Beliefs) -> bool {
    beliefs.is_primary.unwrap_or(!beliefs.receives)
}

impl Engine {
    /// Acts on what the other host says of its role and epoch: one transaction, and an event when it changed something.
    pub(crate) fn heed(&self, record: &Record, (primary, epoch): (bool, u64)) -> Result<Standing> {
        let relationship = &record.relationship;
        let theirs = plausible(relationship.epoch, epoch)?;
        let standing = self.store().hear(relationship.id, primary, theirs).map_err(Refusal::failed)?;
        if let Standing::AskedBack(epoch) = standing {
            Recovery::AskedBack.taken();
            let peer = self.peer_name(record);
            let text = format!("{peer} took its failover back: this host is primary in epoch {epoch}");
            self.event(Number::EpochAdopted, &relationship.vm_name, text);
        }
        Ok(standing)
    }
}

/// How long the other host is waited for when a person lets cycles go on.
const AGREE_DEADLINE: Duration = Duration::from_secs(2);

impl Engine {
    /// Refused when both hosts would tell different stories of who is primary: no cycle can succeed until that is settled. Silence
    /// of the other host is no obstacle. Gives in words what it said.
    pub async fn expect_agreement(&self, record: &Record) -> Result<&'static str> {
        let beliefs = match self.hear(record, AGREE_DEADLINE).await {
            Heard::Beliefs(beliefs) => beliefs,
            Heard::Silent(_) => {
                return Ok("the other host does not answer, and may know better who is primary");
            }
            Heard::Unknown(_) => return Err(ended::refusal(self, record)),
            Heard::Unsure(why) => return Err(why),
        };
        // What it said may have been acted upon.
        let ours = self.record(record.relationship.id)?.relationship;
        if ours.epoch.number() == beliefs.epoch && !beliefs.ended {
            return Ok("both hosts agree who is primary");
        }
        let (here, peer, vm) = (&self.config().host_name, self.peer_name(record), vm_argument(&ours.vm_name));
        let role = |is_primary| if is_primary { "primary" } else { "replica" };
        let found = format!(
            "the hosts disagree: {here} is {} in epoch {} (\"{}\"), {peer} is {} in epoch {} (\"{}\")",
            role(ours.role() == Role::Primary),
            ours.epoch,
            ours.phase.words(),
            role(is_primary(&beliefs)),
            beliefs.epoch,
            beliefs.phase
        );
        let cure = match (beliefs.ended, Epoch::new(beliefs.epoch) > Some(ours.epoch)) {
            (true, true) => ended::stale_cure(&peer, &vm),
            (true, false) => ended::refusal(self, record).cure,
            (false, true) => {
                format!(
                    "on {peer}: virt-replica reverse {vm}, or virt-replica cancel-failover {vm}; then again"
                )
            }
            (false, false) => {
                format!("virt-replica show {vm}, on both hosts; an operation that is open may settle it")
            }
        };
        Err(Refusal::new(Code::Refused, found, cure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_no_failovers_explain_is_not_believed() {
        let ours = Epoch::FIRST;
        assert_eq!(plausible(ours, 1001).expect("many failovers"), Epoch::new(1001).expect("an epoch"));
        for wrong in [0, 1002, u64::MAX] {
            assert_eq!(plausible(ours, wrong).expect_err("refused").code, Code::InDoubt, "{wrong}");
        }
    }
}

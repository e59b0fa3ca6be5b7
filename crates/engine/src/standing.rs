//! What the other host's beliefs do to ours: a primary may have been overtaken by a failover, or be asked back by one that was
//! taken back. A replica is told of nothing here: it changes its role by its own procedures alone.

use std::time::Duration;

use domain::{Epoch, Role};
use store::Record;
use wire::message::{Answer, Beliefs, Request};

use crate::events::Number;
use crate::{Engine, Refusal, Result};

/// What the other host's epoch means for this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Nothing new.
    Agreed,
    /// The other host is primary in a higher epoch: what is here is a stale copy.
    Overtaken(Epoch),
    /// The other host is the replica in a higher epoch: it took a failover back, and this host is primary in that epoch.
    AskedBack(Epoch),
}

/// Judges; pure.
fn judge(ours: (Role, Epoch), (they_are_primary, theirs): (bool, Epoch)) -> Standing {
    match ours {
        (Role::Primary, epoch) if theirs > epoch && they_are_primary => Standing::Overtaken(theirs),
        (Role::Primary, epoch) if theirs > epoch => Standing::AskedBack(theirs),
        _ => Standing::Agreed,
    }
}

/// Whether the beliefs are those of a primary. A daemon of before does not say; its replica is one that receives.
pub(crate) fn is_primary(beliefs: &Beliefs) -> bool {
    beliefs.is_primary.unwrap_or(!beliefs.receives)
}

impl Engine {
    /// Asks the other host for its beliefs, tells it ours, and acts on what it says.
    pub(crate) async fn hear_peer(&self, record: &Record, deadline: Duration) -> Result<Beliefs> {
        let relationship = &record.relationship;
        let request = Request::Beliefs {
            relationship: relationship.id.0,
            epoch: relationship.epoch.number(),
            unfinished: None,
            is_primary: relationship.role() == Role::Primary,
        };
        let answer = tokio::time::timeout(deadline, self.ask(relationship.peer, &request)).await;
        match answer.unwrap_or_else(|_| Err(Refusal::unavailable("it does not answer", "")))? {
            Answer::Beliefs(beliefs) => {
                self.heed(record, (is_primary(&beliefs), beliefs.epoch))?;
                Ok(*beliefs)
            }
            _ => Err(Refusal::failed("the other host answered something else than its beliefs")),
        }
    }

    /// Acts on what the other host says of its role and epoch: one transaction, and an event when it changed something.
    pub(crate) fn heed(&self, record: &Record, (primary, epoch): (bool, u64)) -> Result<Standing> {
        let relationship = &record.relationship;
        let theirs = Epoch::new(epoch).ok_or_else(|| Refusal::failed("the other host sent epoch 0"))?;
        let standing = judge((relationship.role(), relationship.epoch), (primary, theirs));
        match standing {
            Standing::Agreed => {}
            Standing::Overtaken(by) => {
                self.store().supersede(relationship.id, by).map_err(Refusal::failed)?;
            }
            Standing::AskedBack(epoch) => {
                self.store().adopt_epoch(relationship.id, epoch).map_err(Refusal::failed)?;
                let peer = self.peer_name(record);
                let text = format!("{peer} took its failover back: this host is primary in epoch {epoch}");
                self.event(Number::EpochAdopted, &relationship.vm_name, text);
            }
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_primary_listens_and_only_to_a_higher_epoch() {
        let [first, second] = [Epoch::FIRST, Epoch::FIRST.next()];
        for they_are_primary in [true, false] {
            for role in [Role::Primary, Role::Replica] {
                assert_eq!(judge((role, second), (they_are_primary, first)), Standing::Agreed);
                assert_eq!(judge((role, first), (they_are_primary, first)), Standing::Agreed);
            }
            assert_eq!(judge((Role::Replica, first), (they_are_primary, second)), Standing::Agreed);
        }
        assert_eq!(judge((Role::Primary, first), (true, second)), Standing::Overtaken(second));
        assert_eq!(judge((Role::Primary, first), (false, second)), Standing::AskedBack(second));
    }
}

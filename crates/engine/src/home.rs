//! Where a VM is at home, and since when it runs elsewhere. What is *not* here: who may run it (`choreography::authority`).

use std::sync::PoisonError;

use choreography::{Entry, Mark, Procedure, Step};
use domain::{Epoch, HostId, Role, Timestamp};
use store::Record;

use crate::{Engine, Refusal, Result};

/// Operations of a VM that are looked at for the one that moved it, the newest first: the others were taken back.
const LOOKED_AT_MAX: u32 = 32;

/// A VM's home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home {
    /// The host where it was protected first.
    pub host: HostId,
    /// Since when it runs on the other one; none: it is at home, or this host has no record of how it moved.
    pub away_since: Option<Timestamp>,
}

/// When the VM moved, as the slot remembers it: it does not move again without another epoch.
pub(crate) type Moved = (Epoch, Timestamp);

impl Engine {
    /// Where the VM of a relationship is at home. Cheap: lists ask it for each of their lines.
    pub fn home(&self, record: &Record) -> Result<Home> {
        let relationship = &record.relationship;
        let is_primary = relationship.role() == Role::Primary;
        let host = if record.is_home() { self.host() } else { relationship.peer };
        let is_away = record.is_home() != is_primary;
        let away_since = if is_away { self.moved(record)? } else { None };
        Ok(Home { host, away_since })
    }

    fn moved(&self, record: &Record) -> Result<Option<Timestamp>> {
        let (id, epoch) = (record.relationship.id, record.relationship.epoch);
        let slot = self.slot(id);
        let known = *slot.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, at)) = known.filter(|(of, _)| *of == epoch) {
            return Ok(Some(at));
        }
        let newest = self.store().operations(None, Some(&[id]), LOOKED_AT_MAX).map_err(Refusal::failed)?;
        let moves = newest.iter().filter(|(operation, _)| {
            matches!(operation.procedure, Procedure::PlannedFailover | Procedure::Failover)
        });
        let at = moves.flat_map(|(_, entries)| entries).find_map(moved_with);
        *slot.moved.lock().unwrap_or_else(PoisonError::into_inner) = at.map(|at| (epoch, at));
        Ok(at)
    }
}

fn moved_with(entry: &Entry) -> Option<Timestamp> {
    matches!(entry.mark, Mark::Done(Step::HandOver | Step::TakeOver, _)).then_some(entry.at)
}

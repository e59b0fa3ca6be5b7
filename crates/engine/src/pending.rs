//! What waits on the primary to be replicated: told to the replica server between two cycles, so that a failover can say what is lost.
//!
//! A hint for a person, in memory of nothing else: it is never a reason to do or to refuse anything.

use std::time::Duration;

use domain::Timestamp;
use store::{Pending, Record};
use wire::message::Request;

use crate::{Engine, Refusal, Result, clock};

/// How often it is told. Where cycles come faster, the recovery points say as much.
pub(crate) const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Nobody waits for it.
const TELL_DEADLINE: Duration = Duration::from_secs(2);

impl Engine {
    /// On the primary: counts, and tells the other host. What cannot be told now is told the next time.
    pub(crate) async fn tell_pending(&self, record: &Record) {
        let Some(bytes) = self.pending_bytes(record).await else { return };
        let relationship = &record.relationship;
        let (id, epoch) = (relationship.id.0, relationship.epoch.number());
        let request = Request::Pending { relationship: id, epoch, bytes };
        let told = self.ask(relationship.peer, &request);
        let _ = tokio::time::timeout(TELL_DEADLINE, told).await;
    }

    /// On the replica: keeps what it was told.
    pub(crate) fn keep_pending(&self, record: &Record, bytes: u64) -> Result<()> {
        let pending = Pending { bytes, at: clock::now() };
        self.store().set_pending(record.relationship.id, &pending).map_err(Refusal::failed)
    }

    /// What waited when the primary told last, if that was after this recovery point.
    pub(crate) fn pending_since(&self, record: &Record, point: Timestamp) -> Result<Option<Pending>> {
        let pending = self.store().pending(record.relationship.id).map_err(Refusal::failed)?;
        Ok(pending.filter(|pending| pending.at > point))
    }
}

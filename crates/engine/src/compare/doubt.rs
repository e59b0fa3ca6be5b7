//! A verification found that the replica differs: its host is told, for it is there that somebody fails over on the night when the
//! primary is gone.
//!
//! *Not* a repair: that is a resynchronization's, of the newest point alone. Points below it stay doubted until they are merged.

use std::time::Duration;

use domain::{Doubt, RecoveryPoint, Role, vm_argument};
use layer::ReplicaDirectory;
use store::Record;
use wire::message::Request;

use crate::events::Number;
use crate::{Code, Engine, Refusal, Result};

/// Nobody waits for it: what cannot be told now is told the next time.
const TELL_DEADLINE: Duration = Duration::from_secs(2);
/// How much of what the other host says is kept.
const WORDS_MAX: usize = 1000;

impl Engine {
    /// On the primary: tells the replica's host what is doubted, until it has heard it once in the life of this daemon.
    pub(crate) async fn tell_doubt(&self, record: &Record) {
        let (relationship, slot) = (&record.relationship, self.slot(record.relationship.id));
        if relationship.role() != Role::Primary {
            return;
        }
        let doubt = self.store().doubt(relationship.id).ok().flatten();
        let Some(doubt) = doubt.filter(|doubt| doubt.epoch == relationship.epoch) else { return };
        if slot.told_doubt().as_ref() == Some(&doubt) {
            return;
        }
        let request = Request::Doubt {
            relationship: relationship.id.0,
            epoch: relationship.epoch.number(),
            ordinal: doubt.ordinal,
            what: doubt.what.clone(),
        };
        let told = tokio::time::timeout(TELL_DEADLINE, self.ask(relationship.peer, &request)).await;
        if matches!(told, Ok(Ok(_))) {
            *slot.told_doubt() = Some(doubt);
        }
    }

    /// On the replica: keeps what it was told; an event when it is new.
    pub(crate) fn keep_doubt(&self, record: &Record, ordinal: u64, what: &str) -> Result<()> {
        let relationship = &record.relationship;
        if relationship.role() == Role::Primary {
            let found = "this host is the primary server: it is here that a replica is verified";
            return Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
        }
        let what = what.chars().filter(|it| !it.is_control()).take(WORDS_MAX).collect();
        let doubt = Doubt { epoch: relationship.epoch, ordinal, what };
        if self.store().doubt(relationship.id).map_err(Refusal::failed)?.as_ref() == Some(&doubt) {
            return Ok(());
        }
        self.store().set_doubt(relationship.id, &doubt).map_err(Refusal::failed)?;
        let text = format!("{}: {}", self.peer_name(record), doubt.what);
        self.event(Number::MismatchFound, &relationship.vm_name, text);
        Ok(())
    }

    /// What is held against a recovery point of this host, in words; none: nothing is known.
    pub fn doubted(&self, record: &Record, point: &RecoveryPoint) -> Result<Option<String>> {
        let doubt = self.store().doubt(record.relationship.id).map_err(Refusal::failed)?;
        Ok(doubt.filter(|doubt| doubt.covers(point)).map(|doubt| doubt.what))
    }

    /// The newest point of this host against which nothing is known.
    pub(crate) fn newest_undoubted(
        &self,
        record: &Record,
        directory: &ReplicaDirectory,
    ) -> Result<Option<RecoveryPoint>> {
        let doubt = self.store().doubt(record.relationship.id).map_err(Refusal::failed)?;
        let mut points = directory.manifest().points.iter().rev().map(|listed| &listed.point);
        Ok(points.find(|point| !doubt.as_ref().is_some_and(|doubt| doubt.covers(point))).cloned())
    }
}

/// Why nothing starts from a doubted point without a word of a person. `better`: the newest point that is not doubted, if any.
pub(crate) fn in_the_way(record: &Record, what: &str, better: Option<&RecoveryPoint>) -> (String, String) {
    let vm = vm_argument(&record.relationship.vm_name);
    let found = format!(
        "the primary server found this recovery point, or one after it, to differ from the VM's disks: {what}"
    );
    let force = format!("if there is nothing better: virt-replica failover --force {vm}");
    let cure = match better {
        Some(point) => format!("virt-replica failover --point {} {vm}; {force}", point.id),
        None => {
            format!("wait until a resynchronization has repaired the newest: virt-replica show {vm}; {force}")
        }
    };
    (found, cure)
}

//! Lets a guest that was just started come up before a backup is opened on it.
//!
//! libvirt (11.3 and before) takes up a guest's agent in a job that a backup does not let in: of an agent that comes while a
//! cycle's backup is open it never hears, and the backup hangs for half a minute. So a cycle waits for the agent, for a
//! while. NOT a boot check: a guest that never comes up is replicated like any other.

use std::time::Duration;

use domain::RelationshipId;
use hypervisor::{VmFacts, VmState};
use store::Record;
use tokio::time::Instant;

use crate::seen::Seen;
use crate::{Engine, Result};

/// How long a guest that was started may keep a cycle waiting: as long as many guests take, for whose agent comes after that while a
/// backup is open has none until it is started again.
const COMES_UP_MAX: Duration = Duration::from_secs(120);
/// Pause between two looks whether it is up.
pub(crate) const LOOK: Duration = Duration::from_millis(500);
/// How long its agent may take to answer once it is there.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Something happened to the VM: it may have been started.
pub(crate) fn begins(engine: &Engine, id: RelationshipId) {
    *engine.slot(id).booted() = Some(Instant::now());
}

/// Whether the guest has just been started and its agent is still to come.
pub(crate) async fn is_under_way(engine: &Engine, record: &Record) -> Result<bool> {
    let slot = engine.slot(record.relationship.id);
    let Some(since) = *slot.booted() else { return Ok(false) };
    let vm = record.relationship.vm;
    let comes = engine
        .hypervisor(move |it| {
            // A guest that is paused brings nothing up.
            let runs = |facts: VmFacts| facts.has_agent && facts.state == VmState::Running;
            Ok(it.vm(vm)?.is_some_and(runs) && !it.agent_answers(vm, ANSWER_MAX).unwrap_or(false))
        })
        .await?;
    if comes && since.elapsed() < COMES_UP_MAX {
        return Ok(true);
    }
    *slot.booted() = None;
    Ok(false)
}

/// Waits until it is up, of a VM whose `facts` say that it runs. It may have been started since the cycle began, and nobody
/// has looked yet.
pub(crate) async fn wait(engine: &Engine, record: &Record, facts: &VmFacts) -> Result<()> {
    let id = record.relationship.id;
    let was_off = Seen::before(&engine.record(id)?).is_some_and(|seen| !seen.ran);
    if facts.state.is_active() && was_off {
        begins(engine, id);
    }
    while is_under_way(engine, record).await? {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

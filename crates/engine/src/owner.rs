//! The owner of a relationship: looks at the store, does the one thing that is due, sleeps until the bell or the next time.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{CycleOutcome, CycleRecord, Epoch, Phase, RelationshipId, Role, Timestamp};
use store::Record;
use tokio::time::Instant;

use crate::compare::policy;
use crate::events::Number;
use crate::notice::notice;
use crate::{
    Code, Engine, Refusal, Result, boot, chain, clock, comeback, cycle, life, operation, pending, points,
    replica, seed, test_failover,
};

/// Longest sleep: what nobody tells us is noticed after this.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// First wait after a cycle failed; it doubles up to the frequency.
const RETRY: Duration = Duration::from_secs(2);
/// Longest time in which the files of a VM that is started are left alone.
const START_MAX: Duration = Duration::from_secs(10);
/// Cycles are kept for statistics at least this long.
const CYCLES_KEPT: Duration = Duration::from_secs(8 * 24 * 3600);

/// Begins to own a relationship; a second owner of the same relationship is not made.
pub(crate) fn spawn(engine: &Engine, id: RelationshipId) {
    let owned = engine.slot(id).owned.swap(true, Ordering::SeqCst);
    if !owned {
        tokio::spawn(own(engine.clone(), id));
    }
}

/// What an owner knows of the cycles of one epoch: those of a role that has ended say nothing of when the next is due.
#[derive(Default)]
struct Memory {
    epoch: Option<Epoch>,
    last_begun: Option<Instant>,
    failures: u32,
    /// When the other host was told what waits here.
    told: Option<Instant>,
    /// When the VM was looked at.
    noticed: Option<Instant>,
}

async fn own(engine: Engine, id: RelationshipId) {
    let slot = engine.slot(id);
    let mut memory = Memory::default();
    replica::renew_instructions(&engine, id).await;
    loop {
        let wait = match engine.record(id) {
            Ok(record) => look(&engine, &record, &mut memory).await.unwrap_or_else(|error| {
                tracing::warn!(relationship = %id, %error, "will look again");
                LOOK
            }),
            Err(error) if error.code == Code::NotFound => {
                engine.slots().remove(&id);
                return;
            }
            Err(_) => LOOK,
        };
        let _ = tokio::time::timeout(wait.min(LOOK), slot.wake.notified()).await;
    }
}

async fn look(engine: &Engine, record: &Record, memory: &mut Memory) -> Result<Duration> {
    let (id, epoch) = (record.relationship.id, Some(record.relationship.epoch));
    if memory.epoch != epoch {
        *memory = Memory { epoch, ..Memory::default() };
    }
    if let Some((operation, _)) = engine.store().open_operation(id).map_err(Refusal::failed)? {
        let wait = operation::drive(engine, &operation).await?;
        let due = memory.noticed.is_none_or(|noticed| noticed.elapsed() >= LOOK);
        if !wait.is_zero() && due && operation::waits_beside_the_vm(engine, &operation) {
            memory.noticed = Some(Instant::now());
            notice(engine, &engine.record(id)?).await?;
        }
        return Ok(wait);
    }
    memory.noticed = Some(Instant::now());
    if notice(engine, record).await? {
        // Turned off: what it wrote last travels at once.
        memory.last_begun = None;
    }
    if memory.told.is_none_or(|told| told.elapsed() > pending::TOLD_EVERY) {
        memory.told = Some(Instant::now());
        engine.tell_pending(record).await;
        engine.tell_doubt(record).await;
    }
    match (record.relationship.role(), &record.relationship.phase) {
        (Role::Replica, Phase::Receiving) => {
            let seeded = seed::mind(engine, record).await;
            *engine.slot(id).waiting() = seeded.as_ref().err().map(ToString::to_string);
            seeded?;
            test_failover::mind(engine, record).await?;
            if keep_what_differs(engine, record).await {
                chain::mind(engine, id);
            }
            Ok(LOOK)
        }
        (Role::Primary, Phase::FailedOver { since, timer: Some(timer), .. }) => {
            Ok(engine.settle_by_timer(record, *since, *timer).await)
        }
        (Role::Primary, Phase::InitialPending { start }) if clock::now() >= *start => {
            engine.store().set_phase(id, &Phase::InitialReplication).map_err(Refusal::failed)?;
            Ok(Duration::ZERO)
        }
        (Role::Primary, phase) if phase.sends() && record.relationship.paused_since.is_none() => {
            let record = &life::follow_or_say_why(engine, record).await;
            replicate(engine, record, memory).await
        }
        _ => Ok(LOOK),
    }
}

/// An old primary that stepped down keeps what only it has before anything is merged. False: that is not done yet.
async fn keep_what_differs(engine: &Engine, record: &Record) -> bool {
    let slot = engine.slot(record.relationship.id);
    // A merge under way gives way to whoever reads the chain: not at every look.
    match engine.store().divergence(record.relationship.id) {
        Ok(None) => return true,
        Ok(Some(_)) => {}
        Err(_) => return false,
    }
    // Deltas go on arriving meanwhile; nothing is merged.
    let _reading = std::sync::Arc::clone(&slot.chain).read().await;
    match comeback::set_aside(engine, record).await {
        Ok(done) => done,
        Err(error) => {
            *slot.fold_failure() = Some(error.detail);
            false
        }
    }
}

async fn replicate(engine: &Engine, record: &Record, memory: &mut Memory) -> Result<Duration> {
    let frequency = record.relationship.settings.frequency.duration();
    let due_after = match memory.failures {
        0 => frequency,
        failures => (RETRY * 2_u32.saturating_pow(failures.min(8) - 1)).min(frequency),
    };
    let waited = memory.last_begun.map(|begun| begun.elapsed());
    let due_after = if policy::is_urgent(engine, record) { due_after.min(RETRY) } else { due_after };
    let urgent = record.relationship.phase == Phase::InitialReplication && memory.failures == 0
        || points::is_wished(engine, record);
    if let Some(waited) = waited.filter(|waited| *waited < due_after && !urgent) {
        return Ok(due_after - waited);
    }
    if boot::is_under_way(engine, record).await? {
        memory.last_begun = None;
        return Ok(boot::LOOK);
    }
    let begun = (clock::now(), Instant::now());
    count_missed(engine, record, memory, frequency)?;
    memory.last_begun = Some(begun.1);
    match watched(engine, record, cycle::run(engine, record)).await {
        Some(result) => {
            points::conclude(engine, record, &result);
            settle(engine, record, memory, begun, result)?;
        }
        None => {
            wait_for_start(engine, record).await?;
            memory.last_begun = None;
        }
    }
    Ok(Duration::from_millis(50))
}

/// Somebody starts the VM: its files stay free until it runs, or for as long as a start may take.
async fn wait_for_start(engine: &Engine, record: &Record) -> Result<()> {
    engine.slot(record.relationship.id).stop_progress();
    let vm = record.relationship.vm;
    let begun = Instant::now();
    while begun.elapsed() < START_MAX {
        let state = engine.hypervisor(move |it| it.vm_state(vm)).await?;
        if state.is_none_or(hypervisor::VmState::is_active) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

/// A first copy takes hours: what happens to the VM meanwhile is noticed all the same. None: it was given up, because
/// somebody starts a VM whose files it was reading; as after a crash, the next cycle covers what it did not send.
async fn watched<T>(engine: &Engine, record: &Record, cycle: impl Future<Output = T>) -> Option<T> {
    let (id, slot) = (record.relationship.id, engine.slot(record.relationship.id));
    tokio::select! {
        done = cycle => Some(done),
        () = slot.files.wanted() => None,
        never = look_on(engine, id) => match never {},
    }
}

/// Looks at the VM again and again, beside whatever takes long.
pub(crate) async fn look_on(engine: &Engine, id: RelationshipId) -> Infallible {
    let slot = engine.slot(id);
    loop {
        let _ = tokio::time::timeout(LOOK, slot.wake.notified()).await;
        let looked = match engine.record(id) {
            Ok(record) => notice(engine, &record).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::debug!(relationship = %id, %error, "will look again");
        }
    }
}

/// Cycles whose time passed while the one before still ran.
fn count_missed(engine: &Engine, record: &Record, memory: &Memory, frequency: Duration) -> Result<()> {
    let Some(begun) = memory.last_begun.filter(|_| memory.failures == 0) else { return Ok(()) };
    let missed = begun.elapsed().as_secs() / frequency.as_secs().max(1);
    for _ in 1..missed.min(100) {
        let cycle = CycleRecord {
            begun: clock::now(),
            latency: Duration::ZERO,
            bytes: 0,
            sent_bytes: None,
            outcome: CycleOutcome::Missed,
        };
        keep(engine, record, &cycle)?;
    }
    Ok(())
}

fn keep(engine: &Engine, record: &Record, cycle: &CycleRecord) -> Result<()> {
    let kept = u64::try_from(CYCLES_KEPT.as_millis()).unwrap_or(0);
    let forget_before = Timestamp(clock::now().millis().saturating_sub(kept));
    let added = engine.store().add_cycle(record.relationship.id, cycle, forget_before);
    engine.sum_up_anew(record.relationship.id);
    added.map_err(Refusal::failed)
}

fn settle(
    engine: &Engine,
    record: &Record,
    memory: &mut Memory,
    (begun, since): (Timestamp, Instant),
    result: Result<cycle::Synchronized>,
) -> Result<()> {
    let (id, name) = (record.relationship.id, &record.relationship.vm_name);
    let (latency, store) = (since.elapsed(), engine.store());
    match result {
        Ok(done) => {
            let (bytes, sent_bytes) = (done.bytes, Some(done.sent_bytes));
            let cycle =
                CycleRecord { begun, latency, bytes, sent_bytes, outcome: CycleOutcome::Acknowledged };
            keep(engine, record, &cycle)?;
            if memory.failures > 0 || record.last_failure.is_some() {
                engine.event(Number::Recovered, name, "replication works again");
            }
            memory.failures = 0;
            store.set_failure(id, None).map_err(Refusal::failed)?;
            let phase = engine.record(id)?.relationship.phase;
            if phase == Phase::InitialReplication {
                engine.event(
                    Number::InitialReplicationCompleted,
                    name,
                    format!("{} bytes in {latency:.1?}", done.bytes),
                );
            }
            if phase.sends() && phase != Phase::Replicating {
                store.set_phase(id, &Phase::Replicating).map_err(Refusal::failed)?;
                // A copy of everything takes its time; the frequency is promised from here on.
                memory.last_begun = Some(Instant::now());
            }
        }
        Err(error) => {
            let outcome = CycleOutcome::Failed;
            let cycle = CycleRecord { begun, latency, bytes: 0, sent_bytes: None, outcome };
            keep(engine, record, &cycle)?;
            if memory.failures == 0 {
                engine.event(Number::CycleFailed, name, error.to_string());
            }
            memory.failures += 1;
            store.set_failure(id, Some(&error.to_string())).map_err(Refusal::failed)?;
        }
    }
    Ok(())
}

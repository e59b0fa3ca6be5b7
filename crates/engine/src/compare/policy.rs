//! Whether a resynchronization or a verification is due, may begin, or waits, and for what.

use std::time::Duration;

use domain::{Health, Notice, Phase, Resynchronize, Role, vm_argument};
use store::Record;
use tokio::sync::OwnedSemaphorePermit;

use super::ComparisonProgress;
use crate::{Code, Engine, Refusal, Result, clock};

/// A verification by schedule that could not be made, whatever it met, is tried again after this: it reads whole disks, and may get far.
const VERIFIED_AGAIN: Duration = Duration::from_secs(3600);

/// What there is to say of comparing one relationship.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ComparisonFacts {
    /// Why the disks are compared; none: they are not, or it is a verification.
    pub cause: Option<String>,
    /// What a resynchronization waits for.
    pub waiting: Option<String>,
    /// A comparison under way.
    pub progress: Option<ComparisonProgress>,
    /// When the replica was last proven to be equal.
    pub verified: Option<domain::Timestamp>,
}

/// Lets a resynchronization begin, or says why not. What it gives is held until the end: there is room for some at a time.
pub(crate) async fn admit(
    engine: &Engine,
    record: &Record,
    cause: &str,
) -> Result<Option<OwnedSemaphorePermit>> {
    let relationship = &record.relationship;
    // A handover does not wait: the VM is off.
    if relationship.phase == Phase::Yielding {
        return Ok(None);
    }
    let slot = engine.slot(relationship.id);
    let way = relationship.settings.comparing.resynchronize;
    let asked = engine.store().comparisons(relationship.id).map_err(Refusal::failed)?.resynchronize.is_some();
    let first = relationship.phase == Phase::InitialReplication;
    let expect_open = || {
        if asked || first || way.admits(clock::minute_of_day()) {
            return Ok(());
        }
        let waits = format!("it waits, because its setting is \"{way}\"");
        *slot.waiting() = Some(waits.clone());
        let found = format!("a resynchronization is needed ({cause}); {waits}");
        let cure = format!("begin it now: virt-replica resynchronize {}", vm_argument(&relationship.vm_name));
        Err(Refusal::new(Code::Refused, found, cure))
    };
    expect_open()?;
    let room = engine.0.resynchronizations.clone();
    let permit = match room.clone().try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            let max = engine.config().resynchronizations_max;
            *slot.waiting() =
                Some(format!("{max} others are under way on this host (resynchronizations_max)"));
            let permit = room.acquire_owned().await.map_err(Refusal::failed)?;
            // The others may have taken until after the window.
            expect_open()?;
            permit
        }
    };
    *slot.waiting() = None;
    Ok(Some(permit))
}

/// Why the disks are to be compared although the basis is known: a person asked, or a verification found a difference.
pub(crate) fn wanted(engine: &Engine, record: &Record) -> Result<Option<String>> {
    let known = engine.store().comparisons(record.relationship.id).map_err(Refusal::failed)?;
    Ok(known.mismatch.or(known.resynchronize))
}

/// Whether the replica is to be proven equal with the next cycle.
pub(crate) fn verification_is_due(engine: &Engine, record: &Record) -> Result<bool> {
    let relationship = &record.relationship;
    let known = engine.store().comparisons(relationship.id).map_err(Refusal::failed)?;
    if relationship.phase != Phase::Replicating || known.mismatch.is_some() {
        return Ok(false);
    }
    let (every, now) = (relationship.settings.comparing.verify_every, clock::now());
    let overdue = every.is_some_and(|every| known.verified.is_none_or(|at| at.is_due_again(every, now)));
    let rests = known.unverified.is_some_and(|(at, _)| !at.is_due_again(VERIFIED_AGAIN, now));
    Ok(known.verify_since.is_some() || overdue && !rests)
}

/// Whether a person waits for the next cycle.
pub(crate) fn is_urgent(engine: &Engine, record: &Record) -> bool {
    let known = engine.store().comparisons(record.relationship.id).unwrap_or_default();
    known.verify_since.is_some() || known.resynchronize.is_some() || known.mismatch.is_some()
}

/// What health shows as long as a difference that was found is not repaired, or the replica could not be looked at.
pub(crate) fn notice(engine: &Engine, record: &Record) -> Result<Option<Notice>> {
    let known = engine.store().comparisons(record.relationship.id).map_err(Refusal::failed)?;
    if record.relationship.role() != Role::Primary {
        return Ok(None);
    }
    let sends = record.relationship.phase.sends();
    let vm = vm_argument(&record.relationship.vm_name);
    let (now, setting) =
        (format!("virt-replica resynchronize {vm}"), record.relationship.settings.comparing.resynchronize);
    let mismatch = known.mismatch.map(|what| Notice {
        severity: Health::Critical,
        what,
        cure: match setting {
            Resynchronize::Automatic => {
                format!("a resynchronization repairs it by itself; to begin it now: {now}")
            }
            _ => format!(
                "a resynchronization repairs it, whose setting is \"{setting}\"; to begin it now: {now}"
            ),
        },
    });
    let unverified = known.unverified.and_then(|(_, why)| why).filter(|_| sends).map(|why| Notice {
        severity: Health::Warning,
        what: format!("the replica could not be verified, and is not known to be right: {why}"),
        cure: format!("when that is mended: virt-replica verify {vm}"),
    });
    Ok(mismatch.or(unverified))
}

impl Engine {
    /// Compares both sides as soon as possible, and sends what differs.
    pub fn resynchronize(&self, record: &Record, who: &str) -> Result<()> {
        self.expect_comparable(record, "resynchronize")?;
        let id = record.relationship.id;
        self.store().want_resynchronization(id, &format!("asked for by {who}")).map_err(Refusal::failed)?;
        self.wake(id);
        Ok(())
    }

    /// Proves with the next cycle, which begins at once, that the replica is equal.
    pub fn verify(&self, record: &Record) -> Result<()> {
        self.expect_comparable(record, "verify")?;
        self.store().want_verification(record.relationship.id, clock::now()).map_err(Refusal::failed)?;
        self.wake(record.relationship.id);
        Ok(())
    }

    /// Whether both sides can be compared now.
    pub fn expect_comparable(&self, record: &Record, verb: &str) -> Result<()> {
        self.must_be_idle(record)?;
        let (relationship, vm) = (&record.relationship, vm_argument(&record.relationship.vm_name));
        let refuse = |found: &str, cure: String| Err(Refusal::new(Code::Refused, found, cure));
        if relationship.role() == Role::Replica {
            let primary = self.peer_name(record);
            let found = "this host is the replica server, and the primary server compares";
            return refuse(found, format!("on {primary}: virt-replica {verb} {vm}"));
        }
        if relationship.paused_since.is_some() {
            return refuse("replication is paused", format!("virt-replica resume {vm}"));
        }
        if record.paused_on_peer {
            let cure = format!("on the replica server: virt-replica resume {vm}");
            return refuse("replication is paused on the replica server", cure);
        }
        if !matches!(relationship.phase, Phase::Replicating | Phase::Resynchronizing { .. }) {
            let found = format!("the VM is in state \"{}\"", relationship.phase.words());
            return refuse(&found, format!("virt-replica show {vm}"));
        }
        Ok(())
    }

    /// What there is to say of comparing.
    pub fn comparison(&self, record: &Record) -> Result<ComparisonFacts> {
        let slot = self.slot(record.relationship.id);
        let cause = match &record.relationship.phase {
            Phase::Resynchronizing { cause } => Some(cause.clone()),
            _ => None,
        };
        let known = self.store().comparisons(record.relationship.id).map_err(Refusal::failed)?;
        let (waiting, progress) = (slot.waiting().clone(), *slot.comparison());
        let waiting = waiting.filter(|_| cause.is_some());
        Ok(ComparisonFacts { cause, waiting, progress, verified: known.verified })
    }
}

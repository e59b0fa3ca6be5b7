//! A recovery point that somebody asks for: the next cycle begins at once and makes it. A wish lives in memory; who asked waits
//! for the answer, and asks again when the daemon ended meanwhile.

use std::time::Duration;

use domain::{Phase, RecoveryPoint, Role, vm_argument};
use store::Record;
use tokio::sync::oneshot;

use super::PointFacts;
use crate::cycle::Synchronized;
use crate::events::Number;
use crate::{Code, Engine, Refusal, Result, chain, clock, quiesce};

/// Longest wait for a point that was asked for; the client waits a little longer.
const MADE_MAX: Duration = Duration::from_secs(110);

/// What is wanted of the next point beside its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wanted {
    /// What a person calls it.
    pub(crate) tag: Option<String>,
    /// The guest's file systems are to be frozen for it.
    pub(crate) freeze: bool,
}

/// A wish, until a cycle has made its point.
pub(crate) struct Wish {
    wanted: Wanted,
    /// A cycle is at it.
    taken: bool,
    made: oneshot::Sender<Result<RecoveryPoint>>,
}

/// A point that was asked for and made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WishedPoint {
    /// The point.
    pub point: PointFacts,
    /// Why its consistency is less than was asked for.
    pub failure: Option<String>,
}

/// Whether somebody waits for a point.
pub(crate) fn is_wished(engine: &Engine, record: &Record) -> bool {
    engine.slot(record.relationship.id).wish().as_ref().is_some_and(|wish| !wish.made.is_closed())
}

/// What is wanted of a point that begins now: what somebody asked for, and what the schedule says.
pub(crate) fn wanted(engine: &Engine, record: &Record) -> Result<Wanted> {
    let relationship = &record.relationship;
    if relationship.phase != Phase::Replicating {
        return Ok(Wanted::default());
    }
    // A handover makes its points in a hurry, and for itself.
    if engine.store().open_operation(relationship.id).map_err(Refusal::failed)?.is_some() {
        return Ok(Wanted::default());
    }
    let slot = engine.slot(relationship.id);
    let mut wish = slot.wish();
    // Nobody waits for it any more.
    wish.take_if(|wish| wish.made.is_closed());
    let mut wanted = Wanted::default();
    if let Some(wish) = wish.as_mut() {
        wish.taken = true;
        wanted = wish.wanted.clone();
    }
    drop(wish);
    wanted.freeze |= quiesce::is_due(engine, record)?;
    Ok(wanted)
}

/// Tells whoever waits what became of the cycle that was at the wish, or why none gets that far.
pub(crate) fn conclude(engine: &Engine, record: &Record, result: &Result<Synchronized>) {
    let slot = engine.slot(record.relationship.id);
    let taken = slot.wish().take_if(|wish| wish.taken || result.is_err());
    if let Some(wish) = taken {
        let _ = wish.made.send(result.as_ref().map(|done| done.head.clone()).map_err(Clone::clone));
    }
}

impl Engine {
    /// Why no point can be made on demand now; none: nothing is against it. On the primary server.
    pub async fn wish_obstacle(&self, record: &Record) -> Result<()> {
        let relationship = &record.relationship;
        let vm = vm_argument(&relationship.vm_name);
        let refused = |found: String, cure: String| Err(Refusal::new(Code::Refused, found, cure));
        if relationship.role() == Role::Replica {
            let primary = self.name_of(relationship.peer);
            return refused(
                format!("recovery points are made where the VM runs, on {primary}"),
                format!("on {primary}: virt-replica point create {vm}"),
            );
        }
        self.must_be_idle(record)?;
        if relationship.paused_since.is_some() || record.paused_on_peer {
            return refused("replication is paused".to_owned(), format!("virt-replica resume {vm}"));
        }
        if relationship.phase != Phase::Replicating {
            let found = format!("no recovery point is made in state \"{}\"", relationship.phase.words());
            return refused(found, format!("virt-replica wait {vm}"));
        }
        self.must_answer(relationship.peer).await?;
        let known = self.points(record).await?.points;
        let tags = known.iter().filter(|point| point.tag.is_some()).count();
        chain::expect_points(relationship, &relationship.settings.retention, tags + 1)
    }

    /// Makes a recovery point now, which stays until it is removed. Gives it when the replica has it.
    pub async fn create_point(
        &self,
        record: &Record,
        tag: String,
        application_consistent: bool,
    ) -> Result<WishedPoint> {
        self.wish_obstacle(record).await?;
        let id = record.relationship.id;
        let (made, answer) = oneshot::channel();
        let begun = clock::now();
        {
            let slot = self.slot(id);
            let mut wish = slot.wish();
            if wish.as_ref().is_some_and(|wish| !wish.made.is_closed()) {
                return Err(Refusal::new(
                    Code::Busy,
                    "another recovery point is being made on demand",
                    "try again when it is complete",
                ));
            }
            let wanted = Wanted { tag: Some(tag), freeze: application_consistent };
            *wish = Some(Wish { wanted, taken: false, made });
        }
        self.wake(id);
        let point = match tokio::time::timeout(MADE_MAX, answer).await {
            Ok(Ok(result)) => result?,
            Ok(Err(_)) | Err(_) => {
                let found = format!(
                    "the point is not complete after {} s; it may still become so",
                    MADE_MAX.as_secs()
                );
                let cure = format!("virt-replica point list {}", vm_argument(&record.relationship.vm_name));
                return Err(Refusal::new(Code::Unavailable, found, cure));
            }
        };
        let failure = match self.store().last_freeze(id).map_err(Refusal::failed)? {
            Some(last) if application_consistent && last.tried >= begun => last.failure,
            _ => None,
        };
        let text = format!(
            "recovery point {} was made on demand: {:?}",
            point.id,
            point.tag.clone().unwrap_or_default()
        );
        self.event(Number::PointMade, &record.relationship.vm_name, text);
        Ok(WishedPoint { point: PointFacts::of(&point), failure })
    }
}

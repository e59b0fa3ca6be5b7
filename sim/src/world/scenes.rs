//! What a person types, and what must come of it: named scenes on the simulated hosts, each from a defect that was found. An error
//! says what did not come; `sim/tests/scenes.rs` plays them.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use choreography::{Mark, Options, Step, StepState, fold};
use domain::{Divergence, Phase, PointId, RecoveryPoint};
use engine::{Engine, Refusal, ReverseRequest};
use hypervisor::Hypervisor;
use store::Record;

use super::{LOOK, World, record};
use crate::hypervisor::checkpoint_of;
use crate::{Plan, judges};

/// A seed whose retention keeps some points.
const SEED: u64 = 1;
/// Longest wait for something that comes by itself.
const LIMIT: Duration = Duration::from_secs(600);
/// A VM's home is the first host.
const HOME: usize = 0;
const AWAY: usize = 1;

impl World {
    fn quiet() -> Result<World> {
        World::new(&Plan { seed: SEED, rounds: Vec::new(), sabotage: None })
    }

    fn asked<T, F>(&mut self, host: usize, question: impl FnOnce(Engine, Record) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let record = record(&self.hosts[host]).context("no record")?;
        let answer = self.ask(host, |engine| question(engine, record));
        answer.context("no answer")?.map_err(|refused| anyhow::anyhow!("{refused}"))
    }

    fn until(&mut self, what: &str, mut good: impl FnMut(&mut Self) -> bool) -> Result<()> {
        let begun = self.now;
        while !good(self) {
            ensure!(self.now - begun < LIMIT, "not within {LIMIT:?}: {what}");
            self.pass(LOOK);
        }
        Ok(())
    }

    fn phase(&self, host: usize) -> Option<Phase> {
        record(&self.hosts[host]).map(|record| record.relationship.phase)
    }

    /// The points that the files of a host's replica tell of, the oldest first.
    fn listed(&self, host: usize) -> Result<Vec<PointId>> {
        Ok(self.points_in_files(host)?.iter().map(|point| point.id).collect())
    }

    /// What a host wrote as an old primary, and has not set aside; the outer none: it has no daemon.
    fn diverged(&self, host: usize) -> Option<Option<Divergence>> {
        let (engine, there) = self.hosts[host].engine().zip(record(&self.hosts[host]))?;
        engine.store().divergence(there.relationship.id).ok()
    }

    fn hand_over_with(&mut self, from: usize, options: Options) -> Result<()> {
        let to = 1 - from;
        let reverse = options.reverse;
        self.until("a handover that is not refused", |it| {
            let options = options.clone();
            it.asked(from, |engine, record| async move {
                engine.begin_failover(&record, options, "a scene").await
            })
            .is_ok()
        })?;
        self.until("the VM is on the other host", |it| {
            let arrived = match it.phase(to) {
                Some(Phase::Replicating) => reverse,
                Some(Phase::Unprotected { .. }) => !reverse,
                _ => false,
            };
            arrived && it.is_idle(from) && it.is_idle(to) && it.hosts[to].hypervisor.runs()
        })
    }

    /// The VM has been away for long: the host where it was knows only the newest of the points that its files hold. Then it goes
    /// home, and is not protected there. Gives the points, the oldest first.
    fn away_for_long_and_home_without_reverse(&mut self) -> Result<Vec<PointId>> {
        self.hand_over_with(HOME, Options::default())?;
        self.rest()?;
        let there = record(&self.hosts[AWAY]).context("a record")?;
        let store = self.hosts[AWAY].engine().context("a daemon")?.store().clone();
        let head = store.points(there.relationship.id)?.pop().context("a point")?;
        // As 64 cycles do.
        let late = RecoveryPoint { ordinal: head.ordinal + 64, ..head };
        store.forget_old_points(there.relationship.id, &late)?;
        self.hand_over_with(AWAY, Options { reverse: false, ..Options::default() })?;
        let points = self.listed(AWAY)?;
        let known = store.points(there.relationship.id)?;
        let oldest = *points.first().context("points")?;
        ensure!(known.iter().all(|known| known.id != oldest), "the store knows {oldest}: {points:?}");
        Ok(points)
    }

    fn fail_over_from(&mut self, host: usize, point: PointId) -> Result<()> {
        self.hosts[1 - host].machine.enter();
        self.hosts[1 - host].hypervisor.turn_off(self.vm)?;
        let points = self.points_in_files(host)?;
        let ordinal = points.iter().find(|it| it.id == point).context("a point")?.ordinal;
        let moment = self.witness.seen().moments.get(&checkpoint_of(point)).cloned().context("a moment")?;
        self.witness.is_failed_over(host, moment, ordinal);
        self.asked(host, move |engine, record| async move {
            let options = Options { point: Some(point), force: true, ..Options::default() };
            let plan = engine.plan_failover_alone(&record, &options).await?;
            engine.begin_failover_alone(&record, &plan, options, "a scene").map(drop)
        })?;
        self.until("the failover", |it| {
            matches!(it.phase(host), Some(Phase::FailedOver { .. }))
                && it.is_idle(host)
                && it.hosts[host].hypervisor.runs()
        })
    }

    fn ask_to_reverse(&mut self, host: usize) -> Result<()> {
        self.asked(host, |engine, record| async move {
            engine.reverse(&record, &ReverseRequest { peer: None, settings: None }).await
        })
    }

    /// It is protected again, and each point of its replica reads as the disk was.
    fn reverse(&mut self, host: usize) -> Result<()> {
        self.ask_to_reverse(host)?;
        self.until("it is protected again", |it| {
            it.phase(host) == Some(Phase::Replicating)
                && it.phase(1 - host) == Some(Phase::Receiving)
                && it.diverged(1 - host) == Some(None)
        })?;
        judges::judge(&self.hosts, &self.witness)
    }
}

/// The host that fails over knows the point from its files alone; the failover ends all the same, and the direction is reversed.
pub fn a_failover_from_a_point_that_only_the_files_know_can_be_left() -> Result<()> {
    let mut world = World::quiet()?;
    let points = world.away_for_long_and_home_without_reverse()?;
    world.fail_over_from(AWAY, points[0])?;
    world.reverse(AWAY)
}

/// QEMU ends each merge before its end: the operation waits and says so, a person leaves the merge out, and the VM is protected again.
pub fn a_merge_that_never_succeeds_is_left_out_by_a_person() -> Result<()> {
    let mut world = World::quiet()?;
    world.hosts[AWAY].hypervisor.let_merges_fail();
    let points = world.away_for_long_and_home_without_reverse()?;
    // The oldest is a file of its own; this one lies over it.
    let chosen = *points.get(1).context("a second point")?;
    world.fail_over_from(AWAY, chosen)?;
    let id =
        world.asked(AWAY, |engine, record| async move { engine.begin_complete(&record, "a scene").await })?;
    let journal = |it: &World| {
        let found = it.hosts[AWAY].engine().and_then(|engine| engine.store().operation(id).ok()?);
        found.map(|(_, entries)| entries).unwrap_or_default()
    };
    world.until("a merge that failed", |it| match fold(&journal(it)).steps.get(&Step::Merge) {
        Some(StepState::Failed { reason, .. }) => reason.contains("QEMU ended the merge of disk vda"),
        _ => false,
    })?;
    ensure!(world.listed(AWAY)? == [chosen], "the others are not given up");
    let refused = world.ask_to_reverse(AWAY);
    ensure!(refused.is_err_and(|refused| refused.to_string().contains("is under way")), "it is reversed");
    let mut cancel = |force: bool| {
        world.asked(AWAY, move |engine, _| async move { engine.cancel_operation(id, "a scene", force) })
    };
    let refused = why_not(cancel(false), "it is cancelled, and has taken effect")?;
    ensure!(refused.contains("operation cancel --force"), "{refused}");
    cancel(true)?;
    world.until("the end of the operation", |it| it.is_idle(AWAY))?;
    let skipped =
        journal(&world).into_iter().any(|entry| matches!(entry.mark, Mark::Skipped(Step::Merge, _)));
    ensure!(skipped, "it does not say that the merge was left out");
    world.reverse(AWAY)
}

/// An old primary cannot set aside what it wrote (its sockets have no place): no recovery point may go meanwhile, for that over it
/// tells where it is. When it can again, it does.
pub fn no_point_is_removed_while_what_an_old_primary_wrote_waits_to_be_set_aside() -> Result<()> {
    let mut world = World::quiet()?;
    let newest = *world.listed(AWAY)?.last().context("a point")?;
    // What the old primary writes after the common point.
    world.link.swallow(true);
    world.pass(Duration::from_secs(10));
    world.fail_over_from(AWAY, newest)?;
    world.link.swallow(false);
    world.until("a reverse that is not refused", |it| it.ask_to_reverse(AWAY).is_ok())?;
    let (sockets, elsewhere) = (world.hosts[HOME].dir.join("n"), world.hosts[HOME].dir.join("away"));
    std::fs::rename(&sockets, &elsewhere)?;
    world.until("two points more", |it| it.listed(HOME).is_ok_and(|points| points.len() > 2))?;
    let diverged = world.diverged(HOME).flatten();
    let covered_by =
        diverged.and_then(|it| it.covered_by).context("it was set aside: there was time for it")?;
    let remove = move |world: &mut World| {
        world.asked(HOME, move |engine, record| async move {
            engine.remove_point(&record, covered_by, false).await
        })
    };
    let refused = why_not(remove(&mut world), "it is removed, and what lies below it is not set aside")?;
    ensure!(refused.contains("not set aside yet"), "{refused}");
    std::fs::rename(&elsewhere, &sockets)?;
    world.until("it is set aside", |it| it.diverged(HOME) == Some(None))?;
    if world.listed(HOME)?.contains(&covered_by) {
        remove(&mut world)?;
    }
    Ok(())
}

/// The words of a refusal.
fn why_not(answer: Result<()>, what: &str) -> Result<String> {
    match answer {
        Ok(()) => bail!("{what}"),
        Err(refused) => Ok(refused.to_string()),
    }
}

//! What a person types, and what must come of it: named scenes on the simulated hosts, each from a defect that was found.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use choreography::{Entry, Mark, Options, OtherHost, Step, StepState, fold};
use domain::{Compression, Divergence, Frequency, OperationId, Phase, PointId, RecoveryPoint, Settings};
use engine::{Code, Engine, Home, Refusal, ReverseRequest};
use hypervisor::Hypervisor;
use store::Record;

use super::{LOOK, World, record};
use crate::hypervisor::checkpoint_of;
use crate::{Plan, image, judges, machine};

mod operations;

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

    /// The replica's directory of a host.
    fn directory(&self, host: usize) -> Result<PathBuf> {
        record(&self.hosts[host]).and_then(|it| it.directory).context("a directory")
    }

    /// The journal of an operation, as a host has it.
    fn journal(&self, host: usize, id: OperationId) -> Vec<Entry> {
        let found = self.hosts[host].engine().and_then(|engine| engine.store().operation(id).ok()?);
        found.map(|(_, entries)| entries).unwrap_or_default()
    }

    /// `complete-failover`, typed on a host.
    fn ask_to_complete(&mut self, host: usize) -> Result<OperationId> {
        self.asked(host, |engine, record| async move { engine.begin_complete(&record, "a scene").await })
    }

    /// `failover`, typed on a host.
    fn begin_failover(&mut self, host: usize, options: Options) -> Result<OperationId> {
        self.asked(host, |engine, record| async move {
            let plan = engine.plan_failover_alone(&record, &options).await?;
            let begun = engine.begin_failover_alone(&record, &plan, options, "a scene").await?;
            Ok(begun.expect("nothing arrives while a scene plans"))
        })
    }

    /// `virsh destroy` on a host.
    fn turn_off(&mut self, host: usize) -> Result<()> {
        self.hosts[host].machine.enter();
        Ok(self.hosts[host].hypervisor.turn_off(self.vm)?)
    }

    /// The VM is off at home, and the other host has what it wrote last: the point of it.
    fn off_and_replicated(&mut self) -> Result<PointId> {
        self.turn_off(HOME)?;
        let asked = machine::now();
        let newest = |it: &World| {
            let (engine, there) = it.hosts[AWAY].engine().zip(record(&it.hosts[AWAY]))?;
            engine.store().points(there.relationship.id).ok()?.pop()
        };
        self.until("what it wrote last", |it| newest(it).is_some_and(|point| point.instant > asked))?;
        Ok(newest(self).context("a point")?.id)
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
        self.turn_off(1 - host)?;
        let points = self.points_in_files(host)?;
        let ordinal = points.iter().find(|it| it.id == point).context("a point")?.ordinal;
        let moment = self.witness.seen().moments.get(&checkpoint_of(point)).cloned().context("a moment")?;
        self.witness.is_failed_over(host, moment, ordinal);
        self.begin_failover(host, Options { point: Some(point), force: true, ..Options::default() })?;
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
#[test]
fn a_failover_from_a_point_that_only_the_files_know_can_be_left() -> Result<()> {
    let mut world = World::quiet()?;
    let points = world.away_for_long_and_home_without_reverse()?;
    world.fail_over_from(AWAY, points[0])?;
    world.reverse(AWAY)
}

/// QEMU ends each merge before its end: the operation waits and says so, a person leaves the merge out, and the VM is protected again.
#[test]
fn a_merge_that_never_succeeds_is_left_out_by_a_person() -> Result<()> {
    let mut world = World::quiet()?;
    world.hosts[AWAY].hypervisor.let_merges_fail();
    let points = world.away_for_long_and_home_without_reverse()?;
    // The oldest is a file of its own; this one lies over it.
    let chosen = *points.get(1).context("a second point")?;
    world.fail_over_from(AWAY, chosen)?;
    let id = world.ask_to_complete(AWAY)?;
    world.until("a merge that failed", |it| match fold(&it.journal(AWAY, id)).steps.get(&Step::Merge) {
        Some(StepState::Failed { reason, .. }) => reason.contains("QEMU ended the merge of disk vda"),
        _ => false,
    })?;
    ensure!(world.listed(AWAY)? == [chosen], "the others are not given up");
    let refused = world.ask_to_reverse(AWAY);
    ensure!(refused.is_err_and(|refused| refused.to_string().contains("is under way")), "it is reversed");
    let mut cancel = |force: bool| {
        world.asked(AWAY, move |engine, _| async move { engine.cancel_operation(id, "a scene", force) })
    };
    let refused = cancel(false).expect_err("it has taken effect").to_string();
    ensure!(refused.contains("operation cancel --force"), "{refused}");
    cancel(true)?;
    world.until("the end of the operation", |it| it.is_idle(AWAY))?;
    let skipped =
        world.journal(AWAY, id).into_iter().any(|entry| matches!(entry.mark, Mark::Skipped(Step::Merge, _)));
    ensure!(skipped, "it does not say that the merge was left out");
    world.reverse(AWAY)
}

/// A layer of the replica is gone, and nobody notices until it is to be read: a Warning, until a verification has read it all.
#[test]
fn a_replica_that_cannot_be_read_is_a_warning_until_it_was() -> Result<()> {
    let mut world = World::quiet()?;
    let base = world.directory(AWAY)?.join("vda/base.qcow2");
    let elsewhere = base.with_extension("away");
    let is_said = |it: &World| {
        let (engine, here) = it.hosts[HOME].engine().zip(record(&it.hosts[HOME]))?;
        let health = engine.health(&here).ok()?;
        Some(format!("{:?}", health.reasons).contains("could not be verified"))
    };
    std::fs::rename(&base, &elsewhere)?;
    world.asked(HOME, |engine, record| async move { engine.verify(&record) })?;
    world.until("health says it", |it| is_said(it) == Some(true))?;
    std::fs::rename(&elsewhere, &base)?;
    world.asked(HOME, |engine, record| async move { engine.verify(&record) })?;
    world.until("it was read", |it| is_said(it) == Some(false))
}

/// What an old primary trimmed after the common point is kept like what it wrote: laid over that point, the file gives its disk back.
#[test]
fn zeroes_that_an_old_primary_wrote_are_set_aside_too() -> Result<()> {
    let mut world = World::quiet()?;
    let newest = *world.listed(AWAY)?.last().context("a point")?;
    let common = world.witness.seen().moments.get(&checkpoint_of(newest)).cloned().context("a moment")?;
    let cluster = common.iter().position(|version| *version > 0).context("a cluster that was written")?;
    world.link.swallow(true);
    world.hosts[HOME].hypervisor.guest_trims(cluster);
    world.fail_over_from(AWAY, newest)?;
    world.link.swallow(false);
    world.until("a reverse that is not refused", |it| it.ask_to_reverse(AWAY).is_ok())?;
    world.until("it is set aside", |it| {
        it.phase(HOME) == Some(Phase::Receiving) && it.diverged(HOME) == Some(None)
    })?;
    let folder = world.directory(HOME)?.join("vda");
    let files = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let aside = files.iter().find(|path| {
        path.to_string_lossy().contains("/diverged-") && path.extension().is_some_and(|it| it == "qcow2")
    });
    let own = image::own(aside.with_context(|| format!("nothing was set aside: {files:?}"))?)?;
    assert_eq!(own[cluster], Some(0), "{own:?}");
    Ok(())
}

impl World {
    /// The VM is failed over without its host, and that one is the replica now: it cannot set aside what it wrote, for its sockets have
    /// no place. Gives what puts that right.
    fn old_primary_that_cannot_set_aside(
        &mut self,
        old: usize,
    ) -> Result<impl FnOnce() -> Result<()> + use<>> {
        let new = 1 - old;
        let newest = *self.listed(new)?.last().context("a point")?;
        // What the old primary writes after the common point.
        self.link.swallow(true);
        self.pass(Duration::from_secs(10));
        self.fail_over_from(new, newest)?;
        self.link.swallow(false);
        self.until("a reverse that is not refused", |it| it.ask_to_reverse(new).is_ok())?;
        let (sockets, elsewhere) = (self.hosts[old].dir.join("n"), self.hosts[old].dir.join("away"));
        std::fs::rename(&sockets, &elsewhere)?;
        Ok(move || Ok(std::fs::rename(&elsewhere, &sockets)?))
    }
}

/// The files of a replica are all there is of what it wrote as the old primary: nobody who asks for their deletion gets it, on either
/// host, until that is set aside; and then it stays.
#[test]
fn a_replica_is_not_deleted_while_it_holds_what_lies_nowhere_else() -> Result<()> {
    let mut world = World::quiet()?;
    world.hand_over_with(HOME, Options::default())?;
    world.rest()?;
    let mend = world.old_primary_that_cannot_set_aside(AWAY)?;
    world
        .until("a point more", |it| it.diverged(AWAY).flatten().is_some_and(|it| it.covered_by.is_some()))?;
    for host in [HOME, AWAY] {
        let asked = world.asked(host, |engine, record| async move { engine.remove(&record, true).await });
        let refused = asked.expect_err("it lies nowhere else").to_string();
        ensure!(
            refused.contains("on simhost02, what the VM wrote as the old primary is not set aside yet"),
            "{refused}"
        );
        ensure!(world.hosts.iter().all(|host| record(host).is_some()), "it ended on a host");
    }
    let folder = world.directory(AWAY)?.join("vda");
    mend()?;
    world.until("it is set aside", |it| it.diverged(AWAY) == Some(None))?;
    world.asked(HOME, |engine, record| async move { engine.remove(&record, true).await })?;
    let left =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    let left = left.collect::<Result<Vec<_>>>()?;
    ensure!(left.iter().all(|name| name.starts_with("diverged-")) && left.len() >= 2, "{left:?}");
    Ok(())
}

/// What a guest wrote that was started by hand from a replica's files lies in an overlay of them.
#[test]
fn a_replica_is_not_deleted_while_somebody_has_started_the_vm_from_it() -> Result<()> {
    let mut world = World::quiet()?;
    let overlay = world.directory(AWAY)?.join("vda/active.qcow2");
    std::fs::write(&overlay, "what a guest wrote")?;
    for host in [HOME, AWAY] {
        let asked = world.asked(host, |engine, record| async move { engine.remove(&record, true).await });
        let refused = asked.expect_err("it lies nowhere else").to_string();
        ensure!(refused.contains("on simhost02, somebody started the VM"), "{refused}");
        ensure!(world.hosts.iter().all(|host| record(host).is_some()), "it ended on a host");
    }
    ensure!(overlay.exists(), "the overlay is gone");
    std::fs::remove_file(&overlay)?;
    world.asked(HOME, |engine, record| async move { engine.remove(&record, true).await })?;
    ensure!(!overlay.with_file_name("base.qcow2").exists(), "the files of the replica are left");
    Ok(())
}

/// Somebody ends it on the primary, and waits for the other host; there somebody else, who has failed the VM over, makes this host the
/// replica meanwhile. It ends as what it is by then: no primary is made of a stale copy.
#[test]
fn a_host_that_became_the_replica_while_it_ended_it_does_not_start_its_stale_copy() -> Result<()> {
    let mut world = World::quiet()?;
    // A primary that was a replica before has something to be defined from.
    for host in [HOME, AWAY] {
        world.hand_over_with(host, Options::default())?;
        world.rest()?;
    }
    let before = record(&world.hosts[HOME]).context("a record")?;
    let point = world.off_and_replicated()?;
    world.fail_over_from(AWAY, point)?;
    world.until("a reverse that is not refused", |it| it.ask_to_reverse(AWAY).is_ok())?;
    world.asked(HOME, move |engine, _| async move { engine.remove(&before, false).await })?;
    ensure!(world.hosts.iter().all(|host| record(host).is_none()), "it ended on both hosts");
    world.start_vm(HOME).expect_err("the VM runs on the other host");
    world.right()
}

/// No recovery point may go while what an old primary wrote waits to be set aside, for that over it tells where it is. When it can, it does.
#[test]
fn no_point_is_removed_while_what_an_old_primary_wrote_waits_to_be_set_aside() -> Result<()> {
    let mut world = World::quiet()?;
    let mend = world.old_primary_that_cannot_set_aside(HOME)?;
    world.until("two points more", |it| it.listed(HOME).is_ok_and(|points| points.len() > 2))?;
    let diverged = world.diverged(HOME).flatten();
    let covered_by =
        diverged.and_then(|it| it.covered_by).context("it was set aside: there was time for it")?;
    let remove = move |world: &mut World| {
        world.asked(HOME, move |engine, record| async move {
            engine.remove_point(&record, covered_by, false).await
        })
    };
    let refused = remove(&mut world).expect_err("what lies below it is not set aside").to_string();
    ensure!(refused.contains("not set aside yet"), "{refused}");
    mend()?;
    world.until("it is set aside", |it| it.diverged(HOME) == Some(None))?;
    if world.listed(HOME)?.contains(&covered_by) {
        remove(&mut world)?;
    }
    Ok(())
}

#[test]
fn of_two_people_who_change_settings_at_once_the_later_hears_of_it_and_both_hosts_have_the_same() -> Result<()>
{
    let mut world = World::quiet()?;
    let (first, second) = world.asked(HOME, |engine, record| async move {
        let before = record.relationship.settings.clone();
        let one = Settings { compression: Compression::Off, ..before.clone() };
        let other = Settings { rate_limit_bytes_per_second: Some(1 << 40), ..before };
        Ok(tokio::join!(engine.change(&record, one), engine.change(&record, other)))
    })?;
    ensure!(first.is_ok(), "{first:?}");
    ensure!(second.as_ref().is_err_and(|refused| refused.code == Code::Stale), "{second:?}");
    let settings = |host| record(&world.hosts[host]).map(|it: Record| it.relationship.settings);
    ensure!(settings(HOME) == settings(AWAY));
    ensure!(settings(HOME).is_some_and(|it| it.compression == Compression::Off));
    Ok(())
}

#[test]
fn what_would_be_refused_is_refused_before_anything_is_asked_for() -> Result<()> {
    let mut world = World::quiet()?;
    let change = world.asked(AWAY, |engine, record| async move {
        engine.expect_changeable(&record, &record.relationship.settings).await
    });
    let refused = change.expect_err("settings are the primary server's").to_string();
    ensure!(refused.contains(&world.hosts[HOME].name), "{refused}");
    let removable = |world: &mut World, alone| {
        world.asked(HOME, move |engine, record| async move {
            engine.expect_removable(&record, alone, false).await
        })
    };
    removable(&mut world, false)?;
    removable(&mut world, true).expect_err("the other host answers");
    world.link.swallow(true);
    removable(&mut world, false).expect_err("the other host does not answer");
    removable(&mut world, true)
}

#[test]
fn both_hosts_know_where_a_vm_is_at_home_and_since_when_it_runs_elsewhere() -> Result<()> {
    let mut world = World::quiet()?;
    let at_home = Home { host: world.hosts[HOME].id, away_since: None };
    let homes = |world: &mut World| -> Result<[Home; 2]> {
        let mut home = |host| world.asked(host, |engine, record| async move { engine.home(&record) });
        Ok([home(HOME)?, home(AWAY)?])
    };
    ensure!(homes(&mut world)? == [at_home; 2]);
    let begun = machine::now();
    world.hand_over_with(HOME, Options::default())?;
    for home in homes(&mut world)? {
        ensure!(home.host == at_home.host, "{home:?}");
        ensure!(home.away_since.is_some_and(|at| at >= begun && at <= machine::now()), "{home:?}");
    }
    world.hand_over_with(AWAY, Options::default())?;
    ensure!(homes(&mut world)? == [at_home; 2]);
    Ok(())
}

/// What the plan of a failover on a host says of the other one.
fn said_of_the_other(world: &mut World, host: usize) -> Result<OtherHost> {
    world.asked(host, |engine, record| async move {
        Ok(engine.plan_failover_alone(&record, &Options::default()).await?.other)
    })
}

/// The primary was a replica once, and the storage of that time is gone: whether its VM runs has nothing to do with that.
#[test]
fn a_primary_that_lost_its_replica_storage_still_tells_that_the_vm_runs() -> Result<()> {
    let mut world = World::quiet()?;
    world.hand_over_with(HOME, Options::default())?;
    world.rest()?;
    world.hand_over_with(AWAY, Options::default())?;
    world.rest()?;
    let directory = world.directory(HOME)?;
    std::fs::rename(&directory, directory.with_extension("away"))?;
    assert_eq!(said_of_the_other(&mut world, AWAY)?, OtherHost::Runs);
    Ok(())
}

/// A second to and fro, and no connection that is open already.
#[test]
fn a_primary_behind_a_slow_link_is_not_taken_for_silent() -> Result<()> {
    let mut world = World::quiet()?;
    world.link.delay(500);
    assert_eq!(said_of_the_other(&mut world, AWAY)?, OtherHost::Runs);
    Ok(())
}

/// All cycles succeeded, the next is an hour away, and the other host took the VM over meanwhile and cannot tell.
#[test]
fn a_stale_copy_does_not_start_although_no_cycle_has_failed() -> Result<()> {
    let mut world = World::quiet()?;
    let newest = world.off_and_replicated()?;
    world.asked(HOME, |engine, record| async move {
        let hour = Frequency::from_seconds(3600).map_err(Refusal::failed)?;
        let settings = Settings { frequency: hour, ..record.relationship.settings.clone() };
        engine.change(&record, settings).await
    })?;
    world.link.swallow(true);
    world.fail_over_from(AWAY, newest)?;
    let home = record(&world.hosts[HOME]).context("a record")?;
    assert!(home.last_failure.is_none() && home.superseded_by.is_none(), "it knows nothing: {home:?}");
    world.link.make_unreachable(HOME);
    world.link.swallow(false);
    // It may be silent for a moment, which refuses the start as well on these hosts; it never starts.
    world.until("a refusal that says where the VM is", |it| {
        let refused = it.start_vm(HOME).expect_err("the VM runs on the other host").to_string();
        refused.contains("belongs to simhost02")
    })?;
    world.right()
}

/// "We stop replicating", on the host to which the VM was failed over: the old copy on the other one stays off.
#[test]
fn a_stale_copy_stays_off_when_its_relationship_is_removed() -> Result<()> {
    let mut world = World::quiet()?;
    let home = world.hosts[HOME].hypervisor.clone();
    home.set_autostart(world.vm, true)?;
    let point = world.off_and_replicated()?;
    world.fail_over_from(AWAY, point)?;
    let plan =
        world.asked(AWAY, |engine, record| async move { engine.plan_removal(&record, false).await })?;
    assert!(plan.iter().any(|line| line.contains("on simhost01 is STALE")), "{plan:?}");
    world.asked(AWAY, |engine, record| async move { engine.remove(&record, false).await })?;
    assert!(world.hosts.iter().all(|host| record(host).is_none()), "it ended on both hosts");
    let facts = home.vm(world.vm)?.context("the old copy")?;
    assert!(!facts.autostart, "it starts with the host");
    let refused = world.start_vm(HOME).expect_err("the VM runs on the other host").to_string();
    assert!(refused.contains("virt-replica remove --this-host-only"), "{refused}");
    world.right()?;

    world.turn_off(AWAY)?;
    let engine = world.hosts[HOME].engine().context("a daemon")?;
    let copy = engine.stale_copy("simVM01")?.context("a stale copy")?;
    engine.free_stale_copy(&copy, "a scene")?;
    world.start_vm(HOME)
}

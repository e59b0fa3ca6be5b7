//! Operations that meet an error, a wait or a person in their middle.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use choreography::{Options, Outcome, Step, StepState, fold};
use domain::{Health, Phase, Settlement};
use hypervisor::Hypervisor;

use super::{AWAY, HOME};
use crate::form::Form;
use crate::world::{World, record};

impl World {
    /// `virsh edit` at home; the definition arrives at the replica.
    fn edit(&mut self, edit: impl FnOnce(&mut Form)) -> Result<()> {
        let disk = self.hosts[HOME].disk("vm.qcow2");
        let mut form = Form { id: self.vm.0, name: "simVM01".into(), disk, agent: false, bridge: None };
        edit(&mut form);
        let definition = serde_json::to_string(&form)?;
        self.hosts[HOME].machine.enter();
        self.hosts[HOME].hypervisor.define(&definition)?;
        let arrived = self.directory(AWAY)?.join("primary.xml");
        self.until("the definition", |_| std::fs::read_to_string(&arrived).is_ok_and(|it| it == definition))
    }
}

/// The manifest cannot be written, as on a full disk, when a failover becomes final. It is final all the same: the operation says so,
/// and goes on when there is room.
#[test]
fn an_error_behind_the_point_of_no_return_of_a_completion_does_not_undo_it() -> Result<()> {
    let mut world = World::quiet()?;
    world.until("two points", |it| it.listed(AWAY).is_ok_and(|points| points.len() > 1))?;
    let oldest = *world.listed(AWAY)?.first().context("a point")?;
    world.fail_over_from(AWAY, oldest)?;
    ensure!(world.listed(AWAY)?.len() > 1, "nothing is given up yet");
    let in_the_way = world.directory(AWAY)?.join("manifest.json.tmp");
    std::fs::create_dir(&in_the_way)?;
    let id = world.ask_to_complete(AWAY)?;
    let failed = |it: &World| fold(&it.journal(AWAY, id)).steps.get(&Step::Merge).cloned();
    world.until("a merge that failed", |it| matches!(failed(it), Some(StepState::Failed { .. })))?;
    let progress = fold(&world.journal(AWAY, id));
    assert!(progress.handed_over() && progress.cancelled.is_none(), "{progress:?}");
    assert!(matches!(world.phase(AWAY), Some(Phase::Unprotected { .. })), "it is final");
    assert_eq!(progress.outcome, None, "and it goes on");
    std::fs::remove_dir(&in_the_way)?;
    world.until("the end of the operation", |it| it.is_idle(AWAY))?;
    assert_eq!(fold(&world.journal(AWAY, id)).outcome, Some(Outcome::Completed));
    assert_eq!(world.listed(AWAY)?, [oldest]);
    world.reverse(AWAY)
}

/// A failover is made final, which takes long, and the link heals: the VM runs on both hosts, and both say so at once.
#[test]
fn a_split_brain_is_seen_on_both_hosts_while_an_operation_is_open() -> Result<()> {
    let mut world = World::quiet()?;
    world.until("two points", |it| it.listed(AWAY).is_ok_and(|points| points.len() > 1))?;
    let newest = *world.listed(AWAY)?.last().context("a point")?;
    world.link.swallow(true);
    // The VM runs on where it was, and nobody can know.
    world.begin_failover(AWAY, Options { point: Some(newest), ..Options::default() })?;
    world.until("the failover", |it| it.is_idle(AWAY) && it.hosts[AWAY].hypervisor.runs())?;
    world.hosts[AWAY].hypervisor.stall_merges(true);
    let id = world.ask_to_complete(AWAY)?;
    world.until("a merge", |it| it.hosts[AWAY].hypervisor.merges())?;
    world.link.swallow(false);
    let told = |it: &World, host: usize| {
        let notices = record(&it.hosts[host]).map(|it| it.notices).unwrap_or_default();
        notices.iter().any(|it| it.severity == Health::Critical && it.what.starts_with("split brain"))
    };
    world.until("both say it", |it| told(it, HOME) && told(it, AWAY))?;
    assert!(world.hosts[AWAY].hypervisor.merges(), "the operation is still under way");
    assert_eq!(fold(&world.journal(AWAY, id)).outcome, None);
    Ok(())
}

/// A failover becomes final by itself, and cannot: its directory is not readable. It is tried again, seldom, and health says why; when it
/// can, it does.
#[test]
fn what_a_failover_is_to_become_by_itself_is_tried_seldom_while_it_cannot_be() -> Result<()> {
    let mut world = World::quiet()?;
    let newest = *world.listed(AWAY)?.last().context("a point")?;
    world.turn_off(HOME)?;
    let commit_timer = Some((Settlement::Complete, Duration::from_secs(20)));
    world.begin_failover(AWAY, Options { point: Some(newest), commit_timer, ..Options::default() })?;
    world.until("the failover", |it| it.is_idle(AWAY) && it.hosts[AWAY].hypervisor.runs())?;
    let manifest = world.directory(AWAY)?.join("manifest.json");
    let elsewhere = manifest.with_extension("away");
    std::fs::rename(&manifest, &elsewhere)?;
    let said = |it: &World, words: &str| {
        let notices = record(&it.hosts[AWAY]).map(|it| it.notices).unwrap_or_default();
        notices.iter().any(|it| it.what.contains(words))
    };
    world.until("health says it", |it| said(it, "its time is over") && said(it, "was undone: settle"))?;
    world.pass(Duration::from_secs(30));
    let id = record(&world.hosts[AWAY]).context("a record")?.relationship.id;
    let engine = world.hosts[AWAY].engine().context("a daemon")?;
    let operations = engine.store().operations(None, Some(&[id]), 1000)?.len();
    assert!((3..8).contains(&operations), "the failover and {} tries", operations - 1);
    std::fs::rename(&elsewhere, &manifest)?;
    world.until("it is final", |it| matches!(it.phase(AWAY), Some(Phase::Unprotected { .. })))
}

/// The guest of a failover does not boot in the time that a person gave it: no users are sent to it, the operation does not say that all is
/// well, and when it is taken back the users are sent away.
#[test]
fn a_guest_that_does_not_boot_gets_no_users_and_is_taken_back() -> Result<()> {
    let mut world = World::quiet()?;
    world.edit(|form| form.agent = true)?;
    let (hooks, told) = (world.hosts[AWAY].dir.join("redirect.d"), world.hosts[AWAY].dir.join("told"));
    std::fs::create_dir(&hooks)?;
    let hook = hooks.join("10-tell");
    std::fs::write(&hook, format!("#!/bin/sh\necho $DIRECTION >>{}\n", told.display()))?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    world.turn_off(HOME)?;
    let roll_back_unless_boots = Some(Duration::from_secs(5));
    let id = world.begin_failover(AWAY, Options { roll_back_unless_boots, ..Options::default() })?;
    world.until("the end of the failover", |it| fold(&it.journal(AWAY, id)).outcome.is_some())?;
    let progress = fold(&world.journal(AWAY, id));
    assert_eq!(progress.outcome, Some(Outcome::GivenUp), "{progress:?}");
    assert!(matches!(progress.steps.get(&Step::Confirm), Some(StepState::Failed { .. })), "{progress:?}");
    assert!(!progress.steps.contains_key(&Step::Redirect), "{progress:?}");
    world.until("it is taken back", |it| it.phase(AWAY) == Some(Phase::Receiving) && it.is_idle(AWAY))?;
    assert_eq!(std::fs::read_to_string(&told)?, "away\n");
    Ok(())
}

/// The VM of a failover does not come up, or libvirt hangs in its start: it is taken back when the time is over that a person gave it to
/// boot, and when that of the failover is.
#[test]
fn a_failover_whose_vm_does_not_start_is_taken_back_as_was_chosen() -> Result<()> {
    let minute = Duration::from_secs(60);
    let unless_boots = Options { roll_back_unless_boots: Some(minute), ..Options::default() };
    let after_a_time = Options { commit_timer: Some((Settlement::RollBack, minute)), ..Options::default() };
    for (options, outcome) in [(unless_boots, Outcome::GivenUp), (after_a_time, Outcome::Completed)] {
        for hangs in [false, true] {
            let mut world = World::quiet()?;
            world.edit(|form| form.agent = true)?;
            world.turn_off(HOME)?;
            let away = world.hosts[AWAY].hypervisor.clone();
            away.hang_starts(hangs);
            away.fail_starts(!hangs);
            let id = world.begin_failover(AWAY, Options { force: true, ..options.clone() })?;
            world.pass(minute / 2);
            assert!(matches!(world.phase(AWAY), Some(Phase::FailedOver { .. })), "its time is not over");
            world.until("it is taken back", |it| {
                it.phase(AWAY) == Some(Phase::Receiving) && it.is_idle(AWAY)
            })?;
            let progress = fold(&world.journal(AWAY, id));
            assert_eq!(progress.outcome, Some(outcome), "{options:?} {hangs}: {progress:?}");
            let redirected = matches!(progress.steps.get(&Step::Redirect), Some(StepState::Done { .. }));
            assert!(!redirected, "{progress:?}");
            away.hang_starts(false);
            away.fail_starts(false);
            world.until("it starts at home, which was told", |it| it.start_vm(HOME).is_ok())?;
            world.rest()?;
        }
    }
    Ok(())
}

/// QEMU's merge stands still: a person leaves it out, the job is ended, and the VM is protected again.
#[test]
fn a_merge_that_stands_still_is_ended_when_a_person_leaves_it_out() -> Result<()> {
    let mut world = World::quiet()?;
    world.until("two points", |it| it.listed(AWAY).is_ok_and(|points| points.len() > 1))?;
    let newest = *world.listed(AWAY)?.last().context("a point")?;
    world.fail_over_from(AWAY, newest)?;
    world.hosts[AWAY].hypervisor.stall_merges(true);
    let id = world.ask_to_complete(AWAY)?;
    world.until("a merge", |it| it.hosts[AWAY].hypervisor.merges())?;
    world.asked(AWAY, move |engine, _| async move { engine.cancel_operation(id, "a scene", true) })?;
    world.until("the end of the operation", |it| it.is_idle(AWAY))?;
    assert!(
        !world.hosts[AWAY].hypervisor.merges(),
        "nothing works on the VM's files behind the operation's back"
    );
    world.reverse(AWAY)
}

/// libvirt hangs in the start of a failover, as it does on storage that does: the failover is taken back where it is, and a start that
/// comes through later finds nothing to start from.
#[test]
fn a_start_that_hangs_is_taken_back_while_it_hangs() -> Result<()> {
    let mut world = World::quiet()?;
    world.turn_off(HOME)?;
    world.hosts[AWAY].hypervisor.hang_starts(true);
    let id = world.begin_failover(AWAY, Options { force: true, ..Options::default() })?;
    let start = |it: &World| fold(&it.journal(AWAY, id)).steps.remove(&Step::Start);
    world.until("a start", |it| matches!(start(it), Some(StepState::Running { .. })))?;
    world.pass(Duration::from_secs(10));
    assert!(matches!(start(&world), Some(StepState::Running { .. })), "it hangs: {:?}", start(&world));
    world.asked(AWAY, |engine, record| async move {
        engine.begin_cancel(&record, Options::default(), "a scene").map(drop)
    })?;
    world.until("it is taken back", |it| it.phase(AWAY) == Some(Phase::Receiving) && it.is_idle(AWAY))?;
    world.hosts[AWAY].hypervisor.hang_starts(false);
    world.pass(Duration::from_secs(10));
    assert!(!world.hosts[AWAY].hypervisor.runs(), "the late start comes to nothing");
    world.until("it starts at home, which was told", |it| it.start_vm(HOME).is_ok())?;
    world.rest()
}

/// The VM of a failover is undefined by hand: it is off, and the failover can be taken back.
#[test]
fn a_failover_whose_vm_was_undefined_is_taken_back() -> Result<()> {
    let mut world = World::quiet()?;
    let newest = *world.listed(AWAY)?.last().context("a point")?;
    world.fail_over_from(AWAY, newest)?;
    world.turn_off(AWAY)?;
    world.hosts[AWAY].machine.enter();
    world.hosts[AWAY].hypervisor.undefine(world.vm)?;
    let refused = world.ask_to_complete(AWAY).expect_err("it does not run").to_string();
    assert!(refused.contains("not defined") && refused.contains("virsh define"), "{refused}");
    let id = world.asked(AWAY, |engine, record| async move {
        engine.begin_cancel(&record, Options::default(), "a scene")
    })?;
    world.until("it is taken back", |it| it.phase(AWAY) == Some(Phase::Receiving) && it.is_idle(AWAY))?;
    assert_eq!(fold(&world.journal(AWAY, id)).outcome, Some(Outcome::Completed));
    world.until("it starts at home, which was told", |it| it.start_vm(HOME).is_ok())
}

/// The bridge of the VM is not on the replica's host: that is told before a failover, and it starts all the same.
#[test]
fn what_the_host_of_a_failover_lacks_is_told_and_is_no_obstacle() -> Result<()> {
    let mut world = World::quiet()?;
    world.edit(|form| form.bridge = Some("br-gone".into()))?;
    let plan = world.asked(AWAY, |engine, record| async move {
        engine.plan_failover_alone(&record, &Options::default()).await
    })?;
    assert!(format!("{:?}", plan.unfit).contains("br-gone"), "{:?}", plan.unfit);
    world.turn_off(HOME)?;
    world.begin_failover(AWAY, Options { force: true, ..Options::default() })?;
    world.until("the failover", |it| it.is_idle(AWAY) && it.hosts[AWAY].hypervisor.runs())
}

//! All that becomes of a replica whose primary dies, from the first delta to the old primary's return in the other role. Each deed is
//! found out from what is durable, so that whatever stopped it, the next one to look goes on.
//!
//! ```text
//!   receive 3 points ─▶ failover to the 2nd ─▶ cancel ─▶ failover to the 3rd ─▶ complete ─▶ step down ─▶ receive the 4th
//! ```

use std::time::Duration;

use choreography::{Mark, Operation, Options, Outcome, Procedure, StepState, fold};
use domain::Phase;
use domain::fixture::{point_id, vda};
use hypervisor::Hypervisor;
use tokio::time::Instant;
use wire::message::Request;
use wire::message::form::{PointForm, SettingsForm};

use crate::common::assert_content;
use crate::host::{Host, content};

/// Points that are received before anything happens.
pub(crate) const RECEIVED: u64 = 3;
/// The point of the failover that is taken back.
const OLDER: u64 = 2;
/// The procedures in their order.
const PROCEDURES: [Procedure; 4] =
    [Procedure::Failover, Procedure::CancelFailover, Procedure::Failover, Procedure::CompleteFailover];
/// How often a person types a command again before he gives up.
const TRIES_MAX: usize = 4;
/// How long he looks on when nothing is said, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long he looks on when it is said what is wrong, and that it is tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Deed {
    /// The next delta of the other host.
    Receive,
    Do(Procedure),
    /// The other host is primary in a higher epoch, and asks this one to be its replica.
    StepDown,
    /// What only this host has is set aside, which happens by itself.
    SetAside,
}

/// What a life was like.
#[derive(Default)]
pub(crate) struct Lived {
    /// Whether it came to its end.
    pub(crate) ended: bool,
    /// What was said whenever something did not come to its end.
    pub(crate) told: Vec<(Deed, String)>,
}

fn operations(host: &Host) -> Vec<(Operation, Vec<choreography::Entry>)> {
    let id = host.record().relationship.id;
    let mut all = host.engine.store().operations(None, Some(&[id]), 1000).expect("readable");
    all.reverse();
    all
}

/// How many of the procedures are through.
pub(crate) fn completed(host: &Host) -> usize {
    let all = operations(host);
    let done = all.iter().filter(|(_, entries)| fold(entries).outcome == Some(Outcome::Completed));
    let done: Vec<Procedure> = done.map(|(operation, _)| operation.procedure).collect();
    assert_eq!(done, PROCEDURES[..done.len()], "each once, and in their order");
    done.len()
}

/// What comes next; none: it is all done.
fn next(host: &Host) -> Option<Deed> {
    let (record, done) = (host.record(), completed(host));
    let newest = host.head().map_or(0, |head| head.ordinal);
    if done < PROCEDURES.len() {
        let receives = done == 0 && newest < RECEIVED && record.relationship.phase == Phase::Receiving;
        return Some(if receives { Deed::Receive } else { Deed::Do(PROCEDURES[done]) });
    }
    let divergence = host.engine.store().divergence(record.relationship.id).expect("readable");
    match record.relationship.phase {
        Phase::Receiving if newest == RECEIVED => Some(Deed::Receive),
        Phase::Receiving => divergence.map(|_| Deed::SetAside),
        _ => Some(Deed::StepDown),
    }
}

/// Lives it from wherever it is to its end, or until nothing helps. `did` hears of each deed when somebody is told that it is done.
pub(crate) async fn live(host: &Host, mut did: impl FnMut(&Host, Deed)) -> Lived {
    let mut lived = Lived::default();
    let mut tries = 0;
    while let Some(deed) = next(host) {
        let result = carry_out(host, deed).await;
        let may_run = host.record().relationship.phase.may_run();
        assert!(may_run || !host.hypervisor.runs(), "the VM runs on a host that is no primary: {deed:?}");
        match result {
            Ok(()) => {
                tries = 0;
                did(host, deed);
            }
            Err(why) => {
                lived.told.push((deed, why));
                tries += 1;
                if tries == TRIES_MAX {
                    return lived;
                }
            }
        }
    }
    Lived { ended: true, ..lived }
}

async fn carry_out(host: &Host, deed: Deed) -> Result<(), String> {
    match deed {
        Deed::Receive => host.receive_next().await.map(drop),
        Deed::Do(procedure) => carry_on(host, procedure).await,
        Deed::StepDown => step_down(host).await,
        Deed::SetAside => {
            let begun = Instant::now();
            while next(host) == Some(Deed::SetAside) {
                let notices = host.record().notices;
                if begun.elapsed() > if notices.is_empty() { PATIENCE } else { 2 * TRIED_AGAIN } {
                    return Err(format!("{notices:?}"));
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        }
    }
}

/// Begins a procedure, unless one is under way, and waits for its end.
async fn carry_on(host: &Host, procedure: Procedure) -> Result<(), String> {
    let (id, vm) = (host.record().relationship.id, host.record().relationship.vm);
    let open = || host.engine.store().open_operation(id).expect("readable");
    if procedure == Procedure::CompleteFailover && !host.hypervisor.runs() {
        // After a crash of the host, as is said then, before it is begun and in its middle.
        host.hypervisor.start(vm, false).expect("it starts");
    }
    if open().is_none() {
        begin(host, procedure).await.map_err(|refusal| {
            assert!(!refusal.detail.is_empty(), "a refusal says why");
            refusal.to_string()
        })?;
    }
    let begun = Instant::now();
    while open().is_some() {
        let (operation, entries) = operations(host).pop().expect("one that is open");
        let said = fold(&entries).steps.into_values().find_map(|state| match state {
            StepState::Failed { reason, .. } => Some(reason),
            _ => None,
        });
        if begun.elapsed() > if said.is_none() { PATIENCE } else { TRIED_AGAIN } {
            return Err(format!("{:?} goes on: {said:?}", operation.procedure));
        }
        tokio::time::sleep(LOOK).await;
    }
    let (_, entries) = operations(host).pop().expect("one that has ended");
    match fold(&entries).outcome {
        Some(Outcome::Completed) => Ok(()),
        other => Err(format!("{other:?}: {}", reasons(&entries))),
    }
}

fn reasons(entries: &[choreography::Entry]) -> String {
    let said = entries.iter().filter_map(|entry| match &entry.mark {
        Mark::Failed(_, reason) | Mark::Cancel(reason) => Some(reason.as_str()),
        _ => None,
    });
    said.collect::<Vec<_>>().join("; ")
}

pub(crate) async fn begin(host: &Host, procedure: Procedure) -> Result<(), engine::Refusal> {
    let (record, engine) = (host.record(), &host.engine);
    match procedure {
        Procedure::Failover => {
            let point = if completed(host) == 0 { OLDER } else { RECEIVED };
            let options = Options { point: Some(point_id(point)), ..Options::default() };
            let plan = engine.plan_failover_alone(&record, &options).await?;
            engine.begin_failover_alone(&record, &plan, options, "a test").await.map(drop)
        }
        Procedure::CancelFailover => engine.begin_cancel(&record, Options::default(), "a test").map(drop),
        Procedure::CompleteFailover => engine.begin_complete(&record, "a test").await.map(drop),
        Procedure::PlannedFailover => unreachable!("the other host is dead"),
    }
}

async fn step_down(host: &Host) -> Result<(), String> {
    let relationship = host.record().relationship;
    host.hypervisor.turn_off(relationship.vm).expect("it is off");
    let request = Request::Reverse {
        relationship: relationship.id.0,
        epoch: relationship.epoch.next().number(),
        head: PointForm::from(&host.head().expect("a point")),
        settings: SettingsForm::from(&relationship.settings),
        dry_run: false,
    };
    host.asked(&request).await
}

/// Each point that is listed reads as the disk was then; gives the ordinals.
pub(crate) fn points_are_whole(host: &Host) -> Vec<u64> {
    let directory = host.directory();
    let points = directory.manifest().points.iter();
    points
        .map(|listed| {
            let file = directory.disk_folder(&vda()).join(&listed.files[&vda()]);
            assert_content(&file, &content(listed.point.ordinal));
            listed.point.ordinal
        })
        .collect()
}

/// At the end: a replica like any other.
pub(crate) fn it_ended_well(host: &Host) {
    assert_eq!(host.record().relationship.phase, Phase::Receiving);
    assert_eq!(points_are_whole(host).last(), Some(&(RECEIVED + 1)));
    let known = host.head().expect("a point");
    assert_eq!((known.id, known.ordinal), (point_id(RECEIVED + 1), RECEIVED + 1));
    assert!(!host.hypervisor.runs() && !host.directory().active_path(&vda()).exists());
    // What only this host had, of the failover that was taken back and of the primary that stepped down, is there, and nothing twice.
    let aside = host.directory().diverged().expect("listed");
    assert_eq!(aside.len(), 2, "{aside:?}");
    for one in aside {
        host.directory().remove_diverged(one.at).expect("removed");
    }
    host.directory().discard_partials().expect("discarded");
    assert_eq!(host.directory().leftovers().expect("listed"), Vec::<std::path::PathBuf>::new());
    let open = host.engine.store().open_operation(host.record().relationship.id).expect("readable");
    assert!(open.is_none(), "{open:?}");
}

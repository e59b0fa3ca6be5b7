//! What each step of a procedure does in the model: `engine`'s `carry_out`, without files.

use choreography::{Mark, Operation, OtherHost, Procedure, Step, StepState, fold};
use domain::{Phase, Role};

use crate::act::{ask, believe, failed_over, send_delta, start, vouch};
use crate::host::NOW;
use crate::{Answer, Fate, Replication, Request, Sabotage, World};

/// How a try ended.
enum Tried {
    /// Done; the evidence is to be written.
    Done,
    /// Refused: trying again does not help.
    Refused,
    /// The other host was not heard.
    Silent,
}

/// One try of a step of ours: intent, effect, evidence.
pub(crate) fn attempt(
    model: &Replication,
    world: &mut World,
    at: usize,
    operation: &Operation,
    (step, fate): (Step, Fate),
) {
    let own = world.hosts[at].own_id(operation);
    let progress = |world: &World| {
        let journal = world.hosts[at].journals.iter().find(|(known, _)| known.id == operation.id);
        journal.map(|(_, entries)| fold(entries)).unwrap_or_default()
    };
    if !matches!(progress(world).steps.get(&step), Some(StepState::Running { .. } | StepState::Failed { .. }))
    {
        world.hosts[at].write(operation.id, own, Mark::Intent(step));
    }
    match carry_out(model, world, at, operation, (step, fate)) {
        Tried::Done if fate == Fate::Cut => {}
        Tried::Done => world.hosts[at].write(operation.id, own, Mark::Done(step, String::new())),
        Tried::Silent => world.hosts[at].write(operation.id, own, Mark::Failed(step, "silent".into())),
        Tried::Refused => {
            world.hosts[at].write(operation.id, own, Mark::Failed(step, "refused".into()));
            let may_turn_round = match operation.procedure {
                Procedure::PlannedFailover => step < Step::HandOver,
                _ => !progress(world).handed_over(),
            };
            if may_turn_round {
                world.hosts[at].write(operation.id, own, Mark::Cancel("refused".into()));
            }
        }
    }
}

fn carry_out(
    model: &Replication,
    world: &mut World,
    at: usize,
    operation: &Operation,
    (step, fate): (Step, Fate),
) -> Tried {
    let host = &mut world.hosts[at];
    let authority = host.authority();
    let ruled = match step {
        Step::Check | Step::Confirm | Step::Redirect | Step::Report | Step::Merge => return Tried::Done,
        Step::SetAside => {
            let over = std::mem::take(&mut host.over);
            host.set_aside(model, over);
            return Tried::Done;
        }
        Step::Announce => {
            let number = crate::act::number_of(operation);
            return told(ask(model, world, at, Request::Announce(number), fate));
        }
        Step::PreSync => return if send_delta(model, world, at, fate) { Tried::Done } else { Tried::Silent },
        Step::ShutDown => {
            host.runs = false;
            return Tried::Done;
        }
        Step::Lock if model.sabotage == Some(Sabotage::NoLock) => return Tried::Done,
        Step::Lock => authority.lock(operation),
        Step::FinalSync if host.runs => return Tried::Refused,
        Step::FinalSync => {
            return if send_delta(model, world, at, fate) { Tried::Done } else { Tried::Silent };
        }
        Step::Demote => authority.demote(operation, Phase::Stopped { since: NOW }),
        Step::Start => {
            if operation.procedure == Procedure::Failover {
                match believe(model, world, at, fate) {
                    OtherHost::Silent => vouch(world, at),
                    // It was started there meanwhile: this one waits.
                    said if !said.lets_start(false) => return Tried::Silent,
                    _ => {}
                }
            }
            start(model, world, at, fate);
            return if world.hosts[at].runs { Tried::Done } else { Tried::Refused };
        }
        Step::Reverse => {
            let epoch = host.authority.epoch.number();
            let answer = ask(model, world, at, Request::Reverse(epoch, false), fate);
            if answer == Some(Answer::Done)
                && let Ok(after) = world.hosts[at].authority().go_to(Phase::Replicating)
            {
                world.hosts[at].become_of(after);
            }
            return told(answer);
        }
        Step::TakeOver => authority.take_over(operation, failed_over()),
        Step::GiveBack if host.runs => return Tried::Refused,
        Step::GiveBack => authority.give_back(operation),
        Step::Settle => authority.settle(Some(operation.id), NOW),
        // Asked for, not done.
        Step::HandOver => return Tried::Refused,
    };
    match ruled {
        Ok(after) => {
            let was = host.role();
            if after.epoch > authority.epoch {
                match step {
                    Step::TakeOver => host.point = host.disk,
                    Step::GiveBack => {
                        host.over = host.disk & !host.point;
                        host.disk = host.point;
                    }
                    _ => {}
                }
            }
            host.become_of(after);
            // A VM that runs where this host stops to be primary would be a second one.
            debug_assert!(
                was == host.role() || host.role() == Role::Primary || !host.runs || model.sabotage.is_some()
            );
            Tried::Done
        }
        Err(_) => Tried::Refused,
    }
}

/// A refusal is tried again like silence: the other host may not be as far yet.
fn told(answer: Option<Answer>) -> Tried {
    match answer {
        Some(Answer::Done) => Tried::Done,
        Some(_) | None => Tried::Silent,
    }
}

//! Nothing rests for ever: from every state that a small budget leads to, an open operation comes to its end by itself once nothing stands
//! in its way, or by what a person is told to do. One in doubt, whose other host is lost for good, is left by the printed command.

use choreography::next::resting_state;
use choreography::{RestingState, fold};
use stateright::{Checker, Model, StateRecorder};

use crate::act::{Action, Command, Fate, perform, possible};
use crate::{Begin, Budget, Replication, World};

/// What the states come from.
const BUDGET: Budget = Budget { commands: 1, losses: 1, power_cuts: 0, writes: 0 };
/// What a person has to get out of them: one command.
const HANDS: Budget = Budget { commands: 1, losses: 0, power_cuts: 0, writes: 0 };
/// Steps of both hosts within which an operation must end.
const STEPS: usize = 64;

/// How many states were looked at, and those that are not left.
#[derive(Debug)]
pub struct Rests {
    /// With an open operation.
    pub open: usize,
    /// Of these, in doubt.
    pub in_doubt: usize,
    /// What rests for ever.
    pub stuck: Vec<String>,
}

/// Looks at every state that the budget leads to.
#[must_use]
pub fn rests() -> Rests {
    let model = Replication { begins: Begin::Protected, budget: BUDGET, sabotage: None };
    let (recorder, states) = StateRecorder::new_with_accessor();
    model.checker().visitor(recorder).spawn_bfs().join();
    let mut rests = Rests { open: 0, in_doubt: 0, stuck: Vec::new() };
    for world in states() {
        if world.hosts.iter().all(|host| host.open().is_none()) {
            continue;
        }
        rests.open += 1;
        if !ends_by_itself(&model, &world) && !ends_by_a_person(&model, &world) {
            rests.stuck.push(format!("it does not end: {world:#?}"));
        }
        for at in [0, 1].into_iter().filter(|at| is_in_doubt(&world, *at)) {
            rests.in_doubt += 1;
            if !is_decided(&model, &world, at) {
                rests.stuck.push(format!("host {at} stays in doubt: {world:#?}"));
            }
        }
    }
    rests
}

fn is_in_doubt(world: &World, at: usize) -> bool {
    let open = world.hosts[at].open().map(|place| &world.hosts[at].journals[place]);
    open.is_some_and(|(operation, entries)| resting_state(operation, &fold(entries)) == RestingState::InDoubt)
}

/// Both hosts have power and hear each other; what was late is gone.
fn ends_by_itself(model: &Replication, world: &World) -> bool {
    let mut world = World { left: HANDS, late: Vec::new(), ..world.clone() };
    world.hosts.iter_mut().for_each(|host| host.dark = false);
    settle(model, &mut world, &[0, 1])
}

/// A VM that runs where it should not is shut down, or what cannot go on is taken back, as is printed.
fn ends_by_a_person(model: &Replication, world: &World) -> bool {
    [Command::ShutDown, Command::CancelFailover, Command::Cancel].into_iter().any(|command| {
        [0, 1].into_iter().any(|at| {
            let mut world = World { left: HANDS, late: Vec::new(), ..world.clone() };
            settle(model, &mut world, &[0, 1]);
            perform(model, &mut world, Action::Type(at, command, Fate::Heard));
            settle(model, &mut world, &[0, 1])
        })
    })
}

/// `operation cancel --force` on the host that is left: the VM may run there again.
fn is_decided(model: &Replication, world: &World, at: usize) -> bool {
    let mut world = World { left: HANDS, late: Vec::new(), ..world.clone() };
    world.hosts[1 - at].dark = true;
    perform(model, &mut world, Action::Type(at, Command::ForceCancel, Fate::Heard));
    settle(model, &mut world, &[at]);
    let authority = &world.hosts[at].authority;
    // One that has heard that the other took over stays off, whatever a person decides here.
    !is_in_doubt(&world, at) && (authority.may_run() || authority.is_superseded())
}

/// True when nothing is open any more on these hosts.
fn settle(model: &Replication, world: &mut World, hosts: &[usize]) -> bool {
    for _ in 0..STEPS {
        let open: Vec<usize> = hosts.iter().copied().filter(|at| world.hosts[*at].open().is_some()).collect();
        if open.is_empty() {
            return true;
        }
        let before = world.clone();
        for at in open {
            let mut actions = Vec::new();
            possible(world, &mut actions);
            if actions.contains(&Action::GiveUp(at)) {
                perform(model, world, Action::GiveUp(at));
            }
            perform(model, world, Action::Drive(at, Fate::Heard));
        }
        if *world == before {
            return false;
        }
    }
    false
}

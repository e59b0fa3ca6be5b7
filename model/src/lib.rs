//! A model of two hosts, the link between them and a person in a hurry, for an exhaustive checker (stateright).
//!
//! What decides is the daemon's own: the step tables and [`choreography::next`], the folded journal, and the rules of
//! [`choreography::authority`]. What is modelled is the rest: disks as sets of writes, a link that loses, delays and repeats
//! requests and loses answers, power that fails, and commands that come at any time on either host. Not here: bytes, files, libvirt.
//!
//! ```text
//! World ─ two Hosts (what a store keeps, a VM, a disk) ─ late requests ─ what a person has risked ─ what is left of each budget
//! ```

mod act;
mod checked;
mod host;
mod rest;
mod steps;

use choreography::authority::Authority;
use choreography::{Entry, Operation, Outcome, Procedure, fold};
use domain::{Epoch, Phase, Role};
use stateright::{Model, Property};

pub use act::{Action, Command, Fate};
pub use checked::{Searched, long_promise, never_seen, promises, sabotages};
pub use host::{Answer, Host, Request};
pub use rest::{Rests, rests};

/// How many of each the checker tries in one history. Every one more multiplies the states.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    /// Commands of a person.
    pub commands: u8,
    /// Requests or answers that are lost or late, and steps that are cut before they are noted as done.
    pub losses: u8,
    /// Hosts that lose their power; each may come back.
    pub power_cuts: u8,
    /// Writes of the guest.
    pub writes: u8,
}

/// Where a search begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin {
    /// The VM is protected, and was never moved.
    Protected,
    /// The VM was failed over, and its old primary has just become the replica: each host has written what the other has not.
    SteppedDown,
}

/// What was written on each host since the failover; the writes of a budget have lower bits.
const WRITTEN_APART: [u8; 2] = [1 << 6, 1 << 7];

/// Something that is left out of the real thing on purpose: each must be found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// The start hook allows whatever is asked.
    HookAllows,
    /// The primary is not locked before the final delta.
    NoLock,
    /// A delta is acknowledged before it is kept.
    EarlyAcknowledgement,
    /// What is taken back is not promised by the other host before.
    NoPromise,
    /// A delta is taken that does not stand on the newest recovery point.
    AnyOrder,
    /// A host that does not hear the other starts the VM.
    SilenceAllows,
    /// A host that has heard the other since its power came back starts the VM without asking again.
    StartUnasked,
    /// A host that hears of a higher epoch goes on as it was.
    EpochUnheeded,
    /// The old primary becomes the replica before the other has taken over.
    DemoteFirst,
    /// A host that has ended the relationship is taken for one on which the VM is off.
    EndedIsOff,
    /// Nothing is kept of a relationship that ended, and a host that hears so starts the VM.
    NothingStays,
    /// A stale copy on whose host the relationship ends may start from then on.
    RemoveUnlocks,
    /// What only an old primary has is not kept apart.
    NothingAside,
    /// A replica's files go with the relationship, whatever they hold.
    RemoveDeletesAll,
}

/// All there is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// The hosts; the VM begins on the first.
    pub hosts: [Host; 2],
    /// Requests that are still on their way, as (to whom, what).
    pub late: Vec<(usize, Request)>,
    /// What the guest wrote, on whichever host.
    pub written: u8,
    /// The writes of which a primary was told that its replica keeps them.
    pub acknowledged: u8,
    /// A person did what the program cannot make safe: forced, or failed over without an answer of the other host.
    pub risked: bool,
    /// A planned failover has handed over another content than the old primary had.
    pub lost_in_plan: bool,
    /// What may still happen.
    pub left: Budget,
    /// A host was in a higher epoch before.
    epoch_went_back: bool,
    /// Operations so far; names the next.
    pub operations: u8,
}

/// The checker's subject.
#[derive(Clone, Copy, Debug)]
pub struct Replication {
    /// From where.
    pub begins: Begin,
    /// How much is tried.
    pub budget: Budget,
    /// What is broken on purpose; none: the real thing.
    pub sabotage: Option<Sabotage>,
}

impl World {
    /// The host that is primary in the highest epoch, if one is.
    fn owner(&self) -> Option<&Host> {
        let primaries = self.hosts.iter().filter(|host| host.role() == Role::Primary);
        primaries.max_by_key(|host| host.authority.epoch)
    }
}

impl Replication {
    fn is(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }
}

impl Model for Replication {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let host = |phase: Phase, runs| Host {
            authority: Authority {
                epoch: Epoch::FIRST,
                phase,
                superseded_by: None,
                diverged: false,
                tested: false,
                open: None,
            },
            journals: Vec::new(),
            taken: Vec::new(),
            promised: Vec::new(),
            runs,
            ended: false,
            kept_off: false,
            dark: false,
            confirmed: true,
            disk: 0,
            point: 0,
            over: 0,
            aside: 0,
        };
        let mut world = World {
            hosts: [host(Phase::Replicating, true), host(Phase::Receiving, false)],
            late: Vec::new(),
            written: 0,
            acknowledged: 0,
            risked: false,
            lost_in_plan: false,
            epoch_went_back: false,
            left: self.budget,
            operations: 0,
        };
        if self.begins == Begin::SteppedDown {
            world.hosts.swap(0, 1);
            for (host, writes) in world.hosts.iter_mut().zip(WRITTEN_APART) {
                (host.authority.epoch, host.disk) = (Epoch::FIRST.next(), writes);
                world.written |= writes;
            }
            world.hosts[0].authority.diverged = true;
        }
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        act::possible(world, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        act::perform(self, &mut next, action);
        let pairs = world.hosts.iter().zip(&next.hosts);
        next.epoch_went_back |= pairs.into_iter().any(|(old, new)| new.authority.epoch < old.authority.epoch);
        next.late.sort();
        next.late.dedup();
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the VM runs on one host unless a person risked more", |_, world: &World| {
                world.risked || !world.hosts.iter().all(|host| host.runs)
            }),
            Property::always("who owns the VM has all that was acknowledged", |_, world: &World| {
                world.risked || world.owner().is_none_or(|owner| world.acknowledged & !owner.disk == 0)
            }),
            Property::always("nothing that the guest wrote is deleted", |_, world: &World| {
                let kept = |host: &Host| host.disk | host.over | host.aside;
                world.written & !kept(&world.hosts[0]) & !kept(&world.hosts[1]) == 0
            }),
            Property::always("a planned failover loses nothing", |_, world: &World| !world.lost_in_plan),
            Property::always("one host is primary in an epoch", |_, world: &World| {
                let [one, other] = &world.hosts;
                let both = one.role() == Role::Primary && other.role() == Role::Primary;
                !(both && one.authority.epoch == other.authority.epoch)
            }),
            Property::always("the epoch of a host never goes back", |_, world: &World| {
                !world.epoch_went_back
            }),
            Property::always("somebody owns the VM", |_, world: &World| world.owner().is_some()),
            Property::sometimes("a planned failover completes with reverse", |_, world: &World| {
                completed(world, Procedure::PlannedFailover)
                    && world.hosts[1].authority.phase == Phase::Replicating
            }),
            Property::sometimes(
                "a planned failover is taken back, and replication goes on",
                |_, world: &World| {
                    cancelled(world, Procedure::PlannedFailover)
                        && world.hosts[0].authority.phase == Phase::Replicating
                        && world.hosts[0].open().is_none()
                },
            ),
            Property::sometimes("a failover completes", |_, world: &World| {
                completed(world, Procedure::Failover)
            }),
            Property::sometimes("a failover is made final", |_, world: &World| {
                completed(world, Procedure::CompleteFailover)
            }),
            Property::sometimes(
                "a failover is taken back, and the old primary goes on",
                |_, world: &World| {
                    completed(world, Procedure::CancelFailover)
                        && world.hosts[0].authority.phase == Phase::Replicating
                        && world.hosts[0].authority.epoch == world.hosts[1].authority.epoch
                },
            ),
            Property::sometimes("an old primary becomes the replica after a failover", |_, world: &World| {
                world.hosts[0].authority.phase == Phase::Receiving
                    && world.hosts[1].authority.phase == Phase::Replicating
                    && completed(world, Procedure::Failover)
            }),
        ]
    }
}

fn completed(world: &World, procedure: Procedure) -> bool {
    ended(world, procedure, Outcome::Completed)
}

fn cancelled(world: &World, procedure: Procedure) -> bool {
    ended(world, procedure, Outcome::Undone)
}

fn ended(world: &World, procedure: Procedure, outcome: Outcome) -> bool {
    let is = |(operation, entries): &(Operation, Vec<Entry>)| {
        operation.procedure == procedure && fold(entries).outcome == Some(outcome)
    };
    world.hosts.iter().any(|host| host.journals.iter().any(is))
}

//! What may happen next in a world, and what comes of it.

use choreography::next::may_cancel;
use choreography::other_host::{OtherHost, Said, Word};
use choreography::{
    FORCED, Mark, Next, Operation, Options, Outcome, Procedure, Side, Step, StepState, fold, next,
};
use domain::{Phase, PointId, RelationshipId, Role};
use uuid::Uuid;

use crate::host::{NOW, host_id, operation_id};
use crate::{Answer, Replication, Request, Sabotage, World};

/// What becomes of one request, or of one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives, and the answer too.
    Heard,
    /// It arrives; the answer does not.
    AnswerLost,
    /// It does not arrive.
    Lost,
    /// It arrives some time later, and nobody waits for the answer.
    Late,
    /// The step has its effect, and the daemon ends before it is noted.
    Cut,
}

/// What a person types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `planned-failover`, on the primary.
    PlannedFailover,
    /// `operation cancel`.
    Cancel,
    /// `operation cancel --force`.
    ForceCancel,
    /// `failover`, on the replica.
    Failover,
    /// `cancel-failover`.
    CancelFailover,
    /// `complete-failover`.
    CompleteFailover,
    /// `reverse`.
    Reverse,
    /// `remove --this-host-only`; whether the other host answers is not asked, so that more is tried than the program allows.
    RemoveAlone,
    /// `remove`, which ends it on both hosts.
    Remove,
    /// `virsh start`.
    Start,
    /// `virsh shutdown`.
    ShutDown,
}

const COMMANDS: [Command; 11] = [
    Command::PlannedFailover,
    Command::Cancel,
    Command::ForceCancel,
    Command::Failover,
    Command::CancelFailover,
    Command::CompleteFailover,
    Command::Reverse,
    Command::RemoveAlone,
    Command::Remove,
    Command::Start,
    Command::ShutDown,
];

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A daemon does what its operation asks for next.
    Drive(usize, Fate),
    /// A step that failed long enough turns the operation round.
    GiveUp(usize),
    /// A cycle of a primary.
    Cycle(usize, Fate),
    /// A daemon asks the other what it believes.
    Ask(usize, Fate),
    /// A person.
    Type(usize, Command, Fate),
    /// The guest writes.
    Write(usize),
    /// A host loses its power.
    PowerCut(usize),
    /// It comes back; the second: it starts its VM by itself.
    Boot(usize, bool),
    /// A late request arrives; it may arrive once more.
    Deliver(usize),
    /// A late request is gone.
    Drop(usize),
}

pub(crate) fn possible(world: &World, actions: &mut Vec<Action>) {
    for at in [0, 1] {
        let host = &world.hosts[at];
        // From a host without power there is no answer anyway.
        let fates: &[Fate] = match world.left.losses {
            0 => &[Fate::Heard],
            _ if world.hosts[1 - at].dark => &[Fate::Heard],
            _ => &[Fate::Heard, Fate::AnswerLost, Fate::Lost, Fate::Late],
        };
        if host.dark {
            actions.extend([Action::Boot(at, true), Action::Boot(at, false)]);
            continue;
        }
        if let Some(place) = host.open() {
            actions.extend(fates.iter().map(|fate| Action::Drive(at, *fate)));
            if world.left.losses > 0 {
                actions.push(Action::Drive(at, Fate::Cut));
            }
            let progress = fold(&host.journals[place].1);
            if progress.steps.values().any(|state| matches!(state, StepState::Failed { .. })) {
                actions.push(Action::GiveUp(at));
            }
        } else if host.role() == Role::Primary && !host.ended {
            actions.extend(fates.iter().map(|fate| Action::Cycle(at, *fate)));
        }
        if host.role() == Role::Primary && !host.ended {
            actions.extend([Fate::Heard, Fate::AnswerLost].iter().map(|fate| Action::Ask(at, *fate)));
        }
        if world.left.commands > 0 {
            for command in COMMANDS {
                let asks = matches!(command, Command::Failover | Command::Reverse | Command::Start);
                let fates = if asks { fates } else { &[Fate::Heard][..] };
                actions.extend(fates.iter().map(|fate| Action::Type(at, command, *fate)));
            }
        }
        if world.left.writes > 0 && host.runs {
            actions.push(Action::Write(at));
        }
        if world.left.power_cuts > 0 {
            actions.push(Action::PowerCut(at));
        }
    }
    for (place, (to, _)) in world.late.iter().enumerate() {
        if !world.hosts[*to].dark {
            actions.push(Action::Deliver(place));
        }
        actions.push(Action::Drop(place));
    }
}

pub(crate) fn perform(model: &Replication, world: &mut World, action: Action) {
    let fate = match action {
        Action::Drive(_, fate) | Action::Cycle(_, fate) | Action::Ask(_, fate) | Action::Type(_, _, fate) => {
            fate
        }
        _ => Fate::Heard,
    };
    if fate != Fate::Heard {
        let Some(left) = world.left.losses.checked_sub(1) else { return };
        world.left.losses = left;
    }
    match action {
        Action::Drive(at, fate) => drive(model, world, at, fate),
        Action::GiveUp(at) => give_up(world, at),
        Action::Cycle(at, fate) => {
            if world.hosts[at].authority.phase.sends() {
                send_delta(model, world, at, fate);
            }
        }
        Action::Ask(at, fate) => {
            believe(model, world, at, fate);
        }
        Action::Type(at, command, fate) => {
            let Some(left) = world.left.commands.checked_sub(1) else { return };
            let before = world.clone();
            type_in(model, world, at, command, fate);
            if *world != before {
                world.left.commands = left;
            }
        }
        Action::Write(at) => {
            let Some(left) = world.left.writes.checked_sub(1) else { return };
            world.left.writes = left;
            world.hosts[at].disk |= 1 << left;
            world.written |= 1 << left;
        }
        Action::PowerCut(at) => {
            let Some(left) = world.left.power_cuts.checked_sub(1) else { return };
            world.left.power_cuts = left;
            let host = &mut world.hosts[at];
            (host.dark, host.runs, host.confirmed) = (true, false, false);
        }
        Action::Boot(at, starts) => {
            world.hosts[at].dark = false;
            if starts {
                start_by_hand(model, world, at, Fate::Heard);
            }
        }
        Action::Deliver(place) => {
            let (to, request) = world.late[place].clone();
            deliver(model, world, to, &request);
        }
        Action::Drop(place) => {
            world.late.remove(place);
        }
    }
}

fn deliver(model: &Replication, world: &mut World, to: usize, request: &Request) -> Answer {
    let asker = match request {
        Request::Announce(number) | Request::HandOver(number, _) | Request::News(number) => {
            let id = operation_id(*number);
            world.hosts[1 - to].journals.iter().find(|(operation, _)| operation.id == id).cloned()
        }
        _ => None,
    };
    let asker_disk = world.hosts[1 - to].disk;
    let taken = world.hosts[to].taken.len();
    let asker = asker.as_ref().map(|(operation, entries)| (operation, entries.as_slice()));
    let answer = world.hosts[to].answer(model, request, asker);
    if matches!(request, Request::HandOver(..)) && world.hosts[to].taken.len() > taken {
        world.lost_in_plan |= world.hosts[to].disk != asker_disk;
    }
    answer
}

/// One request; none: the asker hears nothing.
pub(crate) fn ask(
    model: &Replication,
    world: &mut World,
    from: usize,
    request: Request,
    fate: Fate,
) -> Option<Answer> {
    let to = 1 - from;
    match fate {
        Fate::Heard | Fate::AnswerLost | Fate::Cut if world.hosts[to].dark => None,
        Fate::Heard | Fate::Cut => Some(deliver(model, world, to, &request)),
        Fate::AnswerLost => {
            deliver(model, world, to, &request);
            None
        }
        Fate::Lost => None,
        Fate::Late => {
            world.late.push((to, request));
            None
        }
    }
}

/// True when the other host said that it keeps what is here.
pub(crate) fn send_delta(model: &Replication, world: &mut World, at: usize, fate: Fate) -> bool {
    let (epoch, content) = (world.hosts[at].authority.epoch.number(), world.hosts[at].disk);
    if ask(model, world, at, Request::Delta(epoch, content), fate) != Some(Answer::Done) {
        return false;
    }
    world.acknowledged |= content;
    true
}

/// Hears the other host; gives what its word means for a start here.
pub(crate) fn believe(model: &Replication, world: &mut World, at: usize, fate: Fate) -> OtherHost {
    let host = &world.hosts[at];
    let request = Request::Beliefs(host.role() == Role::Primary, host.authority.epoch.number());
    let (is_primary, epoch, runs, ended) = match ask(model, world, at, request, fate) {
        Some(Answer::Beliefs(is_primary, epoch, runs, ended)) => (is_primary, epoch, runs, ended),
        // It answers, and holds nothing to tell.
        Some(_) => {
            world.hosts[at].confirmed = true;
            return OtherHost::of(Said::KnowsNothing);
        }
        None => return OtherHost::of(Said::Nothing),
    };
    world.hosts[at].hear(model, is_primary, epoch.number());
    world.hosts[at].confirmed = true;
    if ended && model.sabotage == Some(Sabotage::EndedIsOff) {
        return OtherHost::Off;
    }
    OtherHost::of(Said::Word(Word { is_primary, runs: Some(runs), ended }))
}

fn give_up(world: &mut World, at: usize) {
    let Some(place) = world.hosts[at].open() else { return };
    let (operation, entries) = world.hosts[at].journals[place].clone();
    let progress = fold(&entries);
    let may = match operation.procedure {
        Procedure::PlannedFailover => {
            operation.side == Side::OldPrimary && !progress.may_have_effect(Step::HandOver)
        }
        _ => !progress.handed_over(),
    };
    if may && progress.cancelled.is_none() {
        let own = world.hosts[at].own_id(&operation);
        world.hosts[at].write(operation.id, own, Mark::Cancel("it fails".into()));
    }
}

fn drive(model: &Replication, world: &mut World, at: usize, fate: Fate) {
    let Some(place) = world.hosts[at].open() else { return };
    let (operation, entries) = world.hosts[at].journals[place].clone();
    let own = world.hosts[at].own_id(&operation);
    let number = number_of(&operation);
    let write = |world: &mut World, mark| world.hosts[at].write(operation.id, own, mark);
    match next(&operation, &fold(&entries)) {
        Next::Nothing => write(world, Mark::Ended(Outcome::Completed)),
        Next::End(outcome) => write(world, Mark::Ended(outcome)),
        Next::Skip(step, reason) => write(world, Mark::Skipped(step, reason.to_owned())),
        Next::Do(step) => crate::steps::attempt(model, world, at, &operation, (step, fate)),
        Next::Await(Step::HandOver) if operation.side == Side::OldPrimary => {
            write(world, Mark::Intent(Step::HandOver));
            if model.sabotage == Some(Sabotage::DemoteFirst)
                && let Ok(after) =
                    world.hosts[at].authority().demote(&operation, Phase::Stopped { since: NOW })
            {
                world.hosts[at].become_of(after);
            }
            let content = world.hosts[at].disk;
            match ask(model, world, at, Request::HandOver(number, content), fate) {
                Some(Answer::Journal(theirs)) => world.hosts[at].keep(operation.id, &theirs, true),
                Some(_) => write(world, Mark::Cancel("hand over: refused".into())),
                None => {}
            }
        }
        Next::Await(_) => {
            if let Some(Answer::Journal(theirs)) = ask(model, world, at, Request::News(number), fate) {
                world.hosts[at].keep(operation.id, &theirs, operation.side == Side::OldPrimary);
            }
        }
        Next::Abandon if model.sabotage == Some(Sabotage::NoPromise) => {
            write(world, Mark::Undone(Step::Announce))
        }
        Next::Abandon => {
            believe(model, world, at, fate);
            let progress = fold(&entries);
            match ask(model, world, at, Request::Abandon(number), fate) {
                Some(Answer::Promise(false)) => write(world, Mark::Undone(Step::Announce)),
                Some(Answer::Promise(true)) => {
                    if let Some(Answer::Journal(theirs)) = ask(model, world, at, Request::News(number), fate)
                    {
                        world.hosts[at].keep(operation.id, &theirs, true);
                    }
                }
                _ if !progress.may_have_effect(Step::HandOver) || progress.is_forced => {
                    write(world, Mark::Undone(Step::Announce));
                }
                _ => {}
            }
        }
        Next::TakeBack(step) => {
            match step {
                Step::Lock => {
                    let after = world.hosts[at].authority().unlock();
                    world.hosts[at].become_of(after);
                }
                Step::ShutDown if !start(model, world, at, fate) => return,
                _ => {}
            }
            if fate != Fate::Cut {
                write(world, Mark::Undone(step));
            }
        }
    }
}

pub(crate) fn number_of(operation: &Operation) -> u8 {
    operation.id.0.as_u128().to_le_bytes()[0]
}

/// Starts the VM, if the guard of this host lets it; false: the other host must speak first, and is silent. A site that prefers the
/// start is [`Sabotage::SilenceAllows`].
pub(crate) fn start(model: &Replication, world: &mut World, at: usize, fate: Fate) -> bool {
    let host = &world.hosts[at];
    if host.ended {
        // Nothing guards it any more but what was kept of a stale copy. What was a replica has no files to start from.
        let starts = host.role() == Role::Primary && !host.kept_off;
        world.hosts[at].runs |= starts;
        return true;
    }
    let unasked = host.confirmed && model.is(Sabotage::StartUnasked);
    if host.role() == Role::Primary && !unasked {
        let said = believe(model, world, at, fate);
        // The other side of a failover is an old primary: it takes nothing over before it has stepped down.
        let waits = !matches!(world.hosts[at].authority.phase, Phase::FailedOver { .. });
        if said == OtherHost::Silent && waits && !model.is(Sabotage::SilenceAllows) {
            return false;
        }
    }
    let host = &mut world.hosts[at];
    if host.authority.may_run() || model.sabotage == Some(Sabotage::HookAllows) {
        host.runs = true;
    }
    true
}

/// Somebody else than a procedure starts the VM. Where one has yet to start it first, its definition names files that do not exist.
fn start_by_hand(model: &Replication, world: &mut World, at: usize, fate: Fate) {
    let host = &world.hosts[at];
    let has_files = host.open().is_none_or(|place| {
        let (operation, entries) = &host.journals[place];
        operation.side == Side::OldPrimary
            || operation.procedure.steps().all(|step| step != Step::Start)
            || fold(entries).is_settled(Step::Start)
    });
    if has_files {
        start(model, world, at, fate);
    }
}

fn type_in(model: &Replication, world: &mut World, at: usize, command: Command, fate: Fate) {
    if world.hosts[at].ended && !matches!(command, Command::Start | Command::ShutDown) {
        return;
    }
    match command {
        Command::PlannedFailover => begin(world, at, Procedure::PlannedFailover),
        Command::Cancel | Command::ForceCancel => cancel(world, at, command == Command::ForceCancel),
        Command::Failover => {
            if world.hosts[at].role() != Role::Replica || world.hosts[at].authority.diverged {
                return;
            }
            match believe(model, world, at, fate) {
                OtherHost::Silent => vouch(world, at),
                said if !said.lets_start(false) => return,
                _ => {}
            }
            begin(world, at, Procedure::Failover);
        }
        Command::CancelFailover => begin(world, at, Procedure::CancelFailover),
        Command::CompleteFailover => {
            if world.hosts[at].runs {
                begin(world, at, Procedure::CompleteFailover);
            }
        }
        Command::Reverse => reverse(model, world, at, fate),
        Command::RemoveAlone => {
            if world.hosts[at].authority().forget().is_ok() {
                // A copy that the other has overtaken starts from then on, if this person starts it.
                let (own, other) = (&world.hosts[at], &world.hosts[1 - at]);
                let overtaken = other.authority.epoch > own.authority.epoch;
                world.risked |= own.role() == Role::Primary && other.role() == Role::Primary && overtaken;
                world.hosts[at].end(model);
            }
        }
        Command::Remove => remove(model, world, at),
        Command::Start => start_by_hand(model, world, at, fate),
        Command::ShutDown => world.hosts[at].runs = false,
    }
}

/// Nobody knows whether the VM runs on the other host; a person says that it does not. Where that is true it must stay true when the
/// link or the power comes back: where the relationship was ended, nothing sees to that.
pub(crate) fn vouch(world: &mut World, at: usize) {
    let other = &world.hosts[1 - at];
    world.risked |= other.runs || other.ended;
}

/// Ends the relationship on both hosts. Each is told first who the other is, so that a stale copy knows what it is when it forgets.
fn remove(model: &Replication, world: &mut World, at: usize) {
    if believe(model, world, at, Fate::Heard) == OtherHost::Silent {
        return;
    }
    if world.hosts.iter().any(|host| !host.ended && host.authority().forget().is_err()) {
        return;
    }
    for host in world.hosts.iter_mut().filter(|host| !host.ended) {
        host.kept_off = host.authority.is_superseded() && !model.is(Sabotage::RemoveUnlocks);
        host.end(model);
    }
}

fn cancel(world: &mut World, at: usize, force: bool) {
    let Some(place) = world.hosts[at].open() else { return };
    let (operation, entries) = world.hosts[at].journals[place].clone();
    let progress = fold(&entries);
    if may_cancel(operation.procedure, &progress).is_err() || progress.cancelled.is_some() && !force {
        return;
    }
    let own = world.hosts[at].own_id(&operation);
    if operation.side == Side::NewPrimary && operation.procedure == Procedure::PlannedFailover {
        // The promise is all there is to give.
        if !world.hosts[at].taken.contains(&operation.id) {
            world.hosts[at].promised.push(operation.id);
            world.hosts[at].write(operation.id, own, Mark::Cancel("the primary took it back".into()));
        }
        return;
    }
    let in_doubt = progress.may_have_effect(Step::HandOver);
    let reason = match force && in_doubt {
        true => {
            world.risked = true;
            FORCED
        }
        false => "cancelled",
    };
    world.hosts[at].write(operation.id, own, Mark::Cancel(reason.into()));
}

fn begin(world: &mut World, at: usize, procedure: Procedure) {
    let host = &world.hosts[at];
    let planned = procedure == Procedure::PlannedFailover;
    if planned
        && (host.authority.phase != Phase::Replicating || host.open().is_some() || !host.authority.may_run())
    {
        return;
    }
    let operation = Operation {
        id: operation_id(world.operations + 1),
        procedure,
        relationship: RelationshipId(Uuid::from_u128(1)),
        old_primary: if planned { host_id(at) } else { host_id(1 - at) },
        side: if planned { Side::OldPrimary } else { Side::NewPrimary },
        proposed_epoch: host.authority.epoch.next(),
        options: Options::default(),
        requested_by: String::new(),
        begun: NOW,
    };
    let Ok(left) = host.authority().begin(&operation, host.asked(operation.id)) else { return };
    world.operations += 1;
    let ran = if world.hosts[at].runs { "ran" } else { "off" };
    let own = host_id(at);
    if let Some(left) = left {
        world.hosts[at].write(left, own, Mark::Ended(Outcome::Completed));
    }
    world.hosts[at].journals.push((operation.clone(), Vec::new()));
    world.hosts[at].write(operation.id, own, Mark::Done(Step::Check, ran.into()));
}

fn reverse(model: &Replication, world: &mut World, at: usize, fate: Fate) {
    let host = &world.hosts[at];
    let debt = matches!(host.authority.phase, Phase::Unprotected { .. } | Phase::FailedOver { .. });
    if !debt || host.open().is_some() {
        return;
    }
    let epoch = host.authority.epoch.number();
    if ask(model, world, at, Request::Reverse(epoch, true), Fate::Heard) != Some(Answer::Done) {
        return;
    }
    let Ok(settled) = world.hosts[at].authority().settle(None, NOW) else { return };
    world.hosts[at].become_of(settled);
    if ask(model, world, at, Request::Reverse(epoch, false), fate) == Some(Answer::Done)
        && let Ok(after) = world.hosts[at].authority().go_to(Phase::Replicating)
    {
        world.hosts[at].become_of(after);
    }
}

pub(crate) fn failed_over() -> Phase {
    Phase::FailedOver { since: NOW, point: PointId(Uuid::nil()), timer: None }
}

//! Driving an operation: the tables decide what comes next, the procedures' own files do it (`handover`, `failover`), and this
//! file keeps the journal: intent before effect, evidence after. Every step may be done again after a crash.

use std::time::Duration;

use choreography::next::next;
use choreography::{Entry, Mark, Next, Operation, Outcome, Procedure, Side, Step, StepState, fold};
use domain::RecoveryPoint;
use hypervisor::VmState;
use store::Record;
use tokio::time::Instant;
use wire::message::form::EntryForm;
use wire::message::{Answer, Request};

use crate::events::Number;
use crate::hold::Moment;
use crate::plan::no_operation;
use crate::redirect::Direction;
use crate::{Code, Engine, Recovery, Refusal, Result, clock, owner, redirect};

/// A step before the point of no return outlasts a short silence of the other host: undoing would start the guest again.
const SILENCE_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a step is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long the guest agent is waited for after the start.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(120);

/// Does what this host has to do now; gives how long to wait before looking again.
pub(crate) async fn drive(engine: &Engine, operation: &Operation) -> Result<Duration> {
    // One step a round; the bound only guards against a table that would go in circles.
    for _ in 0..64 {
        let found = engine.store().operation(operation.id).map_err(Refusal::failed)?;
        let (_, entries) = found.ok_or_else(|| no_operation(operation.id))?;
        let record = engine.record(operation.relationship)?;
        let run = Run { engine, operation, entries, record };
        match next(operation, &fold(&run.entries)) {
            Next::Nothing => {
                run.close()?;
                return Ok(Duration::ZERO);
            }
            Next::Do(step) => {
                if let Some(wait) = run.attempt(step).await? {
                    return Ok(wait);
                }
            }
            Next::Skip(step, reason) => run.write(Mark::Skipped(step, reason.to_owned()))?,
            Next::Await(Step::HandOver) if operation.side == Side::OldPrimary => {
                if let Some(wait) = run.ask_hand_over().await? {
                    return Ok(wait);
                }
            }
            Next::Await(_) => {
                if !run.hear_news().await? {
                    return Ok(Duration::from_millis(500));
                }
            }
            Next::Abandon => {
                if let Some(wait) = run.ask_promise().await? {
                    return Ok(wait);
                }
            }
            Next::TakeBack(step) => {
                if let Some(wait) = run.try_to_take_back(step).await? {
                    return Ok(wait);
                }
            }
            Next::End(outcome) => run.end(outcome).await?,
        }
    }
    Ok(Duration::from_secs(1))
}

/// Steps that may take long, or hang, and whose end a person may not want to wait for. One that is dropped in its middle is as one that
/// was killed.
fn may_be_dropped(step: Step) -> bool {
    use Step::{Confirm, FinalSync, Merge, PreSync, Redirect, Start};
    matches!(step, PreSync | FinalSync | Start | Confirm | Redirect | Merge)
}

/// Steps during which the VM of this host is what the store says: what becomes of it is noticed as at any other time. Not while it is
/// defined anew, or changes hands.
fn leaves_the_vm_alone(step: Step) -> bool {
    use Step::{Confirm, Merge, PreSync, Redirect, Report, Reverse, ShutDown};
    matches!(step, PreSync | ShutDown | Reverse | Confirm | Redirect | Merge | Report)
}

/// Whether an operation that waits leaves the VM of this host alone meanwhile.
pub(crate) fn waits_beside_the_vm(engine: &Engine, operation: &Operation) -> bool {
    let Ok(Some((_, entries))) = engine.store().operation(operation.id) else { return false };
    match next(operation, &fold(&entries)) {
        // A VM that runs while what it wrote is to be set aside is a second writer: that must be seen.
        Next::Do(step) => leaves_the_vm_alone(step) || step == Step::SetAside,
        // The old primary's is locked until it knows who has it.
        Next::Await(step) => operation.side == Side::NewPrimary || step != Step::HandOver,
        _ => false,
    }
}

/// One look at an operation: its journal and the relationship as they are now.
pub(crate) struct Run<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) operation: &'a Operation,
    pub(crate) entries: Vec<Entry>,
    pub(crate) record: Record,
}

impl Run<'_> {
    pub(crate) fn write(&self, mark: Mark) -> Result<()> {
        self.engine
            .store()
            .append_entries(self.operation.id, &[self.engine.entry(mark)])
            .map_err(Refusal::failed)
    }

    pub(crate) fn forms(&self) -> Vec<EntryForm> {
        self.entries.iter().map(EntryForm::from).collect()
    }

    pub(crate) fn head(&self) -> Result<RecoveryPoint> {
        let points = self.engine.store().points(self.operation.relationship).map_err(Refusal::failed)?;
        points.into_iter().next_back().ok_or_else(|| Refusal::failed("there is no recovery point yet"))
    }

    pub(crate) async fn state(&self) -> Result<VmState> {
        let state = self.engine.vm_state(&self.record).await?;
        state.ok_or_else(|| Refusal::failed("the VM is not defined on this host any more"))
    }

    /// Whether the VM runs here; one that was undefined by hand is off.
    pub(crate) async fn runs(&self) -> Result<bool> {
        Ok(self.engine.vm_state(&self.record).await?.is_some_and(VmState::is_active))
    }

    /// One try of a step of ours: intent, effect, evidence. A failure before the point of no return turns the operation round;
    /// behind it the step is tried again.
    async fn attempt(&self, step: Step) -> Result<Option<Duration>> {
        let slot = self.engine.slot(self.operation.relationship);
        // A try that fails may ring the bell itself: what it did to the VM's definition is news.
        let again_at = slot.retry().filter(|(failed, _)| *failed == step).map(|(_, at)| at);
        let rest = again_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        if !rest.is_zero() {
            return Ok(Some(rest));
        }
        if matches!(fold(&self.entries).steps.get(&step), Some(StepState::Running { .. })) {
            Recovery::StepAgain.taken();
        }
        self.intend(step)?;
        let Some(carried_out) = self.try_once(step).await else {
            slot.stop_progress();
            return Ok(None);
        };
        match carried_out {
            Ok(Some(evidence)) => {
                self.write(Mark::Done(step, evidence))?;
                self.tell_news().await;
                Ok(None)
            }
            // Steps that change authority write their own evidence in the same transaction.
            Ok(None) => Ok(None),
            Err(error) => {
                let reason = error.to_string();
                let progress = fold(&self.entries);
                let state = progress.steps.get(&step);
                // A try that fails like the one before says nothing new: the journal of a long outage stays short.
                if !matches!(state, Some(StepState::Failed { reason: before, .. }) if *before == reason) {
                    tracing::warn!(operation = %self.operation.id, step = step.name(), %reason, "a step failed");
                    self.write(Mark::Failed(step, reason))?;
                }
                let patient = error.code == Code::Unavailable && tried_for(state) < SILENCE_PATIENCE;
                let may_turn_round = match self.operation.procedure {
                    Procedure::PlannedFailover => step < Step::HandOver,
                    _ => !progress.handed_over(),
                };
                if may_turn_round && !patient {
                    self.write(Mark::Cancel(format!("{}: {error}", step.name())))?;
                    return Ok(None);
                }
                *slot.retry() = Some((step, Instant::now() + RETRY));
                Ok(Some(RETRY))
            }
        }
    }

    /// Does a step while what happens to the VM is noticed. None: a person ended it meanwhile, and it was dropped in its middle.
    async fn try_once(&self, step: Step) -> Option<Result<Option<String>>> {
        let tried = async {
            self.engine.reach_step(step, Moment::Before).await;
            let carried_out = self.carry_out(step).await;
            self.engine.reach_step(step, Moment::After).await;
            carried_out
        };
        tokio::select! {
            carried_out = tried => Some(carried_out),
            () = self.ended(step), if may_be_dropped(step) => None,
            never = self.watch_the_time(step), if may_be_dropped(step) => match never {},
            never = owner::look_on(self.engine, self.operation.relationship), if leaves_the_vm_alone(step) => match never {},
        }
    }

    /// Comes back when a person has cancelled, left the step out, or began another operation instead, or when the failover is given up.
    async fn ended(&self, step: Step) {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let found = self.engine.store().operation(self.operation.id);
            let progress = found.ok().flatten().map(|(_, entries)| fold(&entries)).unwrap_or_default();
            let is_over = [&progress.cancelled, &progress.given_up].into_iter().any(Option::is_some);
            if is_over || progress.outcome.is_some() || progress.is_settled(step) {
                return;
            }
        }
    }

    /// The intent of a step, durable before its first try; later tries have it already.
    pub(crate) fn intend(&self, step: Step) -> Result<()> {
        let state = fold(&self.entries).steps.remove(&step);
        if matches!(state, Some(StepState::Running { .. } | StepState::Failed { .. })) {
            return Ok(());
        }
        self.write(Mark::Intent(step))
    }

    /// Gives the evidence; none: it is written already.
    async fn carry_out(&self, step: Step) -> Result<Option<String>> {
        let alone = self.operation.procedure.is_solitary();
        match step {
            Step::Check => Ok(Some("checked when it began".into())),
            Step::Announce => self.announce().await.map(Some),
            Step::PreSync => self.pre_sync().await.map(Some),
            Step::ShutDown if alone => self.shut_down_here().await.map(Some),
            Step::ShutDown => self.shut_down().await.map(Some),
            Step::Lock => {
                let done = self.engine.entry(Mark::Done(Step::Lock, "no start of the VM here".into()));
                self.engine.store().lock(self.operation, &done).map_err(Refusal::failed)?;
                Ok(None)
            }
            Step::FinalSync => self.final_sync().await.map(Some),
            Step::Demote => self.demote().await.map(|()| None),
            Step::Start => self.start().await.map(Some),
            Step::Reverse => self.reverse().await.map(Some),
            Step::Confirm => self.confirm().await.map(Some),
            Step::Redirect => Ok(Some(self.redirect().await)),
            Step::Report if alone => {
                if self.operation.procedure == Procedure::CompleteFailover {
                    self.conclude_merge().await?;
                }
                Ok(Some("kept on this host".into()))
            }
            Step::Report => Ok(Some("kept on both hosts".into())),
            Step::TakeOver => self.take_over_alone().await.map(|()| None),
            Step::GiveBack => self.give_back().await.map(|()| None),
            Step::SetAside => self.set_aside().await.map(Some),
            Step::Settle => self.settle().await.map(|()| None),
            Step::Merge => self.merge().await.map(Some),
            // Awaited by both hosts; the table that says otherwise would be wrong.
            Step::HandOver => Err(Refusal::failed("the hand over is asked for, not done")),
        }
    }

    /// Waits for the guest's agent. A guest that does not answer is said to be so, and is no failure of the operation, unless a person
    /// wants it to be.
    async fn confirm(&self) -> Result<String> {
        let vm = self.record.relationship.vm;
        let facts = self.engine.hypervisor(move |it| it.vm(vm)).await?;
        if !facts.is_some_and(|facts| facts.has_agent) {
            return Ok("not confirmed: the VM has no guest agent channel".into());
        }
        let limit = self.operation.options.roll_back_unless_boots;
        let (begun, deadline) = (Instant::now(), limit.unwrap_or(CONFIRM_DEADLINE));
        while begun.elapsed() < deadline {
            let answers =
                self.engine.hypervisor(move |it| it.agent_answers(vm, Duration::from_secs(2))).await;
            if answers.unwrap_or(false) {
                return Ok(format!(
                    "the guest agent answered {:.1} s after the start",
                    begun.elapsed().as_secs_f32()
                ));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let seconds = deadline.as_secs();
        if limit.is_some() {
            let found = format!("the guest agent did not answer within {seconds} s");
            self.give_up(&found)?;
            return Err(Refusal::failed(found));
        }
        Ok(format!(
            "not confirmed: the guest agent did not answer within {seconds} s; look at the VM's console"
        ))
    }

    /// Sends the users to where the VM is now.
    async fn redirect(&self) -> String {
        let direction = match self.operation.procedure {
            Procedure::CancelFailover => Direction::Away,
            _ => Direction::Here,
        };
        let relationship = &self.record.relationship;
        let hooks = &self.engine.config().redirect_hooks;
        redirect::run(hooks, relationship.vm, &relationship.vm_name, direction).await
    }

    /// Keeps what the other host says of its part.
    pub(crate) fn keep(&self, entries: Vec<EntryForm>) -> Result<()> {
        let entries: Vec<Entry> =
            entries.into_iter().map(Entry::try_from).collect::<std::result::Result<_, _>>()?;
        // Our own end, like every line of ours, is our own word.
        let peer = self.record.relationship.peer;
        let is_theirs = |entry: &Entry| entry.host == peer && !matches!(entry.mark, Mark::Ended(_));
        let theirs: Vec<Entry> = entries.into_iter().filter(is_theirs).collect();
        self.engine.store().append_peers_entries(self.operation.id, &theirs).map_err(Refusal::failed)
    }

    /// Exchanges journals; true when something new came.
    pub(crate) async fn hear_news(&self) -> Result<bool> {
        let before = fold(&self.entries);
        let request = Request::News { operation: self.operation.id.0, entries: self.forms() };
        if let Ok(Answer::News { entries, .. }) =
            self.engine.ask(self.record.relationship.peer, &request).await
        {
            self.keep(entries)?;
        }
        let found = self.engine.store().operation(self.operation.id).map_err(Refusal::failed)?;
        Ok(found.is_some_and(|(_, entries)| fold(&entries) != before))
    }

    /// Best effort: the other host shows our steps while they happen.
    pub(crate) async fn tell_news(&self) {
        if self.operation.procedure.is_solitary() {
            return;
        }
        let Ok(Some((_, entries))) = self.engine.store().operation(self.operation.id) else { return };
        let entries: Vec<EntryForm> = entries.iter().map(EntryForm::from).collect();
        let request = Request::News { operation: self.operation.id.0, entries };
        let (engine, peer) = (self.engine.clone(), self.record.relationship.peer);
        tokio::spawn(async move { engine.ask(peer, &request).await.map(drop) });
    }

    async fn end(&self, outcome: Outcome) -> Result<()> {
        let name = &self.record.relationship.vm_name;
        let procedure = self.operation.procedure.name().replace('-', " ");
        let (number, text) = match (outcome, self.operation.procedure, self.operation.side) {
            (Outcome::Undone, Procedure::PlannedFailover, _) => {
                (Number::FailoverUndone, "was undone; the VM is protected as before")
            }
            (Outcome::Undone, ..) => (Number::FailoverUndone, "did not take effect; nothing was changed"),
            (Outcome::GivenUp, ..) => (
                Number::FailoverUndone,
                "is given up, because the VM did not start or boot: it is taken back",
            ),
            (Outcome::Completed, Procedure::PlannedFailover, Side::NewPrimary)
                if !self.operation.options.reverse =>
            {
                (
                    Number::Unprotected,
                    "is complete without reverse: the VM is unprotected until `virt-replica reverse`",
                )
            }
            (Outcome::Completed, Procedure::PlannedFailover, _) => (Number::FailoverCompleted, "is complete"),
            (Outcome::Completed, Procedure::Failover, _) => (
                Number::FailedOver,
                "is done: the VM belongs to this host; it is unprotected until `virt-replica reverse`",
            ),
            (Outcome::Completed, Procedure::CancelFailover, _) => {
                (Number::FailoverCancelled, "is done: this host is the replica again")
            }
            (Outcome::Completed, Procedure::CompleteFailover, _) => {
                (Number::FailoverSettled, "is done: the VM stays here")
            }
        };
        self.engine.reach("end.before").await;
        if outcome == Outcome::GivenUp {
            self.roll_back_now()?;
        }
        let ended = self.engine.entry(Mark::Ended(outcome));
        self.engine.store().end_operation(self.operation.id, &ended).map_err(Refusal::failed)?;
        self.engine.event(number, name, format!("{procedure} {} {text}", self.operation.id));
        self.tell_news().await;
        Ok(())
    }

    /// A journal that says "ended" closes the operation also when the crash came between the two.
    fn close(&self) -> Result<()> {
        if self.engine.store().has_ended(self.operation.id).map_err(Refusal::failed)? {
            return Ok(());
        }
        let outcome = fold(&self.entries).outcome.unwrap_or(Outcome::Completed);
        let ended = self.engine.entry(Mark::Ended(outcome));
        self.engine.store().end_operation(self.operation.id, &ended).map_err(Refusal::failed)
    }
}

fn tried_for(state: Option<&StepState>) -> Duration {
    match state {
        Some(StepState::Running { since } | StepState::Failed { begun: since, .. }) => {
            Duration::from_millis(clock::now().millis().saturating_sub(since.millis()))
        }
        _ => Duration::ZERO,
    }
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

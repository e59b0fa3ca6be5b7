//! The planned failover, carried out: the table decides, this file does. Every step may be done again after a crash.

use std::time::{Duration, Instant};

use choreography::next::next;
use choreography::{Entry, Mark, Next, Operation, Outcome, Side, Step, StepState, fold};
use domain::{OperationId, Phase, RecoveryPoint, vm_argument};
use hypervisor::{ShutoffReason, VmState};
use store::{AbandonVerdict, Record};
use wire::message::form::{EntryForm, OperationForm, PointForm, SettingsForm};
use wire::message::{Answer, Request};

use crate::events::Number;
use crate::hold::Moment;
use crate::plan::{VM_RAN, no_operation, unclean};
use crate::report::{Report, evidence};
use crate::{Code, Engine, Refusal, Result, clock, cycle, replica};

/// Pause between two looks whether the guest is off: part of the downtime.
const OFF_POLL: Duration = Duration::from_millis(50);
/// After this long without effect the power button is pressed as well.
const AGENT_PATIENCE: Duration = Duration::from_secs(10);
/// Rounds of pre-sync; a guest that writes faster than the link gains nothing by more.
const PRESYNC_ROUNDS: u32 = 4;
/// What is left may be sent while the guest is off.
const PRESYNC_REST_BYTES: u64 = 64 << 20;
/// A step before the hand over outlasts a short silence of the other host: undoing would start the guest again.
const SILENCE_PATIENCE: Duration = Duration::from_secs(30);
/// How long a guest that was told to shut down is watched when that is taken back.
const LATE_SHUTDOWN: Duration = Duration::from_secs(15);
/// Pause before taking back is tried again.
const RETRY_UNDO: Duration = Duration::from_secs(5);
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

struct Run<'a> {
    engine: &'a Engine,
    operation: &'a Operation,
    entries: Vec<Entry>,
    record: Record,
}

impl Run<'_> {
    fn write(&self, mark: Mark) -> Result<()> {
        self.engine
            .store()
            .append_entries(self.operation.id, &[self.engine.entry(mark)])
            .map_err(Refusal::failed)
    }

    fn forms(&self) -> Vec<EntryForm> {
        self.entries.iter().map(EntryForm::from).collect()
    }

    fn head(&self) -> Result<RecoveryPoint> {
        let points = self.engine.store().points(self.operation.relationship).map_err(Refusal::failed)?;
        points.into_iter().next_back().ok_or_else(|| Refusal::failed("there is no recovery point yet"))
    }

    /// One try of a step of ours: intent, effect, evidence. A failure before the hand over turns the operation round;
    /// behind it the step is tried again.
    async fn attempt(&self, step: Step) -> Result<Option<Duration>> {
        self.intend(step)?;
        self.engine.reach_step(step, Moment::Before).await;
        let carried_out = match step {
            // These may take long, and a person may not want to wait for their end.
            Step::PreSync | Step::FinalSync => tokio::select! {
                carried_out = self.carry_out(step) => carried_out,
                () = self.cancelled() => {
                    self.engine.slot(self.operation.relationship).stop_progress();
                    return Ok(None);
                }
            },
            _ => self.carry_out(step).await,
        };
        self.engine.reach_step(step, Moment::After).await;
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
                let state = fold(&self.entries).steps.remove(&step);
                // A try that fails like the one before says nothing new: the journal of a long outage stays short.
                if !matches!(&state, Some(StepState::Failed { reason: before, .. }) if *before == reason) {
                    self.write(Mark::Failed(step, reason))?;
                }
                let patient = error.code == Code::Unavailable && tried_for(state.as_ref()) < SILENCE_PATIENCE;
                if step < Step::HandOver && !patient {
                    self.write(Mark::Cancel(format!("{}: {error}", step.name())))?;
                    return Ok(None);
                }
                Ok(Some(RETRY))
            }
        }
    }

    /// Comes back when a person has cancelled. A cycle that is dropped in its middle is as one that was killed.
    async fn cancelled(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let found = self.engine.store().operation(self.operation.id);
            if found.is_ok_and(|found| found.is_some_and(|(_, entries)| fold(&entries).cancelled.is_some())) {
                return;
            }
        }
    }

    /// The intent of a step, durable before its first try; later tries have it already.
    fn intend(&self, step: Step) -> Result<()> {
        let state = fold(&self.entries).steps.remove(&step);
        if matches!(state, Some(StepState::Running { .. } | StepState::Failed { .. })) {
            return Ok(());
        }
        self.write(Mark::Intent(step))
    }

    async fn carry_out(&self, step: Step) -> Result<Option<String>> {
        match step {
            Step::Check => Ok(Some("checked when it began".into())),
            Step::Announce => self.announce().await.map(Some),
            Step::PreSync => self.pre_sync().await.map(Some),
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
            Step::Redirect => self.redirect().await.map(Some),
            Step::Report => Ok(Some("kept on both hosts".into())),
            // Awaited by both hosts; the table that says otherwise would be wrong.
            Step::HandOver => Err(Refusal::failed("the hand over is asked for, not done")),
        }
    }

    async fn announce(&self) -> Result<String> {
        let operation = OperationForm::from(self.operation);
        let request = Request::Announce { operation, entries: self.forms() };
        self.engine.ask(self.record.relationship.peer, &request).await?;
        Ok("both hosts know".into())
    }

    async fn pre_sync(&self) -> Result<String> {
        let (mut total, mut rounds, mut before) = (0, 0, u64::MAX);
        for _ in 0..PRESYNC_ROUNDS {
            let done = cycle::run(self.engine, &self.engine.record(self.operation.relationship)?).await?;
            (total, rounds) = (total + done.bytes, rounds + 1);
            if done.bytes <= PRESYNC_REST_BYTES || done.bytes >= before {
                break;
            }
            before = done.bytes;
        }
        Ok(format!("{} in {rounds} rounds", mib(total)))
    }

    async fn state(&self) -> Result<VmState> {
        let state = self.engine.vm_state(&self.record).await?;
        state.ok_or_else(|| Refusal::failed("the VM is not defined on this host any more"))
    }

    async fn shut_down(&self) -> Result<String> {
        let vm = self.record.relationship.vm;
        let begun = Instant::now();
        let (mut asked_agent, mut asked_acpi) = (false, false);
        loop {
            match self.state().await? {
                VmState::ShutOff(ShutoffReason::Shutdown) => {
                    let words = if asked_agent || asked_acpi {
                        "the guest shut down"
                    } else {
                        "it was shut down before"
                    };
                    return Ok(words.into());
                }
                VmState::Running => {}
                state => {
                    let (found, cure) = unclean(state, &self.record.relationship.vm_name);
                    return Err(Refusal::new(Code::Refused, found, cure));
                }
            }
            if begun.elapsed() > self.operation.options.shutdown_timeout {
                let limit = self.operation.options.shutdown_timeout.as_secs();
                let found =
                    format!("the guest did not shut down within {limit} s; it runs on, protected as before");
                let cure = format!(
                    "shut it down from inside and repeat the command, or give it longer: virt-replica planned-failover \
                     --shutdown-timeout {}s {}",
                    limit.saturating_mul(2).max(60),
                    vm_argument(&self.record.relationship.vm_name)
                );
                return Err(Refusal::new(Code::Refused, found, cure));
            }
            if !asked_agent {
                asked_agent = true;
                // Without an agent this fails, and the power button does it.
                asked_acpi = self.engine.hypervisor(move |it| it.shut_down(vm, true)).await.is_err();
                if asked_acpi {
                    self.engine.hypervisor(move |it| it.shut_down(vm, false)).await?;
                }
            } else if !asked_acpi && begun.elapsed() > AGENT_PATIENCE {
                asked_acpi = true;
                self.engine.hypervisor(move |it| it.shut_down(vm, false)).await?;
            }
            tokio::time::sleep(OFF_POLL).await;
        }
    }

    async fn final_sync(&self) -> Result<String> {
        let record = self.engine.record(self.operation.relationship)?;
        // Locked: a VM that runs nevertheless was started behind the guard, and its writes would be lost.
        if self.state().await?.is_active() {
            return Err(Refusal::new(
                Code::Refused,
                "the VM was started again",
                "shut it down, and try again",
            ));
        }
        let done = cycle::run(self.engine, &record).await?;
        let facts = Report {
            old_primary_digest: Some(done.head.lineage.to_hex()),
            new_primary_digest: Some(done.replica_lineage.to_hex()),
            final_sync_bytes: Some(done.bytes),
            reverse_bytes: None,
        };
        if done.head.lineage != done.replica_lineage {
            return Err(Refusal::new(
                Code::InDoubt,
                "the digests of both sides differ",
                "virt-replica show, on both hosts",
            ));
        }
        Ok(evidence(&format!("{}, the digests of both hosts agree", mib(done.bytes)), &facts))
    }

    /// The point of no return lies on the other host: ask until it says yes, or no.
    async fn ask_hand_over(&self) -> Result<Option<Duration>> {
        self.intend(Step::HandOver)?;
        let request = Request::HandOver {
            operation: OperationForm::from(self.operation),
            entries: self.forms(),
            head: PointForm::from(&self.head()?),
        };
        self.engine.reach("hand over.asking").await;
        let answer = self.engine.ask(self.record.relationship.peer, &request).await;
        self.engine.reach("hand over.answered").await;
        match answer {
            Ok(Answer::HandOver { entries }) => {
                self.keep(entries)?;
                Ok(None)
            }
            Ok(_) => Err(Refusal::failed("the other host answered something else")),
            // Silence is no answer: it may have happened. Keep asking; neither side runs the VM here meanwhile.
            Err(error) if error.code == Code::Unavailable => Ok(Some(Duration::from_secs(1))),
            Err(error) => {
                self.write(Mark::Cancel(format!("hand over: {error}")))?;
                Ok(None)
            }
        }
    }

    fn keep(&self, entries: Vec<EntryForm>) -> Result<()> {
        let entries: Vec<Entry> =
            entries.into_iter().map(Entry::try_from).collect::<std::result::Result<_, _>>()?;
        // Our own end is our own word.
        let theirs: Vec<Entry> =
            entries.into_iter().filter(|entry| !matches!(entry.mark, Mark::Ended(_))).collect();
        self.engine.store().append_peers_entries(self.operation.id, &theirs).map_err(Refusal::failed)
    }

    /// Exchanges journals; true when something new came.
    async fn hear_news(&self) -> Result<bool> {
        let before = fold(&self.entries);
        let request = Request::News { operation: self.operation.id.0, entries: self.forms(), report: None };
        if let Ok(Answer::News { entries, .. }) =
            self.engine.ask(self.record.relationship.peer, &request).await
        {
            self.keep(entries)?;
        }
        let found = self.engine.store().operation(self.operation.id).map_err(Refusal::failed)?;
        Ok(found.is_some_and(|(_, entries)| fold(&entries) != before))
    }

    /// Best effort: the other host shows our steps while they happen.
    async fn tell_news(&self) {
        let Ok(Some((_, entries))) = self.engine.store().operation(self.operation.id) else { return };
        let entries: Vec<EntryForm> = entries.iter().map(EntryForm::from).collect();
        let request = Request::News { operation: self.operation.id.0, entries, report: None };
        let (engine, peer) = (self.engine.clone(), self.record.relationship.peer);
        tokio::spawn(async move { engine.ask(peer, &request).await.map(drop) });
    }

    /// Before anything is taken back the new primary promises to refuse a late hand over, or says that it happened.
    async fn ask_promise(&self) -> Result<Option<Duration>> {
        let (operation, relationship) = (self.operation.id.0, self.operation.relationship.0);
        let progress = fold(&self.entries);
        match self
            .engine
            .ask(self.record.relationship.peer, &Request::Abandon { operation, relationship })
            .await
        {
            Ok(Answer::Abandon { already_handed_over: false }) => {
                self.write(Mark::Undone(Step::Announce))?;
                Ok(None)
            }
            Ok(Answer::Abandon { already_handed_over: true }) => {
                self.hear_news().await?;
                Ok(None)
            }
            // Never asked for the hand over: nobody can have taken over, and the late request will not come.
            _ if !progress.may_have_effect(Step::HandOver) || progress.is_forced => {
                self.write(Mark::Undone(Step::Announce))?;
                Ok(None)
            }
            _ => Ok(Some(Duration::from_secs(1))),
        }
    }

    /// Takes a step back, or keeps why that did not work and how long to wait before the next try.
    async fn try_to_take_back(&self, step: Step) -> Result<Option<Duration>> {
        let Err(error) = self.take_back(step).await else { return Ok(None) };
        let reason = format!("it cannot be taken back: {error}");
        let state = fold(&self.entries).steps.remove(&step);
        if !matches!(state, Some(StepState::Failed { reason: before, .. }) if before == reason) {
            self.write(Mark::Failed(step, reason))?;
        }
        Ok(Some(RETRY_UNDO))
    }

    /// Whether the VM ran when the operation began: then it runs again when that is undone.
    fn vm_ran(&self) -> bool {
        let ran =
            |entry: &Entry| matches!(&entry.mark, Mark::Done(Step::Check, words) if words.ends_with(VM_RAN));
        self.entries.iter().any(ran)
    }

    /// A guest that was asked to shut down may still do so after its time was up: that is waited for before it counts as running.
    async fn start_again(&self) -> Result<()> {
        let begun = Instant::now();
        while self.state().await?.is_active() {
            let goes_on = fold(&self.entries).is_settled(Step::ShutDown);
            if goes_on || begun.elapsed() > LATE_SHUTDOWN {
                return Ok(());
            }
            tokio::time::sleep(OFF_POLL).await;
        }
        let vm = self.record.relationship.vm;
        self.engine.hypervisor(move |it| it.start(vm, false)).await
    }

    async fn take_back(&self, step: Step) -> Result<()> {
        self.engine.reach(&format!("undo {}.before", step.name())).await;
        match step {
            Step::Lock => {
                let undone = self.engine.entry(Mark::Undone(step));
                self.engine.store().unlock(self.operation, &undone).map_err(Refusal::failed)
            }
            Step::ShutDown => {
                if self.vm_ran() {
                    self.start_again().await?;
                }
                self.engine.reach("undo shut down.after").await;
                self.write(Mark::Undone(step))
            }
            _ => self.write(Mark::Undone(step)),
        }
    }

    async fn demote(&self) -> Result<()> {
        let directory = replica::demote(self.engine, &self.record, &self.head()?).await?;
        self.engine
            .store()
            .set_directory(self.operation.relationship, &directory)
            .map_err(Refusal::failed)?;
        let done = self.engine.entry(Mark::Done(Step::Demote, "replica here; the VM cannot start".into()));
        let phase = Phase::Stopped { since: clock::now() };
        self.engine.store().demote(self.operation, &phase, &done).map_err(Refusal::failed)?;
        self.tell_news().await;
        Ok(())
    }

    async fn start(&self) -> Result<String> {
        replica::promote(self.engine, &self.record, self.head()?.id, self.operation.options.start).await
    }

    async fn reverse(&self) -> Result<String> {
        self.engine.turn_round(&self.record).await?;
        let facts = Report { reverse_bytes: Some(0), ..Report::default() };
        Ok(evidence("the final recovery point is the common base; no disk was copied", &facts))
    }

    async fn confirm(&self) -> Result<String> {
        let vm = self.record.relationship.vm;
        let facts = self.engine.hypervisor(move |it| it.vm(vm)).await?;
        if !facts.is_some_and(|facts| facts.has_agent) {
            return Ok("not confirmed: the VM has no guest agent channel".into());
        }
        let begun = Instant::now();
        while begun.elapsed() < CONFIRM_DEADLINE {
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
        let limit = CONFIRM_DEADLINE.as_secs();
        Ok(format!(
            "not confirmed: the guest agent did not answer within {limit} s; look at the VM's console"
        ))
    }

    async fn redirect(&self) -> Result<String> {
        let Ok(entries) = std::fs::read_dir(&self.engine.config().redirect_hooks) else {
            return Ok("no redirect hooks are configured".into());
        };
        let mut hooks: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        hooks.sort();
        let mut results = Vec::new();
        for hook in hooks {
            let mut command = tokio::process::Command::new(&hook);
            command.env("VM_NAME", &self.record.relationship.vm_name);
            command.env("VM_UUID", self.record.relationship.vm.to_string()).kill_on_drop(true);
            let status = tokio::time::timeout(Duration::from_secs(30), command.status()).await;
            let word = match status {
                Ok(Ok(status)) if status.success() => "done".to_owned(),
                Ok(Ok(status)) => status.to_string(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "not done within 30 s".to_owned(),
            };
            results.push(format!("{}: {word}", hook.display()));
        }
        Ok(if results.is_empty() { "no redirect hooks are configured".into() } else { results.join("; ") })
    }

    async fn end(&self, outcome: Outcome) -> Result<()> {
        let name = &self.record.relationship.vm_name;
        let (number, text) = match (outcome, self.operation.side, self.operation.options.reverse) {
            (Outcome::Undone, ..) => (Number::FailoverUndone, "was undone; the VM is protected as before"),
            (Outcome::Completed, Side::NewPrimary, false) => (
                Number::Unprotected,
                "is complete without reverse: the VM is unprotected until `virt-replica reverse`",
            ),
            (Outcome::Completed, ..) => (Number::FailoverCompleted, "is complete"),
        };
        self.engine.reach("end.before").await;
        let ended = self.engine.entry(Mark::Ended(outcome));
        self.engine.store().end_operation(self.operation.id, &ended).map_err(Refusal::failed)?;
        self.engine.event(number, name, format!("planned failover {} {text}", self.operation.id));
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

impl Engine {
    /// Makes the other host the replica of this one; the head is the common base.
    pub(crate) async fn turn_round(&self, record: &Record) -> Result<()> {
        let relationship = &record.relationship;
        let points = self.store().points(relationship.id).map_err(Refusal::failed)?;
        let head = points.last().ok_or_else(|| Refusal::failed("there is no recovery point"))?;
        let request = Request::Reverse {
            relationship: relationship.id.0,
            epoch: relationship.epoch.number(),
            head: PointForm::from(head),
            settings: SettingsForm::from(&relationship.settings),
        };
        self.ask(relationship.peer, &request).await?;
        self.store().set_phase(relationship.id, &Phase::Replicating).map_err(Refusal::failed)?;
        self.store().set_synchronized(relationship.id, clock::now()).map_err(Refusal::failed)?;
        self.event(Number::Reversed, &relationship.vm_name, "replication was reversed");
        Ok(())
    }

    /// The replica's part of a cancelled operation: the promise, in one transaction.
    pub(crate) fn promise(&self, id: OperationId) -> Result<AbandonVerdict> {
        let cancel = self.entry(Mark::Cancel("the primary server took it back".into()));
        self.store().abandon(id, &cancel).map_err(Refusal::failed)
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

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

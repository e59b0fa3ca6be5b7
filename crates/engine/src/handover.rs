//! The steps of the planned failover, as `operation` asks for them. Every step may be done again after a crash.

use std::time::Duration;

use choreography::{Entry, Mark, Step, StepState, fold};
use domain::{OperationId, Phase, RecoveryPoint, counted, vm_argument};
use hypervisor::{ShutoffReason, VmState};
use store::{AbandonVerdict, Record};
use tokio::time::Instant;
use wire::message::form::{OperationForm, PointForm, SettingsForm};
use wire::message::{Answer, Request};

use crate::events::Number;
use crate::operation::{Run, mib};
use crate::plan::{VM_RAN, unclean};
use crate::report::{Report, evidence};
use crate::{Code, Engine, Recovery, Refusal, Result, chain, clock, cycle, ended, replica};

/// Pause between two looks whether the guest is off: part of the downtime.
const OFF_POLL: Duration = Duration::from_millis(50);
/// After this long without effect the power button is pressed, also where the agent has heard.
const BUTTON_PATIENCE: Duration = Duration::from_secs(10);
/// Rounds of pre-sync; a guest that writes faster than the link gains nothing by more.
const PRESYNC_ROUNDS: u32 = 4;
/// What is left may be sent while the guest is off.
const PRESYNC_REST_BYTES: u64 = 64 << 20;
/// How long a guest that was told to shut down is watched when that is taken back.
const LATE_SHUTDOWN: Duration = Duration::from_secs(15);
/// How long the other host is waited for when only its epoch is asked.
const BELIEFS_DEADLINE: Duration = Duration::from_secs(2);
/// Pause before taking back is tried again.
const RETRY_UNDO: Duration = Duration::from_secs(5);

impl Run<'_> {
    pub(crate) async fn announce(&self) -> Result<String> {
        let operation = OperationForm::from(self.operation);
        let request = Request::Announce { operation, entries: self.forms() };
        self.engine.ask(self.record.relationship.peer, &request).await?;
        Ok("both hosts know".into())
    }

    pub(crate) async fn pre_sync(&self) -> Result<String> {
        let (mut total, mut rounds, mut before) = (0, 0, u64::MAX);
        for _ in 0..PRESYNC_ROUNDS {
            let done = cycle::run(self.engine, &self.engine.record(self.operation.relationship)?).await?;
            (total, rounds) = (total + done.bytes, rounds + 1);
            if done.bytes <= PRESYNC_REST_BYTES || done.bytes >= before {
                break;
            }
            before = done.bytes;
        }
        chain::wait_until_short(self.engine, &self.record).await?;
        Ok(format!("{} in {}", mib(total), counted(rounds, "round")))
    }

    pub(crate) async fn shut_down(&self) -> Result<String> {
        let vm = self.record.relationship.vm;
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        loop {
            match self.state().await? {
                VmState::ShutOff(ShutoffReason::Shutdown) => {
                    let words =
                        if asked.is_some() { "the guest shut down" } else { "it was shut down before" };
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
            // A guest that is just booting misses the first request: the button is pressed again and again.
            if asked.is_none_or(|asked| asked.elapsed() > BUTTON_PATIENCE) {
                let by_agent = asked.is_none();
                let heard =
                    by_agent && self.engine.hypervisor(move |it| it.shut_down(vm, true)).await.is_ok();
                if !heard {
                    self.engine.hypervisor(move |it| it.shut_down(vm, false)).await?;
                }
                asked = Some(Instant::now());
            }
            tokio::time::sleep(OFF_POLL).await;
        }
    }

    async fn expect_off(&self) -> Result<()> {
        if self.runs().await? {
            return Err(Refusal::new(
                Code::Refused,
                "the VM was started again",
                "shut it down, and try again",
            ));
        }
        Ok(())
    }

    pub(crate) async fn final_sync(&self) -> Result<String> {
        let record = self.engine.record(self.operation.relationship)?;
        // Locked: a VM that runs nevertheless was started behind the guard, and its writes would be lost.
        self.expect_off().await?;
        // What an earlier try sent, which was cut before it said so, is not known any more.
        let first_try = !fold(&self.entries).steps.contains_key(&Step::FinalSync);
        let done = cycle::run(self.engine, &record).await?;
        let facts = Report {
            old_primary_digest: Some(done.head.lineage.to_hex()),
            new_primary_digest: Some(done.replica_lineage.to_hex()),
            final_sync_bytes: first_try.then_some(done.bytes),
            reverse_bytes: None,
        };
        if done.head.lineage != done.replica_lineage {
            return Err(Refusal::new(
                Code::InDoubt,
                "the digests of both sides differ",
                "virt-replica show, on both hosts",
            ));
        }
        // A start that was allowed before the lock may have come through since the first look.
        self.expect_off().await?;
        Ok(evidence(&format!("{}, the digests of both hosts agree", mib(done.bytes)), &facts))
    }

    /// The point of no return lies on the other host: ask until it says yes, or no.
    pub(crate) async fn ask_hand_over(&self) -> Result<Option<Duration>> {
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

    /// Before anything is taken back the new primary promises to refuse a late hand over, or says that it happened.
    pub(crate) async fn ask_promise(&self) -> Result<Option<Duration>> {
        let (operation, relationship) = (self.operation.id.0, self.operation.relationship.0);
        let progress = fold(&self.entries);
        // It may have failed the VM over meanwhile, without us: then nothing starts here again.
        self.engine.hear(&self.record, BELIEFS_DEADLINE).await;
        match self
            .engine
            .ask(self.record.relationship.peer, &Request::Abandon { operation, relationship })
            .await
        {
            Ok(Answer::Abandon { already_handed_over: false }) => {
                Recovery::Promised.taken();
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
    pub(crate) async fn try_to_take_back(&self, step: Step) -> Result<Option<Duration>> {
        let Err(error) = self.take_back(step).await else {
            Recovery::StepTakenBack.taken();
            return Ok(None);
        };
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
                let overtaken =
                    self.record.superseded_by.is_some_and(|by| by > self.record.relationship.epoch);
                if self.vm_ran() && !overtaken {
                    self.start_again().await?;
                }
                self.engine.reach("undo shut down.after").await;
                self.write(Mark::Undone(step))
            }
            _ => self.write(Mark::Undone(step)),
        }
    }

    pub(crate) async fn demote(&self) -> Result<()> {
        let directory = replica::demote(self.engine, &self.record, &self.head()?, true).await?;
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

    pub(crate) async fn start(&self) -> Result<String> {
        let point = match self.record.relationship.phase {
            Phase::FailedOver { point, .. } => point,
            _ => self.head()?.id,
        };
        if self.operation.procedure.is_solitary() && !self.runs().await? {
            self.tell_of_failover().await?;
        }
        replica::promote(self.engine, &self.record, point, self.operation.options.start).await
    }

    pub(crate) async fn reverse(&self) -> Result<String> {
        self.engine.turn_round(&self.record, &self.head()?).await?;
        let facts = Report { reverse_bytes: Some(0), ..Report::default() };
        Ok(evidence("the final recovery point is the common base; no disk was copied", &facts))
    }
}

impl Engine {
    /// Makes the other host the replica of this one; `common` is the point from which both go on.
    pub(crate) async fn turn_round(&self, record: &Record, common: &RecoveryPoint) -> Result<()> {
        let relationship = &record.relationship;
        self.ask_to_reverse(record, common, false).await?;
        self.reach("reverse.answered").await;
        self.store().set_phase(relationship.id, &Phase::Replicating).map_err(Refusal::failed)?;
        // Whatever was written since then is on this side alone.
        self.store().set_synchronized(relationship.id, common.instant).map_err(Refusal::failed)?;
        self.event(Number::Reversed, &relationship.vm_name, "replication was reversed");
        Ok(())
    }

    /// `dry_run`: only whether the other host would.
    pub(crate) async fn ask_to_reverse(
        &self,
        record: &Record,
        common: &RecoveryPoint,
        dry_run: bool,
    ) -> Result<()> {
        let relationship = &record.relationship;
        let request = Request::Reverse {
            relationship: relationship.id.0,
            epoch: relationship.epoch.number(),
            head: PointForm::from(common),
            settings: SettingsForm::from(&relationship.settings),
            dry_run,
        };
        match self.ask(relationship.peer, &request).await {
            Err(error) if error.code == Code::NotFound => Err(ended::refusal(self, record)),
            answer => answer.map(drop),
        }
    }

    /// The replica's part of a cancelled operation: the promise, in one transaction.
    pub(crate) fn promise(&self, id: OperationId) -> Result<AbandonVerdict> {
        let cancel = self.entry(Mark::Cancel("the primary server took it back".into()));
        self.store().abandon(id, &cancel).map_err(Refusal::failed)
    }
}

//! Before the first step of a planned failover: prerequisites by name, the forecast, and the journal's first lines.

use std::time::Duration;

use choreography::authority::Denied;
use choreography::next::{CannotCancel, may_cancel, may_leave_out, resting_state};
use choreography::{
    FORCED, Mark, Operation, Options, Outcome, Procedure, Progress, RestingState, Side, Step, fold,
};
use domain::{Check, CheckName, OperationId, Phase, Reason, vm_argument};
use hypervisor::{ShutoffReason, VmState};
use store::{AbandonVerdict, Record, StoreError};
use uuid::Uuid;

use crate::events::Number;
use crate::{Code, Engine, Refusal, Result, clock, survey};

/// What shutting down and starting cost beside the transfer; only for the forecast.
const FIXED_DOWNTIME_MS: u64 = 3_000;

/// How the evidence of the checks ends when the VM ran: undone, it runs again.
pub(crate) const VM_RAN: &str = "the VM runs";

/// Cycles that carry less tell what a cycle costs, and nothing of the link.
const MEASURABLE_BYTES: u64 = 4 << 20;
/// What a link is taken to carry of which nothing is known.
const ASSUMED_BYTES_PER_MS: u64 = 10 << 10;

/// How long a delta of `expected` bytes takes, by what cycles carried on average and how long they took.
fn transfer_ms((bytes, latency): (u64, Duration), expected: u64) -> u64 {
    let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    match bytes {
        MEASURABLE_BYTES.. => latency_ms.max(expected.saturating_mul(latency_ms) / bytes),
        _ => latency_ms.saturating_add(expected / ASSUMED_BYTES_PER_MS),
    }
}

/// What would happen, before the question.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every prerequisite.
    pub checks: Vec<Check>,
    /// Bytes of the last delta, as far as known.
    pub expected_bytes: Option<u64>,
    /// Time without the VM, as far as known; the guest's own shut-down and boot not counted.
    pub expected_downtime_ms: Option<u64>,
}

impl Engine {
    /// Every prerequisite of a planned failover, and what it would cost. On the primary.
    pub async fn plan_failover(&self, record: &Record) -> Result<Plan> {
        let relationship = &record.relationship;
        let mut checks = Vec::new();
        let facts = self.vm(record).await?;
        let facts = facts
            .ok_or_else(|| Refusal::new(Code::NotFound, "the VM is not defined here", "virsh list --all"))?;
        checks.extend(survey::reach(self, relationship.peer).await);
        let reached = checks.iter().all(|check| check.holds() || check.name == CheckName::ClocksAgree);
        let open = self.store().open_operation(relationship.id).map_err(Refusal::failed)?;
        checks.push(self.healthy(record, open.is_some())?);
        checks.push(Check::when(CheckName::NoOtherOperation, open.is_none(), || {
            let id = open.as_ref().map(|(operation, _)| operation.id.to_string()).unwrap_or_default();
            (format!("operation {id} is under way"), format!("virt-replica operation show {id}"))
        }));
        checks.push(power_state(facts.state, &relationship.vm_name));
        checks.extend(survey::own_vm(&facts, &relationship.settings));
        checks.push(self.guard_check().await);
        let statistics = self.statistics(record)?;
        let expected_bytes = self.pending_bytes(record).await.or(statistics.average_bytes);
        if reached {
            let id = Some(relationship.id.0);
            let mut requirements = survey::requirements(self, &facts, &relationship.settings, id).await?;
            // The replica is there: room is needed only for what it does not have yet.
            requirements.disks.iter_mut().for_each(|disk| disk.allocated_bytes = None);
            if let Some(disk) = requirements.disks.iter_mut().find(|disk| disk.replicated) {
                disk.allocated_bytes = expected_bytes;
            }
            checks.extend(survey::there(self, relationship.peer, requirements).await?);
        }
        let checks = in_order(checks);
        let speed = statistics.average_bytes.zip(statistics.average_latency);
        let transfer = speed.zip(expected_bytes).map(|(seen, expected)| transfer_ms(seen, expected));
        Ok(Plan { checks, expected_bytes, expected_downtime_ms: transfer.map(|ms| ms + FIXED_DOWNTIME_MS) })
    }

    /// Whether replication works; an operation that is open is another check's business.
    fn healthy(&self, record: &Record, operation_open: bool) -> Result<Check> {
        let relationship = &record.relationship;
        let report = self.health(record)?;
        let reasons: Vec<_> =
            report.reasons.iter().filter(|reason| **reason != Reason::OperationUnfinished).collect();
        let normal = reasons.is_empty() && (relationship.phase == Phase::Replicating || operation_open);
        Ok(Check::when(CheckName::HealthNormal, normal, || {
            let words: Vec<String> = reasons.iter().map(|reason| reason.words()).collect();
            let found = match words.is_empty() {
                true => format!("the state is \"{}\"", relationship.phase.words()),
                false => words.join("; "),
            };
            let cure = reasons.iter().find_map(|reason| reason.cure(&relationship.vm_name));
            let vm = vm_argument(&relationship.vm_name);
            (
                found,
                cure.unwrap_or_else(|| {
                    format!("cure that, then wait for a good cycle: virt-replica wait {vm}")
                }),
            )
        }))
    }

    /// Refuses a change of a relationship while an operation of it is open.
    pub fn must_be_idle(&self, record: &Record) -> Result<()> {
        match self.store().open_operation(record.relationship.id).map_err(Refusal::failed)? {
            None => Ok(()),
            Some((open, _)) => {
                let cure = format!("wait for its end: virt-replica operation show {}", open.id);
                Err(Refusal::new(Code::Busy, format!("operation {} is under way", open.id), cure))
            }
        }
    }

    /// Begins a planned failover on the primary. The same call while it is under way answers with it.
    pub async fn begin_failover(
        &self,
        record: &Record,
        options: Options,
        requested_by: &str,
    ) -> Result<OperationId> {
        let relationship = &record.relationship;
        if let Some((open, _)) = self.store().open_operation(relationship.id).map_err(Refusal::failed)? {
            return Ok(open.id);
        }
        let plan = self.plan_failover(record).await?;
        if let Some(check) = plan.checks.iter().find(|check| !check.holds()) {
            return Err(refused(check));
        }
        let operation = Operation {
            id: OperationId(Uuid::now_v7()),
            procedure: Procedure::PlannedFailover,
            relationship: relationship.id,
            old_primary: self.host(),
            side: Side::OldPrimary,
            proposed_epoch: relationship.epoch.next(),
            options,
            requested_by: requested_by.to_owned(),
            begun: clock::now(),
        };
        let vm = relationship.vm;
        let state = self.hypervisor(move |it| it.vm_state(vm)).await?;
        let power = if state.is_some_and(VmState::is_active) { VM_RAN } else { "the VM is off" };
        let words = format!("{} prerequisites hold; {power}", plan.checks.len());
        let entries = [self.entry(Mark::Intent(Step::Check)), self.entry(Mark::Done(Step::Check, words))];
        self.store().begin_operation(&operation, &entries).map_err(|error| match error {
            StoreError::Denied(Denied::Busy(_)) => Refusal::new(Code::Busy, error.to_string(), ""),
            other => Refusal::failed(other),
        })?;
        self.event(
            Number::FailoverStarted,
            &relationship.vm_name,
            format!("planned failover {}", operation.id),
        );
        self.wake(relationship.id);
        Ok(operation.id)
    }

    /// A person turns an operation round. `force`: while it is in doubt, the person vouches that the other host did not take
    /// over; if it did, both sides run the VM.
    pub fn cancel_operation(&self, id: OperationId, who: &str, force: bool) -> Result<()> {
        let found = self.store().operation(id).map_err(Refusal::failed)?;
        let (operation, entries) = found.ok_or_else(|| no_operation(id))?;
        let progress = fold(&entries);
        match may_cancel(operation.procedure, &progress) {
            Err(CannotCancel::HandedOver) if force => return self.finish_alone(&operation, &progress, who),
            Err(error @ CannotCancel::TookEffect) => {
                return self.leave_out(&operation, &progress, who, force, error);
            }
            verdict => verdict.map_err(|error| Refusal::new(Code::Refused, error.to_string(), ""))?,
        }
        let in_doubt = resting_state(&operation, &progress) == RestingState::InDoubt;
        if operation.procedure.is_solitary() {
            let cancel = self.entry(Mark::Cancel(format!("cancelled by {who}")));
            self.store().append_entries(id, &[cancel]).map_err(Refusal::failed)?;
            self.wake(operation.relationship);
            return Ok(());
        }
        match operation.side {
            Side::OldPrimary => {
                let reason = if force && in_doubt {
                    let name = self.record(operation.relationship)?.relationship.vm_name;
                    let text = format!("{who} decided that the other host did not take over ({id})");
                    self.event(Number::Forced, &name, text);
                    format!("{FORCED} by {who}")
                } else {
                    format!("cancelled by {who}")
                };
                let cancel = self.entry(Mark::Cancel(reason));
                self.store().append_entries(id, &[cancel]).map_err(Refusal::failed)?;
            }
            // The promise to refuse a late hand over is all there is to give; the primary learns of it when it asks.
            Side::NewPrimary => {
                if self.promise(id)? == AbandonVerdict::AlreadyHandedOver {
                    let handed_over = CannotCancel::HandedOver.to_string();
                    return Err(Refusal::new(Code::Refused, handed_over, ""));
                }
            }
        }
        self.wake(operation.relationship);
        Ok(())
    }
}

impl Engine {
    /// Behind the point of no return of one host alone: what is not needed is left out, if a person says so.
    fn leave_out(
        &self,
        operation: &Operation,
        progress: &Progress,
        who: &str,
        force: bool,
        otherwise: CannotCancel,
    ) -> Result<()> {
        let id = operation.id;
        let Some(step) = may_leave_out(operation.procedure, progress) else {
            return Err(Refusal::new(Code::Refused, otherwise.to_string(), ""));
        };
        if !force {
            let cure =
                format!("leave the step \"{}\" out: virt-replica operation cancel --force {id}", step.name());
            return Err(Refusal::new(Code::Refused, otherwise.to_string(), cure));
        }
        let skipped = self.entry(Mark::Skipped(step, format!("left out by {who}")));
        self.store().append_entries(id, &[skipped]).map_err(Refusal::failed)?;
        self.wake(operation.relationship);
        Ok(())
    }

    /// Behind the hand over, when the other host is lost: what needs it is left out, and this host's part ends.
    fn finish_alone(&self, operation: &Operation, progress: &Progress, who: &str) -> Result<()> {
        let reason = format!("left out by {who}: the other host is lost");
        let own = match operation.side {
            Side::OldPrimary => Step::Demote,
            Side::NewPrimary => Step::Start,
        };
        if !progress.is_settled(own) {
            let found = format!("the step \"{}\" of this host is not done yet", own.name());
            let cure = format!("virt-replica operation resume {}", operation.id);
            return Err(Refusal::new(Code::Refused, found, cure));
        }
        let name = self.record(operation.relationship)?.relationship.vm_name;
        self.event(
            Number::Forced,
            &name,
            format!("operation {} was finished on this host alone by {who}", operation.id),
        );
        match operation.side {
            Side::NewPrimary => {
                let skipped = self.entry(Mark::Skipped(Step::Reverse, reason));
                self.store().append_entries(operation.id, &[skipped]).map_err(Refusal::failed)?;
            }
            Side::OldPrimary => {
                let ended = self.entry(Mark::Ended(Outcome::Completed));
                self.store().end_operation(operation.id, &ended).map_err(Refusal::failed)?;
            }
        }
        self.wake(operation.relationship);
        Ok(())
    }
}

/// No such operation here.
pub(crate) fn no_operation(id: OperationId) -> Refusal {
    Refusal::new(Code::NotFound, format!("no operation {id} here"), "virt-replica operation list")
}

/// A check that does not hold, as a refusal.
pub(crate) fn refused(check: &Check) -> Refusal {
    match &check.verdict {
        domain::Verdict::Fail { found, cure } => {
            Refusal::new(Code::Refused, format!("{}: no. {found}", check.name.words()), cure.clone())
        }
        domain::Verdict::Pass => Refusal::failed("a check that holds refuses nothing"),
    }
}

/// In the order in which they are shown; what both hosts found alike is shown once.
pub(crate) fn in_order(mut checks: Vec<Check>) -> Vec<Check> {
    checks.sort_by_key(|check| check.name);
    checks.dedup();
    let failed: Vec<CheckName> =
        checks.iter().filter(|check| !check.holds()).map(|check| check.name).collect();
    checks.retain(|check| !check.holds() || !failed.contains(&check.name));
    checks
}

fn power_state(state: VmState, vm_name: &str) -> Check {
    let clean = match state {
        VmState::Running | VmState::ShutOff(ShutoffReason::Shutdown) => true,
        VmState::Paused | VmState::ShutOff(_) => false,
    };
    Check::when(CheckName::VmShutDownNotTurnedOff, clean, || unclean(state, vm_name))
}

/// Why this state is none to hand over, and what to type.
pub(crate) fn unclean(state: VmState, vm_name: &str) -> (String, String) {
    let vm = vm_argument(vm_name);
    let how = match state {
        VmState::Running | VmState::Paused => {
            return (
                "the VM is paused: it cannot shut down".to_owned(),
                format!("virsh resume {vm}; then try again: planned failover shuts it down by itself"),
            );
        }
        VmState::ShutOff(ShutoffReason::Destroyed) => "turned off by virsh destroy or a power cut",
        VmState::ShutOff(ShutoffReason::Crashed) => "it crashed",
        VmState::ShutOff(ShutoffReason::Saved) => "its memory is saved in a file of this host",
        VmState::ShutOff(ShutoffReason::Failed) => "libvirt lost it",
        VmState::ShutOff(ShutoffReason::Migrated) => "it was migrated away",
        VmState::ShutOff(ShutoffReason::Shutdown | ShutoffReason::Unknown) => {
            "libvirt does not know how it ended"
        }
    };
    let found =
        format!("the VM is off, and was not shut down ({how}): what it had not yet written may be lost");
    (
        found,
        format!(
            "virsh start {vm}; see that it is well, then try again: planned failover shuts it down by itself"
        ),
    )
}

#[cfg(test)]
mod tests {
    use domain::Verdict;

    use super::*;

    #[test]
    fn only_a_running_vm_or_one_that_shut_down_is_handed_over() {
        use ShutoffReason::{Crashed, Destroyed, Failed, Migrated, Saved, Shutdown, Unknown};
        for good in [VmState::Running, VmState::ShutOff(Shutdown)] {
            assert!(power_state(good, "vm").holds(), "{good:?}");
        }
        let off = [Destroyed, Crashed, Saved, Failed, Migrated, Unknown].map(VmState::ShutOff);
        for bad in off.into_iter().chain([VmState::Paused]) {
            let Verdict::Fail { found, cure } = power_state(bad, "-my VM").verdict else {
                panic!("{bad:?} passed")
            };
            let command =
                if bad == VmState::Paused { "virsh resume -- '-my VM'" } else { "virsh start -- '-my VM'" };
            assert!(cure.contains(command), "{cure}");
            assert!(!found.contains("ShutOff"), "{found}");
        }
    }

    #[test]
    fn the_forecast_follows_the_link_where_it_was_seen_and_not_the_cost_of_an_empty_cycle() {
        let second = Duration::from_secs(1);
        assert_eq!(transfer_ms((8 << 20, second), 16 << 20), 2_000);
        assert_eq!(transfer_ms((8 << 20, second), 1), 1_000, "no faster than a cycle");
        for nearly_nothing in [0, 64, 1 << 20] {
            assert_eq!(transfer_ms((nearly_nothing, second), 256 << 10), 1_025, "{nearly_nothing}");
        }
    }

    #[test]
    fn a_check_that_failed_on_one_host_is_not_also_shown_as_passed() {
        let (good, bad) =
            (Check::pass(CheckName::HookInPlace), Check::fail(CheckName::HookInPlace, "a", "b"));
        let reach = Check::pass(CheckName::ReplicaReachable);
        assert_eq!(in_order(vec![good.clone(), good.clone(), reach.clone()]), [reach.clone(), good.clone()]);
        assert_eq!(in_order(vec![good, bad.clone(), reach.clone()]), [reach, bad]);
    }
}

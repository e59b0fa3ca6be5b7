//! Failover that nobody planned: what is looked at and told before, on the surviving host alone and without a network if need
//! be; then how it is taken back or made final. The steps themselves are in [`steps`], what happens by itself in [`timer`].
//!
//! ```text
//!   Receiving ── failover ──▶ FailedOver ── complete-failover ──▶ Unprotected ── reverse ──▶ Replicating
//!       ▲                          │  └───────────────────────── reverse ─────────────────────────▲
//!       └───── cancel-failover ────┘
//! ```
//! Silence of the other host is no evidence: it is shown as unknown, and a person decides.

mod steps;
pub(crate) mod timer;

use std::time::Duration;

use choreography::authority::Denied;
use choreography::{Entry, Mark, Operation, Options, OtherHost, Procedure, Side, Step, fold};
use domain::{Check, CheckName, OperationId, Phase, RecoveryPoint, Role, shell_word, vm_argument};
use store::{Pending, Record, StoreError};
use uuid::Uuid;

use crate::compare::doubt;
use crate::events::Number;
use crate::intact::{self, Start};
use crate::plan::refused;
use crate::{Code, Engine, Plan, Refusal, Result, clock, receive, replica, survey};

/// What a failover would do, and what would be lost by it.
#[derive(Clone, Debug)]
pub struct FailoverPlan {
    /// Every prerequisite.
    pub plan: Plan,
    /// The recovery point that the VM would start from.
    pub point: RecoveryPoint,
    /// Newer points, which are kept until the failover is complete.
    pub newer: usize,
    /// Everything that the VM wrote in this time before now is lost; none: not known, for the clock of the primary was ahead of this one.
    pub lost: Option<Duration>,
    /// What waited on the primary when it was heard last; none: not known.
    pub pending: Option<Pending>,
    /// What the other host says.
    pub other: OtherHost,
    /// What is held against the recovery point, in words; none: nothing is known.
    pub doubted: Option<String>,
    /// What the VM needs and this host does not have: its start will fail, or its network be missing. In a disaster that is told, and a
    /// person decides.
    pub unfit: Vec<Check>,
}

impl Engine {
    /// Every prerequisite of a failover as a person chose it: from a point (none: the newest), vouching for what the other host says.
    pub async fn plan_failover_alone(&self, record: &Record, options: &Options) -> Result<FailoverPlan> {
        let (point, force) = (options.point, options.force);
        let relationship = &record.relationship;
        let vm = vm_argument(&relationship.vm_name);
        if relationship.role() == Role::Primary {
            let found = format!("VM {:?} belongs to this host already", relationship.vm_name);
            let cure = match relationship.phase {
                Phase::FailedOver { .. } => format!(
                    "to start it from another point: virt-replica cancel-failover {vm}, then virt-replica failover --point POINT {vm}"
                ),
                _ => format!("virsh start {vm}; failover is for the replica server: virt-replica show {vm}"),
            };
            return Err(Refusal::new(Code::Refused, found, cure));
        }
        self.expect_covered(record)?;
        let point = replica::point(record, point)?;
        intact::expect_trusted(self, record, point.id, Start::Failover).await?;
        let directory = replica::directory(record)?;
        let newer = steps::newer(&directory, &point);
        let doubted = self.doubted(record, &point)?;
        let undoubted = self.newest_undoubted(record, &directory)?;
        let facts = intact::definition(self, &directory, point.id).await?;
        let open = self.store().open_operation(relationship.id).map_err(Refusal::failed)?;
        let (settings, there) = (relationship.settings.clone(), facts.clone());
        let looked = move |it: &dyn hypervisor::Hypervisor| {
            let host = it.host_facts()?;
            let unfit = survey::unfit(it, &host, &there, &settings);
            Ok((host, unfit))
        };
        let (host, unfit) = self.hypervisor(looked).await?;
        if options.roll_back_unless_boots.is_some() && !facts.has_agent {
            let found = "the VM has no guest agent channel, and nothing else tells whether its guest boots";
            let cure = "leave --roll-back-unless-boots out; --roll-back-after takes it back unless you say otherwise in time";
            return Err(Refusal::new(Code::Refused, found, cure));
        }
        let other = self.ask_whether_it_runs(record).await;
        let checks = vec![
            Check::when(CheckName::NoOtherOperation, open.is_none(), || {
                let id = open.as_ref().map(|(operation, _)| operation.id.to_string()).unwrap_or_default();
                let found = format!("operation {id} is under way");
                (found, format!("wait for it, or: virt-replica operation cancel --force {id}"))
            }),
            self.guard_check().await,
            survey::memory(&host, &facts),
            Check::when(CheckName::RecoveryPointTrusted, force || doubted.is_none(), || {
                doubt::in_the_way(record, doubted.as_deref().unwrap_or_default(), undoubted.as_ref())
            }),
            Check::when(CheckName::NotRunningThere, other.lets_start(force), || {
                in_the_way(&other, &self.peer_name(record), &vm)
            }),
        ];
        let plan =
            Plan { checks: crate::plan::in_order(checks), expected_bytes: None, expected_downtime_ms: None };
        let now = clock::now();
        let lost = (point.instant <= now).then(|| now.since(point.instant));
        let pending = self.pending_since(record, point.instant)?;
        Ok(FailoverPlan { plan, point, newer, lost, pending, other, doubted, unfit })
    }

    /// An old primary whose own last content no recovery point covers yet has nothing to fail over to.
    pub(crate) fn expect_covered(&self, record: &Record) -> Result<()> {
        let relationship = &record.relationship;
        let divergence = self.store().divergence(relationship.id).map_err(Refusal::failed)?;
        if divergence.is_none_or(|divergence| divergence.covered_by.is_some()) {
            return Ok(());
        }
        let (peer, vm) = (self.peer_name(record), vm_argument(&relationship.vm_name));
        let found = format!(
            "this host was the old primary, and no recovery point of {peer} has arrived since: what is here is its own last content"
        );
        let cure = format!(
            "wait for the first one: virt-replica wait {vm}; if {peer} is lost for good and what is here is to live on: virt-replica \
             remove --this-host-only {vm}, then as manifest.json in the replica's directory says"
        );
        Err(Refusal::new(Code::Refused, found, cure))
    }

    /// Begins a failover that was just planned; the VM starts here. None: what it was planned upon has changed meanwhile. A newer
    /// recovery point has arrived and nobody asked for the older one, or the VM has moved; nothing was begun, and it is to be planned again.
    pub async fn begin_failover_alone(
        &self,
        record: &Record,
        plan: &FailoverPlan,
        options: Options,
        requested_by: &str,
    ) -> Result<Option<OperationId>> {
        if let Some(check) = plan.plan.checks.iter().find(|check| !check.holds()) {
            return Err(refused(check));
        }
        // Whose point it is to be may be merged away, or be no more the newest, until the operation is known: it keeps deltas and
        // merges away by itself.
        let slot = self.slot(record.relationship.id);
        let _alone = receive::alone(&slot).await?;
        let planned = (record.relationship.epoch, record.relationship.role());
        let record = &self.record(record.relationship.id)?;
        if (record.relationship.epoch, record.relationship.role()) != planned
            || replica::point(record, options.point)?.id != plan.point.id
        {
            return Ok(None);
        }
        if options.force && !plan.other.lets_start(false) {
            let (peer, said) = (self.peer_name(record), plan.other.words());
            let text = format!("{requested_by} failed it over although {peer} answers: {said}");
            self.event(Number::Forced, &record.relationship.vm_name, text);
        }
        if let Some(doubted) = plan.doubted.as_ref().filter(|_| options.force) {
            let text =
                format!("{requested_by} failed it over from a recovery point that is doubted: {doubted}");
            self.event(Number::Forced, &record.relationship.vm_name, text);
        }
        let words = format!(
            "recovery point {}, {}; the other host: {}",
            plan.point.id,
            plan.lost.map_or_else(
                || "by a clock that is ahead of this host's".to_owned(),
                |lost| format!("{} before now", domain::words::duration(lost))
            ),
            plan.other.words(),
        );
        let options = Options { point: Some(plan.point.id), ..options };
        self.begin_alone(record, Procedure::Failover, options, words, requested_by).map(Some)
    }

    /// Why a failover cannot be taken back now; none: it can. One that hangs behind its point of no return can.
    pub fn cancel_obstacle(&self, record: &Record) -> Result<Option<Refusal>> {
        let open = self.store().open_operation(record.relationship.id).map_err(Refusal::failed)?;
        let hangs = |(open, entries): &(Operation, Vec<Entry>)| {
            open.procedure == Procedure::Failover && fold(entries).handed_over()
        };
        if !open.as_ref().is_some_and(hangs) {
            self.must_be_idle(record)?;
        }
        Ok(not_failed_over(record, "taken back"))
    }

    /// Begins to take a failover back. `turn_off`: the VM is turned off when it does not shut down in time.
    pub fn begin_cancel(&self, record: &Record, options: Options, requested_by: &str) -> Result<OperationId> {
        if let Some(refusal) = self.cancel_obstacle(record)? {
            return Err(refusal);
        }
        self.begin_alone(record, Procedure::CancelFailover, options, "it is failed over".into(), requested_by)
    }

    /// Why a failover cannot be made final now; none: it can.
    pub async fn complete_obstacle(&self, record: &Record) -> Result<Option<Refusal>> {
        if let Some(refusal) = not_failed_over(record, "completed") {
            return Ok(Some(refusal));
        }
        let vm = vm_argument(&record.relationship.vm_name);
        let (found, first) = match self.vm_state(record).await? {
            Some(state) if state.is_active() => return Ok(None),
            Some(_) => ("the VM has not started", String::new()),
            None => ("the VM is not defined on this host any more", format!("{}; ", define_again(record))),
        };
        Ok(Some(Refusal::new(
            Code::Refused,
            format!("{found}: the other recovery points may still be needed"),
            format!(
                "{first}virsh start {vm}, see that it is well, then again; or virt-replica cancel-failover {vm}"
            ),
        )))
    }

    /// Begins to make a failover final.
    pub async fn begin_complete(&self, record: &Record, requested_by: &str) -> Result<OperationId> {
        if let Some(refusal) = self.complete_obstacle(record).await? {
            return Err(refusal);
        }
        let procedure = Procedure::CompleteFailover;
        self.begin_alone(record, procedure, Options::default(), "the VM runs".into(), requested_by)
    }

    fn begin_alone(
        &self,
        record: &Record,
        procedure: Procedure,
        options: Options,
        checked: String,
        requested_by: &str,
    ) -> Result<OperationId> {
        let relationship = &record.relationship;
        let operation = Operation {
            id: OperationId(Uuid::now_v7()),
            procedure,
            relationship: relationship.id,
            old_primary: relationship.peer,
            side: Side::NewPrimary,
            proposed_epoch: relationship.epoch.next(),
            options,
            requested_by: requested_by.to_owned(),
            begun: clock::now(),
        };
        let entries = [self.entry(Mark::Intent(Step::Check)), self.entry(Mark::Done(Step::Check, checked))];
        self.store().begin_operation(&operation, &entries).map_err(|error| match error {
            StoreError::Denied(Denied::Busy(_)) => {
                Refusal::new(Code::Busy, error.to_string(), "virt-replica operation list")
            }
            StoreError::Denied(Denied::Tested) => Refusal::new(
                Code::Busy,
                error.to_string(),
                format!("virt-replica stop-test-failover {}", vm_argument(&relationship.vm_name)),
            ),
            other => Refusal::failed(other),
        })?;
        let text = format!("{} {}", procedure.name().replace('-', " "), operation.id);
        self.event(Number::FailoverBegun, &relationship.vm_name, text);
        self.wake(relationship.id);
        Ok(operation.id)
    }
}

/// The command that defines a VM again that was undefined by hand after its failover: how a replica is shown names the overlays that it
/// writes to.
pub(crate) fn define_again(record: &Record) -> String {
    let definition = replica::directory(record).map(|directory| directory.definition_path());
    let path = definition.map_or_else(|_| "FILE".to_owned(), |path| shell_word(&path.to_string_lossy()));
    format!("virsh define {path}")
}

/// Why what the other host says forbids the start here, and the way out.
fn in_the_way(other: &OtherHost, peer: &str, vm: &str) -> (String, String) {
    let found = match other {
        OtherHost::Unsure(why) => {
            format!("{peer} answers, and does not tell whether the VM runs there: {why}")
        }
        OtherHost::Forgot => format!(
            "{peer} answers, and knows the relationship no more: the VM may run there, and nothing keeps it from being started"
        ),
        _ => format!("{peer} answers, and the VM runs there: two running copies cannot be united again"),
    };
    let cure = match other {
        OtherHost::Unsure(_) => format!(
            "on {peer}: virsh domstate {vm}, and once it answers: again; if you know that it is off: virt-replica failover \
             --force {vm}"
        ),
        OtherHost::Forgot => format!(
            "on {peer}: virsh domstate {vm}, and when it is off and stays so: virt-replica failover --force {vm}; when it lives \
             there: virt-replica remove {vm}"
        ),
        _ => format!(
            "hand it over without loss: virt-replica planned-failover {vm}; if you know better: virt-replica failover --force {vm}"
        ),
    };
    (found, cure)
}

fn not_failed_over(record: &Record, verb: &str) -> Option<Refusal> {
    let relationship = &record.relationship;
    if matches!(relationship.phase, Phase::FailedOver { .. }) {
        return None;
    }
    let found = format!("there is no failover to be {verb}: the state is \"{}\"", relationship.phase.words());
    let cure = format!("virt-replica show {}", vm_argument(&relationship.vm_name));
    Some(Refusal::new(Code::Refused, found, cure))
}

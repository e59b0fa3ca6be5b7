//! The verbs of protection: enable, change, pause, resume, reverse, remove.

use std::path::PathBuf;

use choreography::Options;
use domain::{
    Check, CheckName, Epoch, HostId, OperationId, Phase, RecoveryPoint, Relationship, RelationshipId, Role,
    Settings, Timestamp, VmId, vm_argument,
};
use store::{IfStale, Record};
use uuid::Uuid;
use wire::message::form::{CheckForm, OptionsForm, SettingsForm};
use wire::message::{Answer, Request};

use crate::events::Number;
use crate::export::{self, Export};
use crate::hear::{Heard, PATIENCE, overtaken_by};
use crate::plan::{in_order, refused};
use crate::{Code, Engine, Plan, Refusal, Result, chain, clock, owner, receive, replica, stale, survey};

/// Protect a VM.
#[derive(Clone, Debug)]
pub struct EnableRequest {
    /// Which VM.
    pub vm: VmId,
    /// Where the replica will be.
    pub peer: HostId,
    /// What the operator chose.
    pub settings: Settings,
    /// When the first copy begins; none: now.
    pub initial_at: Option<Timestamp>,
    /// Existing copies of disks on the replica server, as (target, file).
    pub seeds: Vec<(String, String)>,
    /// The first copy is written to this directory, and carried by hand.
    pub export: Option<PathBuf>,
}

/// What a person asked of `reverse`; none: as it was.
#[derive(Clone, Debug, Default)]
pub struct ReverseRequest {
    /// The new replica server.
    pub peer: Option<HostId>,
    /// Settings that were named.
    pub settings: Option<Settings>,
}

/// Parameters that must be the same on both sides, each mismatch by name.
pub(crate) fn mismatches(original: &Settings, asked: &Settings) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |name: &str, original: String, asked: String| {
        if original != asked {
            wrong.push(format!("{name} is {original} in the original relationship, {asked} was asked for"));
        }
    };
    compare(
        "frequency",
        format!("{} s", original.frequency.seconds()),
        format!("{} s", asked.frequency.seconds()),
    );
    compare("compression", format!("{:?}", original.compression), format!("{:?}", asked.compression));
    compare("the set of disks", format!("{:?}", original.disks), format!("{:?}", asked.disks));
    wrong
}

/// Takes a replica out of libvirt. Of one that was primary here before, libvirt keeps the state of the TPM in a folder of its own;
/// where the VM was at home first, that is the user's.
async fn undefine_with_its_files(engine: &Engine, record: &Record) -> Result<()> {
    let (vm, at_home) = (record.relationship.vm, record.home_definition.is_some());
    let undefine = move |it: &dyn hypervisor::Hypervisor| match it.vm_state(vm)? {
        Some(state) if !at_home && !state.is_active() => it.discard(vm),
        _ => it.undefine(vm),
    };
    engine.hypervisor(undefine).await
}

impl Engine {
    /// The prerequisites of enabling, from both hosts.
    pub async fn plan_enable(&self, request: &EnableRequest) -> Result<Plan> {
        let vm = request.vm;
        let facts = self.hypervisor(move |it| it.vm(vm)).await?;
        let facts = facts
            .ok_or_else(|| Refusal::new(Code::NotFound, "no such VM on this host", "virsh list --all"))?;
        if let Ok(record) = self.find(&vm.to_string()) {
            return Err(self.second_relationship(&record));
        }
        if let Some(copy) = self.stale_copy(&vm.to_string())? {
            return Err(stale::refusal(&copy));
        }
        let mut checks = survey::own_vm(&facts, &request.settings);
        let trackable =
            checks.iter().all(|check| check.holds() || check.name != CheckName::DisksCarryBitmaps);
        checks.push(self.guard_check().await);
        let reach = survey::reach(self, request.peer).await;
        let reached = reach.iter().all(|check| check.holds() || check.name == CheckName::ClocksAgree);
        checks.extend(reach);
        let mut expected_bytes = None;
        if reached && trackable {
            let requirements = survey::requirements(self, &facts, &request.settings, None).await?;
            let replicated = requirements.disks.iter().filter(|disk| disk.replicated);
            expected_bytes = Some(replicated.filter_map(|disk| disk.allocated_bytes).sum());
            checks.extend(survey::there(self, request.peer, requirements).await?);
        }
        Ok(Plan { checks: in_order(checks), expected_bytes, expected_downtime_ms: Some(0) })
    }

    /// Whether exactly this protection is there already: repeating the command is no error.
    #[must_use]
    pub fn enabled_already(&self, request: &EnableRequest) -> Option<Record> {
        let record = self.find(&request.vm.to_string()).ok()?;
        let relationship = &record.relationship;
        let same = relationship.role() == Role::Primary
            && relationship.peer == request.peer
            && relationship.settings == request.settings;
        same.then_some(record)
    }

    fn second_relationship(&self, record: &Record) -> Refusal {
        let relationship = &record.relationship;
        let (name, peer) = (&relationship.vm_name, self.name_of(relationship.peer));
        let vm = vm_argument(name);
        match relationship.role() {
            Role::Primary => Refusal::new(
                Code::Refused,
                format!(
                    "VM {name:?} is replicated to {peer} already, and a VM has one replica server; nothing was changed"
                ),
                format!(
                    "other settings: virt-replica set {vm}; another replica server: virt-replica remove {vm}, then enable it again"
                ),
            ),
            Role::Replica => Refusal::new(
                Code::Refused,
                format!(
                    "this host is the replica server of VM {name:?}, which is replicated from {peer}; nothing was changed"
                ),
                format!(
                    "to turn the direction round: virt-replica planned-failover {vm}; to end it: virt-replica remove {vm}"
                ),
            ),
        }
    }

    /// Protects a VM: both hosts know the relationship before the first byte moves.
    pub async fn enable(&self, request: EnableRequest) -> Result<RelationshipId> {
        let plan = self.plan_enable(&request).await?;
        if let Some(check) = plan.checks.iter().find(|check| !check.holds()) {
            return Err(refused(check));
        }
        if let Some(directory) = &request.export {
            export::check(directory, plan.expected_bytes)?;
        }
        let vm = request.vm;
        let facts = self.hypervisor(move |it| it.vm(vm)).await?;
        let facts = facts
            .ok_or_else(|| Refusal::new(Code::NotFound, "no such VM on this host", "virsh list --all"))?;
        let id = RelationshipId(Uuid::now_v7());
        let requirements = survey::requirements(self, &facts, &request.settings, Some(id.0)).await?;
        let settings = SettingsForm::from(&request.settings);
        let epoch = Epoch::FIRST.number();
        let question =
            Request::Enable { relationship: id.0, epoch, settings, requirements, seeds: request.seeds };
        self.ask(request.peer, &question).await?;
        let phase = match request.initial_at {
            Some(start) => Phase::InitialPending { start },
            None => Phase::InitialReplication,
        };
        let relationship = Relationship {
            id,
            vm,
            vm_name: facts.name.clone(),
            peer: request.peer,
            epoch: Epoch::FIRST,
            phase,
            paused_since: None,
            settings: request.settings,
        };
        if let Err(error) = self.store().insert_relationship(&relationship, None) {
            let remove = Request::Remove { relationship: id.0, epoch, delete_replica: true };
            let _ = self.ask(request.peer, &remove).await;
            return Err(Refusal::failed(error));
        }
        if let Some(directory) = request.export {
            export::keep(self, id, &Export { directory, point: None })?;
        }
        self.event(Number::Enabled, &facts.name, "replication enabled");
        owner::spawn(self, id);
        Ok(id)
    }

    /// Holds cycles on this side.
    pub async fn pause(&self, record: &Record) -> Result<()> {
        self.hold(record, Some(clock::now()), Number::Paused).await
    }

    /// Lets cycles go on, where both hosts agree which of them is primary; gives what the other host said, for people.
    pub async fn resume(&self, record: &Record) -> Result<&'static str> {
        let said = self.expect_agreement(record).await?;
        self.hold(&self.record(record.relationship.id)?, None, Number::Resumed).await?;
        Ok(said)
    }

    async fn hold(&self, record: &Record, since: Option<Timestamp>, number: Number) -> Result<()> {
        let relationship = &record.relationship;
        if relationship.paused_since.is_some() == since.is_some() {
            return Ok(());
        }
        self.must_be_idle(record)?;
        self.store().set_paused(relationship.id, since).map_err(Refusal::failed)?;
        if since.is_some() {
            self.give_up_transfer(relationship.id).await;
        }
        self.event(number, &relationship.vm_name, if since.is_some() { "paused" } else { "resumed" });
        self.wake(relationship.id);
        let (id, epoch) = (relationship.id.0, relationship.epoch.number());
        // The other side learns it with the next cycle at the latest.
        let _ = self
            .ask(relationship.peer, &Request::Paused { relationship: id, epoch, paused: since.is_some() })
            .await;
        Ok(())
    }

    /// Whether settings can be changed now, on this host.
    pub async fn expect_changeable(&self, record: &Record, settings: &Settings) -> Result<()> {
        self.must_be_idle(record)?;
        let relationship = &record.relationship;
        if relationship.role() == Role::Replica {
            let (primary, vm) = (self.name_of(relationship.peer), vm_argument(&relationship.vm_name));
            let found = format!("settings are changed on the primary server, which is {primary}");
            return Err(Refusal::new(Code::Refused, found, format!("on {primary}: virt-replica set {vm}")));
        }
        self.must_answer(relationship.peer).await?;
        // A replica that has no points yet has no tagged ones either.
        let Ok(known) = self.points(record).await else { return Ok(()) };
        let tags = known.points.iter().filter(|point| point.tag.is_some()).count();
        chain::expect_points(relationship, &settings.retention, tags)
    }

    /// Changes settings on both sides; the other side first, so that a host that cannot be reached changes nothing. They are
    /// written whole: those that `record` does not know of would be lost, so then nothing is changed.
    pub async fn change(&self, record: &Record, settings: Settings) -> Result<()> {
        let relationship = &record.relationship;
        let slot = self.slot(relationship.id);
        let _alone = slot.settings.lock().await;
        if self.record(relationship.id)?.relationship.settings != relationship.settings {
            let found = "the settings were changed by somebody else meanwhile; nothing was changed";
            let look =
                format!("look, then decide again: virt-replica show {}", vm_argument(&relationship.vm_name));
            return Err(Refusal::new(Code::Stale, found, look));
        }
        self.expect_changeable(record, &settings).await?;
        let (id, epoch) = (relationship.id.0, relationship.epoch.number());
        let form = SettingsForm::from(&settings);
        self.ask(relationship.peer, &Request::Settings { relationship: id, epoch, settings: form }).await?;
        self.store().set_settings(relationship.id, &settings).map_err(Refusal::failed)?;
        slot.limiter.set(settings.rate_limit_bytes_per_second);
        self.wake(relationship.id);
        Ok(())
    }

    /// Why `reverse` is refused; none: it is not.
    pub fn reverse_obstacle(&self, record: &Record, request: &ReverseRequest) -> Option<Refusal> {
        let relationship = &record.relationship;
        if !matches!(relationship.phase, Phase::Unprotected { .. } | Phase::FailedOver { .. }) {
            let found =
                format!("there is nothing to reverse: the state is \"{}\"", relationship.phase.words());
            return Some(Refusal::new(
                Code::Refused,
                found,
                format!(
                    "`reverse` follows a failover, or a planned failover with --no-reverse, on the new primary server; see: virt-replica show {}",
                    vm_argument(&relationship.vm_name)
                ),
            ));
        }
        if request.peer.is_some_and(|peer| peer != relationship.peer) {
            let found = "the replica server is the old primary in the original relationship, another one was asked for";
            return Some(Refusal::new(Code::Refused, found, "leave --peer out: the original is filled in"));
        }
        let asked = request.settings.as_ref().unwrap_or(&relationship.settings);
        let wrong = mismatches(&relationship.settings, asked).into_iter().next()?;
        Some(Refusal::new(Code::Refused, wrong, "leave the parameter out: the original is filled in"))
    }

    /// Turns an unprotected relationship round by hand.
    pub async fn reverse(&self, record: &Record, request: &ReverseRequest) -> Result<()> {
        self.must_be_idle(record)?;
        self.must_have_no_test(record)?;
        if let Some(refusal) = self.reverse_obstacle(record, request) {
            return Err(refusal);
        }
        self.must_answer(record.relationship.peer).await?;
        // Before anything is final here, the other host says whether it would.
        let common = self.common_point(record)?;
        self.ask_to_reverse(record, &common, true).await?;
        // Also what a run that was cut has left to do: the points that were given up may still have files.
        self.settle_failover(record).await?;
        self.turn_round(&self.record(record.relationship.id)?, &common).await?;
        self.wake(record.relationship.id);
        Ok(())
    }

    /// The recovery point from which both hosts go on: that of the failover, or else the newest.
    fn common_point(&self, record: &Record) -> Result<RecoveryPoint> {
        if let Phase::FailedOver { point, .. } = record.relationship.phase {
            return replica::point(record, Some(point));
        }
        let found = self.store().points(record.relationship.id).map_err(Refusal::failed)?.pop();
        found.ok_or_else(|| Refusal::failed("the recovery point that both hosts have is not known here"))
    }

    /// Whether a relationship can be ended now, on both hosts or on this one alone. The other host is heard first: a copy that it
    /// makes stale is known to be so before anything ends.
    pub async fn expect_removable(
        &self,
        record: &Record,
        this_host_only: bool,
        delete_replica: bool,
    ) -> Result<()> {
        self.must_be_idle(record)?;
        self.must_have_no_test(record)?;
        self.deletes_files(record, delete_replica)?;
        let vm = vm_argument(&record.relationship.vm_name);
        if this_host_only {
            return match self.must_answer(record.relationship.peer).await {
                Ok(()) => Err(Refusal::new(
                    Code::Refused,
                    "the other host answers: end it on both",
                    format!("virt-replica remove {vm}"),
                )),
                Err(_) => Ok(()),
            };
        }
        if let Heard::Silent(silent) = self.hear(record, PATIENCE).await {
            let cure =
                format!("{}; if it is lost for good: virt-replica remove --this-host-only {vm}", silent.cure);
            return Err(Refusal::new(Code::Refused, format!("nothing was changed: {}", silent.detail), cure));
        }
        Ok(())
    }

    /// Ends a relationship on both hosts. A copy that is stale stays off, on whichever host it is: each hears first who the other is.
    pub async fn remove(&self, record: &Record, delete_replica: bool) -> Result<()> {
        self.expect_removable(record, false, delete_replica).await?;
        let relationship = &record.relationship;
        let (id, epoch) = (relationship.id.0, relationship.epoch.number());
        self.ask(relationship.peer, &Request::Remove { relationship: id, epoch, delete_replica }).await?;
        self.forget(record, delete_replica, IfStale::StaysOff).await?;
        self.store().forget_ended(relationship.id).map_err(Refusal::failed)
    }

    /// Ends a relationship on this host alone, because the other is lost. Refused while the other answers. On that host, should
    /// it come back, the relationship stays as it was; it hears from here what this side was last, so that a stale copy stays off.
    pub async fn remove_alone(&self, record: &Record, delete_replica: bool) -> Result<()> {
        self.expect_removable(record, true, delete_replica).await?;
        self.forget(record, delete_replica, IfStale::MayStart).await
    }

    /// Forgets a relationship on this host: on the primary its checkpoints, on the replica its definition and, if asked, files.
    pub(crate) async fn forget(
        &self,
        record: &Record,
        delete_replica: bool,
        if_stale: IfStale,
    ) -> Result<()> {
        self.must_have_no_test(record)?;
        let slot = self.slot(record.relationship.id);
        // Or the owner would put back what is taken away here.
        let _alone = receive::alone(&slot).await?;
        let _files = slot.chain.hold().await;
        // What was true before the wait may not be any more: a failover may have begun from these very files, the other host may have
        // made a replica of this one, and the same command may have ended it.
        let record = match self.record(record.relationship.id) {
            Err(error) if error.code == Code::NotFound => return Ok(()),
            found => &found?,
        };
        let relationship = &record.relationship;
        let vm = relationship.vm;
        self.must_be_idle(record)?;
        // The other host may have ended it already: what may not be deleted stays, and the end is none the less one.
        let deletes = self.deletes_files(record, delete_replica);
        self.give_up_transfer(relationship.id).await;
        match relationship.role() {
            Role::Primary => {
                let points = crate::source::own_checkpoints(self, vm).await.unwrap_or_default();
                for point in points {
                    let name = crate::source::checkpoint_name(point);
                    let _ = self.hypervisor(move |it| it.delete_checkpoint(vm, &name)).await;
                }
                replica::undo_demotion(self, record).await?;
            }
            Role::Replica if delete_replica => {
                undefine_with_its_files(self, record).await?;
                match (deletes, replica::directory(record)) {
                    (Ok(true), Ok(directory)) => replica::delete(directory)?,
                    (Err(why), _) => {
                        let text = format!("the replica's files stay: {}", why.detail);
                        self.event(Number::Removed, &relationship.vm_name, text);
                    }
                    _ => {}
                }
            }
            Role::Replica => {}
        }
        // What was heard since this began counts.
        if if_stale == IfStale::StaysOff && overtaken_by(&self.record(relationship.id)?).is_some() {
            self.keep_off(record).await?;
        }
        self.store().forget_relationship(relationship.id, if_stale).map_err(Refusal::failed)?;
        self.event(Number::Removed, &relationship.vm_name, "the relationship was removed");
        self.wake(relationship.id);
        Ok(())
    }

    /// Ends what a transfer that broke holds open: the guest pays for a backup job.
    pub(crate) async fn give_up_transfer(&self, id: RelationshipId) {
        let transfer = self.slot(id).unfinished().take();
        if let Some(transfer) = transfer {
            transfer.close(self).await;
        }
    }

    /// On the replica: asks the primary for the plan of a planned failover.
    pub async fn relay_plan(&self, record: &Record, options: &Options) -> Result<Plan> {
        self.must_answer(record.relationship.peer).await?;
        let json = self.relay(record, options, "", true).await?;
        let checks: Vec<CheckForm> =
            serde_json::from_value(json["checks"].clone()).map_err(Refusal::failed)?;
        Ok(Plan {
            checks: checks.into_iter().map(Check::try_from).collect::<std::result::Result<_, _>>()?,
            expected_bytes: json["expected_bytes"].as_u64(),
            expected_downtime_ms: json["expected_downtime_ms"].as_u64(),
        })
    }

    /// On the replica: asks the primary to begin a planned failover.
    pub async fn relay_failover(
        &self,
        record: &Record,
        options: &Options,
        requested_by: &str,
    ) -> Result<OperationId> {
        let json = self.relay(record, options, requested_by, false).await?;
        json["operation"]
            .as_str()
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| Refusal::failed("no operation was named"))
    }

    async fn relay(
        &self,
        record: &Record,
        options: &Options,
        requested_by: &str,
        dry_run: bool,
    ) -> Result<serde_json::Value> {
        let relationship = &record.relationship;
        let request = Request::PlanFailover {
            relationship: relationship.id.0,
            epoch: relationship.epoch.number(),
            options: OptionsForm::from(options),
            requested_by: requested_by.to_owned(),
            dry_run,
        };
        match self.ask(relationship.peer, &request).await? {
            Answer::Relayed { json } => serde_json::from_str(&json).map_err(Refusal::failed),
            _ => Err(Refusal::failed("the other host answered something else")),
        }
    }

    /// Checks the way to a peer.
    pub async fn test_peer(&self, peer: HostId) -> Vec<Check> {
        survey::reach(self, peer).await
    }

    /// Checks of this host alone.
    pub async fn check_host(&self) -> Vec<Check> {
        let storage = match replica::storage(self) {
            Ok(_) => Check::pass(CheckName::DiskSpace),
            Err(error) => Check::fail(CheckName::DiskSpace, error.detail, error.cure),
        };
        vec![self.guard_check().await, storage]
    }
}

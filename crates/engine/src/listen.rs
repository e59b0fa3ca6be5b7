//! What this host answers to its peers. Every request about a relationship is checked for peer first, and for the epoch
//! where it changes anything.

use bytes::Bytes;
use choreography::authority::HandOverVerdict;
use choreography::{Entry, Mark, Step};
use domain::{OperationId, Phase, RecoveryPoint, Relationship, RelationshipId, Role, VmId};
use futures_util::future::{BoxFuture, FutureExt};
use hypervisor::VmState;
use store::{AbandonVerdict, IfStale, Record, StoreError};
use transport::{DeltaBody, ErrorClass, PeerHandler, PeerRecord};
use wire::message::form::{
    self, CheckForm, DivergenceForm, EntryForm, OperationForm, PointForm, SettingsForm,
};
use wire::message::{Answer, Beliefs, Request, Requirements, Unfinished};

use crate::compare::serve;
use crate::events::Number;
use crate::plan::refused;
use crate::protect::mismatches;
use crate::{
    Code, Engine, Refusal, Result, chain, clock, comeback, life, owner, receive, replica, seed, standing,
    survey,
};

impl PeerHandler for Engine {
    fn command(
        &self,
        peer: PeerRecord,
        message: Bytes,
    ) -> BoxFuture<'_, std::result::Result<Bytes, transport::Refusal>> {
        async move {
            self.saw(peer.host);
            let request = serde_json::from_slice(&message).map_err(|error| {
                Refusal::new(
                    Code::Refused,
                    format!("the message is not understood ({error})"),
                    "install the same version on both hosts",
                )
            });
            let answer = match request {
                Ok(request) => self.answer(&peer, request).await,
                Err(error) => Err(error),
            };
            let bytes = answer.and_then(|answer| serde_json::to_vec(&answer).map_err(Refusal::failed));
            bytes.map(Bytes::from).map_err(|error| told(&error))
        }
        .boxed()
    }

    fn delta(
        &self,
        peer: PeerRecord,
        body: DeltaBody,
    ) -> BoxFuture<'_, std::result::Result<Bytes, transport::Refusal>> {
        self.saw(peer.host);
        let engine = self.clone();
        async move {
            // A task of its own: it keeps the replica's lock until its work on the disk has ended, also when the
            // connection ends before.
            let received = tokio::spawn(async move { receive::receive(&engine, peer, body).await });
            let received = received.await.unwrap_or_else(|error| Err(Refusal::failed(error)));
            received.map_err(|error| told(&error))
        }
        .boxed()
    }
}

fn told(error: &Refusal) -> transport::Refusal {
    let (code, class) = match error.code {
        Code::Refused | Code::Stale => ("refused", ErrorClass::NeedsOperator),
        Code::NotFound => ("not-found", ErrorClass::Permanent),
        Code::Busy => ("busy", ErrorClass::Transient),
        Code::Unavailable => ("unavailable", ErrorClass::Transient),
        Code::InDoubt => ("in-doubt", ErrorClass::NeedsOperator),
        Code::Failed | Code::TrackingLost => ("failed", ErrorClass::Permanent),
    };
    transport::Refusal::new(code, class, error.to_string())
}

impl Engine {
    async fn answer(&self, peer: &PeerRecord, request: Request) -> Result<Answer> {
        match request {
            Request::Hello {} => Ok(Answer::Hello {
                host: self.host().0,
                name: self.config().host_name.clone(),
                version: self.config().version.clone(),
                clock_ms: clock::now().millis(),
            }),
            Request::Survey { requirements } => {
                expect_few_disks(&requirements)?;
                // Of a relationship that is there, its own peer is told.
                if let Some(id) =
                    requirements.relationship.filter(|id| self.record(RelationshipId(*id)).is_ok())
                {
                    self.theirs(peer, id)?;
                }
                let checks = survey::here(self, requirements).await?;
                Ok(Answer::Survey { checks: checks.iter().map(CheckForm::from).collect() })
            }
            Request::Enable { relationship, epoch: _, settings, requirements, seeds } => {
                self.become_replica(peer, relationship.into(), settings, requirements, &seeds).await
            }
            Request::Beliefs { relationship, epoch, unfinished, is_primary } => {
                let record = match self.theirs(peer, relationship) {
                    Err(unknown) if unknown.code == Code::NotFound => {
                        return self.last_beliefs(peer, RelationshipId(relationship), unknown).await;
                    }
                    found => found?,
                };
                if is_primary {
                    self.heed(&record, (true, epoch))?;
                }
                self.beliefs(&record, unfinished.as_ref()).await
            }
            Request::Settings { relationship, epoch, settings } => {
                let record = self.theirs_now(peer, relationship, epoch)?;
                self.must_be_idle(&record)?;
                if record.relationship.role() == Role::Primary {
                    let found = "settings come from the primary server, which is this host";
                    return Err(Refusal::new(Code::Refused, found, "virt-replica set, here"));
                }
                let settings = settings.from_peer()?;
                let tags = chain::tags(&replica::directory(&record)?);
                chain::expect_points(&record.relationship, &settings.retention, tags)?;
                self.store().set_settings(record.relationship.id, &settings).map_err(Refusal::failed)?;
                Ok(Answer::Done {})
            }
            Request::Paused { relationship, epoch, paused } => {
                let record = self.theirs_now(peer, relationship, epoch)?;
                self.store().set_paused_on_peer(record.relationship.id, paused).map_err(Refusal::failed)?;
                self.wake(record.relationship.id);
                Ok(Answer::Done {})
            }
            Request::PlanFailover { relationship, epoch, options, requested_by, dry_run } => {
                let record = self.theirs_now(peer, relationship, epoch)?;
                let options = choreography::Options::from(options).of_both_hosts();
                self.relayed(&record, options, &requested_by, dry_run).await
            }
            Request::Announce { operation, entries } => self.announced(peer, operation, entries),
            Request::Abandon { operation, relationship } => {
                self.theirs(peer, relationship)?;
                let known = self.store().operation(OperationId(operation)).map_err(Refusal::failed)?;
                if known.is_some_and(|(known, _)| known.relationship.0 != relationship) {
                    return Err(Refusal::failed("the operation is of another relationship"));
                }
                let verdict = self.promise(OperationId(operation))?;
                self.wake(relationship.into());
                Ok(Answer::Abandon { already_handed_over: verdict == AbandonVerdict::AlreadyHandedOver })
            }
            Request::HandOver { operation, entries, head } => {
                self.take_over(peer, operation, entries, head).await
            }
            Request::Reverse { relationship, epoch, head, settings, dry_run } => {
                self.reversed(&self.theirs(peer, relationship)?, epoch, (head, settings), dry_run).await
            }
            Request::News { operation, entries, .. } => self.news(peer, OperationId(operation), entries),
            Request::Remove { relationship, delete_replica, .. } => {
                self.removed(peer, relationship, delete_replica).await
            }
            Request::Points { relationship, epoch } => {
                let facts = self.points_here(&self.theirs_now(peer, relationship, epoch)?).await?;
                Ok(Answer::Relayed { json: serde_json::to_string(&facts).map_err(Refusal::failed)? })
            }
            Request::RemovePoint { relationship, epoch, point, dry_run } => {
                let record = self.theirs_now(peer, relationship, epoch)?;
                self.remove_point_here(&record, domain::PointId(point), dry_run).await?;
                Ok(Answer::Done {})
            }
            Request::LeftToMerge { relationship, epoch } => {
                let (layers, failure) = self.left_to_merge(&self.theirs_now(peer, relationship, epoch)?)?;
                Ok(Answer::LeftToMerge { layers, failure })
            }
            Request::Pending { relationship, epoch, bytes } => {
                self.keep_pending(&self.theirs_now(peer, relationship, epoch)?, bytes)?;
                Ok(Answer::Done {})
            }
            Request::View(asked) => self.shown(peer.host, asked).await,
            Request::Doubt { relationship, epoch, ordinal, what } => {
                self.keep_doubt(&self.theirs_now(peer, relationship, epoch)?, ordinal, &what)?;
                Ok(Answer::Done {})
            }
            Request::Digests { relationship, epoch, point, disk, offset, length } => {
                let record = self.theirs_now(peer, relationship, epoch)?;
                let question = serve::Question { point: point.map(domain::PointId), disk, offset, length };
                serve::digests(self, &record, question).await.map(Answer::Digests)
            }
        }
    }

    /// The record, if it is this peer's.
    fn theirs(&self, peer: &PeerRecord, id: uuid::Uuid) -> Result<Record> {
        let record = self.record(RelationshipId(id))?;
        if record.relationship.peer == peer.host {
            return Ok(record);
        }
        Err(Refusal::new(
            Code::NotFound,
            format!("no relationship {id} with {}", peer.name),
            "virt-replica list",
        ))
    }

    /// The same, when the peer speaks of the epoch in which this host is too.
    fn theirs_now(&self, peer: &PeerRecord, id: uuid::Uuid, epoch: u64) -> Result<Record> {
        let record = self.theirs(peer, id)?;
        let ours = record.relationship.epoch;
        if ours.number() == epoch {
            return Ok(record);
        }
        let found = format!("{} speaks of epoch {epoch}, this host is in epoch {ours}", peer.name);
        Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"))
    }

    async fn become_replica(
        &self,
        peer: &PeerRecord,
        id: RelationshipId,
        settings: SettingsForm,
        requirements: Requirements,
        seeds: &[(String, String)],
    ) -> Result<Answer> {
        if self.record(id).is_ok() {
            return self.is_replica_already(peer, id, &requirements);
        }
        expect_few_disks(&requirements)?;
        replica::expect_nothing_of(self, id)?;
        let requirements = Requirements { relationship: Some(id.0), ..requirements };
        let checks = survey::here(self, requirements.clone()).await?;
        if let Some(check) = checks.iter().find(|check| !check.holds()) {
            return Err(refused(check));
        }
        let seeds = seed::check(self, &requirements, seeds)?;
        let relationship = Relationship {
            id,
            vm: VmId(requirements.vm),
            vm_name: requirements.name.clone(),
            peer: peer.host,
            epoch: domain::Epoch::FIRST,
            phase: Phase::Receiving,
            paused_since: None,
            settings: settings.from_peer()?,
        };
        let mut record = Record::new(relationship);
        let size = |disk: &wire::message::DiskRequirement| {
            Ok((domain::DiskTarget::new(&disk.target).map_err(Refusal::failed)?, disk.virtual_size))
        };
        let sizes = requirements.disks.iter().map(size).collect::<Result<_>>()?;
        self.store().insert_relationship(&record.relationship, None).map_err(|error| {
            Refusal::new(Code::Refused, error.to_string(), "virt-replica list, on the replica server")
        })?;
        let made = replica::create(self, &record, &requirements.domain_xml, sizes, seeds).await;
        match made {
            Ok(directory) => {
                self.store().set_directory(id, &directory).map_err(Refusal::failed)?;
                record.directory = Some(directory);
                owner::spawn(self, id);
                self.event(
                    Number::Enabled,
                    &record.relationship.vm_name,
                    format!("replica of {}", peer.name),
                );
                Ok(Answer::Done {})
            }
            Err(error) => {
                self.store().remove_relationship(id).map_err(Refusal::failed)?;
                Err(error)
            }
        }
    }

    /// The answer to the first request was lost. Nothing of a relationship that is there is made or taken away.
    fn is_replica_already(
        &self,
        peer: &PeerRecord,
        id: RelationshipId,
        requirements: &Requirements,
    ) -> Result<Answer> {
        let record = self.theirs(peer, id.0)?;
        let relationship = &record.relationship;
        let same = relationship.vm.0 == requirements.vm && relationship.phase == Phase::Receiving;
        match record.directory {
            Some(_) if same => Ok(Answer::Done {}),
            _ => {
                let found = format!(
                    "relationship {id} is there already, in state \"{}\"",
                    relationship.phase.words()
                );
                let cure = "on the replica server: virt-replica remove --this-host-only, then enable again";
                Err(Refusal::new(Code::Refused, found, cure))
            }
        }
    }

    async fn beliefs(&self, record: &Record, unfinished: Option<&Unfinished>) -> Result<Answer> {
        let relationship = &record.relationship;
        let partial = match unfinished {
            Some(unfinished) if relationship.phase == Phase::Receiving => {
                receive::partial(self, record, unfinished).await?
            }
            _ => None,
        };
        let head = self.store().points(relationship.id).map_err(Refusal::failed)?.pop();
        let seeded = head.is_none() && relationship.phase == Phase::Receiving && self.seeded(record)?;
        let divergence = self.store().divergence(relationship.id).map_err(Refusal::failed)?;
        let divergence = divergence.filter(|divergence| divergence.covered_by.is_none());
        // A replica does not run; the look costs a cycle nothing. What a primary keeps of the time when it was one is not looked at:
        // whether the VM runs here must be answered, whatever became of that storage.
        let (vm_runs, lacks) = match relationship.role() {
            Role::Primary => {
                let state = self.vm_state(record).await.ok();
                (state.map(|state| state.is_some_and(VmState::is_active)), Vec::new())
            }
            Role::Replica => (None, life::lacks(record)?),
        };
        Ok(Answer::Beliefs(Box::new(Beliefs {
            epoch: relationship.epoch.number(),
            phase: relationship.phase.words().to_owned(),
            receives: relationship.phase == Phase::Receiving,
            paused: relationship.paused_since.is_some(),
            head: head.as_ref().map(PointForm::from),
            partial,
            is_primary: Some(relationship.role() == Role::Primary),
            vm_runs,
            divergence: divergence.as_ref().map(DivergenceForm::from),
            seeded,
            lacks,
            ended: false,
        })))
    }

    /// Whether the replica begins from an existing copy; refused while that is being taken.
    fn seeded(&self, record: &Record) -> Result<bool> {
        let Ok(directory) = replica::directory(record) else { return Ok(false) };
        if !seed::is_wanted(&directory) {
            return Ok(seed::is_seeded(&directory));
        }
        let failed = self.slot(record.relationship.id).waiting().clone();
        let failed = failed.map_or_else(String::new, |why| format!(", which fails: {why}"));
        let found = format!("the replica server takes the existing copy of the disks{failed}");
        Err(Refusal::new(Code::Busy, found, ""))
    }

    async fn relayed(
        &self,
        record: &Record,
        options: choreography::Options,
        who: &str,
        dry_run: bool,
    ) -> Result<Answer> {
        let json = if dry_run {
            let plan = self.plan_failover(record).await?;
            let checks: Vec<CheckForm> = plan.checks.iter().map(CheckForm::from).collect();
            serde_json::json!({
                "checks": checks,
                "expected_bytes": plan.expected_bytes,
                "expected_downtime_ms": plan.expected_downtime_ms,
            })
        } else {
            let id = self.begin_failover(record, options, who).await?;
            serde_json::json!({ "operation": id.to_string() })
        };
        Ok(Answer::Relayed { json: json.to_string() })
    }

    fn announced(
        &self,
        peer: &PeerRecord,
        operation: OperationForm,
        entries: Vec<EntryForm>,
    ) -> Result<Answer> {
        let record = self.theirs(peer, operation.relationship)?;
        let operation = operation.from_old_primary(peer.host)?;
        if record.relationship.phase != Phase::Receiving
            || record.relationship.epoch.next() != operation.proposed_epoch
        {
            let found = format!(
                "this host is in epoch {} and state \"{}\"",
                record.relationship.epoch,
                record.relationship.phase.words()
            );
            return Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
        }
        self.store().begin_peers_operation(&operation, &facts(peer, entries)?).map_err(
            |error| match error {
                StoreError::OtherOperation(_) => Refusal::new(Code::Refused, error.to_string(), ""),
                other => Refusal::new(Code::Busy, other.to_string(), ""),
            },
        )?;
        Ok(Answer::Done {})
    }

    async fn take_over(
        &self,
        peer: &PeerRecord,
        operation: OperationForm,
        entries: Vec<EntryForm>,
        head: PointForm,
    ) -> Result<Answer> {
        let record = self.theirs(peer, operation.relationship)?;
        let operation = operation.from_old_primary(peer.host)?;
        // A merge or a delta that is under way ends first; a delta of the same epoch cannot come after.
        let slot = self.slot(operation.relationship);
        let alone = slot.replica.lock().await;
        let ours = self.store().points(operation.relationship).map_err(Refusal::failed)?.pop();
        let theirs = RecoveryPoint::try_from(head)?;
        let same = ours.as_ref().is_some_and(|ours| ours.id == theirs.id && ours.lineage == theirs.lineage);
        if !same && record.relationship.role() == Role::Replica {
            let found =
                format!("the newest recovery point here is {:?}, there {}", ours.map(|it| it.id), theirs.id);
            return Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
        }
        if record.relationship.role() == Role::Replica {
            replica::expect_untouched(&record)?;
        }
        self.reach("hand over.before").await;
        let phase = Phase::Unprotected { since: clock::now() };
        let done = self.entry(Mark::Done(Step::HandOver, "this host is primary now".into()));
        let theirs = facts(peer, entries)?;
        let verdict = self.store().hand_over(&operation, &theirs, &phase, &done).map_err(Refusal::failed)?;
        drop(alone);
        self.reach("hand over.after").await;
        match verdict {
            HandOverVerdict::Taken | HandOverVerdict::AlreadyTaken => {
                self.wake(operation.relationship);
                let found = self.store().operation(operation.id).map_err(Refusal::failed)?;
                let entries = found
                    .map(|(_, entries)| entries.iter().map(EntryForm::from).collect())
                    .unwrap_or_default();
                Ok(Answer::HandOver { entries })
            }
            HandOverVerdict::Abandoned => Err(Refusal::new(
                Code::Refused,
                "this host promised to refuse this hand over",
                "start it again: virt-replica planned-failover",
            )),
            HandOverVerdict::Epoch(epoch) => {
                let found =
                    format!("epoch {} was proposed, this host is in epoch {epoch}", operation.proposed_epoch);
                Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"))
            }
        }
    }

    async fn reversed(
        &self,
        record: &Record,
        epoch: u64,
        (head, settings): (PointForm, SettingsForm),
        dry_run: bool,
    ) -> Result<Answer> {
        let relationship = &record.relationship;
        if relationship.phase == Phase::Receiving && relationship.epoch.number() == epoch {
            return Ok(Answer::Done {});
        }
        let theirs = standing::plausible(relationship.epoch, epoch)?;
        if relationship.role() == Role::Primary && theirs > relationship.epoch {
            // A start that comes after this is refused, so that the look whether the VM is off holds to the end.
            self.heed(record, (true, epoch))?;
            let (common, settings) = (RecoveryPoint::try_from(head)?, settings.from_peer()?);
            comeback::expect_can_step_down(self, record, &common, &settings).await?;
            if !dry_run {
                comeback::step_down(self, record, theirs, &common).await?;
            }
            self.wake(relationship.id);
            return Ok(Answer::Done {});
        }
        if !matches!(relationship.phase, Phase::Stopped { .. }) || relationship.epoch.number() != epoch {
            let found = format!(
                "this host is in epoch {} and state \"{}\"",
                relationship.epoch,
                relationship.phase.words()
            );
            return Err(Refusal::new(Code::Unavailable, found, "it may still be demoting; try again"));
        }
        let wrong = mismatches(&relationship.settings, &settings.from_peer()?);
        if let Some(wrong) = wrong.first() {
            return Err(Refusal::new(
                Code::Refused,
                wrong.clone(),
                "leave the parameter out: the original is filled in",
            ));
        }
        let ours = self.store().points(relationship.id).map_err(Refusal::failed)?.pop();
        let theirs = RecoveryPoint::try_from(head)?;
        if !ours.is_some_and(|ours| ours.id == theirs.id && ours.lineage == theirs.lineage) {
            return Err(Refusal::new(
                Code::InDoubt,
                "the common recovery point is not the newest one here",
                "virt-replica show, on both hosts",
            ));
        }
        if !dry_run {
            self.store().set_phase(relationship.id, &Phase::Receiving).map_err(Refusal::failed)?;
        }
        self.wake(relationship.id);
        Ok(Answer::Done {})
    }

    fn news(&self, peer: &PeerRecord, id: OperationId, entries: Vec<EntryForm>) -> Result<Answer> {
        let Some((operation, _)) = self.store().operation(id).map_err(Refusal::failed)? else {
            return Ok(Answer::News { entries: Vec::new() });
        };
        let record = self.theirs(peer, operation.relationship.0)?;
        self.store().append_peers_entries(id, &facts(peer, entries)?).map_err(Refusal::failed)?;
        self.wake(record.relationship.id);
        let found = self.store().operation(id).map_err(Refusal::failed)?;
        let entries =
            found.map(|(_, entries)| entries.iter().map(EntryForm::from).collect()).unwrap_or_default();
        Ok(Answer::News { entries })
    }

    async fn removed(&self, peer: &PeerRecord, id: uuid::Uuid, delete_replica: bool) -> Result<Answer> {
        match self.theirs(peer, id) {
            Ok(record) => {
                self.must_be_idle(&record)?;
                self.deletes_files(&record, delete_replica)?;
                self.forget(&record, delete_replica, IfStale::StaysOff).await?;
            }
            Err(error) if error.code == Code::NotFound => self.ended_there_too(peer, RelationshipId(id))?,
            Err(error) => return Err(error),
        }
        Ok(Answer::Done {})
    }
}

/// Facts only: what the peer did. Its end is not ours, a hand over is taken and not told, and our lines are our own.
fn facts(peer: &PeerRecord, entries: Vec<EntryForm>) -> Result<Vec<Entry>> {
    let entries: Vec<Entry> =
        entries.into_iter().map(Entry::try_from).collect::<std::result::Result<_, _>>()?;
    let is_fact = |entry: &Entry| {
        entry.host == peer.host && !matches!(entry.mark, Mark::Ended(_) | Mark::Done(Step::HandOver, _))
    };
    Ok(entries.into_iter().filter(is_fact).collect())
}

fn expect_few_disks(requirements: &Requirements) -> Result<()> {
    Ok(form::expect_few_disks(requirements.disks.iter().map(|disk| disk.target.as_str()))?)
}

//! Planned failovers, the reverse after them, and what a person does about an operation.

use std::time::Duration;

use api::dto::{self, Answer};
use api::{Caller, Problem};
use choreography::Options;
use domain::{Frequency, HostId, Role};
use engine::ReverseRequest;

use crate::problems::{checks_hold, failed, invalid, problem, shown};
use crate::service::Daemon;
use crate::views;

impl Daemon {
    pub(crate) async fn begin_handover(
        &self,
        who: Caller,
        vm: String,
        request: dto::PlannedFailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::OperationView>, Problem> {
        let record = self.find(&vm)?;
        let options = Options {
            reverse: request.reverse,
            start: request.start,
            shutdown_timeout: Duration::from_secs(request.shutdown_timeout_seconds),
            ..Options::default()
        };
        let here = record.relationship.role() == Role::Primary;
        if dry_run {
            let plan = if here {
                self.engine.plan_failover(&record).await
            } else {
                self.engine.relay_plan(&record, &options).await
            };
            let from = views::summary(&self.engine, &record).map_err(problem)?;
            let mut lines = vec![format!(
                "{} will be shut down on {} and handed over to {}.",
                from.vm, from.primary_server, from.replica_server
            )];
            lines.push(match (request.start, request.reverse) {
                (true, true) => "It starts there, and replication is reversed at once.".into(),
                (true, false) => "It starts there; it is unprotected until `virt-replica reverse`.".into(),
                (false, true) => "It stays off there; replication is reversed at once.".into(),
                (false, false) => {
                    "It stays off there, and is unprotected until `virt-replica reverse`.".into()
                }
            });
            lines.extend(self.merged_at_home(&record).await);
            return Ok(Answer::Planned(shown(lines, &plan.map_err(problem)?, true)));
        }
        let requested_by = format!("{who} on {}", self.own.name);
        let id = if here {
            let open = self.engine.store().open_operation(record.relationship.id).map_err(failed)?;
            if open.is_none() {
                let plan = self.engine.plan_failover(&record).await.map_err(problem)?;
                checks_hold(&shown(Vec::new(), &plan, true))?;
            }
            self.engine.begin_failover(&record, options, &requested_by).await
        } else {
            self.engine.relay_failover(&record, &options, &requested_by).await
        };
        let id = id.map_err(problem)?.to_string();
        // On the replica's side the announcement follows in a moment.
        for _ in 0..50 {
            if let Ok(view) = self.operation_view(&id) {
                return Ok(Answer::Done(view));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.operation_view(&id).map(Answer::Done)
    }

    pub(crate) async fn turn_round(
        &self,
        vm: String,
        request: dto::ReverseRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::RelationshipSummary>, Problem> {
        let record = self.find_idle(&vm)?;
        let mut settings = record.relationship.settings.clone();
        if let Some(seconds) = request.frequency_seconds {
            settings.frequency = Frequency::from_seconds(seconds).map_err(invalid)?;
        }
        if let Some(compression) = request.compression {
            settings.compression = compression.into();
        }
        let peer: Option<HostId> = match &request.peer {
            Some(named) => Some(self.peer(named)?.host),
            None => None,
        };
        let wanted = ReverseRequest { peer, settings: Some(settings) };
        if let Some(refusal) = self.engine.reverse_obstacle(&record, &wanted) {
            return Err(problem(refusal));
        }
        if dry_run {
            let peer = views::host_name(&self.engine, record.relationship.peer);
            let replica = format!("{peer} becomes the replica server with the original parameters.");
            let lines = match record.relationship.phase {
                domain::Phase::FailedOver { .. } => vec![
                    replica,
                    "The failover is final: newer recovery points than the one that it started from are given up.".into(),
                    format!("What only {peer} has is kept aside there; what either side changed travels, or what a comparison finds."),
                ],
                _ => vec![replica, "No disk is copied, unless the other host wrote to it meanwhile.".into()],
            };
            return Ok(Answer::Planned(dto::Plan::of(lines)));
        }
        self.engine.reverse(&record, &wanted).await.map_err(problem)?;
        Ok(Answer::Done(views::summary(&self.engine, &self.find(&vm)?).map_err(problem)?))
    }

    pub(crate) async fn try_again(
        &self,
        id: String,
        dry_run: bool,
    ) -> Result<Answer<dto::OperationView>, Problem> {
        let view = self.operation_view(&id)?;
        if dry_run {
            return Ok(Answer::Planned(dto::Plan::of(["The next step is tried again now."])));
        }
        if let Ok(relationship) = view.relationship.parse() {
            self.engine.wake(relationship);
        }
        self.operation_view(&id).map(Answer::Done)
    }

    pub(crate) async fn take_back(
        &self,
        who: Caller,
        id: String,
        request: dto::CancelRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::OperationView>, Problem> {
        let view = self.operation_view(&id)?;
        if dry_run {
            let id = view.id.parse().map_err(invalid)?;
            let found = self.engine.store().operation(id).map_err(failed)?;
            let leaves_out = found.is_some_and(|(operation, entries)| {
                choreography::may_leave_out(operation.procedure, &choreography::fold(&entries)).is_some()
            });
            if request.force && leaves_out {
                return Ok(Answer::Planned(dto::Plan::of([
                    "The merge is left out: QEMU is told to end it where it is, and the operation ends.",
                    "The VM runs on, on its chain of files as it is now, and is unprotected until `virt-replica reverse`.",
                ])));
            }
            return Ok(Answer::Planned(match (request.force, view.state) {
                (true, dto::OperationState::InDoubt) => dto::Plan::of([
                    format!("{} is taken not to have taken over, on your word alone.", view.new_primary),
                    format!(
                        "The VM starts on {}. If it runs on {} too, its data diverges.",
                        view.old_primary, view.new_primary
                    ),
                ]),
                (true, dto::OperationState::Finishing) => dto::Plan::of([
                    "What is left of the operation and needs the other host is left out; this host's part ends.",
                    "The VM stays where it was handed over to, and is unprotected.",
                ]),
                _ => dto::Plan::of(["Every step is taken back; the VM is protected as before."]),
            }));
        }
        let parsed = view.id.parse().map_err(invalid)?;
        self.engine.cancel_operation(parsed, &who.to_string(), request.force).map_err(problem)?;
        self.operation_view(&id).map(Answer::Done)
    }
}

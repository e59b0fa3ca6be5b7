//! What the command line asks, done by the engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::dto::{self, Answer, Done};
use api::{Caller, Code, Problem, Reply, Service};
use choreography::Options;
use domain::{Frequency, HostId, Role};
use engine::{Engine, ReverseRequest, StartWord};
use store::EventSeverity;
use transport::{Identity, Introduction, Invite, TrustStore};

use crate::choices::changed;
use crate::problems::{checks_hold, failed, invalid, problem, shown};
use crate::{operations, points, views};

/// The daemon as the command line sees it.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) identity: Arc<Identity>,
    pub(crate) trust: Arc<dyn TrustStore>,
    pub(crate) own: Introduction,
    pub(crate) advertise: Vec<String>,
    pub(crate) listen: SocketAddr,
}

impl Service for Daemon {
    fn host(&self) -> Reply<'_, dto::HostView> {
        Box::pin(async move {
            let facts = self.engine.hypervisor(|it| it.host_facts()).await.ok();
            let words = |facts: String| Some(facts);
            let hypervisor = facts
                .and_then(|it| words(format!("libvirt {}, QEMU {}", it.libvirt_version, it.qemu_version)));
            Ok(dto::HostView { hypervisor, ..self.host_view()? })
        })
    }

    fn host_check(&self) -> Reply<'_, Vec<dto::Check>> {
        Box::pin(async move { Ok(self.engine.check_host().iter().map(Into::into).collect()) })
    }

    fn peers(&self) -> Reply<'_, Vec<dto::Peer>> {
        Box::pin(async move {
            let peers = self.engine.store().peers().map_err(failed)?;
            Ok(peers.iter().map(|peer| self.shown_peer(peer)).collect())
        })
    }

    fn peer_test(&self, peer: String) -> Reply<'_, Vec<dto::Check>> {
        Box::pin(async move {
            let peer = self.peer(&peer)?;
            Ok(self.engine.test_peer(peer.host).await.iter().map(Into::into).collect())
        })
    }

    fn relationships(&self) -> Reply<'_, Vec<dto::RelationshipSummary>> {
        Box::pin(async move {
            let records = self.engine.store().relationships().map_err(failed)?;
            records.iter().map(|record| views::summary(&self.engine, record).map_err(problem)).collect()
        })
    }

    fn relationship(&self, vm: String) -> Reply<'_, dto::RelationshipDetail> {
        Box::pin(async move {
            let record = self.find(&vm)?;
            let pending_bytes = self.engine.pending_bytes(&record).await;
            let sizes = self.engine.disk_sizes(&record).await;
            let chain = match record.relationship.role() {
                Role::Replica => self.engine.points(&record).await.ok().map(|facts| points::chain(&facts)),
                Role::Primary => None,
            };
            let detail = views::detail(&self.engine, &record, &sizes).map_err(problem)?;
            Ok(dto::RelationshipDetail { pending_bytes, chain, ..detail })
        })
    }

    fn may_start(&self, vm: String) -> Reply<'_, dto::StartWord> {
        Box::pin(async move {
            Ok(match self.engine.about_to_start(&self.find(&vm)?).await.map_err(problem)? {
                StartWord::Allowed => dto::StartWord::Allowed,
                StartWord::Refused(reason) => dto::StartWord::Refused { reason },
                StartWord::PeerSilent(reason) => dto::StartWord::PeerSilent { reason },
            })
        })
    }

    fn operations(&self) -> Reply<'_, Vec<dto::OperationView>> {
        const SHOWN: u32 = 100;
        Box::pin(async move {
            let operations = self.engine.store().operations(SHOWN).map_err(failed)?;
            Ok(operations
                .iter()
                .map(|(operation, entries)| operations::view(&self.engine, operation, entries))
                .collect())
        })
    }

    fn operation(&self, id: String) -> Reply<'_, dto::OperationView> {
        Box::pin(async move { self.operation_view(&id) })
    }

    fn events(&self, query: dto::EventQuery) -> Reply<'_, Vec<dto::Event>> {
        Box::pin(async move {
            let vm = query
                .vm
                .as_ref()
                .map(|vm| self.find(vm).map_or_else(|_| vm.clone(), |record| record.relationship.vm_name));
            let limit = query.limit.unwrap_or(dto::EventQuery::LIMIT_DEFAULT);
            let events =
                self.engine.store().events(vm.as_deref(), query.since.unwrap_or(0), limit).map_err(failed)?;
            let shown = events.into_iter().map(|event| dto::Event {
                sequence: event.sequence,
                number: event.number,
                at_ms: event.at.millis(),
                severity: match event.severity {
                    EventSeverity::Info => dto::Severity::Info,
                    EventSeverity::Warning => dto::Severity::Warning,
                    EventSeverity::Critical => dto::Severity::Critical,
                },
                vm: event.vm_name,
                text: event.text,
            });
            Ok(shown.collect())
        })
    }

    fn host_set(
        &self,
        _: Caller,
        change: dto::HostChange,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::HostView>> {
        Box::pin(async move {
            if dry_run {
                return Ok(Answer::Planned(dto::Plan::of([
                    "The host's rate limit will change now, also for transfers under way, and stays after a restart.",
                ])));
            }
            if let Some(limit) = change.rate_limit {
                self.engine.limit(limit.bytes_per_second()).map_err(problem)?;
            }
            Ok(Answer::Done(self.host_view()?))
        })
    }

    fn peer_invite(
        &self,
        _: Caller,
        request: dto::InviteRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::Invitation>> {
        Box::pin(async move {
            if dry_run {
                let line = format!(
                    "A token will be made that lets one host pair within {} s.",
                    request.valid_seconds
                );
                return Ok(Answer::Planned(dto::Plan::of([line])));
            }
            let lifetime = Duration::from_secs(request.valid_seconds);
            let now = engine::clock::now();
            let made = Invite::create(
                self.trust.as_ref(),
                &self.identity,
                &self.advertise,
                self.own.port,
                lifetime,
                now,
            );
            let invite = made.map_err(failed)?;
            Ok(Answer::Done(dto::Invitation {
                token: invite.token,
                expires_at_ms: invite.expires.millis(),
                host: self.own.name.clone(),
            }))
        })
    }

    fn peer_join(&self, _: Caller, request: dto::JoinRequest, dry_run: bool) -> Reply<'_, Answer<dto::Peer>> {
        Box::pin(async move {
            if dry_run {
                let line = "Both hosts will pin each other's certificate; the token is used up.";
                return Ok(Answer::Planned(dto::Plan::of([line])));
            }
            let now = engine::clock::now();
            let joined =
                transport::join(&request.token, &self.own, &self.identity, self.trust.as_ref(), now).await;
            let record =
                joined.map_err(|error| Problem::new(Code::Refused, "Not paired", error.to_string()))?;
            let peer = self.peer(&record.host.to_string())?;
            Ok(Answer::Done(self.shown_peer(&peer)))
        })
    }

    fn peer_remove(&self, _: Caller, peer: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move {
            let peer = self.peer(&peer)?;
            if dry_run {
                return Ok(Answer::Planned(dto::Plan::of([format!(
                    "{} will not be trusted any more.",
                    peer.name
                )])));
            }
            self.engine.store().remove_peer(peer.host).map_err(|error| {
                Problem::new(Code::Refused, "The peer is in use", error.to_string())
                    .with_cure("virt-replica list")
            })?;
            Ok(Answer::Done(Done::saying(format!(
                "{} is not trusted any more; remove this host there too",
                peer.name
            ))))
        })
    }

    fn peer_rotate(&self, _: Caller, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move {
            if dry_run {
                let line = "A new certificate is made, told to every peer, and then used.";
                return Ok(Answer::Planned(dto::Plan::of([line])));
            }
            self.engine.rotate_certificate(engine::clock::now(), false).await.map_err(problem)?;
            Ok(Answer::Done(Done::saying("every peer knows the new certificate, and it is used now")))
        })
    }

    fn enable(
        &self,
        _: Caller,
        request: dto::EnableRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::RelationshipSummary>> {
        Box::pin(async move {
            let wanted = self.enable_request(&request).await?;
            if let Some(record) = self.engine.enabled_already(&wanted) {
                return Ok(Answer::Done(views::summary(&self.engine, &record).map_err(problem)?));
            }
            let plan = self.engine.plan_enable(&wanted).await.map_err(problem)?;
            let summary = vec![
                format!("VM {} will be replicated to {}.", request.vm, request.peer),
                format!(
                    "A cycle runs every {} s; the VM runs on meanwhile.",
                    wanted.settings.frequency.seconds()
                ),
            ];
            let shown = shown(summary, &plan, false);
            if dry_run {
                return Ok(Answer::Planned(shown));
            }
            checks_hold(&shown)?;
            let id = self.engine.enable(wanted).await.map_err(problem)?;
            let record = self.engine.record(id).map_err(problem)?;
            Ok(Answer::Done(views::summary(&self.engine, &record).map_err(problem)?))
        })
    }

    fn change(
        &self,
        _: Caller,
        vm: String,
        change: dto::SettingsChange,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::RelationshipDetail>> {
        Box::pin(async move {
            let record = self.find_idle(&vm)?;
            let settings = changed(&record.relationship.settings, &change)?;
            let settings =
                self.engine.with_disks(&record, settings, &change.add_disks).await.map_err(problem)?;
            if dry_run {
                return Ok(Answer::Planned(dto::Plan::of([
                    "Both hosts will use the new settings from the next cycle on.",
                ])));
            }
            self.engine.change(&record, settings).await.map_err(problem)?;
            self.engine.accept_disks(&record, &change.add_disks).await.map_err(problem)?;
            let record = self.find(&vm)?;
            let sizes = self.engine.disk_sizes(&record).await;
            Ok(Answer::Done(views::detail(&self.engine, &record, &sizes).map_err(problem)?))
        })
    }

    fn pause(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move {
            let record = self.find_idle(&vm)?;
            if dry_run {
                return Ok(Answer::Planned(dto::Plan::of([
                    "No cycle will begin until `resume`; changes are still tracked.",
                ])));
            }
            self.engine.pause(&record).await.map_err(problem)?;
            Ok(Answer::Done(Done::saying("replication is paused")))
        })
    }

    fn resume(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move {
            let record = self.find_idle(&vm)?;
            if dry_run {
                self.engine.expect_agreement(&record).await.map_err(problem)?;
                return Ok(Answer::Planned(dto::Plan::of([
                    "Cycles will go on; the first carries what changed meanwhile.",
                ])));
            }
            let said = self.engine.resume(&record).await.map_err(problem)?;
            Ok(Answer::Done(Done::saying(format!("replication goes on; {said}"))))
        })
    }

    fn resynchronize(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move { self.begin_resynchronization(&who.to_string(), &vm, dry_run) })
    }

    fn wrap_raw_disks(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.move_raw_disks(vm, true, dry_run))
    }

    fn unwrap_raw_disks(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.move_raw_disks(vm, false, dry_run))
    }

    fn import(&self, _: Caller, request: dto::ImportRequest, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.begin_import(request.directory, dry_run))
    }

    fn verify(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move { self.begin_verification(&vm, dry_run) })
    }

    fn remove(
        &self,
        _: Caller,
        vm: String,
        request: dto::RemoveRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<Done>> {
        Box::pin(async move {
            let record = self.find_idle(&vm)?;
            let delete = request.replica == dto::ReplicaFate::Delete;
            let hosts = if request.this_host_only { "this host only" } else { "both hosts" };
            if dry_run {
                let fate =
                    if delete { "the replica's files are deleted" } else { "the replica's files stay" };
                let text = format!("The relationship ends on {hosts}; {fate}.");
                return Ok(Answer::Planned(dto::Plan::of([text])));
            }
            let removed = match request.this_host_only {
                true => self.engine.remove_alone(&record, delete).await,
                false => self.engine.remove(&record, delete).await,
            };
            removed.map_err(problem)?;
            Ok(Answer::Done(Done::saying(format!("the relationship has ended on {hosts}"))))
        })
    }

    fn planned_failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::PlannedFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(async move {
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
                    vm, from.primary_server, from.replica_server
                )];
                lines.push(match (request.start, request.reverse) {
                    (true, true) => "It starts there, and replication is reversed at once.".into(),
                    (true, false) => {
                        "It starts there; it is unprotected until `virt-replica reverse`.".into()
                    }
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
        })
    }

    fn reverse(
        &self,
        _: Caller,
        vm: String,
        request: dto::ReverseRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::RelationshipSummary>> {
        Box::pin(async move {
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
        })
    }

    fn operation_resume(
        &self,
        _: Caller,
        id: String,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(async move {
            let view = self.operation_view(&id)?;
            if dry_run {
                return Ok(Answer::Planned(dto::Plan::of(["The next step is tried again now."])));
            }
            if let Ok(relationship) = view.relationship.parse() {
                self.engine.wake(relationship);
            }
            self.operation_view(&id).map(Answer::Done)
        })
    }

    fn operation_cancel(
        &self,
        who: Caller,
        id: String,
        request: dto::CancelRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(async move {
            let view = self.operation_view(&id)?;
            if dry_run {
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
        })
    }

    fn test_failovers(&self) -> Reply<'_, Vec<dto::TestFailoverView>> {
        Box::pin(async move { self.all_tests() })
    }

    fn test_failover(&self, id: String) -> Reply<'_, dto::TestFailoverView> {
        Box::pin(async move { self.one_test(&id) })
    }

    fn begin_test_failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::TestFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::TestFailoverView>> {
        Box::pin(self.begin_test(who, vm, request, dry_run))
    }

    fn stop_test_failover(
        &self,
        _: Caller,
        named: String,
        dry_run: bool,
    ) -> Reply<'_, Answer<Vec<dto::TestFailoverView>>> {
        Box::pin(async move { self.stop_tests(&named, dry_run) })
    }

    fn failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::FailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(self.begin_failover(who, vm, request, dry_run))
    }

    fn cancel_failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::CancelFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(async move { self.begin_cancel_failover(who, vm, request, dry_run) })
    }

    fn complete_failover(
        &self,
        who: Caller,
        vm: String,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(self.begin_complete_failover(who, vm, dry_run))
    }

    fn diverged(&self, vm: String) -> Reply<'_, Vec<dto::DivergedView>> {
        Box::pin(async move { self.all_diverged(&vm).await })
    }

    fn remove_diverged(&self, _: Caller, vm: String, id: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move { Daemon::remove_diverged(self, &vm, &id, dry_run).await })
    }

    fn points(&self, vm: String) -> Reply<'_, dto::PointList> {
        Box::pin(async move { self.all_points(&vm).await })
    }

    fn create_point(
        &self,
        _: Caller,
        vm: String,
        request: dto::CreatePointRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::PointMade>> {
        Box::pin(async move { self.make_point(&vm, request, dry_run).await })
    }

    fn remove_point(&self, _: Caller, vm: String, point: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move { self.drop_point(&vm, &point, dry_run).await })
    }
}

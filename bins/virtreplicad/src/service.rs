//! The API's verbs: each is carried out in the room of its subject. What is *not* here: anything but the way there.

use std::net::SocketAddr;
use std::sync::Arc;

use api::dto::{self, Answer, Done, Page, Paged};
use api::{Asked, Caller, Reply, Service};
use console::Door;
use engine::Engine;
use futures_util::stream::BoxStream;
use transport::{Identity, Introduction, TrustStore};
use wire::message::ViewOf;

use crate::changes::Changes;
use crate::showing::Turns;

/// The daemon as whoever speaks to its API sees it. A cheap handle.
#[derive(Clone)]
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) identity: Arc<Identity>,
    pub(crate) trust: Arc<dyn TrustStore>,
    pub(crate) own: Introduction,
    pub(crate) advertise: Vec<String>,
    pub(crate) listen: SocketAddr,
    pub(crate) changes: Changes,
    /// Of the console; none: it is turned off.
    pub(crate) door: Option<Arc<Door>>,
    pub(crate) showing: Turns,
}

impl Service for Daemon {
    fn host(&self) -> Reply<'_, dto::HostView> {
        Box::pin(self.show_host())
    }

    fn host_check(&self) -> Reply<'_, Vec<dto::Check>> {
        Box::pin(async move { Ok(self.engine.check_host().await.iter().map(Into::into).collect()) })
    }

    fn peers(&self) -> Reply<'_, Vec<dto::Peer>> {
        Box::pin(self.all_peers())
    }

    fn peer_test(&self, peer: String) -> Reply<'_, Vec<dto::Check>> {
        Box::pin(self.test_peer(peer))
    }

    fn relationships(&self, page: Page) -> Reply<'_, Paged<Vec<dto::RelationshipSummary>>> {
        Box::pin(async move { self.list_relationships(&page, None) })
    }

    fn relationship(&self, vm: String) -> Reply<'_, dto::RelationshipDetail> {
        Box::pin(self.detail(vm))
    }

    fn revision(&self, vm: String) -> Reply<'_, String> {
        Box::pin(async move { self.revision_of(&vm) })
    }

    fn cycles(&self, vm: String, page: Page) -> Reply<'_, Paged<Vec<dto::CycleView>>> {
        Box::pin(async move { self.list_cycles(&vm, &page) })
    }

    fn may_start(&self, vm: String) -> Reply<'_, dto::StartWord> {
        Box::pin(self.start_word(vm))
    }

    fn operations(&self, query: dto::OperationQuery) -> Reply<'_, Paged<Vec<dto::OperationView>>> {
        Box::pin(async move { self.list_operations(&query, None) })
    }

    fn operation(&self, id: String) -> Reply<'_, dto::OperationView> {
        Box::pin(async move { self.operation_view(&id) })
    }

    fn events(&self, query: dto::EventQuery) -> Reply<'_, Paged<Vec<dto::Event>>> {
        Box::pin(async move { self.list_events(&query, None) })
    }

    fn audit(&self, page: Page) -> Reply<'_, Paged<Vec<dto::AuditRecord>>> {
        Box::pin(async move { self.list_audit(&page) })
    }

    fn console_sessions(&self) -> Reply<'_, Vec<dto::ConsoleSession>> {
        Box::pin(async move { self.visitors() })
    }

    fn console_roles(&self) -> Reply<'_, Vec<dto::ConsoleRole>> {
        Box::pin(async move { self.roles() })
    }

    fn vms(&self, page: Page) -> Reply<'_, Paged<Vec<dto::VmView>>> {
        Box::pin(async move { self.list_vms(&page, None).await })
    }

    fn vm(&self, vm: String) -> Reply<'_, dto::VmView> {
        Box::pin(self.one_vm(vm))
    }

    fn changes(&self) -> BoxStream<'static, dto::What> {
        self.changes.listen()
    }

    fn peer_host(&self, peer: String) -> Reply<'_, dto::HostView> {
        Box::pin(self.look_at_host(peer))
    }

    fn peer_vms(&self, peer: String, page: Page) -> Reply<'_, Paged<Vec<dto::VmView>>> {
        Box::pin(self.look_at(peer, ViewOf::Vms, page))
    }

    fn peer_relationships(
        &self,
        peer: String,
        page: Page,
    ) -> Reply<'_, Paged<Vec<dto::RelationshipSummary>>> {
        Box::pin(self.look_at(peer, ViewOf::Relationships, page))
    }

    fn peer_operations(
        &self,
        peer: String,
        query: dto::OperationQuery,
    ) -> Reply<'_, Paged<Vec<dto::OperationView>>> {
        Box::pin(self.look_at_operations(peer, query))
    }

    fn peer_events(&self, peer: String, query: dto::EventQuery) -> Reply<'_, Paged<Vec<dto::Event>>> {
        Box::pin(self.look_at_events(peer, query))
    }

    fn audit_asked(&self, asked: Asked) -> Reply<'_, u64> {
        Box::pin(async move { self.keep_asked(&asked) })
    }

    fn audit_ended(&self, record: u64, result: dto::AuditResult, detail: String) -> Reply<'_, ()> {
        Box::pin(async move { self.keep_result(record, result, &detail) })
    }

    fn host_set(
        &self,
        _: Caller,
        change: dto::HostChange,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::HostView>> {
        Box::pin(self.set_host(change, dry_run))
    }

    fn console_link(
        &self,
        who: Caller,
        request: dto::ConsoleLinkRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::ConsoleLink>> {
        Box::pin(async move { self.let_in(&who, request, dry_run) })
    }

    fn console_end_sessions(
        &self,
        _: Caller,
        request: dto::EndSessionsRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<Done>> {
        Box::pin(async move { self.put_out(&request, dry_run) })
    }

    fn peer_invite(
        &self,
        _: Caller,
        request: dto::InviteRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::Invitation>> {
        Box::pin(self.invite(request, dry_run))
    }

    fn peer_join(&self, _: Caller, request: dto::JoinRequest, dry_run: bool) -> Reply<'_, Answer<dto::Peer>> {
        Box::pin(self.join(request, dry_run))
    }

    fn peer_remove(&self, _: Caller, peer: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.distrust(peer, dry_run))
    }

    fn peer_rotate(&self, _: Caller, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.rotate(dry_run))
    }

    fn enable(
        &self,
        _: Caller,
        request: dto::EnableRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::RelationshipSummary>> {
        Box::pin(self.protect(request, dry_run))
    }

    fn change(
        &self,
        _: Caller,
        vm: String,
        change: dto::SettingsChange,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::RelationshipDetail>> {
        Box::pin(self.set(vm, change, dry_run))
    }

    fn pause(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.hold(vm, dry_run))
    }

    fn resume(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(self.go_on(vm, dry_run))
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

    fn import(
        &self,
        _: Caller,
        request: dto::ImportRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::Importing>> {
        Box::pin(self.begin_import(request.directory, dry_run))
    }

    fn verify(&self, _: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>> {
        Box::pin(async move { self.begin_verification(&vm, dry_run) })
    }

    fn remove(
        &self,
        who: Caller,
        vm: String,
        request: dto::RemoveRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<Done>> {
        Box::pin(self.end(who, vm, request, dry_run))
    }

    fn planned_failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::PlannedFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(self.begin_handover(who, vm, request, dry_run))
    }

    fn reverse(
        &self,
        _: Caller,
        vm: String,
        request: dto::ReverseRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::RelationshipSummary>> {
        Box::pin(self.turn_round(vm, request, dry_run))
    }

    fn operation_resume(
        &self,
        _: Caller,
        id: String,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(self.try_again(id, dry_run))
    }

    fn operation_cancel(
        &self,
        who: Caller,
        id: String,
        request: dto::CancelRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<dto::OperationView>> {
        Box::pin(self.take_back(who, id, request, dry_run))
    }

    fn test_failovers(&self, page: Page) -> Reply<'_, Paged<Vec<dto::TestFailoverView>>> {
        Box::pin(async move { self.all_tests(&page) })
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

    fn points(&self, vm: String, page: Page) -> Reply<'_, Paged<dto::PointList>> {
        Box::pin(async move { self.all_points(&vm, &page).await })
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

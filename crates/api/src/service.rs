//! What the daemon can be asked: one method per verb. The router calls it; the daemon implements it over the engine.
//!
//! Every change takes `dry_run`: then nothing is changed and the answer is the plan with its checks (failed checks in a
//! plan are no error). Without it, a failed check is a [`Problem`] with the code `refused` that carries the checks.

use std::future::Future;
use std::pin::Pin;

use futures_util::stream::BoxStream;

use crate::caller::Caller;
use crate::dto::{
    Answer, AuditRecord, AuditResult, CancelFailoverRequest, CancelRequest, Check, ConsoleLink,
    ConsoleLinkRequest, ConsoleRole, ConsoleSession, CreatePointRequest, CycleView, DivergedView, Done,
    EnableRequest, EndSessionsRequest, Event, EventQuery, FailoverRequest, HostChange, HostView,
    ImportRequest, Importing, Invitation, InviteRequest, JoinRequest, OperationQuery, OperationView, Page,
    Paged, Peer, PlannedFailoverRequest, PointList, PointMade, RelationshipDetail, RelationshipSummary,
    RemoveRequest, ReverseRequest, SettingsChange, StartWord, TestFailoverRequest, TestFailoverView, VmView,
    What,
};
use crate::problem::Problem;

/// A boxed answer: keeps [`Service`] usable as a trait object.
pub type Reply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Problem>> + Send + 'a>>;

/// A change that somebody asks for, as the audit keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Who, from where, in which role.
    pub who: Caller,
    /// The name of the route.
    pub verb: &'static str,
    /// Of what; none: of this host.
    pub target: Option<String>,
    /// With what: the fields of the request, without secrets; empty: nothing beyond the verb.
    pub with: String,
}

/// The verbs. A `vm` is a name, a UUID or a relationship id; a `peer` is a name or an id.
#[allow(missing_docs)] // the arguments and answers are documented where they are defined
pub trait Service: Send + Sync + 'static {
    // ── reads ──
    /// `host show`
    fn host(&self) -> Reply<'_, HostView>;
    /// `host check`
    fn host_check(&self) -> Reply<'_, Vec<Check>>;
    /// `peer list`
    fn peers(&self) -> Reply<'_, Vec<Peer>>;
    /// `peer test`: talks to the peer, changes nothing.
    fn peer_test(&self, peer: String) -> Reply<'_, Vec<Check>>;
    /// `list`; must be cheap for a thousand.
    fn relationships(&self, page: Page) -> Reply<'_, Paged<Vec<RelationshipSummary>>>;
    /// `show`
    fn relationship(&self, vm: String) -> Reply<'_, RelationshipDetail>;
    /// What `If-Match` compares: another one whenever that has changed by which a person decides (`RelationshipSummary::revision`).
    fn revision(&self, vm: String) -> Reply<'_, String>;
    /// The cycles that are remembered, the newest first.
    fn cycles(&self, vm: String, page: Page) -> Reply<'_, Paged<Vec<CycleView>>>;
    /// What the start hook asks; answers within its two seconds.
    fn may_start(&self, vm: String) -> Reply<'_, StartWord>;
    /// `operation list`, the newest first.
    fn operations(&self, query: OperationQuery) -> Reply<'_, Paged<Vec<OperationView>>>;
    /// `operation show`; polled while one is under way, so it must be cheap.
    fn operation(&self, id: String) -> Reply<'_, OperationView>;
    /// `events`, the oldest first.
    fn events(&self, query: EventQuery) -> Reply<'_, Paged<Vec<Event>>>;
    /// `host audit`, the newest first.
    fn audit(&self, page: Page) -> Reply<'_, Paged<Vec<AuditRecord>>>;
    /// All VMs of this host, by name; looks at no image.
    fn vms(&self, page: Page) -> Reply<'_, Paged<Vec<VmView>>>;
    /// One of them, with the sizes of its disks.
    fn vm(&self, vm: String) -> Reply<'_, VmView>;
    /// What a listener is told from now on: coalesced, a few each second at most. Ends with the daemon.
    fn changes(&self) -> BoxStream<'static, What>;

    /// `console sessions`, the newest first.
    fn console_sessions(&self) -> Reply<'_, Vec<ConsoleSession>>;

    /// `console roles`, the smallest first.
    fn console_roles(&self) -> Reply<'_, Vec<ConsoleRole>>;

    // ── what a peer shows of itself; its silence is a problem of its own, never an empty list ──
    fn peer_host(&self, peer: String) -> Reply<'_, HostView>;
    fn peer_vms(&self, peer: String, page: Page) -> Reply<'_, Paged<Vec<VmView>>>;
    fn peer_relationships(&self, peer: String, page: Page) -> Reply<'_, Paged<Vec<RelationshipSummary>>>;
    fn peer_operations(&self, peer: String, query: OperationQuery) -> Reply<'_, Paged<Vec<OperationView>>>;
    fn peer_events(&self, peer: String, query: EventQuery) -> Reply<'_, Paged<Vec<Event>>>;

    // ── the audit ──
    /// A change was asked for: on disk when this returns, and then the change may begin. Answers with the record's number.
    fn audit_asked(&self, asked: Asked) -> Reply<'_, u64>;
    /// What came of it.
    fn audit_ended(&self, record: u64, result: AuditResult, detail: String) -> Reply<'_, ()>;

    // ── changes ──
    /// `console link`; only for whoever comes through the control socket.
    fn console_link(
        &self,
        who: Caller,
        request: ConsoleLinkRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<ConsoleLink>>;
    /// `console end-sessions`
    fn console_end_sessions(
        &self,
        who: Caller,
        request: EndSessionsRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<Done>>;
    /// `host set`
    fn host_set(&self, who: Caller, change: HostChange, dry_run: bool) -> Reply<'_, Answer<HostView>>;
    /// `peer invite`
    fn peer_invite(
        &self,
        who: Caller,
        request: InviteRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<Invitation>>;
    /// `peer join`
    fn peer_join(&self, who: Caller, request: JoinRequest, dry_run: bool) -> Reply<'_, Answer<Peer>>;
    /// `peer remove`; refused while relationships with it exist.
    fn peer_remove(&self, who: Caller, peer: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `peer rotate`: a new certificate for this host, announced to every peer.
    fn peer_rotate(&self, who: Caller, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `enable`
    fn enable(
        &self,
        who: Caller,
        request: EnableRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<RelationshipSummary>>;
    /// `set`
    fn change(
        &self,
        who: Caller,
        vm: String,
        change: SettingsChange,
        dry_run: bool,
    ) -> Reply<'_, Answer<RelationshipDetail>>;
    /// `pause`
    fn pause(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `resume`
    fn resume(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `remove`
    fn remove(
        &self,
        who: Caller,
        vm: String,
        request: RemoveRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<Done>>;
    /// `planned-failover`: answers as soon as the operation is journaled; its steps are polled. Asked again while the same
    /// handover is under way, it answers with that operation. Works from either host.
    fn planned_failover(
        &self,
        who: Caller,
        vm: String,
        request: PlannedFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<OperationView>>;
    /// `reverse`
    fn reverse(
        &self,
        who: Caller,
        vm: String,
        request: ReverseRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<RelationshipSummary>>;
    /// `operation resume`: try again now.
    fn operation_resume(&self, who: Caller, id: String, dry_run: bool) -> Reply<'_, Answer<OperationView>>;
    /// `operation cancel`
    fn operation_cancel(
        &self,
        who: Caller,
        id: String,
        request: CancelRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<OperationView>>;
    /// `test-failover list`, the newest first.
    fn test_failovers(&self, page: Page) -> Reply<'_, Paged<Vec<TestFailoverView>>>;
    /// `test-failover show`; polled while one is under way, so it must be cheap.
    fn test_failover(&self, id: String) -> Reply<'_, TestFailoverView>;
    /// `test-failover`: answers as soon as it is journaled. On the replica server.
    fn begin_test_failover(
        &self,
        who: Caller,
        vm: String,
        request: TestFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<TestFailoverView>>;
    /// `stop-test-failover`, by its id, or all of a VM: answers as soon as it is journaled.
    fn stop_test_failover(
        &self,
        who: Caller,
        named: String,
        dry_run: bool,
    ) -> Reply<'_, Answer<Vec<TestFailoverView>>>;
    /// `failover`: answers as soon as it is journaled; its steps are polled. On the replica server, which asks nobody's leave.
    fn failover(
        &self,
        who: Caller,
        vm: String,
        request: FailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<OperationView>>;
    /// `cancel-failover`
    fn cancel_failover(
        &self,
        who: Caller,
        vm: String,
        request: CancelFailoverRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<OperationView>>;
    /// `complete-failover`
    fn complete_failover(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<OperationView>>;
    /// `diverged list`, the oldest first.
    fn diverged(&self, vm: String) -> Reply<'_, Vec<DivergedView>>;
    /// `diverged remove`
    fn remove_diverged(&self, who: Caller, vm: String, id: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `point list`, the oldest first; the primary asks its replica server.
    fn points(&self, vm: String, page: Page) -> Reply<'_, Paged<PointList>>;
    /// `point create`: answers when the replica server has it. On the primary server.
    fn create_point(
        &self,
        who: Caller,
        vm: String,
        request: CreatePointRequest,
        dry_run: bool,
    ) -> Reply<'_, Answer<PointMade>>;
    /// `point remove`, by its id or its number.
    fn remove_point(&self, who: Caller, vm: String, point: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `resynchronize`
    fn resynchronize(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `import`: answers when it has begun; events tell how it ends.
    fn import(&self, who: Caller, request: ImportRequest, dry_run: bool) -> Reply<'_, Answer<Importing>>;
    /// `verify`
    fn verify(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `wrap-raw-disks`, of any VM of this host that is off.
    fn wrap_raw_disks(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
    /// `unwrap-raw-disks`
    fn unwrap_raw_disks(&self, who: Caller, vm: String, dry_run: bool) -> Reply<'_, Answer<Done>>;
}

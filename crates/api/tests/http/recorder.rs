//! A service that writes down what reached it.

use std::sync::Mutex;
use std::time::Duration;

use api::dto::{
    Answer, AuditRecord, AuditResult, CancelFailoverRequest, CancelRequest, Check, ConsoleLink,
    ConsoleLinkRequest, ConsoleRole, ConsoleSession, CreatePointRequest, CycleView, DivergedView, Done,
    EnableRequest, EndSessionsRequest, Event, EventQuery, FailoverRequest, Health, HostChange, HostView,
    ImportRequest, Importing, Invitation, InviteRequest, JoinRequest, Mode, OperationQuery, OperationView,
    Page, Paged, Peer, Plan, PlannedFailoverRequest, PointList, PointMade, RelationshipDetail,
    RelationshipSummary, RemoveRequest, ReverseRequest, SettingsChange, StartWord, TestFailoverRequest,
    TestFailoverView, VmView, What,
};
use api::{Asked, Caller, Code, Problem, Reply, Service};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// Answers little, records everything.
#[derive(Default)]
pub struct Recorder {
    pub seen: Mutex<Vec<String>>,
    pub audit: Mutex<Vec<String>>,
    /// How long `pause` takes.
    pub pause_takes: Mutex<Duration>,
}

impl Recorder {
    fn note(&self, line: String) {
        self.seen.lock().expect("no test panics while it holds the lock").push(line);
    }

    fn refuse<T: Send + 'static>(&self, line: String) -> Reply<'_, T> {
        self.note(line);
        let check = Check {
            name: "Clocks".into(),
            ok: false,
            detail: "9 s apart".into(),
            cure: Some("chronyc".into()),
        };
        let problem = Problem::new(Code::Refused, "Refused", "a check failed").with_cure("chronyc makestep");
        Box::pin(async { Err(problem.with_checks(vec![check])) })
    }

    fn done(&self, line: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.answer(line, dry, Done::saying("did"))
    }

    fn answer<T: Send + 'static>(&self, line: String, dry: bool, done: T) -> Reply<'_, Answer<T>> {
        self.note(format!("{line} dry={dry}"));
        let answer = if dry { Answer::Planned(Plan::of(["would"])) } else { Answer::Done(done) };
        Box::pin(async { Ok(answer) })
    }
}

impl Service for Recorder {
    fn host(&self) -> Reply<'_, HostView> {
        self.refuse("host".into())
    }
    fn host_check(&self) -> Reply<'_, Vec<Check>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn peers(&self) -> Reply<'_, Vec<Peer>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn peer_test(&self, peer: String) -> Reply<'_, Vec<Check>> {
        self.refuse(format!("peer_test {peer}"))
    }
    fn relationships(&self, page: Page) -> Reply<'_, Paged<Vec<RelationshipSummary>>> {
        self.note(format!("relationships {page:?}"));
        let all = ["a", "b c", "d"].map(|vm| RelationshipSummary { vm: vm.into(), ..summary() });
        let limit = page.limit_or(2).expect("a limit that the client asks for");
        let left = all.into_iter().filter(|it| page.after.as_ref().is_none_or(|after| it.vm > *after));
        let page = Paged::of(left, limit, |it| it.vm.clone());
        Box::pin(async { Ok(page) })
    }
    fn revision(&self, _: String) -> Reply<'_, String> {
        Box::pin(async { Ok("now".into()) })
    }
    fn cycles(&self, vm: String, _: Page) -> Reply<'_, Paged<Vec<CycleView>>> {
        self.refuse(format!("cycles {vm}"))
    }
    fn relationship(&self, vm: String) -> Reply<'_, RelationshipDetail> {
        Box::pin(async move { Err(Problem::not_found("VM", &vm, "virt-replica list")) })
    }
    fn may_start(&self, vm: String) -> Reply<'_, StartWord> {
        self.refuse(format!("may_start {vm}"))
    }
    fn operations(&self, _: OperationQuery) -> Reply<'_, Paged<Vec<OperationView>>> {
        Box::pin(async { Ok(Paged::whole(vec![])) })
    }
    fn operation(&self, id: String) -> Reply<'_, OperationView> {
        self.refuse(format!("operation {id}"))
    }
    fn events(&self, query: EventQuery) -> Reply<'_, Paged<Vec<Event>>> {
        self.note(format!("{query:?}"));
        Box::pin(async { Ok(Paged::whole(vec![])) })
    }
    fn audit(&self, _: Page) -> Reply<'_, Paged<Vec<AuditRecord>>> {
        Box::pin(async { Ok(Paged::whole(vec![])) })
    }
    fn console_sessions(&self) -> Reply<'_, Vec<ConsoleSession>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn console_roles(&self) -> Reply<'_, Vec<ConsoleRole>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn console_link(
        &self,
        who: Caller,
        request: ConsoleLinkRequest,
        dry: bool,
    ) -> Reply<'_, Answer<ConsoleLink>> {
        self.refuse(format!("{who} {request:?} dry={dry}"))
    }
    fn console_end_sessions(
        &self,
        _: Caller,
        request: EndSessionsRequest,
        dry: bool,
    ) -> Reply<'_, Answer<Done>> {
        self.done(format!("{request:?}"), dry)
    }
    fn vms(&self, _: Page) -> Reply<'_, Paged<Vec<VmView>>> {
        Box::pin(async { Ok(Paged::whole(vec![])) })
    }
    fn vm(&self, vm: String) -> Reply<'_, VmView> {
        self.refuse(format!("vm {vm}"))
    }
    fn changes(&self) -> BoxStream<'static, What> {
        futures_util::stream::iter([What::Operations, What::TestFailovers]).boxed()
    }
    fn peer_host(&self, peer: String) -> Reply<'_, HostView> {
        self.refuse(format!("peer_host {peer}"))
    }
    fn peer_vms(&self, peer: String, _: Page) -> Reply<'_, Paged<Vec<VmView>>> {
        self.refuse(format!("peer_vms {peer}"))
    }
    fn peer_relationships(&self, peer: String, _: Page) -> Reply<'_, Paged<Vec<RelationshipSummary>>> {
        self.refuse(format!("peer_relationships {peer}"))
    }
    fn peer_operations(&self, peer: String, _: OperationQuery) -> Reply<'_, Paged<Vec<OperationView>>> {
        self.refuse(format!("peer_operations {peer}"))
    }
    fn peer_events(&self, peer: String, _: EventQuery) -> Reply<'_, Paged<Vec<Event>>> {
        self.refuse(format!("peer_events {peer}"))
    }
    fn audit_asked(&self, asked: Asked) -> Reply<'_, u64> {
        let mut audit = self.audit.lock().expect("not poisoned");
        let line = format!("{} {} {:?} {}", asked.who, asked.verb, asked.target, asked.with);
        audit.push(line.trim_end().to_owned());
        let record = audit.len() as u64;
        Box::pin(async move { Ok(record) })
    }
    fn audit_ended(&self, record: u64, result: AuditResult, detail: String) -> Reply<'_, ()> {
        let mut audit = self.audit.lock().expect("not poisoned");
        audit[record as usize - 1] += &format!(" {} {detail}", result.words());
        Box::pin(async { Ok(()) })
    }
    fn host_set(&self, _: Caller, change: HostChange, dry: bool) -> Reply<'_, Answer<HostView>> {
        self.refuse(format!("{change:?} dry={dry}"))
    }
    fn peer_invite(&self, _: Caller, request: InviteRequest, dry: bool) -> Reply<'_, Answer<Invitation>> {
        self.refuse(format!("{request:?} dry={dry}"))
    }
    fn peer_join(&self, _: Caller, request: JoinRequest, dry: bool) -> Reply<'_, Answer<Peer>> {
        self.refuse(format!("{request:?} dry={dry}"))
    }
    fn peer_remove(&self, _: Caller, peer: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("peer_remove {peer}"), dry)
    }
    fn peer_rotate(&self, _: Caller, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done("peer_rotate".into(), dry)
    }
    fn enable(&self, _: Caller, request: EnableRequest, dry: bool) -> Reply<'_, Answer<RelationshipSummary>> {
        self.note(format!("{request:?} dry={dry}"));
        Box::pin(async { Ok(Answer::Done(summary())) })
    }
    fn change(
        &self,
        _: Caller,
        vm: String,
        change: SettingsChange,
        dry: bool,
    ) -> Reply<'_, Answer<RelationshipDetail>> {
        self.refuse(format!("change {vm} {change:?} dry={dry}"))
    }
    fn pause(&self, who: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        let takes = *self.pause_takes.lock().expect("not poisoned");
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            self.done(format!("{who:?} pause {vm}"), dry).await
        })
    }
    fn resume(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("resume {vm}"), dry)
    }
    fn remove(&self, _: Caller, vm: String, request: RemoveRequest, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("remove {vm} {request:?}"), dry)
    }
    fn planned_failover(
        &self,
        _: Caller,
        vm: String,
        request: PlannedFailoverRequest,
        dry: bool,
    ) -> Reply<'_, Answer<OperationView>> {
        self.refuse(format!("planned_failover {vm} {request:?} dry={dry}"))
    }
    fn reverse(
        &self,
        _: Caller,
        vm: String,
        request: ReverseRequest,
        dry: bool,
    ) -> Reply<'_, Answer<RelationshipSummary>> {
        self.refuse(format!("reverse {vm} {request:?} dry={dry}"))
    }
    fn operation_resume(&self, _: Caller, id: String, dry: bool) -> Reply<'_, Answer<OperationView>> {
        self.refuse(format!("operation_resume {id} dry={dry}"))
    }
    fn operation_cancel(
        &self,
        _: Caller,
        id: String,
        request: CancelRequest,
        dry: bool,
    ) -> Reply<'_, Answer<OperationView>> {
        self.refuse(format!("operation_cancel {id} {request:?} dry={dry}"))
    }
    fn test_failovers(&self, _: Page) -> Reply<'_, Paged<Vec<TestFailoverView>>> {
        self.refuse("test_failovers".into())
    }
    fn test_failover(&self, id: String) -> Reply<'_, TestFailoverView> {
        self.refuse(format!("test_failover {id}"))
    }
    fn begin_test_failover(
        &self,
        _: Caller,
        vm: String,
        request: TestFailoverRequest,
        dry: bool,
    ) -> Reply<'_, Answer<TestFailoverView>> {
        self.refuse(format!("begin_test_failover {vm} {request:?} dry={dry}"))
    }
    fn stop_test_failover(
        &self,
        _: Caller,
        named: String,
        dry: bool,
    ) -> Reply<'_, Answer<Vec<TestFailoverView>>> {
        self.refuse(format!("stop_test_failover {named} dry={dry}"))
    }
    fn failover(
        &self,
        _: Caller,
        vm: String,
        request: FailoverRequest,
        dry: bool,
    ) -> Reply<'_, Answer<OperationView>> {
        self.refuse(format!("failover {vm} {request:?} dry={dry}"))
    }
    fn cancel_failover(
        &self,
        _: Caller,
        vm: String,
        request: CancelFailoverRequest,
        dry: bool,
    ) -> Reply<'_, Answer<OperationView>> {
        self.refuse(format!("cancel_failover {vm} {request:?} dry={dry}"))
    }
    fn complete_failover(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<OperationView>> {
        self.refuse(format!("complete_failover {vm} dry={dry}"))
    }
    fn diverged(&self, vm: String) -> Reply<'_, Vec<DivergedView>> {
        self.refuse(format!("diverged {vm}"))
    }
    fn remove_diverged(&self, _: Caller, vm: String, id: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("remove_diverged {vm} {id}"), dry)
    }
    fn points(&self, vm: String, _: Page) -> Reply<'_, Paged<PointList>> {
        self.refuse(format!("points {vm}"))
    }
    fn create_point(
        &self,
        _: Caller,
        vm: String,
        request: CreatePointRequest,
        dry: bool,
    ) -> Reply<'_, Answer<PointMade>> {
        self.refuse(format!("create_point {vm} {request:?} dry={dry}"))
    }
    fn remove_point(&self, _: Caller, vm: String, point: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("remove_point {vm} {point}"), dry)
    }
    fn resynchronize(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("resynchronize {vm}"), dry)
    }
    fn wrap_raw_disks(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("wrap_raw_disks {vm}"), dry)
    }
    fn unwrap_raw_disks(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("unwrap_raw_disks {vm}"), dry)
    }
    fn import(&self, _: Caller, request: ImportRequest, dry: bool) -> Reply<'_, Answer<Importing>> {
        self.answer(format!("import {request:?}"), dry, Importing { vms: vec!["vm".into()] })
    }
    fn verify(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("verify {vm}"), dry)
    }
}

pub fn summary() -> RelationshipSummary {
    RelationshipSummary {
        id: "r".into(),
        vm: "testVM01".into(),
        vm_uuid: "u".into(),
        mode: Mode::Primary,
        state: "Replicating".into(),
        health: Health::Normal,
        primary_server: "hvhost01".into(),
        replica_server: "hvhost02".into(),
        home_server: Some("hvhost01".into()),
        away_since_ms: None,
        frequency_seconds: 30,
        last_synchronized_at_ms: None,
        paused: false,
        operation: None,
        revision: "now".into(),
    }
}

//! Client and router over a real unix socket, with a service that writes down what reached it.

use std::sync::{Arc, Mutex};

use api::dto::{
    Answer, CancelFailoverRequest, CancelRequest, Check, Compression, CreatePointRequest, DiskSelection,
    DivergedView, Done, EnableRequest, Event, EventQuery, FailoverRequest, FreezeEvery, Health, HostChange,
    HostView, ImportRequest, Invitation, InviteRequest, JoinRequest, Mode, OperationView, Peer, Plan,
    PlannedFailoverRequest, PointList, PointMade, RateLimit, RelationshipDetail, RelationshipSummary,
    RemoveRequest, ReplicaFate, ReverseRequest, SettingsChange, StartWord, TestFailoverRequest,
    TestFailoverView,
};
use api::{Caller, Client, Code, Problem, Reply, Service};

/// Answers little, records everything.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<String>>,
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
        self.note(format!("{line} dry={dry}"));
        let answer =
            if dry { Answer::Planned(Plan::of(["would"])) } else { Answer::Done(Done::saying("did")) };
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
    fn relationships(&self) -> Reply<'_, Vec<RelationshipSummary>> {
        Box::pin(async { Ok(vec![summary()]) })
    }
    fn relationship(&self, vm: String) -> Reply<'_, RelationshipDetail> {
        Box::pin(async move { Err(Problem::not_found("VM", &vm, "virt-replica list")) })
    }
    fn may_start(&self, vm: String) -> Reply<'_, StartWord> {
        self.refuse(format!("may_start {vm}"))
    }
    fn operations(&self) -> Reply<'_, Vec<OperationView>> {
        Box::pin(async { Ok(vec![]) })
    }
    fn operation(&self, id: String) -> Reply<'_, OperationView> {
        self.refuse(format!("operation {id}"))
    }
    fn events(&self, query: EventQuery) -> Reply<'_, Vec<Event>> {
        self.note(format!("{query:?}"));
        Box::pin(async { Ok(vec![]) })
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
        self.done(format!("{who:?} pause {vm}"), dry)
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
    fn test_failovers(&self) -> Reply<'_, Vec<TestFailoverView>> {
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
    fn points(&self, vm: String) -> Reply<'_, PointList> {
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
    fn import(&self, _: Caller, request: ImportRequest, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("import {request:?}"), dry)
    }
    fn verify(&self, _: Caller, vm: String, dry: bool) -> Reply<'_, Answer<Done>> {
        self.done(format!("verify {vm}"), dry)
    }
}

fn summary() -> RelationshipSummary {
    RelationshipSummary {
        id: "r".into(),
        vm: "testVM01".into(),
        vm_uuid: "u".into(),
        mode: Mode::Primary,
        state: "Replicating".into(),
        health: Health::Normal,
        primary_server: "hvhost01".into(),
        replica_server: "hvhost02".into(),
        frequency_seconds: 30,
        last_synchronized_at_ms: None,
        paused: false,
        operation: None,
    }
}

/// A served recorder and its client; the socket lives as long as the first of them.
async fn serve() -> (tempfile::TempDir, Arc<Recorder>, Client) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("control.sock");
    let recorder = Arc::new(Recorder::default());
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket in a fresh folder");
    let service: Arc<dyn Service> = recorder.clone();
    tokio::spawn(async move { api::serve(listener, service).await });
    (folder, recorder, Client::new(socket))
}

#[tokio::test]
async fn any_name_arrives_as_it_was_given() {
    let (_folder, recorder, client) = serve().await;
    let names = ["testVM01", "with space", "a/b", "..", "100%", "q\"uo'te?", "数据库 ü", "a+b&c=d#e"];
    for name in names {
        let answer = client.resume(name, true).await.expect("a plan");
        assert_eq!(answer, Answer::Planned(Plan::of(["would"])));
        client.events(&EventQuery { vm: Some(name.into()), ..EventQuery::default() }).await.expect("events");
    }
    let seen = recorder.seen.lock().expect("not poisoned").clone();
    for (lines, name) in seen.chunks(2).zip(names) {
        assert_eq!(lines[0], format!("resume {name} dry=true"));
        assert!(lines[1].contains(&format!("{:?}", Some(name))), "{} {name}", lines[1]);
    }
}

#[tokio::test]
async fn the_service_learns_who_asks_and_whether_it_is_meant() {
    let (_folder, recorder, client) = serve().await;
    client.pause("vm", false).await.expect("done");
    let seen = recorder.seen.lock().expect("not poisoned").clone();
    assert!(seen[0].starts_with("Caller { who: Uid("), "{seen:?}");
    assert!(seen[0].ends_with("dry=false"), "{seen:?}");
}

#[tokio::test]
async fn requests_arrive_whole() {
    let (_folder, recorder, client) = serve().await;
    let enable = EnableRequest {
        vm: "vm".into(),
        peer: "hvhost02".into(),
        frequency_seconds: Some(5),
        disks: DiskSelection::AllBut(vec!["vdb".into()]),
        initial_at_ms: Some(7),
        compression: Some(Compression::Adaptive),
        rate_limit_bytes_per_second: Some(9),
        networks: vec![("br0".into(), "br1".into())],
        recovery_points: Some("24x1h,7x1d".into()),
        application_consistent_every: Some(FreezeEvery::Seconds(14_400)),
        seeds: vec![("vda".into(), "old.qcow2".into())],
        export: Some("/media".into()),
    };
    assert_eq!(client.enable(&enable, false).await, Ok(Answer::Done(summary())));
    let change = SettingsChange { rate_limit: Some(RateLimit::Unlimited), ..SettingsChange::default() };
    client.change("vm", &change, true).await.expect_err("refused");
    let remove = RemoveRequest { replica: ReplicaFate::Delete, this_host_only: false };
    client.remove("vm", &remove, false).await.expect("done");
    client.operation_cancel("o", &CancelRequest { force: true }, false).await.expect_err("refused");
    let test = TestFailoverRequest { probe_port: Some(22), keep: true, ..TestFailoverRequest::default() };
    client.begin_test_failover("vm", &test, true).await.expect_err("refused");
    client.stop_test_failover("vm 1", false).await.expect_err("refused");
    client.test_failover("t").await.expect_err("refused");
    client.test_failovers().await.expect_err("refused");
    let failover = FailoverRequest { point: Some("p".into()), force: true, ..FailoverRequest::default() };
    client.failover("vm", &failover, false).await.expect_err("refused");
    let cancel = CancelFailoverRequest { turn_off: true, shutdown_timeout_seconds: 7 };
    client.cancel_failover("vm", &cancel, true).await.expect_err("refused");
    client.complete_failover("vm", false).await.expect_err("refused");
    client.diverged("vm").await.expect_err("refused");
    client.remove_diverged("vm", "1 2", true).await.expect("planned");
    let point = CreatePointRequest { tag: Some("a tag".into()), application_consistent: true };
    client.points("vm 1").await.expect_err("refused");
    client.create_point("vm 1", &point, true).await.expect_err("refused");
    client.remove_point("vm 1", "a/point", false).await.expect("done");
    client.resynchronize("vm", true).await.expect("planned");
    client.verify("vm", false).await.expect("done");
    client.wrap_raw_disks("vm/1", false).await.expect("done");
    client.unwrap_raw_disks("vm", true).await.expect("planned");
    let import = ImportRequest { directory: "/media".into() };
    client.import(&import, true).await.expect("planned");
    let seen = recorder.seen.lock().expect("not poisoned").clone();
    let expected = [
        format!("{enable:?} dry=false"),
        format!("change vm {change:?} dry=true"),
        format!("remove vm {remove:?} dry=false"),
        "operation_cancel o CancelRequest { force: true } dry=false".to_owned(),
        format!("begin_test_failover vm {test:?} dry=true"),
        "stop_test_failover vm 1 dry=false".to_owned(),
        "test_failover t".to_owned(),
        "test_failovers".to_owned(),
        format!("failover vm {failover:?} dry=false"),
        format!("cancel_failover vm {cancel:?} dry=true"),
        "complete_failover vm dry=false".to_owned(),
        "diverged vm".to_owned(),
        "remove_diverged vm 1 2 dry=true".to_owned(),
        "points vm 1".to_owned(),
        format!("create_point vm 1 {point:?} dry=true"),
        "remove_point vm 1 a/point dry=false".to_owned(),
        "resynchronize vm dry=true".to_owned(),
        "verify vm dry=false".to_owned(),
        "wrap_raw_disks vm/1 dry=false".to_owned(),
        "unwrap_raw_disks vm dry=true".to_owned(),
        format!("import {import:?} dry=true"),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_problem_arrives_with_its_checks_and_its_cure() {
    let (_folder, _recorder, client) = serve().await;
    let problem =
        client.planned_failover("vm", &PlannedFailoverRequest::default(), false).await.expect_err("refused");
    assert_eq!(problem.code, Code::Refused);
    assert_eq!(problem.cure.as_deref(), Some("chronyc makestep"));
    assert_eq!(problem.checks.len(), 1);
    let problem = client.relationship("no such").await.expect_err("not found");
    assert_eq!(problem.code, Code::NotFound);
}

#[tokio::test]
async fn a_silent_socket_is_unreachable_with_the_command_that_starts_the_daemon() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let problem = Client::new(folder.path().join("none.sock")).host().await.expect_err("nobody listens");
    assert_eq!(problem.code, Code::Unreachable);
    assert!(problem.cure.is_some_and(|cure| cure.contains("systemctl start virtreplicad")));
}

#[test]
fn a_code_of_a_later_version_is_read_as_failed() {
    let problem: Problem =
        serde_json::from_str(r#"{"code":"from-the-future","title":"t"}"#).expect("readable");
    assert_eq!(problem.code, Code::Failed);
}

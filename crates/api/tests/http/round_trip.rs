//! The typed client and the router understand each other.

use std::sync::Arc;
use std::time::Duration;

use api::dto::{
    Answer, CancelFailoverRequest, CancelRequest, Compression, CreatePointRequest, DiskSelection,
    EnableRequest, EventQuery, FailoverRequest, FreezeEvery, ImportRequest, Plan, PlannedFailoverRequest,
    RateLimit, RemoveRequest, ReplicaFate, SettingsChange, TestFailoverRequest,
};
use api::{Client, Code, Problem, Service};

use crate::recorder::{Recorder, summary};

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
async fn a_change_runs_to_its_end_and_is_recorded_though_its_caller_hangs_up_and_a_plan_ends_with_its_caller()
{
    let (_folder, recorder, client) = serve().await;
    *recorder.pause_takes.lock().expect("not poisoned") = Duration::from_millis(600);
    for dry_run in [true, false] {
        let hung_up = tokio::time::timeout(Duration::from_millis(200), client.pause("vm", dry_run)).await;
        hung_up.expect_err("nobody waits so long");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = recorder.seen.lock().expect("not poisoned").clone();
    assert!(seen.len() == 1 && seen[0].ends_with("dry=false"), "{seen:?}");
    let audit = recorder.audit.lock().expect("not poisoned").clone();
    assert!(audit.len() == 1 && audit[0].contains("accepted"), "{audit:?}");
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

#[tokio::test]
async fn a_list_of_several_pages_arrives_whole_and_as_much_of_it_as_was_asked_for() {
    let (_folder, recorder, client) = serve().await;
    let names: Vec<String> =
        client.relationships().await.expect("a list").into_iter().map(|it| it.vm).collect();
    assert_eq!(names, ["a", "b c", "d"]);
    assert_eq!(recorder.seen.lock().expect("not poisoned").len(), 2, "two pages");
}

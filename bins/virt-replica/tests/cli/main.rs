//! The command as scripts see it: exit codes, what goes where, and that nothing is done without a yes.

mod daemon;

use std::process::Output;
use std::time::Duration;

use daemon::Daemon;
use serde_json::{Value, json};

fn check(output: &Output, code: i32, says: &[&str]) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for words in says {
        assert!(text.contains(words), "{words:?} is missing in:\n{text}");
    }
}

fn relationship(operation: Option<&str>) -> Value {
    json!({
        "id": "r1", "vm": "vm", "vm_uuid": "u", "mode": "primary", "state": "Replicating", "health": "normal",
        "primary_server": "hvhost01", "replica_server": "hvhost02", "frequency_seconds": 30, "paused": false,
        "last_synchronized_at_ms": 1, "operation": operation, "epoch": 1,
        "statistics": {"cycles_due": 1, "cycles_acknowledged": 1, "cycles_missed": 0}, "compression": "adaptive",
        "thresholds": {"missed_cycles_percent_max": 20, "last_synchronized_age_max_seconds": 3600,
            "average_latency_max_seconds": 300, "monitoring_interval_seconds": 43200}
    })
}

fn operation(state: &str, final_sync: &str, next_command: Option<&str>) -> Value {
    let finished = (final_sync == "done").then_some(1900);
    json!({
        "id": "op1", "kind": "planned failover", "vm": "vm", "relationship": "r1", "old_primary": "hvhost01",
        "new_primary": "hvhost02", "reverse": true, "start": true, "requested_by": "root", "begun_at_ms": 1000,
        "state": state, "next_command": next_command, "steps": [
            {"name": "check", "host": "hvhost01", "does": "", "state": "done", "started_at_ms": 1000, "finished_at_ms": 1300},
            {"name": "final sync", "host": "hvhost01", "does": "", "state": final_sync, "started_at_ms": 1400, "finished_at_ms": finished}
        ]
    })
}

fn plan(ok: bool) -> Value {
    json!({"planned": {"summary": ["Hand vm over"], "touches_guest": true,
        "checks": [{"name": "Clocks of both hosts agree", "ok": ok, "detail": "9 s apart", "cure": "chronyc makestep"}]}})
}

const SHOW: &str = "GET relationships/vm";
const PLAN: &str = "POST relationships/vm/planned-failover?dry_run=true";
const HAND_OVER: &str = "POST relationships/vm/planned-failover";
const POLL: &str = "GET operations/op1";

/// A handover whose polls answer with these operations.
fn handover(polls: Vec<Value>) -> Daemon {
    Daemon::answering([
        (SHOW, vec![(200, relationship(None))]),
        (PLAN, vec![(200, plan(true))]),
        (HAND_OVER, vec![(200, json!({"done": operation("running", "pending", None)}))]),
        (POLL, polls.into_iter().map(|poll| (200, poll)).collect()),
    ])
}

#[test]
fn without_a_daemon_the_command_that_starts_it_is_printed() {
    check(&Daemon::absent().run(&["list"]), 6, &["does not answer", "systemctl start virtreplicad"]);
}

#[test]
fn a_wrong_command_is_a_usage_error_before_anybody_is_asked() {
    let daemon = Daemon::absent();
    check(&daemon.run(&["enable", "vm", "--peer", "h", "--frequency", "30", "--yes"]), 2, &["30s"]);
    check(&daemon.run(&["set", "vm", "--yes"]), 2, &["Nothing to set"]);
    check(&daemon.run(&["enable", "vm", "--peer", "h", "--disks", "vda", "--exclude-disk", "vdb"]), 2, &[]);
}

#[test]
fn nothing_is_asked_of_the_daemon_when_nobody_can_say_yes() {
    let daemon = Daemon::answering([]);
    check(&daemon.run(&["pause", "vm"]), 2, &["--yes", "--dry-run"]);
    assert_eq!(daemon.asked(), Vec::<String>::new());
}

#[test]
fn a_dry_run_only_plans_and_tells_whether_it_would_be_refused() {
    for (ok, code) in [(true, 0), (false, 3)] {
        let daemon =
            Daemon::answering([(SHOW, vec![(200, relationship(None))]), (PLAN, vec![(200, plan(ok))])]);
        check(&daemon.run(&["planned-failover", "vm", "--dry-run"]), code, &["Clocks", "downtime:  unknown"]);
        assert_eq!(daemon.asked(), [SHOW, PLAN]);
    }
}

#[test]
fn a_failed_check_refuses_even_with_yes_and_prints_the_fix() {
    let daemon =
        Daemon::answering([(SHOW, vec![(200, relationship(None))]), (PLAN, vec![(200, plan(false))])]);
    check(&daemon.run(&["planned-failover", "vm", "--yes"]), 3, &["✗ Clocks", "Fix: chronyc makestep"]);
    assert_eq!(daemon.asked(), [SHOW, PLAN]);
}

#[test]
fn a_handover_ticks_each_step_once_and_ends_with_its_report() {
    let polls = vec![
        operation("running", "running", None),
        operation("running", "done", None),
        operation("completed", "done", None),
    ];
    let output = handover(polls).run(&["planned-failover", "vm", "--yes"]);
    check(&output, 0, &["completed", "Guest off to resumed"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("✓ final sync").count(), 1, "{text}");
}

#[test]
fn json_is_one_document_on_standard_output() {
    let output = handover(vec![operation("completed", "done", None)]).run(&[
        "planned-failover",
        "vm",
        "--yes",
        "--json",
    ]);
    check(&output, 0, &[]);
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(document["state"], "completed");
    let output = Daemon::absent().run(&["list", "--json"]);
    let problem: Value = serde_json::from_slice(&output.stderr).expect("one JSON document");
    assert_eq!(problem["code"], "unreachable");
}

#[test]
fn an_operation_that_rests_prints_its_next_command() {
    let resting = operation("in-doubt", "done", Some("virt-replica operation resume op1"));
    let output = handover(vec![resting]).run(&["planned-failover", "vm", "--yes"]);
    check(&output, 7, &["To go on: virt-replica operation resume op1"]);
}

#[test]
fn an_undone_handover_is_a_failure_but_a_cancelled_one_is_what_was_asked_for() {
    let undone = || operation("undone", "undone", None);
    check(&handover(vec![undone()]).run(&["planned-failover", "vm", "--yes"]), 1, &["protected as before"]);
    let daemon = Daemon::answering([
        ("POST operations/op1/cancel?dry_run=true", vec![(200, plan(true))]),
        ("POST operations/op1/cancel", vec![(200, json!({"done": undone()}))]),
    ]);
    check(&daemon.run(&["operation", "cancel", "op1", "--yes"]), 0, &["undone"]);
}

#[test]
fn a_handover_is_followed_through_a_restart_of_the_daemon() {
    let mut daemon =
        handover(vec![operation("running", "running", None), operation("completed", "done", None)]);
    let child = daemon.command(&["planned-failover", "vm", "--yes"]).spawn().expect("the command runs");
    while !daemon.asked().iter().any(|asked| asked == POLL) {
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.kill();
    std::thread::sleep(Duration::from_millis(500)); // longer than two polls
    daemon.start();
    check(&child.wait_with_output().expect("it ends"), 0, &["completed"]);
}

#[test]
fn the_same_command_again_joins_the_handover_under_way() {
    let daemon = Daemon::answering([
        (SHOW, vec![(200, relationship(Some("op1")))]),
        (
            POLL,
            vec![(200, operation("running", "running", None)), (200, operation("completed", "done", None))],
        ),
    ]);
    check(&daemon.run(&["planned-failover", "vm", "--yes"]), 0, &["under way already", "completed"]);
    assert!(!daemon.asked().iter().any(|asked| asked.starts_with("POST")), "{:?}", daemon.asked());
}

#[test]
fn a_handover_to_where_the_vm_runs_does_nothing() {
    let daemon = Daemon::answering([(SHOW, vec![(200, relationship(None))])]);
    check(&daemon.run(&["planned-failover", "vm", "--to", "hvhost01", "--yes"]), 0, &["nothing to do"]);
    check(&daemon.run(&["planned-failover", "vm", "--to", "elsewhere", "--yes"]), 3, &["--to hvhost02"]);
    assert_eq!(daemon.asked(), [SHOW, SHOW]);
}

#[test]
fn each_kind_of_problem_has_its_exit_code() {
    let codes = [("invalid", 400, 2), ("refused", 409, 3), ("not-found", 404, 4), ("busy", 423, 5)];
    let others = [("needs-operator", 409, 7), ("failed", 500, 1), ("of the future", 500, 1)];
    for (code, status, exit) in codes.into_iter().chain(others) {
        let problem = json!({"code": code, "title": "Title", "detail": "why", "cure": "the cure"});
        let daemon = Daemon::answering([(SHOW, vec![(status, problem)])]);
        check(&daemon.run(&["show", "vm"]), exit, &["Title", "why", "Fix: the cure"]);
    }
}

#[test]
fn waiting_ends_when_the_vm_is_protected_or_the_time_is_over() {
    let mut copying = relationship(None);
    copying["health"] = json!("warning");
    copying["reasons"] = json!([{"severity": "warning", "text": "Initial replication is not finished"}]);
    let daemon = Daemon::answering([(SHOW, vec![(200, copying.clone()), (200, relationship(None))])]);
    check(&daemon.run(&["wait", "vm"]), 0, &["is protected"]);
    let daemon = Daemon::answering([(SHOW, vec![(200, copying)])]);
    check(&daemon.run(&["wait", "vm", "--timeout", "0s"]), 1, &["Initial replication is not finished"]);
}

#[test]
fn completion_and_man_pages_come_from_the_arguments() {
    let daemon = Daemon::absent();
    check(&daemon.run(&["completion", "bash"]), 0, &["planned-failover"]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("man").display().to_string();
    check(&daemon.run(&["man", &path]), 0, &[]);
    let page = std::fs::read_to_string(folder.path().join("man/virt-replica.1")).expect("the page");
    assert!(page.contains("Exit codes"), "{page}");
    assert!(folder.path().join("man/virt-replica-planned-failover.1").exists());
}

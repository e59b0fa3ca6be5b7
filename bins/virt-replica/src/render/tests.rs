//! The pages as an operator sees them.

use api::dto::{
    ChainView, Check, Compression, DiskView, Event, Health, HostView, InitialCopy, Invitation, Mode,
    OperationState, OperationView, Peer, Plan, PointList, PointMade, PointView, Reason, RecoveryPointView,
    RelationshipDetail, RelationshipSummary, Report, Severity, Statistics, StepState, StepView, Thresholds,
    Transfer,
};
use api::{Code, Problem};

use crate::render;
use crate::screen::Screen;

/// The moment of [`Screen::fixed`].
const NOW: u64 = 1_795_398_404_000;
const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn summary(vm: &str, health: Health) -> RelationshipSummary {
    RelationshipSummary {
        id: ID.into(),
        vm: vm.into(),
        vm_uuid: "6a1c0de0-0000-4000-8000-000000000002".into(),
        mode: Mode::Primary,
        state: "Replicating".into(),
        health,
        primary_server: "hvhost01".into(),
        replica_server: "hvhost02".into(),
        home_server: Some("hvhost01".into()),
        away_since_ms: None,
        frequency_seconds: 300,
        last_synchronized_at_ms: Some(NOW - 42_000),
        paused: false,
        operation: None,
        revision: String::new(),
    }
}

fn detail(health: Health) -> RelationshipDetail {
    RelationshipDetail {
        summary: summary("testVM01", health),
        epoch: 3,
        reasons: vec![],
        unprotected_since_ms: None,
        statistics: Statistics {
            cycles_due: 144,
            cycles_acknowledged: 143,
            cycles_missed: 1,
            average_bytes: Some(5 << 20),
            maximum_bytes: Some(64 << 20),
            average_sent_bytes: Some(2 << 20),
            average_latency_ms: Some(640),
            maximum_latency_ms: Some(4_200),
        },
        pending_bytes: Some(3 << 20),
        next_due_at_ms: Some(NOW + 258_000),
        initial_copy: None,
        carried: None,
        disks: vec![
            DiskView { target: "vda".into(), replicated: true, size_bytes: Some(4 << 30) },
            DiskView { target: "vdb".into(), replicated: false, size_bytes: None },
        ],
        compression: Compression::Adaptive,
        rate_limit_bytes_per_second: Some(50 << 20),
        networks: vec![("br0".into(), "br1".into())],
        thresholds: Thresholds {
            missed_cycles_percent_max: 20,
            last_synchronized_age_max_seconds: 3600,
            average_latency_max_seconds: 300,
            monitoring_interval_seconds: 43_200,
        },
        drill_every_seconds: None,
        recovery_points: "24x1h,7x1d".into(),
        application_consistent_every_seconds: Some(14_400),
        new_disks: api::dto::NewDisks::Replicate,
        chain: None,
        head: Some(RecoveryPointView {
            id: "0198c0de-0000-7000-8000-0000000000aa".into(),
            at_ms: NOW - 42_000,
            consistency: "crash-consistent".into(),
            lineage: "ab".repeat(32),
        }),
        directory: None,
        comparison: None,
        resynchronize: None,
        verify_every_seconds: None,
        verified_at_ms: None,
    }
}

fn step(name: &str, host: &str, state: StepState, took_ms: Option<u64>, detail: &str) -> StepView {
    StepView {
        name: name.into(),
        host: host.into(),
        does: format!("do the {name}"),
        state,
        started_at_ms: took_ms.map(|_| NOW),
        finished_at_ms: took_ms.map(|took| NOW + took),
        detail: detail.into(),
    }
}

fn operation(state: OperationState, steps: Vec<StepView>) -> OperationView {
    OperationView {
        id: ID.into(),
        kind: "planned failover".into(),
        vm: "testVM01".into(),
        relationship: "r".into(),
        old_primary: "hvhost01".into(),
        new_primary: "hvhost02".into(),
        reverse: true,
        start: true,
        requested_by: "root on hvhost01".into(),
        begun_at_ms: NOW,
        ended_at_ms: state.is_ended().then_some(NOW + 9_000),
        state,
        explanation: String::new(),
        next_command: None,
        steps,
        transfer: Some(Transfer { bytes_done: 1, bytes_total: None }),
        report: Report::default(),
    }
}

fn failed_check() -> Check {
    Check {
        name: "Networks of the VM exist on the replica server".into(),
        ok: false,
        detail: "bridge br7 is missing on hvhost02".into(),
        cure: Some("virt-replica set testVM01 --network br7=br0".into()),
    }
}

fn passed_check() -> Check {
    Check { name: "Clocks of both hosts agree".into(), ok: true, detail: String::new(), cure: None }
}

#[test]
fn a_list_lines_up_in_any_alphabet() {
    let mut replica = summary("数据库", Health::Critical);
    replica.mode = Mode::Replica;
    replica.paused = true;
    replica.last_synchronized_at_ms = None;
    let all = [summary("testVM01", Health::Normal), replica, summary("it's a/VM", Health::Warning)];
    insta::assert_snapshot!(render::relationships(&Screen::fixed(false), &all));
    insta::assert_snapshot!("empty_list", render::relationships(&Screen::fixed(false), &[]));
}

#[test]
fn colours_do_not_shift_columns() {
    let all = [summary("a", Health::Normal), summary("bb", Health::Critical)];
    let plain = render::relationships(&Screen::fixed(false), &all);
    let mut stripped = render::relationships(&Screen::fixed(true), &all);
    for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[31m", "\u{1b}[32m"] {
        stripped = stripped.replace(code, "");
    }
    assert_eq!(plain, stripped);
}

#[test]
fn health_of_a_primary() {
    insta::assert_snapshot!(render::detail(&Screen::fixed(false), &detail(Health::Normal)));
}

#[test]
fn health_says_its_reasons_and_unknown_is_unknown() {
    let mut page = detail(Health::Warning);
    page.reasons = vec![Reason {
        severity: Health::Warning,
        text: "The VM is unprotected since 2026-11-23 01:46:44 UTC".into(),
        cure: Some("on the host that runs the VM: virt-replica reverse testVM01".into()),
    }];
    page.unprotected_since_ms = Some(NOW);
    page.statistics = Statistics::default();
    page.pending_bytes = None;
    page.next_due_at_ms = None;
    page.head = None;
    page.summary.last_synchronized_at_ms = None;
    page.summary.operation = Some(ID.into());
    page.initial_copy = Some(InitialCopy {
        bytes_done: 1 << 30,
        bytes_total: Some(4 << 30),
        bytes_per_second: Some(100 << 20),
    });
    insta::assert_snapshot!(render::detail(&Screen::fixed(false), &page));
}

#[test]
fn a_plan_shows_checks_fixes_and_cost() {
    let plan = Plan {
        summary: vec!["Shut testVM01 down on hvhost01".into(), "Start it on hvhost02".into()],
        checks: vec![passed_check(), failed_check()],
        touches_guest: true,
        expected_bytes: Some(3 << 20),
        expected_downtime_ms: Some(2_400),
    };
    insta::assert_snapshot!(render::plan(&Screen::fixed(false), &plan));
    let unknown = Plan { touches_guest: true, ..Plan::of(["Hand testVM01 over"]) };
    insta::assert_snapshot!("plan_of_unknown_cost", render::plan(&Screen::fixed(false), &unknown));
}

#[test]
fn a_problem_says_what_why_and_the_cure() {
    let problem = Problem::new(Code::Refused, "Refused", "1 of 2 checks failed; nothing was changed")
        .with_checks(vec![passed_check(), failed_check()])
        .with_cure("virt-replica show testVM01");
    insta::assert_snapshot!(render::problem(&problem));
}

#[test]
fn steps_tick_once_each() {
    let screen = Screen::fixed(false);
    let check = step("check", "hvhost01", StepState::Done, Some(320), "18 checks passed");
    let running = step("final sync", "hvhost01", StepState::Running, None, "");
    let first = operation(OperationState::Running, vec![check.clone(), running]);
    assert_eq!(render::news(&screen, None, &first).len(), 1);
    assert_eq!(render::news(&screen, Some(&first), &first), Vec::<String>::new());

    let failed = step("final sync", "hvhost01", StepState::Failed, Some(900), "link down");
    let second = operation(OperationState::Running, vec![check.clone(), failed.clone()]);
    let lines = render::news(&screen, Some(&first), &second);
    insta::assert_snapshot!("news", lines.join("\n"));

    let again = StepView { finished_at_ms: Some(NOW + 1900), ..failed };
    let third = operation(OperationState::Running, vec![check, again]);
    assert_eq!(render::news(&screen, Some(&second), &third).len(), 1, "a second failure is news");
}

#[test]
fn a_completed_handover_ends_with_its_evidence() {
    let mut done = operation(OperationState::Completed, vec![]);
    done.report = Report {
        downtime_ms: Some(1_650),
        final_sync_bytes: Some(3 << 20),
        reverse_bytes: Some(0),
        old_primary_digest: Some("ab".repeat(32)),
        new_primary_digest: Some("ab".repeat(32)),
    };
    insta::assert_snapshot!(render::ending(&Screen::fixed(false), &done));
    done.reverse = false;
    insta::assert_snapshot!("ending_without_reverse", render::ending(&Screen::fixed(false), &done));
}

#[test]
fn an_operation_in_doubt_prints_the_next_command() {
    let steps = vec![
        step("lock", "hvhost01", StepState::Done, Some(12), ""),
        step("hand over", "hvhost02", StepState::Running, None, ""),
        step("demote", "hvhost01", StepState::Pending, None, ""),
        step("reverse", "hvhost02", StepState::Skipped, None, "not asked for"),
    ];
    let mut doubt = operation(OperationState::InDoubt, steps);
    doubt.explanation = "hvhost02 does not answer; it may have taken over".into();
    doubt.next_command = Some(format!("virt-replica operation resume {ID}"));
    insta::assert_snapshot!(render::operation(&Screen::fixed(false), &doubt));
    insta::assert_snapshot!("operation_list", render::operations(&Screen::fixed(false), &[doubt]));
}

#[test]
fn host_peers_invitation_and_events() {
    let screen = Screen::fixed(false);
    let host = HostView {
        id: ID.into(),
        name: "hvhost01".into(),
        version: "0.1.0".into(),
        listen: "0.0.0.0:8443".into(),
        fingerprint: "cd".repeat(32),
        certificate_expires_at_ms: Some(NOW + 31_536_000_000),
        storage: "/var/lib/virt-replica/replicas".into(),
        storage_free_bytes: None,
        rate_limit_bytes_per_second: None,
        hypervisor: Some("libvirt 11.3.0, QEMU 10.0.2".into()),
        primaries: 1,
        replicas: 0,
    };
    insta::assert_snapshot!("host", render::host(&screen, &host));
    let peer = Peer {
        id: ID.into(),
        name: "hvhost02".into(),
        address: "10.77.0.2:8443".into(),
        fingerprint: "ef".repeat(32),
        certificate_expires_at_ms: None,
        last_seen_at_ms: Some(NOW),
        relationships: 1,
    };
    insta::assert_snapshot!("peers", render::peers(&screen, std::slice::from_ref(&peer)));
    insta::assert_snapshot!("joined", render::joined(&screen, &peer));
    let invitation =
        Invitation { token: "vr1-abc".into(), expires_at_ms: NOW + 3_600_000, host: "hvhost01".into() };
    insta::assert_snapshot!("invitation", render::invitation(&screen, &invitation));
    let event = Event {
        sequence: 7,
        number: 2001,
        at_ms: NOW,
        severity: Severity::Critical,
        vm: Some("testVM01".into()),
        text: "The last cycle failed: link\u{7} down".into(),
    };
    insta::assert_snapshot!("events", render::events(&screen, &[event]));
}

#[test]
fn recovery_points_say_what_they_are_and_what_reads_them() {
    let point = |ordinal: u64, consistency: &str| PointView {
        id: ID.into(),
        ordinal,
        at_ms: NOW - 600_000 + ordinal * 1000,
        consistency: consistency.into(),
        disks: vec!["vda".into(), "vdb".into()],
        bytes: Some(ordinal << 20),
        tag: None,
        pinned_by: Vec::new(),
    };
    let tagged = PointView {
        tag: Some("before the upgrade".into()),
        pinned_by: vec![ID.into()],
        bytes: None,
        ..point(2, "file-system-consistent")
    };
    let list = PointList {
        points: vec![point(1, "powered off"), tagged.clone(), point(40, "crash-consistent")],
        chain: ChainView { points: 3, layers: 3, bytes: Some(5 << 30) },
    };
    let screen = Screen::fixed(false);
    insta::assert_snapshot!("points", render::points(&screen, &list));
    let made = PointMade { point: tagged, failure: Some("the VM has no guest agent channel".into()) };
    insta::assert_snapshot!("point_made", render::point_made(&screen, &made));
    let mut replica = detail(Health::Normal);
    replica.chain = Some(list.chain);
    for (text, words) in [("latest", "the newest only"), ("24", "the newest, and 24 hourly ones")] {
        replica.recovery_points = text.into();
        let page = render::detail(&screen, &replica);
        assert!(page.contains(words) && page.contains("3 recovery points, 3 layers, 5.0 GiB"), "{page}");
    }
}

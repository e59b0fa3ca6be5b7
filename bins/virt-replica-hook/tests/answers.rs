//! The program as libvirt calls it: exit codes, one line, nothing on standard output, and never more than its time.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use domain::{Phase, Relationship, RelationshipId, Timestamp, VmId, fixture};
use store::Store;
use uuid::Uuid;

const STARTS: [&str; 4] = ["prepare", "start", "migrate", "restore"];

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

/// A host with a VM in each of the given phases; VM `n` has the UUID `n` and the name `vm n`.
fn host(path: &Path, phases: &[Phase]) -> Store {
    let store = Store::open(path).expect("a store");
    for (number, phase) in (1..).zip(phases) {
        let relationship = Relationship {
            id: RelationshipId(id(100 + number)),
            vm: VmId(id(number)),
            vm_name: format!("vm {number}"),
            ..fixture::relationship(phase.clone())
        };
        store.insert_relationship(&relationship, None).expect("a relationship");
    }
    store
}

fn hook(state: &Path, name: &str, operation: &str, definition: &str) -> Output {
    hook_with(state, name, operation, definition, "refuse")
}

fn hook_with(state: &Path, name: &str, operation: &str, definition: &str, when_silent: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_virt-replica-hook"))
        .args([name, operation, "begin", "-"])
        .env("VIRT_REPLICA_STATE", state)
        .env("VIRT_REPLICA_SOCKET", state.with_file_name("control.sock"))
        .env("VIRT_REPLICA_PEER_SILENT", when_silent)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the hook runs");
    // A hook that does not read its input closes it: that is its right.
    let _ = child.stdin.take().expect("it is piped").write_all(definition.as_bytes());
    let output = child.wait_with_output().expect("the hook ends");
    assert!(output.stdout.is_empty(), "libvirt would take this for a definition");
    output
}

fn definition(number: u128) -> String {
    format!("<domain type='kvm'>\n  <name>vm {number}</name>\n  <uuid>{}</uuid>\n</domain>\n", id(number))
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn a_primary_starts_and_every_other_side_is_refused_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.db");
    let since = Timestamp(1);
    let phases = [
        Phase::Replicating,
        Phase::Unprotected { since },
        Phase::Receiving,
        Phase::Yielding,
        Phase::Stopped { since },
    ];
    let alive = host(&state, &phases);
    let check_all = || {
        for (number, phase) in (1..).zip(&phases) {
            for operation in STARTS {
                let output =
                    hook_with(&state, &format!("vm {number}"), operation, &definition(number), "start");
                assert_eq!(output.status.code(), Some(i32::from(!phase.may_run())), "{phase:?} {operation}");
                if !phase.may_run() {
                    assert!(one_line(&output).contains("virt-replica "), "a way out");
                }
            }
        }
    };
    check_all();
    drop(alive); // the daemon is down
    check_all();
}

#[test]
fn what_starts_nothing_passes_whatever_is_wrong() {
    let dir = tempfile::tempdir().expect("a directory");
    let (replica, broken) = (dir.path().join("state.db"), dir.path().join("broken.db"));
    let _store = host(&replica, &[Phase::Receiving]);
    std::fs::write(&broken, "no database at all, and long enough to be looked at".repeat(9)).expect("a file");
    for state in [&replica, &broken, &dir.path().join("none.db")] {
        for operation in ["reconnect", "release", "stopped", "started", "attach", "of-a-later-libvirt"] {
            let output = hook(state, "vm 1", operation, "");
            assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{operation}");
        }
    }
}

#[test]
fn the_uuid_counts_and_the_name_only_without_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.db");
    let _store = host(&state, &[Phase::Receiving]);
    let code = |name: &str, definition: &str| hook(&state, name, "prepare", definition).status.code();
    assert_eq!(code("renamed", &definition(1)), Some(1));
    assert_eq!(code("vm 1", "<domain/>"), Some(1));
    assert_eq!(code("vm 1", ""), Some(1));
    assert_eq!(code("other", "<domain/>"), Some(0));
    assert_eq!(code("other", &definition(7)), Some(0));
}

#[test]
fn without_a_database_all_start_and_with_a_broken_one_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.db");
    let output = hook(&state, "vm 1", "prepare", &definition(1));
    assert_eq!(output.status.code(), Some(0));
    assert!(one_line(&output).contains("there is no "));
    assert!(!state.exists(), "a look makes nothing");
    std::fs::write(&state, "no database at all, and long enough to be looked at".repeat(9)).expect("a file");
    let output = hook(&state, "vm\n1", "prepare", &definition(1));
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("rm /etc/libvirt/hooks/qemu.d/virt-replica"));
}

#[test]
fn without_a_daemon_the_setting_decides_in_one_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.db");
    // Both sides spoke in this boot; that is no word about now.
    let _store = host(&state, &[Phase::Replicating]);
    for (setting, code) in [("start", 0), ("refuse", 1)] {
        let output = hook_with(&state, "vm 1", "prepare", &definition(1), setting);
        assert_eq!(output.status.code(), Some(code), "{setting}");
        assert!(one_line(&output).contains("is not known"));
    }
    // A running VM is never in question.
    assert_eq!(hook_with(&state, "vm 1", "reconnect", "", "refuse").status.code(), Some(0));
}

#[test]
fn a_daemon_that_hangs_does_not_hold_libvirt_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.db");
    let _store = host(&state, &[Phase::Replicating]);
    let _silent = std::os::unix::net::UnixListener::bind(dir.path().join("control.sock")).expect("a socket");
    let begun = Instant::now();
    let output = hook_with(&state, "vm 1", "start", &definition(1), "refuse");
    assert_eq!(output.status.code(), Some(1));
    // The hook's own limit is 2 s; the rest is for a machine that is busy.
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_input_that_never_ends_does_not_hold_libvirt_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state.db");
    let _store = host(&state, &[Phase::Receiving]);
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_virt-replica-hook"))
        .args(["vm 1", "prepare", "begin", "-"])
        .env("VIRT_REPLICA_STATE", &state)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the hook runs");
    let _held_open = child.stdin.take();
    assert_eq!(child.wait().expect("the hook ends").code(), Some(1), "judged by its name");
    // The hook's own limit is 2 s; the rest is for a machine that is busy.
    assert!(begun.elapsed() < Duration::from_secs(10));
}

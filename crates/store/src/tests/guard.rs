//! The guard refuses whatever may not run, in one line, with nobody else awake.

use domain::{Epoch, Phase, Relationship, Timestamp, VmId};

use super::{id, primary, relationship, store};
use crate::{Guard, GuardVerdict, HookSettings, Store, boot_id, hook_script};

fn guard(dir: &tempfile::TempDir) -> Guard {
    Guard::open(&dir.path().join("state.db")).expect("it opens").expect("there is one")
}

#[test]
fn the_verdict_is_the_phases_own_rule_and_a_refusal_is_one_line_with_a_way_out() {
    let at = Timestamp(1);
    let phases = [
        (Phase::InitialReplication, ""),
        (Phase::Replicating, ""),
        (Phase::Unprotected { since: at }, ""),
        (Phase::Yielding, "virt-replica operation list"),
        (Phase::Receiving, "virt-replica planned-failover 'it'\\''s'"),
        (Phase::Stopped { since: at }, "virt-replica reverse 'it'\\''s'"),
    ];
    for (phase, cure) in phases {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("state.db")).expect("a store");
        let new = Relationship { phase: phase.clone(), vm_name: "it's".into(), ..relationship() };
        store.insert_relationship(&new, None).expect("a relationship");
        let by_id = guard(&dir).verdict(new.vm).expect("a verdict");
        assert_eq!(by_id, guard(&dir).verdict_by_name("it's").expect("a verdict"));
        match by_id {
            GuardVerdict::Refused(line) => {
                assert!(!phase.may_run() && line.contains(cure) && !line.contains('\n'), "{line}");
            }
            other => {
                assert!(matches!(other, GuardVerdict::Primary { .. }) && phase.may_run(), "{other:?}");
            }
        }
    }
}

#[test]
fn it_answers_beside_a_writer_after_a_clean_end_and_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let alive = store(&dir);
    let refused = |guard: Guard| matches!(guard.verdict(VmId(id(2))), Ok(GuardVerdict::Refused(_)));
    assert!(refused(guard(&dir)), "beside an open store");
    let transaction = alive.connection();
    transaction.execute_batch("BEGIN IMMEDIATE; UPDATE relationship SET may_run = 1").expect("a write");
    assert!(refused(guard(&dir)), "in the middle of another's write");
    transaction.execute_batch("ROLLBACK").expect("an end");
    drop(transaction);
    drop(alive);
    assert!(refused(guard(&dir)), "after a clean end");
    std::mem::forget(store(&dir));
    assert!(refused(guard(&dir)), "after a kill");
}

#[test]
fn nothing_is_protected_where_there_is_no_database_and_a_broken_one_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("state.db");
    assert!(Guard::open(&path).expect("no error").is_none());
    assert!(!path.exists(), "a look makes nothing");
    std::fs::write(&path, "").expect("an empty file");
    assert_eq!(guard(&dir).verdict(VmId(id(2))).expect("a verdict"), GuardVerdict::NotProtected);
    std::fs::write(&path, "this is no database, and longer than the header of one: ".repeat(20))
        .expect("nonsense");
    assert!(guard(&dir).verdict(VmId(id(2))).is_err());
}

#[test]
fn a_copy_that_was_overtaken_stays_refused_whatever_its_phase_becomes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = primary(&dir);
    let (id, vm) = (relationship().id, relationship().vm);
    let refused = || match guard(&dir).verdict(vm).expect("a verdict") {
        GuardVerdict::Refused(line) => line.contains("virt-replica show"),
        _ => false,
    };
    store.hear(id, true, Epoch::FIRST).expect("not higher");
    assert!(!refused(), "its own epoch overtakes nobody");
    store.hear(id, true, Epoch::FIRST.next()).expect("set");
    store.hear(id, true, Epoch::FIRST).expect("an older word");
    assert!(refused());
    store.set_phase(id, &Phase::Unprotected { since: Timestamp(1) }).expect("set");
    store.confirm_boot(id, boot_id()).expect("set");
    assert!(refused());
}

#[test]
fn the_unknown_vm_is_not_protected() {
    let dir = tempfile::tempdir().expect("a directory");
    let _store = store(&dir);
    assert_eq!(guard(&dir).verdict(VmId(id(99))).expect("a verdict"), GuardVerdict::NotProtected);
    assert_eq!(guard(&dir).verdict_by_name("other").expect("a verdict"), GuardVerdict::NotProtected);
}

#[test]
fn the_script_asks_about_starts_only_and_passes_the_answer_on() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().expect("a directory");
    let (binary, script) = (dir.path().join("it's a hook"), dir.path().join("script"));
    let text = hook_script(HookSettings {
        binary: &binary,
        state: &dir.path().join("state of 'it'.db"),
        socket: &dir.path().join("socket of 'it'"),
        start_when_peer_silent: false,
    });
    std::fs::write(&script, text).expect("a script");
    let run = |operation: &str| {
        let shell =
            std::process::Command::new("sh").arg(&script).args(["vm", operation, "begin", "-"]).output();
        let output = shell.expect("a shell");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run("prepare").0, Some(0), "the program is gone: nothing is stopped");
    let probe = std::process::Command::new("sh")
        .arg(&script)
        .args([&format!("{}1", domain::GUARD_PROBE), "prepare", "begin", "-"])
        .output()
        .expect("a shell");
    assert_eq!(probe.status.code(), Some(1), "who tries whether it is asked learns it, without the program");
    std::fs::write(&binary, "#!/bin/sh\necho \"$1 $2 $3 $4 $VIRT_REPLICA_STATE $VIRT_REPLICA_SOCKET $VIRT_REPLICA_PEER_SILENT\" >&2\nexit 1\n")
        .expect("a program");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    for operation in ["prepare", "start", "migrate", "restore"] {
        let (code, said) = run(operation);
        assert_eq!(code, Some(1));
        assert!(said.starts_with(&format!("vm {operation} begin - ")) && said.contains("state of 'it'.db"));
        assert!(said.trim_end().ends_with("socket of 'it' refuse"), "{said}");
    }
    for operation in ["reconnect", "release", "stopped", "started", "attach", "anything"] {
        assert_eq!(run(operation), (Some(0), String::new()));
    }
}

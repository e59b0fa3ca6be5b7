//! The disk of a host fails, or is full, at each call that changes a file or makes it durable, in each step of what `life.rs` lives
//! through, in files and store alike. Who asked is told so in words, and either it goes on by itself, or the command is repeated, or it
//! rests, and goes on when the disk is well.
//!
//! The victim is this test binary under `strace`, which lets the N-th such call of each thread fail.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::text;
use crate::host::{Host, with_host_alone};
use crate::life::{RECEIVED, it_ended_well, live, points_are_whole};

const FOLDER_VARIABLE: &str = "ENGINE_TEST_FAULT_FOLDER";
/// The victim's exit code when something happened in silence; any other failure of it is as good as a kill.
const IN_SILENCE: i32 = 99;
/// No thread makes so many calls of one kind; without a limit a mistake here would never end.
const CALLS_MAX: usize = 600;
/// What a failed call is called by whoever met it: the system, SQLite, or `qemu-img`.
const SAID: [&str; 5] = [
    "os error",
    "No space left on device",
    "Input/output error",
    "disk I/O error",
    "database or disk is full",
];

#[test]
#[ignore = "the victim of the tests below"]
fn victim_of_a_fault() {
    let Some(base) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let lived = with_host_alone(Path::new(&base), async |host: &Host| live(host, |_, _| ()).await);
    for (deed, why) in &lived.told {
        println!("{deed:?}: {why}");
        if !SAID.iter().any(|said| why.contains(said)) {
            let silent = Path::new(&base).join("in-silence");
            let _ = std::fs::write(silent, format!("{deed:?}: {why:?}"));
            std::process::exit(IN_SILENCE);
        }
    }
}

/// Runs the victim with `error` at the `count`-th of `calls`; whether there was none.
fn run_victim(base: &Path, calls: &str, error: &str, count: usize) -> bool {
    let said = tempfile::NamedTempFile::new().expect("a file");
    let this = std::env::current_exe().expect("this binary");
    let output = Command::new("strace")
        .args(["-f", "-qq", "--seccomp-bpf", "-o", text(said.path()), "-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error={error}:when={count}"), "--"])
        .arg(this)
        .args(["--exact", "faults::victim_of_a_fault", "--ignored", "--test-threads=1", "--nocapture"])
        .env(FOLDER_VARIABLE, base)
        .stderr(Stdio::piped())
        .output()
        .expect("strace runs");
    let silent = std::fs::read_to_string(base.join("in-silence")).unwrap_or_default();
    assert_ne!(output.status.code(), Some(IN_SILENCE), "call {count} of {calls}: {silent}");
    let was_left_alone = !std::fs::read_to_string(said.path()).expect("a trace").contains("INJECTED");
    let words = || {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(output.status.success() || !was_left_alone, "failed by itself: {}", words());
    if std::env::var_os("ENGINE_TEST_TELLS").is_some() {
        println!("call {count} of {calls}: {}", words());
    }
    was_left_alone
}

fn check(calls: &str, error: &str, chosen: impl Fn(usize) -> bool) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: install the package strace to run this test");
        return;
    }
    for count in (1..CALLS_MAX).filter(|count| chosen(*count)) {
        let base = tempfile::tempdir().expect("a folder");
        with_host_alone(base.path(), async |host: &Host| {
            for _ in 0..RECEIVED {
                host.receive_next().await.expect("received");
            }
        });
        let ended = run_victim(base.path(), calls, error, count);
        with_host_alone(base.path(), async |host: &Host| {
            points_are_whole(host);
            let lived = live(host, |_, _| ()).await;
            assert!(lived.ended, "call {count} of {calls}, on a disk that is well: {:?}", lived.told);
            it_ended_well(host);
        });
        if ended {
            println!("{count} calls of {calls}");
            assert!(count > 2, "nothing failed");
            return;
        }
    }
    panic!("it never came to its end");
}

const SYNCS: &str = "fsync,fdatasync";
const WRITES: &str = "pwrite64,ftruncate";
const NAMES: &str = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat";

/// One of each 29.
fn some(count: usize) -> bool {
    count % 29 == 5
}

#[test]
fn a_disk_that_fails_in_the_steps_of_a_failover_is_told_of_and_they_go_on() {
    check(SYNCS, "EIO", some);
}

#[test]
fn a_disk_that_is_full_in_the_steps_of_a_failover_is_told_of_and_they_go_on() {
    // Of these there are five times as many.
    check(WRITES, "ENOSPC", |count| count % 97 == 5);
}

#[test]
fn files_that_cannot_be_named_or_removed_in_the_steps_of_a_failover_are_told_of_and_they_go_on() {
    check(NAMES, "EIO", some);
}

#[test]
#[ignore = "minutes: cargo xtask test --long"]
fn every_call_that_fails_in_the_steps_of_a_failover_is_told_of_and_they_go_on() {
    for (calls, error) in [(SYNCS, "EIO"), (WRITES, "ENOSPC"), (NAMES, "ENOSPC")] {
        check(calls, error, |_| true);
    }
}

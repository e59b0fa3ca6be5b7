//! Killed at every call that changes a file, the same work goes on to the same end when it is started again.
//!
//! The victim is this test binary under `strace`, which kills it (or the `qemu-img` that it runs) at the N-th such
//! call, for every N until nothing is left to interrupt. Each start finds out from the files alone where it stands.
//! Our own calls come in the same order every time; those of the threads of `qemu-img` do not. In the same way a disk fails at the
//! N-th write or sync, once: whoever met it must stop, and trust nothing of what it wrote.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{CLUSTER, assert_content, keep_newest, pattern};
use domain::fixture::{point, vda};
use layer::{LayerError, LayerSpec, LayerWriter, ReplicaDirectory, Scope, Storage, check_image, discard};

const SIZE: u64 = 8 * CLUSTER;
/// The last point.
const NEWEST: u64 = 4;
const FOLDER_VARIABLE: &str = "LAYER_TEST_VICTIM_FOLDER";
/// The work makes far fewer calls of one kind; without a limit a mistake here would never end.
const CALLS_MAX: usize = 300;
/// The victim's exit code when a layer was trusted after its disk failed; any other failure of the victim is as good as a kill.
const TRUSTED: i32 = 99;

/// The disk after each point.
fn content(ordinal: u64) -> Vec<u8> {
    let mut content = pattern(1, SIZE);
    for layer in 1..=ordinal {
        let at = (layer * CLUSTER) as usize;
        content[at..at + 2 * CLUSTER as usize].copy_from_slice(&pattern(layer as u8 * 16, 2 * CLUSTER));
        content[at + 2 * CLUSTER as usize..at + 3 * CLUSTER as usize].fill(0);
    }
    content
}

/// A layer as the receiver writes it: resumed where that is possible, else begun anew.
fn receive(directory: &ReplicaDirectory, ordinal: u64) {
    let folder = directory.disk_folder(&vda());
    let (file, spec) = if ordinal == 0 {
        (ReplicaDirectory::base_name(), LayerSpec { virtual_size: SIZE, backing: None, owner: None })
    } else {
        (
            ReplicaDirectory::layer_name(ordinal, point(ordinal).id),
            directory.next_layer(&vda()).expect("a spec"),
        )
    };
    let mut writer = match LayerWriter::resume(&folder, &file, &spec) {
        Ok(resumed) => resumed.writer,
        // Sealed before the kill; its progress may be litter.
        Err(LayerError::Exists(_)) => return discard(&folder, &file).expect("discarded"),
        Err(LayerError::NothingToResume(_)) => {
            discard(&folder, &file).expect("discarded");
            LayerWriter::create(&folder, &file, spec).expect("a writer")
        }
        Err(error) => panic!("{error}"),
    };
    let all = content(ordinal);
    let clusters = if ordinal == 0 { 0..8 } else { ordinal..ordinal + 3 };
    for cluster in clusters {
        let at = cluster * CLUSTER;
        if at < writer.position() {
            continue;
        }
        let data = &all[at as usize..(at + CLUSTER) as usize];
        let zero = data.iter().all(|byte| *byte == 0);
        if zero { writer.zero(at, CLUSTER) } else { writer.write(at, data) }.expect("in order");
        if cluster % 2 == 0
            && let Err(error) = writer.make_durable(b"")
        {
            if writer.make_durable(b"").is_ok() || writer.seal().is_ok() {
                std::process::exit(TRUSTED);
            }
            panic!("{error}");
        }
    }
    writer.seal().expect("sealed");
}

/// The whole life of a replica: made, points received, one in the middle dropped, folded to its base.
fn work(root: &Path) {
    let mut directory = common::directory(root, SIZE);
    let newest = directory.manifest().points.last().map(|point| point.point.ordinal);
    for ordinal in newest.map_or(0, |newest| newest + 1)..=NEWEST {
        if ordinal == NEWEST {
            let dropped = point(1).id;
            directory.forget_points(|id| id != dropped).expect("forgotten");
            directory.fold(&vda(), Scope::BelowHead, &Default::default()).expect("folded in the middle");
        }
        receive(&directory, ordinal);
        let file = match ordinal {
            0 => ReplicaDirectory::base_name(),
            _ => ReplicaDirectory::layer_name(ordinal, point(ordinal).id),
        };
        directory.add_point(point(ordinal), &[(vda(), file)]).expect("a point");
    }
    keep_newest(&mut directory, &vda(), Scope::All).expect("folded");
}

#[test]
#[ignore = "the victim of the test below"]
fn victim() {
    let Some(root) = std::env::var_os(FOLDER_VARIABLE) else { return };
    work(Path::new(&root));
}

/// Runs the victim, and does `what` to its `count`-th call of `calls`; whether there was none.
fn run_victim(root: &Path, calls: &str, what: &str, count: usize) -> bool {
    let inject = format!("inject={calls}:{what}:when={count}");
    let told = tempfile::NamedTempFile::new().expect("a file");
    let this = std::env::current_exe().expect("this binary");
    let status = Command::new("strace")
        // Stops at no other call, which halves the time; signals do not come in that way.
        .args(what.starts_with("error=").then_some("--seccomp-bpf"))
        .args([
            "-f",
            "-qq",
            "-o",
            common::text(told.path()),
            "-e",
            &format!("trace={calls}"),
            "-e",
            &inject,
            "--",
        ])
        .arg(this)
        .args(["--exact", "victim", "--ignored", "--test-threads=1"])
        .env(FOLDER_VARIABLE, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("strace runs");
    assert_ne!(status.code(), Some(TRUSTED), "call {count} failed, and the layer was trusted");
    let told = std::fs::read_to_string(told.path()).expect("what was done");
    let was_left_alone = !told.contains("INJECTED") && !told.contains("killed by SIGKILL");
    assert!(status.success() || !was_left_alone, "failed by itself");
    was_left_alone
}

/// Whatever the manifest offers must start.
fn assert_points_start(root: &Path) {
    let storage = Storage::open(root).expect("storage");
    for path in storage.replicas().expect("listed") {
        let directory = ReplicaDirectory::open(&path).expect("opened");
        for point in &directory.manifest().points {
            assert_content(&path.join("vda").join(&point.files[&vda()]), &content(point.point.ordinal));
        }
    }
}

fn check(calls: &str, what: &str) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: install the package strace to run this test");
        return;
    }
    for count in 1..CALLS_MAX {
        let root = tempfile::tempdir().expect("a folder");
        let ended = run_victim(root.path(), calls, what, count);
        if root.path().join(".virt-replica-storage").exists() {
            assert_points_start(root.path());
        }
        work(root.path());
        let storage = Storage::open(root.path()).expect("storage");
        let path = &storage.replicas().expect("listed")[0];
        let base = path.join("vda/base.qcow2");
        assert_content(&base, &content(NEWEST));
        // A killed qemu-img may leave clusters that nobody uses: wasted space, no damage.
        assert_eq!(check_image(&base).expect("checked").corruptions, 0);
        let directory = ReplicaDirectory::open(path).expect("opened");
        assert!(directory.leftovers().expect("listed").is_empty(), "call {count} left something behind");
        if ended {
            println!("{count} calls of {calls}");
            assert!(count > 2, "nothing was interrupted");
            return;
        }
    }
    panic!("the work never came to its end");
}

#[test]
fn killed_at_any_sync() {
    check("fsync,fdatasync", "signal=KILL");
}

#[test]
fn killed_at_any_write() {
    check("pwrite64,write,ftruncate", "signal=KILL");
}

#[test]
fn killed_at_any_rename_or_removal() {
    check("renameat,renameat2,unlinkat,mkdirat", "signal=KILL");
}

#[test]
fn a_disk_that_fails_at_any_sync() {
    check("fsync,fdatasync", "error=EIO");
}

#[test]
fn a_disk_that_is_full_at_any_write() {
    check("pwrite64", "error=ENOSPC");
}

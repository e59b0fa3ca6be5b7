//! Against the real server: data, holes and dirty bitmaps of a qcow2 file arrive as `qemu-img` sees them.

use std::path::Path;
use std::process::Command;

use extent::Extent;
use nbd::{ALLOCATION, Chunk, Deadlines, NbdError, OfflineDisk, OfflineExport, dirty_context};

const MIB: u64 = 1024 * 1024;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().expect("the program starts");
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn disk(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("disk.qcow2");
    let path = file.to_str().expect("a plain path");
    run("qemu-img", &["create", "-q", "-f", "qcow2", path, "64M"]);
    run("qemu-io", &["-c", "write -P 7 1M 3M", "-c", "write -P 9 20M 64k", path]);
    run("qemu-img", &["bitmap", "--add", path, "b0"]);
    run("qemu-io", &["-c", "write -P 8 2M 128k", "-c", "write -z 21M 1M", path]);
    file
}

async fn export(file: &Path, bitmaps: &[String], dir: &Path) -> Result<OfflineExport, NbdError> {
    OfflineExport::start(OfflineDisk { file, bitmaps }, &dir.join("s")).await
}

#[tokio::test]
async fn data_holes_and_dirty_ranges_are_those_of_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = disk(dir.path());
    let bitmaps = ["b0".to_owned()];
    let export = export(&file, &bitmaps, dir.path()).await.expect("an export");
    let context = dirty_context("b0");
    let client = export.connect(&[ALLOCATION, &context], Deadlines::default()).await.expect("a connection");
    assert_eq!(client.size(), 64 * MIB);
    let extents =
        |list: &[(u64, u64)]| list.iter().map(|(at, len)| Extent::new(*at, *len).expect("range")).collect();
    let dirty: extent::ExtentSet = extents(&[(2 * MIB, 128 * 1024), (21 * MIB, MIB)]);
    assert_eq!(client.dirty(&context).await.expect("a map"), dirty);
    let data: extent::ExtentSet = extents(&[(MIB, 3 * MIB), (20 * MIB, 64 * 1024)]);
    assert_eq!(client.allocated().await.expect("a map"), data);

    let reads = (0..64).map(|mib| client.read(Extent::new(mib * MIB, MIB).expect("range")));
    let mut bytes = vec![0_u8; 64 << 20];
    for read in futures_util::future::join_all(reads).await {
        for chunk in read.expect("a read") {
            if let Chunk::Data { offset, bytes: data } = chunk {
                bytes[offset as usize..][..data.len()].copy_from_slice(&data);
            }
        }
    }
    let at = |mib: u64| bytes[(mib * MIB) as usize];
    assert_eq!((at(0), at(1), at(2), at(3), at(20), at(21)), (0, 7, 8, 7, 9, 0));
    export.stop().await;
}

#[tokio::test]
async fn a_bitmap_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = disk(dir.path());
    let export = export(&file, &[], dir.path()).await.expect("an export");
    let context = dirty_context("b0");
    let error = export.connect(&[&context], Deadlines::default()).await.err().expect("no such context");
    assert!(matches!(error, NbdError::NoContext { .. }), "{error}");
    export.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_disk_is_refused_with_the_servers_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("text");
    std::fs::write(&file, "no disk").expect("a file");
    let export = export(&file, &[], dir.path()).await;
    let error = export.err().expect("no export").to_string();
    assert!(error.contains("qcow2"), "{error}");
}

#[tokio::test]
async fn lost_tracking_is_told_from_other_failures() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = disk(dir.path());
    let missing = export(&file, &["b1".to_owned()], dir.path()).await.err().expect("no such bitmap");
    assert!(matches!(missing, NbdError::BitmapUnusable { .. }), "{missing}");

    // A writer that dies leaves its bitmaps inconsistent.
    let path = file.to_str().expect("a plain path");
    let killed = Command::new("qemu-io").args(["-c", "write 0 64k", "-c", "abort", path]).output();
    assert!(!killed.expect("the program starts").status.success());
    let inconsistent = export(&file, &["b0".to_owned()], dir.path()).await.err().expect("no usable bitmap");
    assert!(matches!(inconsistent, NbdError::BitmapUnusable { .. }), "{inconsistent}");

    let gone = export(&dir.path().join("gone"), &["b0".to_owned()], dir.path()).await.err().expect("no file");
    assert!(matches!(gone, NbdError::Export { .. }), "{gone}");
}

#[tokio::test]
async fn nobody_writes_to_a_disk_while_it_is_exported_and_its_end_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = disk(dir.path());
    let path = file.to_str().expect("a plain path");
    let write = || {
        let output = Command::new("qemu-io").args(["-c", "write 0 64k", path]).output();
        output.expect("the program starts").status.success()
    };
    let running = export(&file, &["b0".to_owned()], dir.path()).await.expect("an export");
    assert!(!write(), "the image lock was not held");
    running.stop().await;
    assert!(write(), "the image lock was not given back");
    assert!(!dir.path().join("s").exists());
    let dropped = export(&file, &[], dir.path()).await.expect("an export");
    assert!(!write(), "the image lock was not held");
    drop(dropped);
    assert!(write(), "one that was dropped still holds the image");
}

/// Its owner may be killed: nobody is left to end it.
#[test]
fn an_export_whose_owner_vanishes_gives_the_disk_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = disk(dir.path());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let running = runtime.block_on(export(&file, &[], dir.path())).expect("an export");
    // As after kill -9: no destructor runs, the connections just close with the runtime that served them.
    std::mem::forget(running);
    runtime.shutdown_background();
    let begun = std::time::Instant::now();
    let write =
        || Command::new("qemu-io").args(["-c", "write 0 64k"]).arg(&file).output().expect("it starts");
    while !write().status.success() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "the image is held for ever");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[tokio::test]
async fn several_bitmaps_are_several_maps() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = disk(dir.path());
    let path = file.to_str().expect("a plain path");
    run("qemu-img", &["bitmap", "--add", path, "b1"]);
    run("qemu-io", &["-c", "write -P 1 40M 64k", path]);
    let bitmaps = ["b0".to_owned(), "b1".to_owned()];
    let export = export(&file, &bitmaps, dir.path()).await.expect("an export");
    let (older, newer) = (dirty_context("b0"), dirty_context("b1"));
    let contexts = [ALLOCATION, &older, &newer];
    let client = export.connect(&contexts, Deadlines::default()).await.expect("a connection");
    let (older, newer) = tokio::join!(client.dirty(&older), client.dirty(&newer));
    let (older, newer) = (older.expect("a map"), newer.expect("a map"));
    assert_eq!(newer, [Extent::new(40 * MIB, 64 * 1024).expect("range")].into_iter().collect());
    assert_eq!(older.intersection(&newer), newer);
    assert_eq!(older.total(), newer.total() + 128 * 1024 + MIB);
    client.disconnect().await;
    export.stop().await;
}

/// Its owner was killed between its start and the first connection: nobody else would end it.
#[tokio::test]
async fn an_export_that_nobody_owns_is_ended_and_one_that_serves_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, socket) = (disk(dir.path()), dir.path().join("s"));
    let mut command = Command::new("qemu-nbd");
    command.args(["--read-only", "--shared=8", "--format=qcow2", "--socket"]).arg(&socket).arg(&file);
    let mut orphan = command.spawn().expect("the program starts");
    let begun = std::time::Instant::now();
    while matches!(orphan.try_wait(), Ok(None)) {
        assert!(begun.elapsed().as_secs() < 60, "it still serves");
        nbd::end_orphan(&socket).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let export = export(&file, &[], dir.path()).await.expect("an export");
    nbd::end_orphan(&socket).await;
    export.connect(&[ALLOCATION], Deadlines::default()).await.expect("it serves");
}

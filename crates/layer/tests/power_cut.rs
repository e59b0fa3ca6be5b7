//! The power fails at any moment of a replica's life: what was acknowledged is there and starts, and the same work goes on to
//! the same end. See `common/disk_log.rs` for what a power cut is here.

mod common;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::disk_log::{DiskLog, Moment, record};
use common::{CLUSTER, assert_content, keep_newest, pattern, run, text};
use domain::Timestamp;
use domain::fixture::{point, vda};
use layer::{
    FileName, LayerError, LayerSpec, LayerWriter, Manifest, ReplicaDirectory, Scope, Storage, check_image,
    discard,
};

const SIZE: u64 = 4 * CLUSTER;
/// The points that are received; the one after them is what a VM wrote that ran here.
const RECEIVED: u64 = 3;
/// Two more points, before the VM is failed over from the first of them, twice: the second failover gives the other one up.
const FAILED_OVER: u64 = RECEIVED + 2;
const GIVEN_UP: u64 = RECEIVED + 3;
/// When what the VM wrote in the first failover was set aside.
const ASIDE: Timestamp = Timestamp(1_700_000_000_000);
/// What the VM writes in each failover, to a cluster that no point writes.
const IN_THE_FIRST: u8 = 0x51;
const IN_THE_SECOND: u8 = 0x52;
const OWN_CLUSTER: u64 = 3;
const FOLDER_VARIABLE: &str = "LAYER_TEST_POWER_FOLDER";

fn layer_of(ordinal: u64) -> FileName {
    match ordinal {
        0 => ReplicaDirectory::base_name(),
        _ => ReplicaDirectory::layer_name(ordinal, point(ordinal).id),
    }
}

/// The disk at each point: each writes one cluster and clears the next.
fn content(ordinal: u64) -> Vec<u8> {
    let mut content = pattern(1, SIZE);
    for layer in 1..=ordinal {
        let at = (layer % 3 * CLUSTER) as usize;
        content[at..at + CLUSTER as usize].fill(layer as u8);
        content[at + CLUSTER as usize..at + 2 * CLUSTER as usize].fill(0);
    }
    content
}

/// A point as the receiver writes it: resumed where that is possible, else begun anew.
fn receive(directory: &ReplicaDirectory, ordinal: u64) {
    let folder = directory.disk_folder(&vda());
    let (file, spec) = match ordinal {
        0 => (layer_of(0), LayerSpec { virtual_size: SIZE, backing: None, owner: None }),
        _ => (layer_of(ordinal), directory.next_layer(&vda()).expect("a spec")),
    };
    let mut writer = match LayerWriter::resume(&folder, &file, &spec) {
        Ok(resumed) => resumed.writer,
        Err(LayerError::Exists(_)) => return discard(&folder, &file).expect("discarded"),
        Err(LayerError::NothingToResume(_)) => {
            discard(&folder, &file).expect("discarded");
            LayerWriter::create(&folder, &file, spec).expect("a writer")
        }
        Err(error) => panic!("{error}"),
    };
    let all = content(ordinal);
    let first = ordinal % 3;
    let clusters = if ordinal == 0 { 0..SIZE / CLUSTER } else { first..first + 2 };
    for at in
        clusters.map(|cluster| cluster * CLUSTER).filter(|at| *at >= writer.position()).collect::<Vec<_>>()
    {
        let data = &all[at as usize..(at + CLUSTER) as usize];
        let zero = data.iter().all(|byte| *byte == 0);
        if zero { writer.zero(at, CLUSTER) } else { writer.write(at, data) }.expect("in order");
        writer.make_durable(b"").expect("durable");
    }
    writer.seal().expect("sealed");
}

/// The VM runs here on an overlay, is shut down, and the overlay becomes the newest layer.
fn run_here(directory: &mut ReplicaDirectory) {
    let ordinal = RECEIVED + 1;
    let folder = directory.disk_folder(&vda());
    if !folder.join(layer_of(ordinal).as_str()).exists() {
        let active = directory.create_active(&vda()).expect("an overlay");
        let at = ordinal % 3 * CLUSTER;
        let write = format!("write -q -P {ordinal} {at} {CLUSTER}");
        let clear = format!("write -q -z {} {CLUSTER}", at + CLUSTER);
        run(&["qemu-io", "-f", "qcow2", "-c", &write, "-c", &clear, "-c", "flush", text(&active)]);
    }
    directory.adopt_active(&vda(), &layer_of(ordinal)).expect("adopted");
}

fn definition(ordinal: u64) -> String {
    format!("<domain>as it was at point {ordinal}</domain>")
}

/// A point becomes one, with what came beside its layer.
fn list(directory: &mut ReplicaDirectory, ordinal: u64) {
    directory.write_primary_definition(&definition(ordinal)).expect("a definition");
    let kept = directory.keep_belongings(point(ordinal).id, &definition(ordinal), &[]).expect("kept");
    let offered = |manifest: &mut Manifest| {
        manifest.add_point(point(ordinal), &[(vda(), layer_of(ordinal))]);
        manifest.note_belongings(point(ordinal).id, kept);
    };
    directory.update(offered).expect("a point");
}

/// Tells the recorder that somebody was told that this is done: the ordinal of a point that is safe, or a deed.
fn acknowledge(root: &Path, what: impl Display) {
    let mark = acknowledged(root, what);
    if !mark.exists() {
        std::fs::create_dir(mark).expect("a mark");
    }
}

fn acknowledged(root: &Path, what: impl Display) -> PathBuf {
    root.join(format!("acknowledged-{what}"))
}

/// What was acknowledged at a moment.
#[derive(Hash, Debug)]
struct Promise {
    newest: Option<u64>,
    set_aside: bool,
    written: bool,
}

impl Promise {
    fn at(moment: &Moment, root: &Path) -> Promise {
        let sees = |what: &str| moment.sees(&acknowledged(root, what));
        let newest = (0..=GIVEN_UP).rev().find(|it| moment.sees(&acknowledged(root, it)));
        // From the decision on, the newer point may be there or not.
        let newest = if sees("decision") { Some(FAILED_OVER) } else { newest };
        Promise { newest, set_aside: sees("aside"), written: sees("writes") }
    }
}

/// The VM runs here on an overlay over an older point.
fn fail_over(directory: &ReplicaDirectory, byte: u8) {
    let active = directory.create_active_at(&vda(), point(FAILED_OVER).id).expect("an overlay");
    let write = format!("write -q -P {byte} {} {CLUSTER}", OWN_CLUSTER * CLUSTER);
    run(&["qemu-io", "-f", "qcow2", "-c", &write, "-c", "flush", text(&active)]);
}

/// `disk` after the VM has written its cluster.
fn written(mut disk: Vec<u8>, byte: u8) -> Vec<u8> {
    disk[(OWN_CLUSTER * CLUSTER) as usize..].fill(byte);
    disk
}

fn aside(directory: &ReplicaDirectory) -> PathBuf {
    directory.disk_folder(&vda()).join(layer::diverged_name(ASIDE).as_str())
}

/// A failover is taken back, and another one is made final.
fn survive(root: &Path, directory: &mut ReplicaDirectory) {
    if !aside(directory).exists() {
        let newest = directory.manifest().points.last().map_or(0, |point| point.point.ordinal);
        for ordinal in newest + 1..=GIVEN_UP {
            receive(directory, ordinal);
            list(directory, ordinal);
            acknowledge(root, ordinal);
        }
        fail_over(directory, IN_THE_FIRST);
    }
    // Both are there only when the second failover has begun.
    if !(aside(directory).exists() && directory.active_path(&vda()).exists()) {
        directory.set_active_aside(&vda(), ASIDE).expect("set aside");
        acknowledge(root, "aside");
    }
    fail_over(directory, IN_THE_SECOND);
    acknowledge(root, "writes");
    acknowledge(root, "decision");
    directory.give_up_after(point(FAILED_OVER).id).expect("given up");
    directory.keep_only(point(FAILED_OVER).id).expect("one point");
    if let Some((top, base)) = directory.to_merge(&vda()).expect("known") {
        // What QEMU does below a VM that runs.
        run(&["qemu-img", "commit", "-q", "-f", "qcow2", "-d", "-b", text(&base), text(&top)]);
        let active = directory.active_path(&vda());
        let below = ["-b", "base.qcow2", "-F", "qcow2", text(&active)];
        run(&[&["qemu-img", "rebase", "-q", "-u", "-f", "qcow2"], &below[..]].concat());
    }
    directory.layers_are_merged(&vda()).expect("merged");
}

/// The whole life of a replica: made, filled, merged, promoted, demoted, merged to its base; failed over and taken back, failed
/// over for good.
fn work(root: &Path) {
    let mut directory = common::directory(root, SIZE);
    let newest = directory.manifest().points.last().map(|point| point.point.ordinal);
    for ordinal in newest.map_or(0, |newest| newest + 1)..=RECEIVED + 1 {
        if ordinal <= RECEIVED {
            receive(&directory, ordinal);
        } else {
            // Merged while it receives; not any more once the VM runs here.
            if !directory.active_path(&vda()).exists() {
                // A point in the middle of the chain goes first, then all but the newest.
                let dropped = point(1).id;
                directory.forget_points(|id| id != dropped).expect("forgotten");
                directory.fold(&vda(), Scope::BelowHead, &Default::default()).expect("folded in the middle");
                keep_newest(&mut directory, &vda(), Scope::BelowHead).expect("folded");
            }
            run_here(&mut directory);
        }
        list(&mut directory, ordinal);
        acknowledge(root, ordinal);
    }
    if newest <= Some(RECEIVED + 1) {
        keep_newest(&mut directory, &vda(), Scope::All).expect("folded");
    }
    survive(root, &mut directory);
}

#[test]
#[ignore = "the victim of the tests below"]
fn victim() {
    let Some(root) = std::env::var_os(FOLDER_VARIABLE) else { return };
    work(Path::new(&root));
}

fn put(state: &BTreeMap<PathBuf, Option<Vec<u8>>>, from: &Path, to: &Path) {
    for (path, content) in state {
        let path = to.join(path.strip_prefix(from).expect("below the root"));
        match content {
            None => std::fs::create_dir(&path).expect("a folder"),
            Some(content) => std::fs::write(&path, content).expect("a file"),
        }
    }
}

/// Whatever the manifest offers starts, and nothing that was acknowledged is missing; gives what is wrong.
fn check_points(root: &Path, promised: &Promise) {
    let newest = Storage::open(root).ok().and_then(|storage| {
        let directories = storage.replicas().expect("listed");
        let directory = ReplicaDirectory::open(directories.first()?).expect("a directory opens");
        for point in &directory.manifest().points {
            let file = directory.disk_folder(&vda()).join(&point.files[&vda()]);
            assert_content(&file, &content(point.point.ordinal));
            let its_own = directory.primary_definition(Some(point.point.id)).expect("its definition");
            assert_eq!(its_own, definition(point.point.ordinal));
        }
        if !directory.manifest().points.is_empty() {
            let newest = directory.primary_definition(None).expect("the newest definition");
            assert!((0..=GIVEN_UP).any(|ordinal| newest == definition(ordinal)), "{newest:?}");
        }
        if promised.set_aside {
            assert_is_kept_aside(&directory);
        }
        if promised.written {
            let active = directory.active_path(&vda());
            assert_content(&active, &written(content(FAILED_OVER), IN_THE_SECOND));
        }
        directory.manifest().points.last().map(|point| point.point.ordinal)
    });
    assert!(newest >= promised.newest, "{promised:?} was acknowledged, the newest point is {newest:?}");
}

/// What the VM wrote before the first failover was taken back is there, and stands on nothing.
fn assert_is_kept_aside(directory: &ReplicaDirectory) {
    let info = layer::inspect(&aside(directory), layer::Gate::Foreign).expect("an image");
    assert_eq!(info.backing, None);
    assert_content(&aside(directory), &written(vec![0; SIZE as usize], IN_THE_FIRST));
}

/// Each different state that a power cut leaves, by the moments that `chosen` wants.
fn cut_the_power(log: &DiskLog, chosen: impl Fn(usize) -> bool) -> usize {
    let promised_at = |number, moment: &Moment| chosen(number).then(|| Promise::at(moment, log.root()));
    log.power_cuts(promised_at, |state, promised| {
        let root = tempfile::tempdir().expect("a folder");
        put(state, log.root(), root.path());
        check_points(root.path(), promised);
        work(root.path());
        let storage = Storage::open(root.path()).expect("storage");
        let directory = ReplicaDirectory::open(&storage.replicas().expect("listed")[0]).expect("opened");
        let base = directory.disk_folder(&vda()).join("base.qcow2");
        assert_content(&base, &content(FAILED_OVER));
        assert_eq!(check_image(&base).expect("checked").corruptions, 0);
        let active = directory.active_path(&vda());
        assert_content(&active, &written(content(FAILED_OVER), IN_THE_SECOND));
        assert_is_kept_aside(&directory);
        assert_eq!(directory.remove_diverged(ASIDE).expect("removed"), 1);
        // As before each delta: removing a file is not made durable by itself.
        directory.discard_partials().expect("discarded");
        assert_eq!(directory.leftovers().expect("listed"), Vec::<PathBuf>::new());
    })
}

fn recorded() -> Option<DiskLog> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: install the package strace to run this test");
        return None;
    }
    let root = tempfile::tempdir().expect("a folder");
    let this = std::env::current_exe().expect("this binary");
    let command = [text(&this), "--exact", "victim", "--ignored", "--test-threads=1"];
    Some(record(&command, (FOLDER_VARIABLE, root.path()), root.path()))
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let Some(log) = recorded() else { return };
    let states = cut_the_power(&log, |number| number % 16 < 2);
    assert!(states > 20, "only {states} states");
}

#[test]
#[ignore = "minutes: cargo xtask test --long"]
fn what_was_acknowledged_survives_a_power_cut_at_every_moment() {
    let Some(log) = recorded() else { return };
    println!("{} states", cut_the_power(&log, |_| true));
}

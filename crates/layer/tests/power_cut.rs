//! The power fails at any moment of a replica's life: what was acknowledged is there and starts, and the same work goes on to
//! the same end. See `common/disk_log.rs` for what a power cut is here.

mod common;

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::disk_log::{CORNERS, DiskLog, record};
use common::{CLUSTER, assert_content, keep_newest, pattern, run, text};
use domain::fixture::{point, vda};
use layer::{
    FileName, LayerError, LayerSpec, LayerWriter, ReplicaDirectory, Scope, Storage, check_image, discard,
};

const SIZE: u64 = 4 * CLUSTER;
/// The points that are received; the one after them is what a VM wrote that ran here.
const RECEIVED: u64 = 3;
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

/// Tells the recorder that whoever sent the point was told that it is safe.
fn acknowledge(root: &Path, ordinal: u64) {
    let mark = acknowledged(root, ordinal);
    if !mark.exists() {
        std::fs::create_dir(mark).expect("a mark");
    }
}

fn acknowledged(root: &Path, ordinal: u64) -> PathBuf {
    root.join(format!("acknowledged-{ordinal}"))
}

/// The whole life of a replica: made, filled, merged, promoted, demoted, merged to its base.
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
        directory.add_point(point(ordinal), &[(vda(), layer_of(ordinal))]).expect("a point");
        acknowledge(root, ordinal);
    }
    keep_newest(&mut directory, &vda(), Scope::All).expect("folded");
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
fn check_points(root: &Path, promised: Option<u64>) {
    let newest = Storage::open(root).ok().and_then(|storage| {
        let directories = storage.replicas().expect("listed");
        let directory = ReplicaDirectory::open(directories.first()?).expect("a directory opens");
        for point in &directory.manifest().points {
            let file = directory.disk_folder(&vda()).join(&point.files[&vda()]);
            assert_content(&file, &content(point.point.ordinal));
        }
        directory.manifest().points.last().map(|point| point.point.ordinal)
    });
    assert!(newest >= promised, "{promised:?} was acknowledged, the newest point is {newest:?}");
}

/// Each different state that a power cut leaves, by the moments that `chosen` wants.
fn cut_the_power(log: &DiskLog, chosen: impl Fn(usize) -> bool) -> usize {
    let mut seen = HashSet::new();
    log.moments(|number, moment| {
        if !chosen(number) {
            return;
        }
        let promised = (0..=RECEIVED + 1).rev().find(|it| moment.sees(&acknowledged(log.root(), *it)));
        for survives in CORNERS {
            let mut state = moment.after_power_cut(survives, number);
            state.retain(|path, _| !text(path).contains("acknowledged-"));
            let mut hasher = DefaultHasher::new();
            (&state, promised).hash(&mut hasher);
            if !seen.insert(hasher.finish()) {
                continue;
            }
            println!("moment {number}, {survives:?} survives, {promised:?} is promised");
            let root = tempfile::tempdir().expect("a folder");
            put(&state, log.root(), root.path());
            check_points(root.path(), promised);
            work(root.path());
            let storage = Storage::open(root.path()).expect("storage");
            let directory = ReplicaDirectory::open(&storage.replicas().expect("listed")[0]).expect("opened");
            let base = directory.disk_folder(&vda()).join("base.qcow2");
            assert_content(&base, &content(RECEIVED + 1));
            assert_eq!(check_image(&base).expect("checked").corruptions, 0);
            // As before each delta: removing a file is not made durable by itself.
            directory.discard_partials().expect("discarded");
            assert_eq!(directory.leftovers().expect("listed"), Vec::<PathBuf>::new());
        }
    });
    seen.len()
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

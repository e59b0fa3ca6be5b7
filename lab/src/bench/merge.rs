//! The merge of the oldest layer into its base, ours and `qemu-img commit` in turns, each on copies of the same files.
//!
//! Ours is all that a replica does for it: commit, rebase of the layer above, both records in the manifest, deletion. The copies
//! were written just before and flushed, so that both tools find them in the page cache and nothing of them left to write.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use domain::DiskTarget;
use layer::{FoldStep, ReplicaDirectory, Scope};
use serde::Serialize;

use super::{Bench, Subject, copy, failover};
use crate::run::run;

/// The replica merges by itself what its retention gave up.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Pause before each merge.
const CALM: Duration = Duration::from_secs(3);

/// One merge by each, seconds.
#[derive(Debug, Serialize)]
pub struct MergeFigure {
    /// Ours, with all that belongs to it.
    pub ours: f64,
    /// Of ours, what moves the data.
    pub ours_commit: f64,
    /// `qemu-img commit` of the same layer.
    pub qemu_img: f64,
    /// Size of the layer's file, bytes.
    pub layer_bytes: u64,
}

pub(super) fn measure(bench: &Bench, guest: &Subject) -> Result<Vec<MergeFigure>> {
    let target = DiskTarget::new("sda").context("the disk's name")?;
    let original = failover::manifest(bench, guest)?.0;
    settled(&original, &target)?;
    // An odd number, and in the second round the other begins.
    (0..bench.options.rounds).map(|round| merge(bench, guest, (&original, &target), round % 2 == 1)).collect()
}

/// Waits until the replica has nothing more to merge: what is copied must not change.
fn settled(directory: &Path, target: &DiskTarget) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut opened = ReplicaDirectory::open(directory)?;
        if opened.begin_fold(target, Scope::BelowHead, &HashSet::new())?.next()?.is_none() {
            return Ok(());
        }
        ensure!(begun.elapsed() < SETTLE_LIMIT, "merges go on and on");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn merge(
    bench: &Bench,
    guest: &Subject,
    (original, target): (&Path, &DiskTarget),
    qemu_img_first: bool,
) -> Result<MergeFigure> {
    let folders = ["merge-ours", "merge-theirs"].map(|name| bench.lab.folder().join(name));
    for folder in &folders {
        run(Command::new("cp").args(["-r", "--sparse=always"]).arg(original).arg(folder))?;
    }
    let [ours, theirs] = &folders;
    let mut directory = ReplicaDirectory::open(ours)?;
    let disk = directory.manifest().disk(target).context("the disk")?;
    let layer = disk.layers.first().context("a layer")?.clone();
    let rival = ReplicaDirectory::open(theirs)?.disk_folder(target).join(layer.as_str());
    let layer_bytes = std::fs::metadata(&rival)?.len();
    // Only files that were copied may be written.
    ensure!(disk.base.file() == "base.qcow2", "the base is not the replica's own: {}", disk.base.file());
    let oldest = directory.manifest().points.first().context("a point")?.point.id;
    directory.forget_points(|point| point != oldest)?;

    // Nothing is left to write, and the storage below has taken in what it said to have written: whoever comes just after a copy of
    // gigabytes pays for it, by more than a merge takes.
    let calm = || {
        copy::touch_memory(bench, guest)?;
        rustix::fs::sync();
        std::thread::sleep(CALM);
        anyhow::Ok(())
    };
    let qemu_img = || -> Result<f64> {
        calm()?;
        let begun = Instant::now();
        run(Command::new("qemu-img").args(["commit", "-q", "-d", "-f", "qcow2"]).arg(&rival))?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let earlier = if qemu_img_first { Some(qemu_img()?) } else { None };
    calm()?;
    let (ours_seconds, ours_commit) = fold(&mut directory, target)?;
    let qemu_img = earlier.map_or_else(qemu_img, Ok)?;

    let base = |folder: &Path| folder.join(target.as_str()).join("base.qcow2");
    run(Command::new("qemu-img").arg("compare").arg(base(ours)).arg(base(theirs)))?;
    for folder in &folders {
        std::fs::remove_dir_all(folder)?;
    }
    Ok(MergeFigure { ours: ours_seconds, ours_commit, qemu_img, layer_bytes })
}

/// The whole fold, and of it the commit.
fn fold(directory: &mut ReplicaDirectory, target: &DiskTarget) -> Result<(f64, f64)> {
    let (begun, none, mut commits) = (Instant::now(), HashSet::new(), Vec::new());
    let mut fold = directory.begin_fold(target, Scope::BelowHead, &none)?;
    loop {
        let before = Instant::now();
        match fold.step()? {
            Some(FoldStep::Commit(_)) => commits.push(before.elapsed().as_secs_f64()),
            Some(_) => {}
            None => break,
        }
    }
    ensure!(commits.len() == 1, "{} merges instead of one", commits.len());
    Ok((begun.elapsed().as_secs_f64(), commits[0]))
}

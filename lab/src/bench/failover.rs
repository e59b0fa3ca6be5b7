//! The failover that nobody planned, with a long chain below it: how long until the guest runs, how its reads fare, and what the reverse costs when both hosts know what they wrote.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::copy::now_ms;
use super::cycle::{BLOCK_BYTES, CHANGED_PART, next_cycle};
use super::handover::steps_from;
use super::{Bench, Subject, dirty};
use crate::product::{HOSTS, is_normal};

/// Recovery points in the chain.
const POINTS: u64 = 24;
/// Blocks that each point holds.
const POINT_BLOCKS: u64 = 64;
/// The layer that is merged holds one part of the disk in so many, in pieces of this size.
const MERGED_PART: u64 = 8;
const MERGED_PIECE_BYTES: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(180);
/// Reads of each pattern, so many at a time.
const READS: u64 = 20_000;
const READS_AT_ONCE: u64 = 16;
/// Patterns: (name, bytes of a read, how much further on the next one lies). In sequence as a guest's read-ahead asks; scattered as a
/// database does, by no power of two, so that all of the disk is met.
const PATTERNS: [(&str, u64, u64); 2] =
    [("of 128 KiB in sequence", 128 << 10, 128 << 10), ("of 4 KiB scattered", 4096, (1 << 22) + 4096)];

/// What was measured, in seconds.
#[derive(Debug, Serialize)]
pub struct FailoverFigures {
    /// Recovery points in the chain.
    pub points: usize,
    /// From the command until the guest was resumed, the other host silent.
    pub command_to_resumed: f64,
    /// The steps from the one that takes over on, and what each took.
    pub steps: Vec<(String, f64)>,
    /// Reads from the newest point and from the same content in one file: (pattern, chain, flat).
    pub reads: Vec<(String, f64, f64)>,
}

/// The way back under protection, and a normal cycle in the same run, in seconds.
#[derive(Debug, Serialize)]
pub struct ReverseFigure {
    /// From the command `reverse` until its first recovery point was acknowledged, with 1 % written on each side.
    pub reverse: f64,
    /// Guest data that it carried.
    pub reverse_bytes: u64,
    /// A cycle of as many blocks just after it.
    pub cycle: f64,
    /// Guest data that the cycle carried.
    pub cycle_bytes: u64,
}

/// Makes the points. The layer over the oldest of them is a large one, for the merge.
pub(super) fn make_points(bench: &Bench, guest: &Subject) -> Result<()> {
    let (first, name) = (HOSTS[0], guest.name());
    bench.product.wait_show(&bench.lab, first, name, LIMIT, |shown| is_normal(shown, 1))?;
    for number in 0..POINTS {
        let (bytes, count) = match number {
            1 => (MERGED_PIECE_BYTES, guest.disk_bytes / MERGED_PIECE_BYTES / MERGED_PART),
            _ => (BLOCK_BYTES, POINT_BLOCKS),
        };
        write(bench, first, guest, bytes, count, number)?;
        let words = ["point", "create", name, "--tag", &number.to_string(), "--yes"];
        bench.product.run(&bench.lab, first, &words)?;
    }
    Ok(())
}

pub(super) fn measure(bench: &Bench, guest: &Subject) -> Result<FailoverFigures> {
    let (first, name) = (HOSTS[0], guest.name());
    let percent = guest.disk_bytes / BLOCK_BYTES / CHANGED_PART;
    bench.product.wait_show(&bench.lab, first, name, LIMIT, |shown| is_normal(shown, 1))?;

    let points = points(bench, guest)?.len();
    ensure!(points as u64 >= POINTS, "the replica holds {points} recovery points only");

    bench.lab.cut_link()?;
    write(bench, first, guest, BLOCK_BYTES, percent, 1001)?;
    shut_down(bench, first, name)?;
    let (command_to_resumed, steps) = fail_over(bench, name)?;
    let reads = reads(bench, guest)?;
    Ok(FailoverFigures { points, command_to_resumed, steps, reads })
}

/// The survivor is changed, too, and reversed; then the VM goes home.
pub(super) fn reverse(bench: &Bench, guest: &Subject) -> Result<ReverseFigure> {
    let (first, second, name) = (HOSTS[0], HOSTS[1], guest.name());
    let run = |words: &[&str]| bench.product.run(&bench.lab, second, words);
    let percent = guest.disk_bytes / BLOCK_BYTES / CHANGED_PART;
    bench.lab.host(second).wait_agent(name, LIMIT)?;
    write(bench, second, guest, BLOCK_BYTES, percent, 1002)?;
    bench.lab.heal_link()?;
    bench.product.wait_show(&bench.lab, second, name, LIMIT, |shown| {
        shown["reasons"].to_string().contains("is back")
    })?;

    let before = bench.cycles(second, guest)?;
    let begun = now_ms();
    run(&["reverse", name, "--yes"])?;
    let carried = next_cycle(bench, second, guest, &before).context("the reverse")?;
    let reverse = acknowledged_ms(bench, guest)?.saturating_sub(begun) as f64 / 1000.0;
    run(&["pause", name, "--yes"])?;
    let before = bench.cycles(second, guest)?;
    // By the hour a cycle would not begin when replication is resumed.
    run(&["set", name, "--frequency", "5s", "--yes"])?;
    write(bench, second, guest, BLOCK_BYTES, 2 * percent, 1003)?;
    run(&["resume", name, "--yes"])?;
    let cycle = next_cycle(bench, second, guest, &before).context("the normal cycle")?;
    run(&["set", name, "--frequency", "1h", "--yes"])?;
    run(&["planned-failover", name, "--to", first, "--yes"])?;
    Ok(ReverseFigure {
        reverse,
        reverse_bytes: carried.bytes,
        cycle: cycle.seconds,
        cycle_bytes: cycle.bytes,
    })
}

fn write(bench: &Bench, host: &str, guest: &Subject, block_bytes: u64, count: u64, seed: u64) -> Result<()> {
    let sizes = (guest.disk_bytes, block_bytes);
    dirty::prepare(bench.lab.host(host), guest.name(), sizes, count, seed)?.write()
}

fn shut_down(bench: &Bench, host: &str, name: &str) -> Result<()> {
    bench.lab.host(host).virsh(["shutdown", name])?;
    bench.lab.host(host).wait_guest_state(name, "shut off", LIMIT).map(drop)
}

/// The manifest of the replica on the second host, as it is now.
pub(super) fn manifest(bench: &Bench, guest: &Subject) -> Result<(PathBuf, Value)> {
    let shown = bench.product.json(&bench.lab, HOSTS[1], &["show", guest.name()])?;
    let directory = shown["directory"].as_str().context("a replica directory")?;
    let directory = bench.lab.host(HOSTS[1]).path(directory)?;
    let text = std::fs::read_to_string(directory.join("manifest.json"))?;
    Ok((directory, serde_json::from_str(&text)?))
}

fn points(bench: &Bench, guest: &Subject) -> Result<Vec<String>> {
    let (_, manifest) = manifest(bench, guest)?;
    let points = manifest["points"].as_array().context("points")?.iter();
    points.map(|point| Ok(point["id"].as_str().context("an id")?.to_owned())).collect()
}

fn fail_over(bench: &Bench, name: &str) -> Result<(f64, Vec<(String, f64)>)> {
    // As a person does: what is lost is read first, and whether the other host answers is known then.
    bench.product.run(&bench.lab, HOSTS[1], &["failover", name, "--dry-run"])?;
    let begun = now_ms();
    bench.product.run(&bench.lab, HOSTS[1], &["failover", name, "--yes"])?;
    let operation = bench.product.newest_operation(&bench.lab, HOSTS[1])?;
    let steps = operation["steps"].as_array().context("steps")?;
    let start = steps.iter().find(|step| step["name"] == "start").context("the start")?;
    let resumed = start["finished_at_ms"].as_u64().context("its end")?;
    Ok((resumed.saturating_sub(begun) as f64 / 1000.0, steps_from(&operation, "take over")?))
}

/// Direct reads by QEMU's own block layer, as the guest's go through it, from the overlay of the running VM and from a flat copy.
fn reads(bench: &Bench, guest: &Subject) -> Result<Vec<(String, f64, f64)>> {
    let (directory, _) = manifest(bench, guest)?;
    let chain = directory.join("sda/active.qcow2");
    let flat = directory.join("flat.qcow2");
    crate::run::run(Command::new("qemu-img").args(["convert", "-U", "-O", "qcow2"]).args([&chain, &flat]))?;
    let mut figures = Vec::new();
    for (pattern, bytes, step) in PATTERNS {
        let time = |file: &Path| -> Result<f64> {
            let times = [read(file, bytes, step)?, read(file, bytes, step)?, read(file, bytes, step)?];
            Ok(times.into_iter().fold(f64::INFINITY, f64::min))
        };
        figures.push((pattern.to_owned(), time(&chain)?, time(&flat)?));
    }
    std::fs::remove_file(flat)?;
    Ok(figures)
}

/// Seconds for the reads alone, as QEMU counts them: a guest's chain is opened once.
fn read(file: &Path, bytes: u64, step: u64) -> Result<f64> {
    let options = ["bench", "-U", "-t", "none", "-f", "qcow2"];
    let numbers = [("-c", READS), ("-d", READS_AT_ONCE), ("-s", bytes), ("-S", step)];
    let numbers = numbers.iter().flat_map(|(option, number)| [(*option).to_owned(), number.to_string()]);
    let said = crate::run::run(Command::new("qemu-img").args(options).args(numbers).arg(file))?;
    let seconds = said.split("completed in ").nth(1).and_then(|rest| rest.split(' ').next());
    seconds.context("a time")?.parse().context("seconds")
}

/// When the newest recovery point of the second host, as primary, was acknowledged.
fn acknowledged_ms(bench: &Bench, guest: &Subject) -> Result<u64> {
    let shown = bench.product.json(&bench.lab, HOSTS[1], &["show", guest.name()])?;
    shown["last_synchronized_at_ms"].as_u64().context("when it was synchronized")
}

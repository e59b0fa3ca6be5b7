//! The initial copy, ours and nbdcopy's in turns: the same disk of the same running VM over the same link to the same
//! file system of the other host. nbdcopy neither encrypts nor verifies; both end with the data durable.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::usage::{self, Usage};
use super::{Bench, Subject};
use crate::guest::IMAGE_FOLDER;
use crate::product::HOSTS;
use crate::wait_gone;

/// A copy that takes longer says enough.
const COPY_LIMIT: Duration = Duration::from_secs(300);
/// Pause between two questions; each costs a process on the machine that is measured.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// Event "the initial replication is complete".
const COMPLETED: u64 = 1002;
const SIGTERM_LIMIT: Duration = Duration::from_secs(10);
/// No cycle may begin between two copies.
const RARELY: &str = "1h";

/// Times of both, seconds, in the order of the rounds.
#[derive(Debug, Default, Serialize)]
pub struct Copies {
    /// Ours: from the command `enable` until the daemon says that the first point is acknowledged.
    pub ours: Vec<f64>,
    /// Ours: the first cycle alone, as the daemon's statistics have it.
    pub ours_cycle: Vec<f64>,
    /// nbdcopy, with `--flush`.
    pub nbdcopy: Vec<f64>,
    /// Processor time of nbdcopy and its server.
    pub nbdcopy_cpu: Vec<f64>,
}

/// One initial copy of ours.
pub(super) struct Initial {
    seconds: f64,
    cycle_seconds: f64,
    pub(super) usage: Usage,
}

/// Alternates; the last of our copies stays, and is compared with its source.
pub(super) fn measure(
    bench: &Bench,
    guest: &Subject,
    rounds: usize,
    usage: &mut Vec<Usage>,
) -> Result<Copies> {
    let mut copies = Copies::default();
    for round in 0..rounds {
        if round > 0 {
            let words = ["remove", guest.name(), "--delete-replica", "--yes"];
            bench.product.run(&bench.lab, HOSTS[0], &words)?;
        }
        touch_memory(bench, guest)?;
        let (seconds, cpu_seconds) = nbdcopy(bench, guest)?;
        copies.nbdcopy.push(seconds);
        copies.nbdcopy_cpu.push(cpu_seconds);
        touch_memory(bench, guest)?;
        let ours = initial(bench, guest)?;
        compare(bench, guest)?;
        copies.ours.push(ours.seconds);
        copies.ours_cycle.push(ours.cycle_seconds);
        usage.push(ours.usage);
    }
    Ok(copies)
}

/// Protects a guest, and measures until its first point is acknowledged.
pub(super) fn initial(bench: &Bench, guest: &Subject) -> Result<Initial> {
    let before = usage::begin(bench, guest)?;
    let begun_ms = now_ms();
    let words = ["enable", guest.name(), "--peer", HOSTS[1], "--frequency", RARELY, "--yes"];
    bench.product.run(&bench.lab, HOSTS[0], &words)?;
    let completed_ms = wait_completed(bench, guest, begun_ms)?;
    let usage = usage::since(bench, guest, &before)?;
    let (count, cycle_ms, _) = bench.cycles(HOSTS[0], guest)?;
    ensure!(count == 1, "{count} cycles instead of the initial copy alone");
    let seconds = (completed_ms - begun_ms) as f64 / 1000.0;
    Ok(Initial { seconds, cycle_seconds: cycle_ms as f64 / 1000.0, usage })
}

/// When the daemon said so, by the clock that all hosts of the lab share.
fn wait_completed(bench: &Bench, guest: &Subject, after_ms: u64) -> Result<u64> {
    let begun = Instant::now();
    loop {
        let events = bench.product.json(&bench.lab, HOSTS[0], &["events", "--vm", guest.name()])?;
        let number = |event: &Value, name: &str| event.get(name).and_then(Value::as_u64).unwrap_or(0);
        let events = events.as_array().context("a list of events")?;
        let completed =
            events.iter().find(|it| number(it, "number") == COMPLETED && number(it, "at_ms") >= after_ms);
        if let Some(completed) = completed {
            return Ok(number(completed, "at_ms"));
        }
        ensure!(begun.elapsed() < COPY_LIMIT, "no initial copy within {COPY_LIMIT:?}: {events:?}");
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// The copy is worth nothing unless it is the disk.
fn compare(bench: &Bench, guest: &Subject) -> Result<()> {
    let directory = bench.product.json(&bench.lab, HOSTS[1], &["show", guest.name()])?;
    let directory = directory.get("directory").and_then(Value::as_str).context("a replica directory")?;
    let copy = bench.lab.host(HOSTS[1]).path(format!("{directory}/sda/base.qcow2"))?;
    let source = bench.lab.host(HOSTS[0]).path(image(guest))?;
    crate::run::run(std::process::Command::new("qemu-img").args(["compare", "-U"]).arg(source).arg(copy))
        .map(drop)
}

/// A virtual machine that gives free memory back to its host pays for the first touch of each page several times what a
/// copy costs. Before each copy or merge the page cache takes as much and lets it go, so that both tools find memory in place.
pub(super) fn touch_memory(bench: &Bench, guest: &Subject) -> Result<()> {
    let place = bench.lab.folder().join("touched");
    std::io::copy(&mut std::io::repeat(1).take(guest.disk_bytes / 2), &mut std::fs::File::create(&place)?)?;
    Ok(std::fs::remove_file(place)?)
}

pub(super) fn image(guest: &Subject) -> String {
    format!("{IMAGE_FOLDER}/{}-sda.qcow2", guest.name())
}

/// The other tool: `qemu-nbd` offers the disk of the running VM for reading, nbdcopy fetches it.
fn nbdcopy(bench: &Bench, guest: &Subject) -> Result<(f64, f64)> {
    let (source, target) = (bench.lab.host(HOSTS[0]), bench.lab.host(HOSTS[1]));
    let address = source.address();
    let image = format!("driver=qcow2,force-share=on,file.driver=file,file.filename={}", image(guest));
    let server = ["qemu-nbd", "-r", "-t", "--image-opts", "-b", &address, &image];
    let server = source.spawn("qemu-nbd", server)?;
    let uri = format!("nbd://{address}");
    let begun = Instant::now();
    while !target.exec_raw(["nbdinfo", "--size", &uri])?.status.success() {
        ensure!(begun.elapsed() < SIGTERM_LIMIT, "qemu-nbd does not answer: {}", source.log("qemu-nbd")?);
        std::thread::sleep(Duration::from_millis(50));
    }
    let copy = "/var/lib/virt-replica/nbdcopy.raw";
    let children = || usage::cpu_seconds(std::process::id(), usage::CHILDREN);
    let (begun, before) = (Instant::now(), children()?);
    target.exec(["nbdcopy", "--flush", &uri, copy])?;
    let seconds = begun.elapsed().as_secs_f64();
    let pid = server.pid();
    let cpu_seconds = children()? - before + usage::cpu_seconds(pid, usage::OWN)?;
    target.exec(["rm", copy])?;
    server.signal(crate::Signal::TERM)?;
    wait_gone(pid, SIGTERM_LIMIT)?;
    Ok((seconds, cpu_seconds))
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

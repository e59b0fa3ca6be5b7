//! What both daemons take of the machine, as the kernel counts it.

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Bench, Subject};
use crate::process;
use crate::product::HOSTS;

/// The most memory that both daemons held, and the processor time that they took.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Usage {
    /// Virtual size of the disk that was copied, bytes.
    pub disk_bytes: u64,
    /// The daemon that sent, bytes.
    pub primary_bytes: u64,
    /// The daemon that received, bytes.
    pub replica_bytes: u64,
    /// Processor time of the daemon that sent, seconds.
    pub primary_cpu_seconds: f64,
    /// The same of the one that received.
    pub replica_cpu_seconds: f64,
    /// The same of the QEMU that was read from.
    pub qemu_cpu_seconds: f64,
}

/// Processor time before: of the primary's daemon, the replica's, and QEMU.
pub(super) struct Before([f64; 3]);

/// Forgets earlier peaks.
pub(super) fn begin(bench: &Bench, guest: &Subject) -> Result<Before> {
    for host in HOSTS {
        std::fs::write(format!("/proc/{}/clear_refs", pid(bench, host)?), "5")?;
    }
    now(bench, guest).map(Before)
}

/// The usage since.
pub(super) fn since(bench: &Bench, guest: &Subject, before: &Before) -> Result<Usage> {
    let cpu = now(bench, guest)?;
    Ok(Usage {
        disk_bytes: guest.disk_bytes,
        primary_bytes: peak_bytes(bench, HOSTS[0])?,
        replica_bytes: peak_bytes(bench, HOSTS[1])?,
        primary_cpu_seconds: cpu[0] - before.0[0],
        replica_cpu_seconds: cpu[1] - before.0[1],
        qemu_cpu_seconds: cpu[2] - before.0[2],
    })
}

fn peak_bytes(bench: &Bench, host: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(bench, host)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()).context("VmHWM")?.parse()?;
    Ok(kib << 10)
}

fn now(bench: &Bench, guest: &Subject) -> Result<[f64; 3]> {
    let marker = format!("guest={},", guest.name());
    let is_qemu = |words: &[String]| words.iter().any(|word| word.starts_with(&marker));
    let qemu = process::all().into_iter().find(|(_, words)| is_qemu(words)).context("the guest's QEMU")?.0;
    let daemons = [pid(bench, HOSTS[0])?, pid(bench, HOSTS[1])?];
    Ok([cpu_seconds(daemons[0], OWN)?, cpu_seconds(daemons[1], OWN)?, cpu_seconds(qemu, OWN)?])
}

/// Fields of `/proc/PID/stat` behind the name: user and system time of the process with all its threads.
pub(super) const OWN: usize = 11;
/// The same of children that have ended and were waited for.
pub(super) const CHILDREN: usize = 13;

/// Processor time of a process.
pub(super) fn cpu_seconds(pid: u32, field: usize) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(") ").next().context("stat")?;
    let ticks = after_name.split(' ').skip(field).take(2).filter_map(|it| it.parse::<u64>().ok());
    Ok(ticks.sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn pid(bench: &Bench, host: &str) -> Result<u32> {
    Ok(bench.product.daemon(host).context("a daemon")?.pid())
}

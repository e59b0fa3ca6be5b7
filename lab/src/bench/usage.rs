//! What both daemons take of the machine, as the kernel counts it.

use anyhow::{Context, Result};
use serde::Serialize;

use super::Bench;
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
}

/// Processor time before: of the primary's and of the replica's daemon.
pub(super) struct Before([f64; 2]);

/// Forgets earlier peaks.
pub(super) fn begin(bench: &Bench) -> Result<Before> {
    for host in HOSTS {
        std::fs::write(format!("/proc/{}/clear_refs", pid(bench, host)?), "5")?;
    }
    Ok(Before([cpu_seconds(bench, HOSTS[0])?, cpu_seconds(bench, HOSTS[1])?]))
}

/// The usage since.
pub(super) fn since(bench: &Bench, before: &Before, disk_bytes: u64) -> Result<Usage> {
    Ok(Usage {
        disk_bytes,
        primary_bytes: peak_bytes(bench, HOSTS[0])?,
        replica_bytes: peak_bytes(bench, HOSTS[1])?,
        primary_cpu_seconds: cpu_seconds(bench, HOSTS[0])? - before.0[0],
        replica_cpu_seconds: cpu_seconds(bench, HOSTS[1])? - before.0[1],
    })
}

fn peak_bytes(bench: &Bench, host: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(bench, host)?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line.and_then(|line| line.split_whitespace().next()).context("VmHWM")?.parse()?;
    Ok(kib << 10)
}

/// User and system time of all threads.
fn cpu_seconds(bench: &Bench, host: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid(bench, host)?))?;
    let after_name = stat.rsplit(") ").next().context("stat")?;
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|it| it.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn pid(bench: &Bench, host: &str) -> Result<u32> {
    Ok(bench.product.daemon(host).context("a daemon")?.pid())
}

//! Resident memory of both daemons, as the kernel counts it.

use anyhow::{Context, Result};
use serde::Serialize;

use super::Bench;
use crate::product::HOSTS;

/// The most that both daemons held.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Peak {
    /// Virtual size of the disk that was copied, bytes.
    pub disk_bytes: u64,
    /// The daemon that sent, bytes.
    pub primary_bytes: u64,
    /// The daemon that received, bytes.
    pub replica_bytes: u64,
}

/// Forgets earlier peaks.
pub(super) fn reset(bench: &Bench) -> Result<()> {
    for host in HOSTS {
        std::fs::write(format!("/proc/{}/clear_refs", pid(bench, host)?), "5")?;
    }
    Ok(())
}

/// The peaks since.
pub(super) fn peak(bench: &Bench, disk_bytes: u64) -> Result<Peak> {
    let of = |host| -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid(bench, host)?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()).context("VmHWM")?.parse()?;
        Ok(kib << 10)
    };
    Ok(Peak { disk_bytes, primary_bytes: of(HOSTS[0])?, replica_bytes: of(HOSTS[1])? })
}

fn pid(bench: &Bench, host: &str) -> Result<u32> {
    Ok(bench.product.daemon(host).context("a daemon")?.pid())
}

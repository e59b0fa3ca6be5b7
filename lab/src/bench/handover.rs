//! Planned failover with 64 MiB left to send: they are written while the guest shuts down, after the last round of
//! pre-sync, so that only the final sync can carry them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{Bench, Subject, dirty};
use crate::product::{HOSTS, is_normal};

/// What is left to send, in so many pieces all over the disk.
const PIECES: u64 = 64;
const PIECE_BYTES: u64 = 1 << 20;
/// A handover takes some ten seconds, most of them the guest's.
const LIMIT: Duration = Duration::from_secs(120);

/// One planned failover.
#[derive(Debug, Serialize)]
pub struct HandoverFigure {
    /// From where.
    pub from: String,
    /// Virtual size of the disk, bytes.
    pub disk_bytes: u64,
    /// From the guest being off to the VM being resumed on the new primary, by the operation's report.
    pub seconds: f64,
    /// Guest data that the final sync carried, by the same.
    pub final_sync_bytes: u64,
    /// Each step from the shutdown on: (name, seconds).
    pub steps: Vec<(String, f64)>,
}

/// There and back.
pub(super) fn measure(bench: &Bench, guest: &Subject) -> Result<Vec<HandoverFigure>> {
    HOSTS.iter().enumerate().map(|(index, from)| hand_over(bench, guest, from, HOSTS[1 - index])).collect()
}

fn hand_over(bench: &Bench, guest: &Subject, from: &str, to: &str) -> Result<HandoverFigure> {
    let (lab, product, name) = (&bench.lab, &bench.product, guest.name());
    product.wait_show(lab, from, name, LIMIT, |shown| is_normal(shown, 1))?;
    lab.host(from).wait_agent(name, LIMIT)?;
    let disk_bytes = guest.disk_bytes;
    let blocks = dirty::prepare(lab.host(from), name, (disk_bytes, PIECE_BYTES), PIECES, disk_bytes)?;
    let known = product.json(lab, from, &["operation", "list"])?.as_array().map_or(0, Vec::len);
    let mut command = product.command(lab, from, &["planned-failover", name, "--to", to, "--yes"])?;
    let mut running = command.stdout(Stdio::null()).spawn()?;
    let wrote = wait_shut_down(bench, from, known).and_then(|()| blocks.write());
    let status = running.wait()?;
    wrote?;
    ensure!(status.success(), "planned-failover ended with {status}");

    let operation = product.newest_operation(lab, to)?;
    let report = |name: &str| operation.pointer(&format!("/report/{name}")).and_then(Value::as_u64);
    let final_sync_bytes = report("final_sync_bytes").context("final_sync_bytes in the report")?;
    ensure!(
        final_sync_bytes * 10 >= PIECES * PIECE_BYTES * 9,
        "only {final_sync_bytes} bytes were left to send: the guest was off before the disk was changed"
    );
    let seconds = report("downtime_ms").context("downtime_ms in the report")? as f64 / 1000.0;
    let steps = steps_from(&operation, "shut down")?;
    Ok(HandoverFigure { from: from.to_owned(), disk_bytes, seconds, final_sync_bytes, steps })
}

/// Waits until the new operation has begun to shut the guest down.
fn wait_shut_down(bench: &Bench, host: &str, known: usize) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let operations = bench.product.json(&bench.lab, host, &["operation", "list"])?;
        let operations = operations.as_array().context("a list of operations")?;
        if operations.len() > known {
            let steps = operations[0]["steps"].as_array().context("steps")?;
            let shut_down = steps.iter().find(|step| step["name"] == "shut down").context("the step")?;
            if shut_down["state"] != "pending" {
                return Ok(());
            }
        }
    }
    bail!("the guest was not shut down within {LIMIT:?}")
}

/// The steps of an operation from this one on, and what each took, in seconds.
pub(super) fn steps_from(operation: &Value, first: &str) -> Result<Vec<(String, f64)>> {
    let steps = operation["steps"].as_array().context("steps")?.iter();
    let time = |step: &Value| -> Option<(String, f64)> {
        let took = step["finished_at_ms"].as_u64()?.checked_sub(step["started_at_ms"].as_u64()?)?;
        Some((step["name"].as_str()?.to_owned(), took as f64 / 1000.0))
    };
    Ok(steps.skip_while(|step| step["name"] != first).filter_map(time).collect())
}

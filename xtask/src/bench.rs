//! `cargo xtask bench`: measures the release build on two hosts, prints a table and writes
//! `target/bench/report.json` and the table as `report.md`.
//!
//! NOT a gate: a missed target is shown as missed, and the command succeeds. Only a part that could not be measured fails it, in
//! the end.

mod table;

use anyhow::{Context, Result, ensure};
use lab::{Benchmark, BenchmarkPart, binaries_in};

use crate::install;
use crate::program::{repository, run as run_program};

pub(crate) fn run(quick: bool, only: Option<BenchmarkPart>) -> Result<()> {
    install::packages_and_rivals()?;
    let programs = ["-p", "virtreplicad", "-p", "virt-replica", "-p", "virt-replica-hook"];
    run_program(&[["cargo", "build", "--quiet", "--release"].as_slice(), &programs].concat())?;
    let size = if quick { Benchmark::QUICK } else { Benchmark::FULL };
    let options = Benchmark { only, ..size };
    let binaries = binaries_in(&repository().join("target/release"))?;
    let figures = lab::benchmark(options, binaries, |step| eprintln!("── {step}"))?;
    let rows = table::rows(&figures);
    let shown = table::render(&rows);
    println!("{shown}");
    let folder = repository().join("target/bench");
    std::fs::create_dir_all(&folder).context("target/bench")?;
    let report = serde_json::json!({ "machine": machine(), "rows": rows, "figures": figures });
    let path = folder.join("report.json");
    std::fs::write(&path, serde_json::to_string_pretty(&report)?).context("report.json")?;
    std::fs::write(folder.join("report.md"), shown + "\n").context("report.md")?;
    println!("everything that was measured: {}", path.display());
    ensure!(figures.failures.is_empty(), "{} parts could not be measured", figures.failures.len());
    Ok(())
}

/// What it was measured on.
fn machine() -> serde_json::Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    serde_json::json!({
        "processor": model.map(|(_, model)| model),
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "memory": read("/proc/meminfo").lines().next(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").trim(),
    })
}

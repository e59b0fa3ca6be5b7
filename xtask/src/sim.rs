//! `cargo xtask sim`: seeds, one at a time for each processor; one line of result.

use std::time::Instant;

use anyhow::{Result, ensure};

pub(crate) fn run(seeds: u64, first: u64) -> Result<()> {
    let begun = Instant::now();
    let many = ::sim::run_many(first, seeds);
    many.failed.iter().for_each(|(_, told)| eprintln!("{told}"));
    let ways: Vec<String> = many.recoveries.iter().map(|(name, count)| format!("{name} {count}")).collect();
    println!(
        "sim: {} of {seeds} seeds from {first} hold; the VM moved {} times, {} writes, {} recovery points, ways back: {}; {:.0?}",
        many.held,
        many.sum.moves,
        many.sum.writes,
        many.sum.moments,
        ways.join(", "),
        begun.elapsed()
    );
    let failed: Vec<u64> = many.failed.iter().map(|(seed, _)| *seed).collect();
    ensure!(failed.is_empty(), "seeds that failed: {failed:?}");
    Ok(())
}

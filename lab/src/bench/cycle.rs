//! A cycle with one hundredth of the disk changed in blocks of 64 KiB, from its begin to its acknowledgement.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Bench, Subject, dirty};
use crate::product::HOSTS;

/// Granularity of tracking.
pub(super) const BLOCK_BYTES: u64 = 64 << 10;
/// One part of the disk in so many is changed.
pub(super) const CHANGED_PART: u64 = 100;
const CYCLE_LIMIT: Duration = Duration::from_secs(60);

/// One cycle.
#[derive(Debug, Serialize)]
pub struct CycleFigure {
    /// From begin to acknowledgement, libvirt included, by the daemon's statistics.
    pub seconds: f64,
    /// Guest data that it carried.
    pub bytes: u64,
}

pub(super) fn measure(bench: &Bench, guest: &Subject) -> Result<Vec<CycleFigure>> {
    let (lab, product, name) = (&bench.lab, &bench.product, guest.name());
    let run = |words: &[&str]| product.run(lab, HOSTS[0], words);
    run(&["set", name, "--frequency", "5s", "--yes"])?;
    let count = guest.disk_bytes / BLOCK_BYTES / CHANGED_PART + 1;
    // The first takes what the guest wrote since the initial copy, and warms nothing else.
    next_cycle(bench, HOSTS[0], guest, &bench.cycles(HOSTS[0], guest)?)?;
    let mut figures = Vec::new();
    for round in 0..bench.options.rounds.max(2) {
        // Paused, so that no cycle begins in the middle of the writes.
        run(&["pause", name, "--yes"])?;
        let sizes = (guest.disk_bytes, BLOCK_BYTES);
        dirty::prepare(lab.host(HOSTS[0]), name, sizes, count, 42 + round as u64)?.write()?;
        let before = bench.cycles(HOSTS[0], guest)?;
        run(&["resume", name, "--yes"])?;
        let figure = next_cycle(bench, HOSTS[0], guest, &before)?;
        // Some blocks were as they were, or are zeroes: pieces of programs hold such.
        ensure!(
            figure.bytes * 100 > count * BLOCK_BYTES * 99,
            "the cycle carried {} bytes only",
            figure.bytes
        );
        figures.push(figure);
    }
    run(&["set", name, "--frequency", "1h", "--yes"])?;
    Ok(figures)
}

/// Waits for one more cycle; what it took is the difference of the sums, which means of few cycles give to some milliseconds.
pub(super) fn next_cycle(
    bench: &Bench,
    host: &str,
    guest: &Subject,
    before: &(u64, u64, u64),
) -> Result<CycleFigure> {
    let begun = Instant::now();
    loop {
        let now = bench.cycles(host, guest)?;
        if now.0 > before.0 {
            ensure!(now.0 == before.0 + 1, "two cycles where one was measured");
            let seconds = now.1.saturating_sub(before.1) as f64 / 1000.0;
            return Ok(CycleFigure { seconds, bytes: now.2.saturating_sub(before.2) });
        }
        ensure!(begun.elapsed() < CYCLE_LIMIT, "no cycle within {CYCLE_LIMIT:?}");
        // The daemon has counted; who looks often is measured with it.
        std::thread::sleep(Duration::from_millis(500));
    }
}

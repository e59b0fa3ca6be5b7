//! `cargo xtask sim`: seeds, some at a time; one line of result.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ::sim::Simulated;
use anyhow::{Result, ensure};

use crate::install;

pub(crate) fn run(seeds: u64, first: u64) -> Result<()> {
    install::packages()?;
    let begun = Instant::now();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, all, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + seeds {
                        return;
                    }
                    match ::sim::run(seed) {
                        Ok(simulated) => all.lock().expect("no panic").push(simulated),
                        Err(error) => {
                            eprintln!("seed {seed}: {error:#}");
                            eprintln!("to do the same again: cargo xtask sim --seeds 1 --first {seed}");
                            failed.lock().expect("no panic").push(seed);
                        }
                    }
                }
            });
        }
    });
    let all: Vec<Simulated> = all.into_inner().expect("no panic");
    let sum = |of: fn(&Simulated) -> u64| all.iter().map(of).sum::<u64>();
    println!(
        "sim: {} of {seeds} seeds from {first} hold; the VM moved {} times, {} writes, {} recovery points; {:.0?}",
        all.len(),
        sum(|it| it.moves as u64),
        sum(|it| it.writes),
        sum(|it| it.moments as u64),
        begun.elapsed()
    );
    let failed = failed.into_inner().expect("no panic");
    ensure!(failed.is_empty(), "seeds that failed: {failed:?}");
    Ok(())
}

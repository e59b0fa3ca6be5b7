//! A simulation: two real engines, with their stores, replica directories and TLS, over a hypervisor, a link and a clock of our own.
//!
//! ```text
//! seed ─▶ rounds of events ─▶ both daemons, in turn, each as far as it comes without the other ─▶ rest ─▶ the judges
//! ```
//! What is simulated: VMs and their writes, backup jobs, the road between the hosts, timers and wall clocks, and QEMU's tools for
//! disk images. What is real: every decision, the protocol and its TLS, SQLite, replica directories and their qcow2 files.
//!
//! Time is what timers say: it jumps to the next one when a daemon has nothing else to do, so that a minute takes milliseconds.
//! Everything happens on one thread, but for blocking calls of a daemon, during which its clock stands still (see [`patience`]).
//! A seed repeats what happens; ids, keys and the order of blocking calls that are made at once differ from run to run. NOT here:
//! guests, libvirt, QEMU (see `lab`).

mod bitmaps;
mod disk;
mod export;
mod form;
mod host;
mod hypervisor;
mod image;
mod judges;
mod link;
mod machine;
mod outside;
mod patience;
mod plan;
mod recoveries;
mod threads;
mod tools;
mod witness;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
pub use plan::{After, Event, Round};
use world::World;

/// Rounds of one simulation.
const ROUNDS: usize = 3;

/// What a simulation does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of chance: the guest, failures, retention.
    pub seed: u64,
    /// What happens.
    pub rounds: Vec<Round>,
    /// What of the simulated world breaks its word, to see that the judges notice.
    pub sabotage: Option<Sabotage>,
}

/// A part of the simulated world that does not do what the product relies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// The start hook is not asked.
    NoHook,
    /// A bitmap misses some writes.
    BitmapMisses,
    /// A disk says that it has synced, and has not: as if a point were acknowledged before its sync.
    DiskForgets,
    /// A database forgets with the power what it has committed: as if an epoch were not kept.
    DatabaseForgets,
}

/// What came of a seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Simulated {
    /// How often the VM went to the other host.
    pub moves: usize,
    /// Writes of the guest.
    pub writes: u64,
    /// Moments of the disk of which a point was to be made.
    pub moments: usize,
}

impl Plan {
    /// What a seed makes happen.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        Plan { seed, rounds: plan::rounds(seed, ROUNDS), sabotage: None }
    }

    /// Runs to the end; an error is a promise that was broken, or a rest that was not found, with all that happened.
    pub fn run(&self) -> Result<Simulated> {
        let mut world = World::new(self).context("at the beginning")?;
        for (number, round) in self.rounds.iter().enumerate() {
            world.history.push(format!("round {}", number + 1));
            if let Err(error) = world.live_through(round) {
                let history = world.history.join("\n  ");
                return Err(error.context(format!("in round {}, after\n  {history}\n", number + 1)));
            }
        }
        let seen = world.witness.seen();
        Ok(Simulated { moves: seen.moves, writes: seen.versions, moments: seen.moments.len() })
    }
}

/// Runs a seed.
pub fn run(seed: u64) -> Result<Simulated> {
    Plan::of(seed).run()
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Many {
    /// How many broke no promise, and what they came to together.
    pub held: u64,
    /// Their sum.
    pub sum: Simulated,
    /// The others, with what is wrong and how to see it again.
    pub failed: Vec<(u64, String)>,
    /// How often the daemons of this process took each way back ([`engine::Recovery`]), by its name.
    pub recoveries: BTreeMap<String, u64>,
}

/// Runs seeds that follow each other, one at a time for each processor.
#[must_use]
pub fn run_many(first: u64, count: u64) -> Many {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, many) = (AtomicU64::new(first), Mutex::new(Many::default()));
    recoveries::count();
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= first + count {
                        return;
                    }
                    let came_of_it = run(seed);
                    many.lock().unwrap_or_else(PoisonError::into_inner).take(seed, came_of_it);
                }
            });
        }
    });
    let many = many.into_inner().unwrap_or_else(PoisonError::into_inner);
    Many { recoveries: recoveries::taken(), ..many }
}

impl Many {
    fn take(&mut self, seed: u64, came_of_it: Result<Simulated>) {
        match came_of_it {
            Ok(simulated) => {
                self.held += 1;
                self.sum.moves += simulated.moves;
                self.sum.writes += simulated.writes;
                self.sum.moments += simulated.moments;
            }
            Err(error) => {
                let again = format!("to do the same again: cargo xtask sim --seeds 1 --first {seed}");
                self.failed.push((seed, format!("seed {seed}: {error:#}\n{again}")));
            }
        }
    }
}

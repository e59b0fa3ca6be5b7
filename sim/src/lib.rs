//! A simulation: two real engines, with their stores, replica directories and TLS, over a hypervisor, a link and a clock of our own.
//!
//! ```text
//! seed ─▶ rounds of events ─▶ both daemons, in turn, each as far as it comes without the other ─▶ rest ─▶ the judges
//! ```
//! What is simulated: VMs and their writes, backup jobs, the road between the hosts, timers and wall clocks, and QEMU's tools for
//! disk images. What is real: every decision, the protocol and its TLS, SQLite, replica directories and their qcow2 files.
//!
//! Time is what timers say: it jumps to the next one when a daemon has nothing else to do, so that a minute takes milliseconds.
//! Everything happens on one thread, but for blocking calls of a daemon, during which its clock stands still. A seed repeats
//! what happens; ids, keys and the order of blocking calls differ. NOT here: guests, libvirt, QEMU (see `lab`).

mod bitmaps;
mod disk;
mod export;
mod host;
mod hypervisor;
mod image;
mod judges;
mod link;
mod machine;
mod patience;
mod plan;
mod tools;
mod witness;
mod world;

use anyhow::{Context, Result};
pub use plan::{Event, Round};
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
    /// A disk says that it has synced, and has not.
    DiskForgets,
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

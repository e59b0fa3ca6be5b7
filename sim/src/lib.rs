//! A simulation: two real engines, with their stores, replica directories and TLS, over a hypervisor, a link and a clock of our own.
//!
//! ```text
//! seed ─▶ rounds of events ─▶ two daemons on threads of their own, time twenty times as fast ─▶ rest ─▶ the judges
//! ```
//! What is simulated: VMs and their writes, backup jobs, the road between the hosts, timers and wall clocks. What is real: every
//! decision, the protocol, SQLite, qcow2 files and the QEMU tools that read and merge them. A seed repeats what happens; threads of
//! the machine still decide in which order two things that happen at once are met. NOT here: guests, libvirt (see `lab`), and power
//! cuts that lose written bytes (see `layer`'s tests).

mod export;
mod form;
mod host;
mod hypervisor;
mod image;
mod link;
mod plan;
mod time;
mod witness;
mod world;

use anyhow::{Context, Result};

use world::World;

/// Rounds of one simulation.
const ROUNDS: usize = 3;

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

/// Runs a seed to its end; an error is a promise that was broken, or a rest that was not found.
pub fn run(seed: u64) -> Result<Simulated> {
    let mut world = World::new(seed).context("at the beginning")?;
    for (number, round) in plan::rounds(seed, ROUNDS).iter().enumerate() {
        world.live_through(round).with_context(|| format!("round {number}: {round:?}"))?;
    }
    let seen = world.witness.seen();
    Ok(Simulated { moves: seen.moves, writes: seen.versions, moments: seen.moments.len() })
}

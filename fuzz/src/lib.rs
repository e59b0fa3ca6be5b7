//! Hostile bytes for every decoder of outside bytes: valid inputs, damaged at random, again and again.
//!
//! ```text
//! targets (decoder, valid inputs) ─▶ mutate (from a seed) ─▶ run: no panic, bounded memory, bounded time
//! ```
//! It runs on the stable compiler and repeats from its seed. NOT led by coverage, so that what hides behind a checksum or a
//! magic number is reached only through the valid inputs.

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

pub use targets::{Target, canaries, targets};

use mutate::Mutator;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most memory that one input may cost, bytes: four times what the largest honest message takes.
pub const MEMORY_MAX: usize = 64 << 20;
/// Most time that one input may take. Machines are shared: this is far above what any takes.
pub const TIME_MAX: Duration = Duration::from_secs(5);

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Inputs that were tried.
    pub executions: u64,
    /// The first input that did harm.
    pub found: Option<Found>,
}

/// An input that did harm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What it did.
    pub what: String,
    /// The input.
    pub input: Vec<u8>,
}

/// Tries a target for so long, from a seed.
#[must_use]
pub fn run(target: &Target, seed: u64, time: Duration) -> Outcome {
    let inputs = (target.inputs)();
    let mut mutator = Mutator::new(seed);
    let begun = Instant::now();
    let mut executions = 0;
    for input in &inputs {
        executions += 1;
        if let Some(what) = attempt(target, input) {
            return Outcome { executions, found: Some(Found { what, input: input.clone() }) };
        }
    }
    while begun.elapsed() < time {
        let input = mutator.damaged(&inputs);
        executions += 1;
        if let Some(what) = attempt(target, &input) {
            return Outcome { executions, found: Some(Found { what, input }) };
        }
    }
    Outcome { executions, found: None }
}

/// What harm an input does; none: none.
fn attempt(target: &Target, input: &[u8]) -> Option<String> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let begun = Instant::now();
    let panicked = catch_unwind(AssertUnwindSafe(|| (target.decode)(input)));
    let (took, memory) = (begun.elapsed(), MEMORY.peak_usage().saturating_sub(before));
    match panicked {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(format!("it panics: {}", text.unwrap_or_default()))
        }
        Ok(()) if memory > MEMORY_MAX => Some(format!("it takes {memory} bytes of memory")),
        Ok(()) if took > TIME_MAX => Some(format!("it takes {took:.1?}")),
        Ok(()) => None,
    }
}

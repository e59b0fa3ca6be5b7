//! Hostile bytes for every decoder of outside bytes: valid inputs, damaged at random, again and again.
//!
//! ```text
//! targets (decoder, valid inputs, corpus) ─▶ mutate (from a seed) ─▶ run: no panic, bounded memory, bounded time
//!                                        └─▶ libFuzzer (src/led.rs) ─▶ the same, and what reaches further becomes corpus
//! ```
//! Both run on the stable compiler. The first repeats from its seed and is quick to build: it is what continuous integration
//! runs. The second is led by coverage; what it found to reach far lies in `corpus`, so that the first begins there.

mod mutate;
mod targets;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;

pub use targets::{Target, canaries, targets};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
    let inputs: Vec<Vec<u8>> = (target.inputs)().into_iter().chain(corpus(target.name)).collect();
    let mut mutator = Mutator::new(seed);
    let begun = Instant::now();
    let mut executions = 0;
    for input in &inputs {
        executions += 1;
        if let Some(what) = harm(target, input) {
            return Outcome { executions, found: Some(Found { what, input: input.clone() }) };
        }
    }
    while begun.elapsed() < time {
        let input = mutator.damaged(&inputs);
        executions += 1;
        if let Some(what) = harm(target, &input) {
            return Outcome { executions, found: Some(Found { what, input }) };
        }
    }
    Outcome { executions, found: None }
}

/// Longest input that is kept: long ones reach no further, and are much to carry.
const KEPT_BYTES_MAX: usize = 512;

/// A file of inputs, each a line in base64.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// What is kept of a decoder: inputs that reach far (`NAME`), and those that did harm once (`NAME.harm`).
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let files = [name.to_owned(), format!("{name}.harm")].map(|name| std::fs::read_to_string(kept(&name)));
    let decoded = |line: &str| STANDARD.decode(line).expect("base64");
    files.iter().flatten().flat_map(|text| text.lines()).map(decoded).collect()
}

/// Keeps the shorter ones of the inputs that lie in the folder of a decoder's name in this one, instead of what was kept before. What did
/// harm stays.
///
/// # Errors
/// When something cannot be read or written.
pub fn keep(target: &Target, folder: &Path) -> io::Result<usize> {
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(folder.join(target.name))? {
        inputs.push(std::fs::read(entry?.path())?);
    }
    inputs.retain(|input| input.len() <= KEPT_BYTES_MAX);
    if inputs.is_empty() {
        return Ok(0);
    }
    inputs.sort();
    let lines: String = inputs.iter().map(|input| STANDARD.encode(input) + "\n").collect();
    let file = kept(target.name);
    std::fs::create_dir_all(file.parent().unwrap_or(folder))?;
    std::fs::write(file, lines)?;
    Ok(inputs.len())
}

/// Writes what a decoder begins with into a folder of its name, one file for each input.
///
/// # Errors
/// When it cannot be written.
pub fn write_inputs(target: &Target, folder: &Path) -> io::Result<()> {
    let folder = folder.join(target.name);
    std::fs::create_dir_all(&folder)?;
    let inputs = (target.inputs)().into_iter().chain(corpus(target.name));
    inputs
        .enumerate()
        .try_for_each(|(number, input)| std::fs::write(folder.join(format!("input-{number}")), input))
}

/// What harm an input does; none: none.
#[must_use]
pub fn harm(target: &Target, input: &[u8]) -> Option<String> {
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
        Ok(()) if memory > target.memory_max => Some(format!("it takes {memory} bytes of memory")),
        Ok(()) if took > TIME_MAX => Some(format!("it takes {took:.1?}")),
        Ok(()) => None,
    }
}

//! `cargo xtask mutants`: the pure crates are changed in hundreds of small ways, one at a time, and each time a test of the same crate
//! must fail.
//!
//! What may survive, and why, is in `.cargo/mutants.toml` and docs/mutants.md.

use anyhow::{Result, ensure};

use crate::program::{repository, run as run_program, succeeds};

/// Crates that decide, and do nothing else.
const PURE: [&str; 4] = ["extent", "choreography", "domain", "wire"];

/// What was tried and what came of it, a folder for each crate.
const FOUND: &str = "target/mutants";
/// A test that takes longer hangs, because a loop lost its step: these crates' tests take a second or two.
const SECONDS_MAX: &str = "60";

/// All crates, or one.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    ensure!(only.is_none_or(|only| PURE.contains(&only)), "no such crate; there are {}", PURE.join(", "));
    if !succeeds(&["cargo", "mutants", "--version"]) {
        eprintln!("installing cargo-mutants: changes code to see whether a test notices");
        run_program(&["cargo", "install", "cargo-mutants", "--locked"])?;
    }
    // It makes the last folder of a path only.
    std::fs::create_dir_all(repository().join(FOUND))?;
    let chosen = PURE.into_iter().filter(|name| only.is_none_or(|only| only == *name));
    let survived: Vec<&str> = chosen.filter(|name| !all_are_noticed(name)).collect();
    ensure!(survived.is_empty(), "changes that no test noticed in {}: see above", survived.join(", "));
    Ok(())
}

fn all_are_noticed(name: &str) -> bool {
    let out = format!("{FOUND}/{name}");
    let words = ["cargo", "mutants", "--package", name, "--output", &out, "--timeout", SECONDS_MAX];
    run_program(&words).is_ok()
}

//! `cargo xtask model`: every history of two hosts, a link and a person in a hurry, within small budgets; one line of result.

use std::time::Instant;

use ::model::{self as checked, Searched};
use anyhow::{Result, ensure};

pub(crate) fn run(long: bool) -> Result<()> {
    let begun = Instant::now();
    let large = long.then(checked::long_promise);
    let promises: Vec<Searched> = checked::promises().chain(large).collect();
    let sabotages: Vec<Searched> = checked::sabotages().collect();
    for wrong in promises.iter().chain(&sabotages).filter(|searched| !searched.is_as_it_must_be()) {
        eprintln!("{wrong:#?}");
    }
    let good = |all: &[Searched]| all.iter().filter(|searched| searched.is_as_it_must_be()).count();
    let states: usize = promises.iter().map(|searched| searched.states).sum();
    let never = checked::never_seen(&promises);
    if !never.is_empty() {
        eprintln!("must be possible and was never seen: {never:?}");
    }
    println!(
        "model: {states} states, the promises hold in {} of {} budgets, {} of {} sabotages found, {:.0?}",
        good(&promises),
        promises.len(),
        good(&sabotages),
        sabotages.len(),
        begun.elapsed()
    );
    ensure!(good(&promises) == promises.len() && good(&sabotages) == sabotages.len(), "see above");
    ensure!(never.is_empty(), "see above");
    Ok(())
}

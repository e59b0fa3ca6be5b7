//! What continuous integration runs of the simulation: seeds that follow each other, each told with the command that repeats it.
//! `cargo xtask sim` runs more.

/// So many that it takes less than a minute on a slow machine.
const SEEDS: u64 = 100;

#[test]
fn what_happens_by_chance_breaks_no_promise() {
    let failed: Vec<String> = (1..=SEEDS)
        .filter_map(|seed| {
            let error = sim::run(seed).err()?;
            Some(format!(
                "seed {seed}: {error:#}\nto do the same again: cargo xtask sim --seeds 1 --first {seed}"
            ))
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

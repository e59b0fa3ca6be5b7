//! What continuous integration runs of the simulation: seeds that follow each other, each told with the command that repeats it.
//! `cargo xtask sim` runs more.

/// About a second of processor time each.
const SEEDS: u64 = 40;

#[test]
fn what_happens_by_chance_breaks_no_promise() {
    let failed = sim::run_many(1, SEEDS).failed;
    let told: Vec<String> = failed.into_iter().map(|(_, told)| told).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

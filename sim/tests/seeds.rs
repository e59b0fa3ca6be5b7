//! What continuous integration runs of the simulation: seeds that follow each other, each told with the command that repeats it.
//! `cargo xtask sim` runs more.

use engine::Recovery;

/// About a second of processor time each.
const SEEDS: u64 = 40;

#[test]
fn what_happens_by_chance_breaks_no_promise() {
    let many = sim::run_many(1, SEEDS);
    let told: Vec<String> = many.failed.into_iter().map(|(_, told)| told).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
    println!("ways back: {:?}", many.recoveries);
    let taken = |recovery: &Recovery| many.recoveries.contains_key(recovery.name());
    let never: Vec<Recovery> = Recovery::ALL.into_iter().filter(|recovery| !taken(recovery)).collect();
    assert!(
        never.is_empty(),
        "ways back that no seed took: {never:?}; those that were: {:?}",
        many.recoveries
    );
}

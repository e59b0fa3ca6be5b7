//! The judges can say no: a part of the simulated world that breaks its word is noticed within few seeds.

use sim::{Plan, Sabotage};

/// Seeds in which it must be noticed.
const FEW: u64 = 40;

fn complaint(sabotage: Sabotage) -> Option<String> {
    (1..=FEW).find_map(|seed| {
        let plan = Plan { sabotage: Some(sabotage), ..Plan::of(seed) };
        plan.run().err().map(|error| format!("{error:#}"))
    })
}

#[test]
fn a_host_that_does_not_ask_the_start_hook_is_noticed() {
    let complaint = complaint(Sabotage::NoHook).expect("noticed");
    assert!(
        complaint.contains("while it runs on the other") || complaint.contains("it stopped with"),
        "{complaint}"
    );
}

#[test]
fn a_bitmap_that_misses_writes_is_noticed() {
    let complaint = complaint(Sabotage::BitmapMisses).expect("noticed");
    assert!(complaint.contains("and the disk was") || complaint.contains("it stopped with"), "{complaint}");
}

#[test]
fn a_disk_that_forgets_what_it_synced_is_noticed() {
    let complaint = complaint(Sabotage::DiskForgets).expect("noticed");
    assert!(!complaint.contains("at the beginning"), "{complaint}");
}

//! The judges can say no: a part of the simulated world that breaks its word is noticed within few seeds.

use sim::{Plan, Sabotage};

/// Seeds in which it must be noticed.
const FEW: u64 = 40;

/// Whether a seed is found of which a judge says this; what breaks its word may be noticed by others of its consequences before. What
/// happened until then is told with the complaint, and is none.
fn is_noticed(sabotage: Sabotage, words: &[&str]) -> bool {
    (1..=FEW).any(|seed| {
        let Err(error) = (Plan { sabotage: Some(sabotage), ..Plan::of(seed) }).run() else { return false };
        let (begins, complaint) = (error.to_string() == "at the beginning", error.root_cause().to_string());
        // A rest that is not found is no judge's word, whatever it quotes.
        let judged = !begins && !complaint.starts_with("not healed");
        judged && words.iter().any(|words| complaint.contains(words))
    })
}

#[test]
fn a_host_that_does_not_ask_the_start_hook_is_noticed() {
    assert!(is_noticed(Sabotage::NoHook, &["while it runs on the other", "it stopped with"]));
}

#[test]
fn a_bitmap_that_misses_writes_is_noticed() {
    assert!(is_noticed(Sabotage::BitmapMisses, &["and the disk was", "it stopped with"]));
}

#[test]
fn a_point_that_is_acknowledged_before_it_is_on_the_disk_is_noticed() {
    assert!(is_noticed(Sabotage::DiskForgets, &["is no qcow2 file", "was acknowledged", "and the disk was"]));
}

#[test]
fn an_epoch_that_is_not_kept_is_noticed() {
    assert!(is_noticed(Sabotage::DatabaseForgets, &["went from epoch"]));
}

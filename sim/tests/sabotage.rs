//! The judges can say no: a part of the simulated world that breaks its word is noticed within few seeds.

use std::time::Duration;

use sim::{Event, Plan, Round, Sabotage};

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
fn a_point_that_is_acknowledged_before_it_is_on_the_disk_is_noticed() {
    let complaint = complaint(Sabotage::DiskForgets).expect("noticed");
    assert!(!complaint.contains("at the beginning"), "{complaint}");
}

#[test]
fn an_epoch_that_is_not_kept_is_noticed() {
    let complaint = complaint(Sabotage::DatabaseForgets).expect("noticed");
    assert!(complaint.contains("back to"), "{complaint}");
}

/// The only one that chance would find too seldom: somebody must start the VM at the old primary between lock and hand over.
#[test]
fn a_handover_without_its_lock_is_noticed() {
    let starts = (0..200).map(|_| (Duration::from_millis(20), Event::Start(0)));
    let round: Round = [(Duration::ZERO, Event::HandOver)].into_iter().chain(starts).collect();
    let run = |sabotage| Plan { seed: 1, rounds: vec![round.clone()], sabotage }.run();
    run(None).expect("with its lock nothing is wrong");
    let complaint = format!("{:#}", run(Some(Sabotage::NoLock)).expect_err("noticed"));
    assert!(
        complaint.contains("while it runs on the other") || complaint.contains("it stopped with"),
        "{complaint}"
    );
}

//! Histories with a name, which chance would find too seldom: what happens, and what was wrong once or must never be.

use std::time::Duration;

use sim::{After, Event, Plan, Round};

fn lives_through(seed: u64, events: &[(u64, Event)]) {
    let round: Round = events.iter().map(|(ms, event)| (Duration::from_millis(*ms), *event)).collect();
    Plan { seed, rounds: vec![round], sabotage: None }.run().expect("no promise is broken");
}

/// A handover during which somebody starts the VM on a host again and again.
fn is_started_all_the_while(seed: u64, host: usize) {
    let starts = (0..100).map(|_| (20, Event::Start(host)));
    let events: Vec<_> = [(0, Event::HandOver)].into_iter().chain(starts).collect();
    lives_through(seed, &events);
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Why: points made meanwhile are from the future, and the rule that thins them out must not take those for the newest.
#[test]
fn a_primary_whose_clock_is_years_ahead_for_a_while() {
    let years_ms = 10 * 365 * 24 * 3_600_000;
    for seed in 0..3 {
        lives_through(seed, &[(0, Event::Jump(0, years_ms, seconds(30))), (1_000, Event::HandOver)]);
    }
}

/// Why: retention and timers compare what was written before with now.
#[test]
fn a_replica_whose_clock_goes_back_by_years() {
    let years_ms = -10 * 365 * 24 * 3_600_000;
    for seed in 0..3 {
        lives_through(seed, &[(0, Event::Jump(1, years_ms, seconds(30))), (1_000, Event::HandOver)]);
    }
}

/// Why: libvirt's autostart, or a hand in a hurry, comes before either side knows how the handover ends.
#[test]
fn both_hosts_try_to_start_the_vm_while_it_is_handed_over() {
    let starts = [(300, Event::Start(0)), (300, Event::Start(1))];
    let events: Vec<_> =
        [(0, Event::HandOver)].into_iter().chain(starts.into_iter().cycle().take(12)).collect();
    lives_through(7, &events);
}

/// Why: the start hook allows a start, a handover locks the VM, and the start comes through when nobody looks any more: it ran on
/// both hosts.
#[test]
fn a_start_that_was_allowed_before_the_lock_of_a_handover_comes_after_it() {
    (1..5).for_each(|seed| is_started_all_the_while(seed, 0));
}

/// Why: hosts are updated one after the other, and also in the middle of a handover. Nothing is guessed, and it goes on when both
/// understand each other again.
#[test]
fn one_host_speaks_another_version_in_the_middle_of_a_handover() {
    for (seed, host) in [(1, 0), (2, 1), (3, 0), (4, 1)] {
        let update = Event::Update(host, seconds(5));
        lives_through(seed, &[(0, Event::HandOver), (300 * seed, update), (1_000, Event::HandOver)]);
    }
}

/// Why: a start by hand comes between the hand over and the start of the new primary, which then makes no checkpoint of the last point.
#[test]
fn the_vm_is_started_by_hand_where_it_was_just_handed_over_to() {
    (1..4).for_each(|seed| is_started_all_the_while(seed, 1));
}

/// Why: the road goes and the power with it, at the same time, in the middle of a handover.
#[test]
fn the_old_primary_loses_its_power_behind_a_deaf_link_in_a_handover() {
    for pause_ms in [200, 700, 1_200, 2_000] {
        let deaf = Event::Swallow(seconds(3));
        let cut = Event::CutPower(0, seconds(10));
        lives_through(
            pause_ms,
            &[(0, Event::HandOver), (pause_ms, deaf), (0, cut), (2_000, Event::Start(0))],
        );
    }
}

/// Why: the old primary comes back with a newer disk than anybody offered, and must neither start nor be taken for the truth.
#[test]
fn the_primary_loses_its_power_and_comes_back_after_a_failover() {
    for seed in 0..4 {
        let pause_ms = 1_500 * seed;
        lives_through(
            seed,
            &[(pause_ms, Event::Disaster(0, After::Reverse, seconds(10))), (3_000, Event::HandOver)],
        );
    }
}

/// Why: what a VM is started from is written again with each point, and once was not synced: a replica's host that lost its power
/// right after the hand over could not start the VM any more.
#[test]
#[ignore = "minutes: cargo xtask test --long"]
fn the_new_primary_loses_its_power_at_any_sync_of_a_handover() {
    for sync in 1..30 {
        let cut = Event::CutPowerAt(1, sync, seconds(10));
        lives_through(u64::from(sync), &[(0, Event::HandOver), (700, cut)]);
    }
}

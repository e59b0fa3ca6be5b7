//! A host with a thousand replicas: its list takes no longer when each of them has a day of cycles behind it.
//!
//! How long it takes at all is measured by `cargo xtask console`.

use std::time::{Duration, Instant};

use lab::{Api, HOSTS, Protected, multiply_relationships, protected, remember_cycles};

const REPLICAS: usize = 1000;
/// Cycles of each: a day, one every five minutes.
const CYCLES: usize = 288;
/// Asked so often; what counts is the quickest answer, for other work on the machine only adds.
const ASKED: usize = 5;
/// So many times as long at most, where there are 288 times as many rows.
const LONGER_MAX: f64 = 5.0;

#[test]
fn a_thousand_replicas_are_listed_as_quickly_with_a_day_of_cycles_each() {
    let mut world = protected("thousand").unwrap();
    let young =
        quickest(&mut world, |world| multiply_relationships(world.lab.host(HOSTS[1]), REPLICAS).unwrap());
    let old = quickest(&mut world, |world| remember_cycles(world.lab.host(HOSTS[1]), CYCLES).unwrap());
    println!("{REPLICAS} relationships: {young:.2?} at first, {old:.2?} with {CYCLES} cycles each");
    assert!(old.as_secs_f64() < LONGER_MAX * young.as_secs_f64(), "{young:?}, {old:?}");
    world.lab.down().unwrap();
}

/// The quickest answer after something was done to the replica's host while its daemon was down.
fn quickest(world: &mut Protected, done: impl Fn(&Protected)) -> Duration {
    world.product.kill(HOSTS[1]).unwrap();
    done(world);
    world.product.start(world.lab.host(HOSTS[1])).unwrap();
    let api = Api::of(world.lab.host(HOSTS[1])).unwrap();
    let asked = (0..ASKED).map(|_| {
        let begun = Instant::now();
        let answered = api.ask("GET /relationships", &[], "").unwrap();
        assert_eq!(answered.json().unwrap().as_array().map(Vec::len), Some(REPLICAS));
        begun.elapsed()
    });
    asked.min().unwrap()
}

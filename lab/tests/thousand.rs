//! A host with a thousand replicas, each with a day of cycles: its list is there without delay, at first and again.

use std::time::{Duration, Instant};

use lab::{Api, HOSTS, multiply_relationships, protected};

const REPLICAS: usize = 1000;
/// Cycles of each: a day, one every five minutes.
const CYCLES: usize = 288;
/// Longest answer. Measured on two processors that builds kept busy: 0.28 s at first, 0.13 s and 0.16 s again.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[test]
fn a_thousand_replicas_are_listed_without_delay() {
    let mut world = protected("thousand").unwrap();
    world.product.kill(HOSTS[1]).unwrap();
    multiply_relationships(world.lab.host(HOSTS[1]), REPLICAS, CYCLES).unwrap();
    world.product.start(world.lab.host(HOSTS[1])).unwrap();

    let api = Api::of(world.lab.host(HOSTS[1])).unwrap();
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let answered = api.ask("GET /relationships", &[], "").unwrap();
        took.push(begun.elapsed());
        assert_eq!(answered.json().unwrap().as_array().map(Vec::len), Some(REPLICAS));
    }
    println!("{REPLICAS} relationships: {took:?}");
    assert!(took.iter().all(|took| *took < ANSWER_MAX), "{took:?}");
    world.lab.down().unwrap();
}

//! A short run of every target, and proof that the runner finds what is broken.

use std::time::Duration;

/// One test, so that nothing else takes memory meanwhile.
#[test]
fn hostile_bytes_do_no_harm_and_what_is_broken_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    for canary in fuzz::canaries() {
        let outcome = fuzz::run(&canary, 1, Duration::from_secs(20));
        assert!(outcome.found.is_some(), "{} is not found in {} executions", canary.name, outcome.executions);
    }
    for target in fuzz::targets() {
        assert!(!(target.inputs)().is_empty(), "{}: no valid input", target.name);
        let outcome = fuzz::run(&target, 1, Duration::from_secs(1));
        println!("{}: {} executions", target.name, outcome.executions);
        let _ = std::panic::take_hook();
        assert!(outcome.found.is_none(), "{}: {:?}", target.name, outcome.found);
        std::panic::set_hook(Box::new(|_| {}));
    }
}

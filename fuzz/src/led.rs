//! One decoder under libFuzzer, which is led by coverage. `cargo xtask fuzz --led` builds this with counters in every crate and
//! says which decoder, in a variable of the environment.
//!
//! NOT part of an ordinary build: it needs a C++ compiler, and all crates anew.
#![no_main]

use std::sync::LazyLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

/// Names the decoder.
const VARIABLE: &str = "VIRT_REPLICA_FUZZ_TARGET";

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    let found = fuzz::targets().into_iter().chain(fuzz::canaries()).find(|one| one.name == name);
    found.unwrap_or_else(|| panic!("{VARIABLE}={name:?} names no decoder"))
});

fuzz_target!(|input: &[u8]| {
    // A panic ends the process before it comes back.
    if let Some(what) = fuzz::harm(&TARGET, input) {
        panic!("{what}");
    }
});

//! Time that runs faster: a second of the machine is [`SPEED`] seconds of both hosts, for timers and wall clocks alike.
//!
//! Real work (files, `qemu-img`, sockets) takes as long as it takes, which the daemons see as slow disks and links.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use domain::Timestamp;

/// How much faster than the machine's clock.
pub(crate) const SPEED: u32 = 20;
/// How finely time passes: no timer of the daemons is shorter than some of these.
const TICK: Duration = Duration::from_millis(1);
/// The simulated world begins on a day of 2026.
const FIRST_MS: u64 = 1_780_000_000_000;

fn begun() -> Instant {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    *BEGUN.get_or_init(Instant::now)
}

/// The wall clock of both hosts.
pub(crate) fn now() -> Timestamp {
    let passed = begun().elapsed() * SPEED;
    Timestamp(FIRST_MS + u64::try_from(passed.as_millis()).unwrap_or(u64::MAX / 2))
}

/// Simulated time passes.
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time / SPEED);
}

/// Lets the timers of a runtime that was started paused go, as long as it runs. While this waits on its thread tokio does not
/// skip to the next timer by itself.
pub(crate) async fn run() {
    let mut last = Instant::now();
    loop {
        drop(tokio::task::spawn_blocking(|| std::thread::sleep(TICK)).await);
        let now = Instant::now();
        tokio::time::advance((now - last) * SPEED).await;
        last = now;
    }
}

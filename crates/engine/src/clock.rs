//! The wall clock, in one place.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use domain::Timestamp;

static SIMULATED: OnceLock<fn() -> Timestamp> = OnceLock::new();

/// From now on, in this process, it is what `clock` says. For a simulation alone.
pub fn simulate(clock: fn() -> Timestamp) {
    let _ = SIMULATED.set(clock);
}

/// Now, by this host's clock.
#[must_use]
pub fn now() -> Timestamp {
    if let Some(simulated) = SIMULATED.get() {
        return simulated();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Minutes of the local day that have passed.
pub(crate) fn minute_of_day() -> u16 {
    let now = jiff::Zoned::now();
    u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs())
}

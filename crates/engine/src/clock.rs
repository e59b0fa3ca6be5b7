//! The wall clock, in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::Timestamp;

/// Now, by this host's clock.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Minutes of the local day that have passed.
pub(crate) fn minute_of_day() -> u16 {
    let now = jiff::Zoned::now();
    u16::from(now.hour().unsigned_abs()) * 60 + u16::from(now.minute().unsigned_abs())
}

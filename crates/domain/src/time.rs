//! Wall-clock instants, for people and for schedules. Never used to order recovery points: epochs and ordinals do that.

use std::time::Duration;

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this instant; zero when the clock went backwards.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The instant `wait` later.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Timestamp {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(millis))
    }

    /// Whether this instant lies so far after `now` that it was read from a clock that was wrong: it says nothing of when something was.
    #[must_use]
    pub fn is_wrong(self, now: Timestamp) -> bool {
        self > now.plus(CLOCK_ERROR_MAX)
    }

    /// Whether something that was done at this instant, and is to be done again after `every`, is due. At a wrong instant nothing is
    /// known to have been done: a clock that was set back puts nothing off.
    #[must_use]
    pub fn is_due_again(self, every: Duration, now: Timestamp) -> bool {
        self.is_wrong(now) || self.plus(every) <= now
    }
}

/// By how much a clock may be set back without being wrong before: what keeps clocks right corrects them by less.
const CLOCK_ERROR_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_puts_nothing_off() {
        let (done, every) = (Timestamp(1_000_000), Duration::from_secs(100));
        let due = |now: u64| done.is_due_again(every, Timestamp(now));
        assert!(!due(1_000_000) && !due(1_099_999) && due(1_100_000));
        assert!(!due(940_000), "a correction is no reason");
        assert!(due(939_999) && due(0), "it was done at a time that has not come yet");
    }

    #[test]
    fn a_clock_that_goes_back_makes_no_time_and_the_end_of_time_is_not_passed() {
        let (early, late) = (Timestamp(1_000), Timestamp(4_500));
        assert_eq!(late.since(early), Duration::from_millis(3_500));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.plus(Duration::from_millis(3_500)), late);
        assert_eq!(late.plus(Duration::MAX).millis(), u64::MAX);
    }
}

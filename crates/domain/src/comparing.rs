//! When both sides are compared: a resynchronization by itself, in a window of the day, or by a person; and how often the replica
//! is proven to be equal.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When a resynchronization that is needed begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resynchronize {
    /// At once.
    #[default]
    Automatic,
    /// When a person says so.
    Manual,
    /// Between two times of the day.
    Window(Window),
}

/// Two local times of a day in minutes; one that ends before it begins goes over midnight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    from: u16,
    to: u16,
}

/// A text that is none of the ways.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not understood: write automatic, manual, or a window of the day, for example \"window 22:00-06:00\""
)]
pub struct NoSuchWay(String);

impl Resynchronize {
    /// Whether one may begin by itself at this minute of the local day.
    #[must_use]
    pub fn admits(self, minute: u16) -> bool {
        match self {
            Resynchronize::Automatic => true,
            Resynchronize::Manual => false,
            Resynchronize::Window(Window { from, to }) if from <= to => (from..to).contains(&minute),
            Resynchronize::Window(Window { from, to }) => minute >= from || minute < to,
        }
    }
}

impl fmt::Display for Resynchronize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minute: u16| (minute / 60, minute % 60);
        match self {
            Resynchronize::Automatic => f.write_str("automatic"),
            Resynchronize::Manual => f.write_str("manual"),
            Resynchronize::Window(Window { from, to }) => {
                let ((from_h, from_m), (to_h, to_m)) = (clock(*from), clock(*to));
                write!(f, "window {from_h:02}:{from_m:02}-{to_h:02}:{to_m:02}")
            }
        }
    }
}

impl FromStr for Resynchronize {
    type Err = NoSuchWay;
    fn from_str(text: &str) -> Result<Resynchronize, NoSuchWay> {
        let minute = |clock: &str| -> Option<u16> {
            let (hour, minute) = clock.split_once(':')?;
            let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        };
        let window = |text: &str| {
            let (from, to) = text.strip_prefix("window")?.trim_start().split_once('-')?;
            let (from, to) = (minute(from)?, minute(to)?);
            (from != to).then_some(Resynchronize::Window(Window { from, to }))
        };
        match text.trim() {
            "automatic" => Ok(Resynchronize::Automatic),
            "manual" => Ok(Resynchronize::Manual),
            other => window(other).ok_or_else(|| NoSuchWay(text.to_owned())),
        }
    }
}

/// How one relationship is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Comparing {
    /// When a resynchronization begins.
    pub resynchronize: Resynchronize,
    /// Time between two proofs that the replica is equal; none: only when a person asks.
    pub verify_every: Option<Duration>,
}

impl Comparing {
    /// A verification reads both disks from end to end: more often would be load without end.
    pub const VERIFY_EVERY_MIN: Duration = Duration::from_secs(60);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nonsense_is_not() {
        for text in ["automatic", "manual", "window 22:00-06:00", "window 00:05-23:59"] {
            assert_eq!(text.parse::<Resynchronize>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "window",
            "window 22-06",
            "window 24:00-06:00",
            "window 1:60-3:00",
            "window 2:00-2:00",
            "window 24:60-1:00",
        ] {
            assert!(text.parse::<Resynchronize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_window_admits_its_minutes_also_over_midnight() {
        let admits = |text: &str, minute| text.parse::<Resynchronize>().expect(text).admits(minute);
        let (day, night) = ("window 08:00-09:00", "window 22:00-06:00");
        assert!(!admits(day, 479) && admits(day, 480) && admits(day, 539) && !admits(day, 540));
        assert!(!admits(night, 1319) && admits(night, 1320) && admits(night, 0));
        assert!(admits(night, 359) && !admits(night, 360) && !admits(night, 720));
        assert!(admits("automatic", 0) && !admits("manual", 0));
    }
}

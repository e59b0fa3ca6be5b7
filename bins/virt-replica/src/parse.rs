//! Arguments that are more than a word: durations, sizes, times, pairs.

use api::dto::{Drills, FreezeEvery, RateLimit};
use api::units::{UnitError, parse_duration, parse_size};
use api::{BadRetention, Retention};
use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};

/// Whole seconds, from `30s`, `5m`, `1h30m`.
pub fn seconds(text: &str) -> Result<u64, UnitError> {
    parse_duration(text)
}

/// A limit in bytes per second, or `none`.
pub fn rate_limit(text: &str) -> Result<RateLimit, UnitError> {
    match text {
        "none" | "unlimited" | "off" => Ok(RateLimit::Unlimited),
        _ => parse_size(text).map(RateLimit::BytesPerSecond),
    }
}

/// Time between two drills, or `never`.
pub fn drills(text: &str) -> Result<Drills, UnitError> {
    match text {
        "never" | "none" | "off" => Ok(Drills::Never),
        _ => parse_duration(text).map(Drills::EverySeconds),
    }
}

/// Time between two application-consistent recovery points, or `never`.
pub fn freeze_every(text: &str) -> Result<FreezeEvery, UnitError> {
    match text {
        "never" | "none" | "off" => Ok(FreezeEvery::Never),
        _ => parse_duration(text).map(FreezeEvery::Seconds),
    }
}

/// Which recovery points stay: checked here, kept as it was typed.
pub fn recovery_points(text: &str) -> Result<String, BadRetention> {
    text.parse::<Retention>().map(|retention| retention.to_string())
}

/// A path as the daemon can read it: it does not know where the command was typed.
pub fn absolute(path: &std::path::Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// `OLD=NEW` as (old, new).
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err(format!("{text:?} is no pair: write the name here = the name there, for example br0=br1")),
    }
}

/// When the first copy begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// At once.
    Now,
    /// Today or, if that has passed, tomorrow at this local time.
    TimeOfDay(civil::Time),
    /// At this local date and time.
    Local(civil::DateTime),
    /// At this instant.
    Instant(Timestamp),
}

/// `now`, `22:00`, `2026-11-30 22:00`, or RFC 3339 with a zone.
pub fn start(text: &str) -> Result<Start, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(Start::Now);
    }
    // An instant first: a local date-time would silently drop the zone, and a time of day the date.
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(Start::Instant(instant));
    }
    let made_of = |allowed: &str| text.chars().all(|c| c.is_ascii_digit() || allowed.contains(c));
    let time = (made_of(":") && text.contains(':')).then(|| text.parse::<civil::Time>());
    if let Some(Ok(time)) = time {
        return Ok(Start::TimeOfDay(time));
    }
    let local = (made_of(":- T") && text.contains('-')).then(|| text.parse::<civil::DateTime>());
    if let Some(Ok(local)) = local {
        return Ok(Start::Local(local));
    }
    Err(format!("{text:?} is no time: write now, 22:00, \"2026-11-30 22:00\" or 2026-11-30T22:00:00+01:00"))
}

impl Start {
    /// The instant in milliseconds, none for now; `now` is this moment in the operator's zone.
    pub fn at_ms(&self, now: &Zoned) -> Option<u64> {
        let zone: TimeZone = now.time_zone().clone();
        let instant = match self {
            Start::Now => return None,
            Start::Instant(instant) => Some(*instant),
            Start::Local(local) => local.to_zoned(zone).ok().map(|at| at.timestamp()),
            Start::TimeOfDay(time) => {
                let today = now.date().to_datetime(*time);
                let day = if today <= now.datetime() { today.checked_add(1.day()).ok() } else { Some(today) };
                day.and_then(|day| day.to_zoned(zone).ok()).map(|at| at.timestamp())
            }
        };
        instant.and_then(|at| u64::try_from(at.as_millisecond()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_an_instant_in_the_operators_zone() {
        let now: Zoned = "2026-11-23T21:30:00+01:00[+01:00]".parse().expect("a time");
        let at = |text: &str| {
            let millis = start(text).expect(text).at_ms(&now);
            millis.map(|it| {
                Timestamp::from_millisecond(i64::try_from(it).expect("small")).expect("in range").to_string()
            })
        };
        assert_eq!(at("now"), None);
        assert_eq!(at("22:00").as_deref(), Some("2026-11-23T21:00:00Z"));
        assert_eq!(at("21:00").as_deref(), Some("2026-11-24T20:00:00Z"));
        assert_eq!(at("2026-11-30 22:00").as_deref(), Some("2026-11-30T21:00:00Z"));
        assert_eq!(at("2026-11-30T22:00:00Z").as_deref(), Some("2026-11-30T22:00:00Z"));
        assert_eq!(at("2026-11-30T22:00:00+02:00").as_deref(), Some("2026-11-30T20:00:00Z"));
        for wrong in ["", "soon", "25:00", "2026-13-01 10:00", "30s", "22:00+02:00", "2200"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_and_limits() {
        assert_eq!(pair("br0=br 1"), Ok(("br0".into(), "br 1".into())));
        assert!(pair("br0").is_err() && pair("=x").is_err() && pair("x=").is_err());
        assert_eq!(rate_limit("none"), Ok(RateLimit::Unlimited));
        assert_eq!(rate_limit("50MiB/s"), Ok(RateLimit::BytesPerSecond(52_428_800)));
    }
}

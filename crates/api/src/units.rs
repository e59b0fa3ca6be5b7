//! Sizes, durations and instants as people read and type them.

use jiff::tz::TimeZone;

/// A size in binary units, one digit after the point: `64.0 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration given in milliseconds: `0.8 s`, `2 min 03 s`, `1 h 05 min`, `3 d 04 h`.
#[must_use]
pub fn duration(millis: u64) -> String {
    domain::words::duration(std::time::Duration::from_millis(millis))
}

/// A frequency or another round time in whole seconds: `30 s`, `5 min`, `1 h`, else seconds.
#[must_use]
pub fn interval(seconds: u64) -> String {
    match seconds {
        _ if seconds > 0 && seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        _ if seconds > 0 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// An instant in UTC: what a daemon says travels between hosts and time zones.
#[must_use]
pub fn instant_utc(at_ms: u64) -> String {
    instant(at_ms, &TimeZone::UTC)
}

/// An instant in the given time zone, with the zone's name.
#[must_use]
pub fn instant(at_ms: u64, zone: &TimeZone) -> String {
    i64::try_from(at_ms).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()).map_or_else(
        || "unknown".to_owned(),
        |at| at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string(),
    )
}

/// Why a text is no duration or size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("{text:?} is no duration: write a number and its unit, for example 30s, 5m, 2h or 1h30m")]
    NotADuration {
        /// What was given.
        text: String,
    },
    /// Not a size.
    #[error("{text:?} is no size: write a number and its unit, for example 512KiB, 50MiB or 2GiB")]
    NotASize {
        /// What was given.
        text: String,
    },
}

/// Reads `30s`, `5m`, `5min`, `2h`, `1d`, `1h30m` as whole seconds. A number without a unit is refused: nobody can tell
/// seconds from minutes.
pub fn parse_duration(text: &str) -> Result<u64, UnitError> {
    let refused = || UnitError::NotADuration { text: text.to_owned() };
    let mut rest = text.trim();
    let mut total = 0_u64;
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let (number, unit, after) = number_and_unit(rest).ok_or_else(refused)?;
        let factor = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(refused()),
        };
        let seconds =
            number.parse::<u64>().ok().and_then(|count| count.checked_mul(factor)).ok_or_else(refused)?;
        total = total.checked_add(seconds).ok_or_else(refused)?;
        rest = after.trim_start();
    }
    Ok(total)
}

/// Reads `50MiB`, `50M`, `50MB`, `1.5GiB`, `1048576B`, each also with `/s`, as bytes. `K`, `M`, `G`, `T` are binary like
/// `KiB`…; `KB`, `MB`, `GB`, `TB` are decimal.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let refused = || UnitError::NotASize { text: text.to_owned() };
    let bare = text.trim();
    let bare = bare.strip_suffix("/s").unwrap_or(bare);
    let (number, unit, after) = number_and_unit(bare).ok_or_else(refused)?;
    let factor: f64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(refused()),
    };
    let value: f64 = number.parse().map_err(|_| refused())?;
    let bytes = value * factor;
    // Above 2⁵³ a float skips whole bytes; nobody limits a link to eight petabytes a second.
    let fits = after.is_empty() && (1.0..=9_007_199_254_740_992.0).contains(&bytes);
    if fits { Ok(bytes as u64) } else { Err(refused()) }
}

/// Splits `12min3s` into `12`, `min` and `3s`; none when the number or the unit is missing.
fn number_and_unit(text: &str) -> Option<(&str, &str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
    let (number, rest) = text.split_at(digits);
    let rest = rest.trim_start();
    let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at(letters);
    (!unit.is_empty()).then_some((number, unit, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stay_below_1024_of_their_unit() {
        let shown = [0, 1023, 1024, 67_108_864, 1_073_741_823, 1_073_741_824, u64::MAX].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "64.0 MiB", "1.0 GiB", "1.0 GiB", "16.0 EiB"]);
    }

    #[test]
    fn durations_show_two_units_at_most() {
        let shown = [0, 850, 59_999, 123_000, 3_900_000, 273_600_000].map(duration);
        assert_eq!(shown, ["0.0 s", "0.8 s", "59.9 s", "2 min 03 s", "1 h 05 min", "3 d 04 h"]);
        assert_eq!([5, 30, 90, 300, 3600].map(interval), ["5 s", "30 s", "90 s", "5 min", "1 h"]);
    }

    #[test]
    fn an_instant_is_shown_in_its_zone() {
        assert_eq!(instant(1_795_398_404_123, &TimeZone::UTC), "2026-11-23 01:46:44 UTC");
        assert_eq!(instant(u64::MAX, &TimeZone::UTC), "unknown");
    }

    #[test]
    fn durations_need_their_unit() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("15 min", 900), ("1h30m", 5400), ("1d", 86_400)] {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for text in ["", "30", "s", "5x", "-5s", "1.5h", "99999999999999999999s", "9999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_need_their_unit_and_may_be_per_second() {
        let cases =
            [("50MiB/s", 52_428_800), ("50M", 52_428_800), ("50MB", 50_000_000), ("1.5GiB", 1_610_612_736)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "50", "MiB", "0B", "-1MiB", "1..5MiB", "5MiB/h", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}

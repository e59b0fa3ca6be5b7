//! Which recovery points stay: the newest ones, and marks on a grid of time.
//!
//! ```text
//! 24x1h,7x1d      │ mon │ tue │ … │ sun │            one mark for each of the newest 7 days that have a point,
//!                             │10│11│12│13│ head      one for each of the newest 24 hours, and the head
//! ```
//! The borders of a tier are fixed on the clock (UTC), and a period keeps its most consistent point, of several the first. So
//! a point that was dropped would never have been wanted again, whenever one looked. Periods without a point do not count:
//! nothing ages while replication is paused. Not here: how a point is dropped (`layer`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::ids::PointId;
use crate::point::{Consistency, RecoveryPoint};

/// Most layers of a disk that are planned for: libvirt refuses chains of 200 files.
pub const LAYERS_MAX: usize = 120;
/// Of these, what retention cannot use: the head's own layer, and the file into which dropped points are merged.
pub const LAYERS_RESERVED: usize = 2;
/// How a point that was asked for and given no text is tagged.
pub const TAG_DEFAULT: &str = "on demand";
/// Longest tag, characters.
pub const TAG_CHARS_MAX: usize = 64;

/// One row of the grid: a mark for each of the newest `count` periods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tier {
    /// How many marks.
    pub count: u16,
    /// Length of a period, whole seconds.
    pub every: Duration,
}

/// Which recovery points stay. Within its limits by construction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retention {
    recent: u16,
    grid: Vec<Tier>,
}

/// Why a retention is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRetention {
    /// Not one of the accepted forms.
    #[error(
        "{0:?} is no choice of recovery points: \"latest\", a number of hourly points such as 24, or a grid such as \
         \"24x1h,7x1d\" is (counts, and periods from 1s to 366d); \"12xall\" in it keeps the 12 newest of all"
    )]
    Text(String),
    /// More points than a chain of files bears.
    #[error(
        "{points} recovery points are more than the {max} that a disk's chain of files bears: choose fewer or wider periods",
        max = LAYERS_MAX - LAYERS_RESERVED
    )]
    TooMany {
        /// How many would be kept.
        points: usize,
    },
}

impl Default for Retention {
    fn default() -> Self {
        Retention { recent: 1, grid: Vec::new() }
    }
}

impl Retention {
    /// Longest period.
    pub const EVERY_MAX: Duration = Duration::from_secs(366 * 86_400);

    /// The `recent` newest points (at least the head), and a grid.
    pub fn new(recent: u16, grid: Vec<Tier>) -> Result<Retention, BadRetention> {
        let retention = Retention { recent: recent.max(1), grid };
        let periods = Duration::from_secs(1)..=Self::EVERY_MAX;
        let odd =
            |tier: &Tier| tier.count == 0 || tier.every.subsec_nanos() > 0 || !periods.contains(&tier.every);
        if retention.grid.iter().any(odd) {
            return Err(BadRetention::Text(retention.to_string()));
        }
        let points = retention.points_max();
        if points > LAYERS_MAX - LAYERS_RESERVED {
            return Err(BadRetention::TooMany { points });
        }
        Ok(retention)
    }

    /// Most points that are kept, beside those that are held.
    #[must_use]
    pub fn points_max(&self) -> usize {
        usize::from(self.recent) + self.grid.iter().map(|tier| usize::from(tier.count)).sum::<usize>()
    }

    /// Which of `points` (oldest first) stay. Tagged ones and `pinned` ones always do, and so does the head.
    #[must_use]
    pub fn keep(&self, points: &[RecoveryPoint], pinned: &HashSet<PointId>) -> BTreeSet<PointId> {
        let recent = points.iter().rev().take(usize::from(self.recent));
        let held = points.iter().filter(|point| point.tag.is_some() || pinned.contains(&point.id));
        let marks = self.grid.iter().flat_map(|tier| marks(points, *tier));
        recent.chain(held).chain(marks).map(|point| point.id).collect()
    }
}

/// The marks of one tier: the best point of each of its newest periods.
fn marks(points: &[RecoveryPoint], tier: Tier) -> impl Iterator<Item = &RecoveryPoint> {
    let mut periods: BTreeMap<u64, &RecoveryPoint> = BTreeMap::new();
    for point in points {
        let best = periods.entry(point.instant.millis() / 1000 / tier.every.as_secs()).or_insert(point);
        if rank(point.consistency) > rank(best.consistency) {
            *best = point;
        }
    }
    periods.into_values().rev().take(usize::from(tier.count))
}

fn rank(consistency: Consistency) -> u8 {
    match consistency {
        Consistency::Crash => 0,
        Consistency::FileSystem => 1,
        Consistency::Application => 2,
        Consistency::PoweredOff => 3,
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hourly = [Tier { count: self.grid.first().map_or(0, |tier| tier.count), every: HOUR }];
        match (self.recent, self.grid.as_slice()) {
            (1, []) => return f.write_str("latest"),
            (1, grid) if *grid == hourly => return write!(f, "{}", hourly[0].count),
            _ => {}
        }
        let recent = (self.recent > 1).then(|| format!("{}xall", self.recent));
        let tiers = self.grid.iter().map(|tier| format!("{}x{}", tier.count, period(tier.every)));
        f.write_str(&recent.into_iter().chain(tiers).collect::<Vec<_>>().join(","))
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];

fn period(every: Duration) -> String {
    let seconds = every.as_secs();
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| seconds.is_multiple_of(*unit)).unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

impl FromStr for Retention {
    type Err = BadRetention;

    /// `latest`; a number of hourly points; or a grid, `24x1h,7x1d`.
    fn from_str(text: &str) -> Result<Retention, BadRetention> {
        let bad = || BadRetention::Text(text.chars().take(64).collect());
        if text == "latest" {
            return Ok(Retention::default());
        }
        if let Ok(count) = text.parse() {
            return match count {
                0 => Ok(Retention::default()),
                count => Retention::new(1, vec![Tier { count, every: HOUR }]),
            };
        }
        let (mut recent, mut grid) = (1, Vec::new());
        for part in text.split(',') {
            let (count, every) = part.trim().split_once('x').ok_or_else(bad)?;
            let count: u16 = count.parse().ok().filter(|count| *count > 0).ok_or_else(bad)?;
            match every {
                "all" => recent = count,
                every => grid.push(Tier { count, every: parse_period(every).ok_or_else(bad)? }),
            }
        }
        Retention::new(recent, grid).map_err(|error| match error {
            BadRetention::Text(_) => bad(),
            other => other,
        })
    }
}

fn parse_period(text: &str) -> Option<Duration> {
    let (unit, name) = UNITS.into_iter().find(|(_, name)| text.ends_with(name))?;
    let number: u64 = text.strip_suffix(name)?.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(unit)?))
}

#[cfg(test)]
mod tests;

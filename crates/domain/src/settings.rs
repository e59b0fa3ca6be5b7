//! What an operator chose for a relationship. The same on both sides; travels with every change.

use std::time::Duration;

use crate::comparing::Comparing;
use crate::ids::DiskTarget;
use crate::retention::Retention;

/// Time between the beginnings of two cycles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Frequency(Duration);

/// A frequency outside the accepted range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a frequency of {seconds} s is not accepted: choose from {min} s to {max} s, for example 30s, 5m or 15m",
    min = Frequency::MIN.as_secs(), max = Frequency::MAX.as_secs())]
pub struct FrequencyOutOfRange {
    /// What was asked for, in seconds.
    pub seconds: u64,
}

impl Frequency {
    /// Below this the fixed cost of a cycle (about 0.2 s in libvirt) would be felt.
    pub const MIN: Duration = Duration::from_secs(5);
    /// Longer gaps are backups, not replication.
    pub const MAX: Duration = Duration::from_secs(24 * 3600);
    /// Hyper-V Replica's default.
    pub const DEFAULT: Frequency = Frequency(Duration::from_secs(300));

    /// Whole seconds between [`Frequency::MIN`] and [`Frequency::MAX`].
    pub fn from_seconds(seconds: u64) -> Result<Frequency, FrequencyOutOfRange> {
        let wait = Duration::from_secs(seconds);
        if (Self::MIN..=Self::MAX).contains(&wait) {
            Ok(Frequency(wait))
        } else {
            Err(FrequencyOutOfRange { seconds })
        }
    }

    /// The time itself.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.0
    }

    /// In whole seconds.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0.as_secs()
    }
}

/// Whether frames are compressed on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Always compressed.
    On,
    /// Never.
    Off,
    /// Compressed when the link is slower than the compressor.
    Adaptive,
}

/// What happens to one disk of the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskChoice {
    /// Copied to the replica.
    Replicated,
    /// Present on the replica, but empty, so that the VM starts there.
    Excluded,
}

/// What becomes of a disk that is added to the VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NewDisks {
    /// It is replicated by itself.
    #[default]
    Replicate,
    /// Health warns until a person decides.
    Warn,
}

/// When health turns; defaults are Hyper-V Replica's fixed ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Warning above this share of missed cycles in the monitoring interval, in percent.
    pub missed_cycles_percent_max: u8,
    /// Warning when nothing was synchronized for this long.
    pub last_synchronized_age_max: Duration,
    /// Warning above this average latency.
    pub average_latency_max: Duration,
    /// The window over which cycles are counted.
    pub monitoring_interval: Duration,
}

impl Thresholds {
    /// Of all times here: a VM that nobody hears of for longer is not replicated, and cycles are not remembered much longer.
    pub const SECONDS_MAX: u64 = 7 * 24 * 3600;
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            missed_cycles_percent_max: 20,
            last_synchronized_age_max: Duration::from_secs(3600),
            average_latency_max: Duration::from_secs(300),
            monitoring_interval: Duration::from_secs(12 * 3600),
        }
    }
}

/// All choices of one relationship.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Time between cycles.
    pub frequency: Frequency,
    /// Compression on the wire.
    pub compression: Compression,
    /// Every disk of the VM with what happens to it, in the order of the VM's definition.
    pub disks: Vec<(DiskTarget, DiskChoice)>,
    /// Upper limit of this VM's replication traffic, bytes per second; none: only the host's limit.
    pub rate_limit_bytes_per_second: Option<u64>,
    /// Names of bridges and libvirt networks, as (name on the first host, name on the second), both ways round.
    pub network_map: Vec<(String, String)>,
    /// When health turns.
    pub thresholds: Thresholds,
    /// Time between two test failovers that the replica server makes by itself; none: it makes none.
    pub drill_every: Option<Duration>,
    /// Which recovery points stay.
    pub retention: Retention,
    /// Time between two recovery points for which the guest's file systems are frozen; none: never frozen.
    pub application_consistent_every: Option<Duration>,
    /// How both sides are compared.
    pub comparing: Comparing,
    /// What becomes of a disk that is added to the VM.
    pub new_disks: NewDisks,
}

impl Settings {
    /// What is rarer than once a year is no schedule.
    pub const EVERY_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
    /// Drills that follow each other faster would hardly end before the next begins.
    pub const DRILL_EVERY_MIN: Duration = Duration::from_secs(30);
    /// The guest cannot write while it is frozen: not with every cycle.
    pub const APPLICATION_CONSISTENT_EVERY_MIN: Duration = Duration::from_secs(10);

    /// The defaults, for these disks.
    #[must_use]
    pub fn of(disks: Vec<(DiskTarget, DiskChoice)>) -> Settings {
        Settings {
            frequency: Frequency::DEFAULT,
            compression: Compression::Adaptive,
            disks,
            rate_limit_bytes_per_second: None,
            network_map: Vec::new(),
            thresholds: Thresholds::default(),
            drill_every: None,
            retention: Retention::default(),
            application_consistent_every: None,
            comparing: Comparing::default(),
            new_disks: NewDisks::default(),
        }
    }

    /// The disks that are copied.
    pub fn replicated_disks(&self) -> impl Iterator<Item = &DiskTarget> {
        self.disks.iter().filter(|(_, choice)| *choice == DiskChoice::Replicated).map(|(target, _)| target)
    }

    /// The network's name on the other host: mapped by either column, else the same name.
    #[must_use]
    pub fn network_on_peer<'a>(&'a self, name: &'a str) -> &'a str {
        self.network_map
            .iter()
            .find_map(|(first, second)| match name {
                _ if first == name => Some(second.as_str()),
                _ if second == name => Some(first.as_str()),
                _ => None,
            })
            .unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frequency_has_its_limits() {
        assert_eq!((Frequency::MIN.as_secs(), Frequency::MAX.as_secs()), (5, 86_400));
        for seconds in [5, 30, 86_400] {
            let frequency = Frequency::from_seconds(seconds).expect("a frequency");
            assert_eq!((frequency.seconds(), frequency.duration()), (seconds, Duration::from_secs(seconds)));
        }
        for seconds in [0, 4, 86_401, u64::MAX] {
            assert_eq!(Frequency::from_seconds(seconds), Err(FrequencyOutOfRange { seconds }));
        }
    }

    #[test]
    fn a_network_is_mapped_both_ways_and_one_that_is_not_named_keeps_its_name() {
        let target = |name: &str| DiskTarget::new(name).expect("a target");
        let disks = vec![(target("vda"), DiskChoice::Excluded), (target("vdb"), DiskChoice::Replicated)];
        let network_map = vec![("lan".into(), "lan-dr".into()), ("dmz".into(), "dmz-dr".into())];
        let settings = Settings { network_map, ..Settings::of(disks) };
        let pairs = [("lan", "lan-dr"), ("dmz", "dmz-dr"), ("br0", "br0")];
        for (one, other) in pairs {
            assert_eq!((settings.network_on_peer(one), settings.network_on_peer(other)), (other, one));
        }
        assert_eq!(settings.replicated_disks().collect::<Vec<_>>(), [&target("vdb")]);
    }
}

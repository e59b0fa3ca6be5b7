//! What a soak does, from its seed alone: the same seed gives the same events in the same order. When each falls into the
//! work of the daemons is the machine's affair, and is not repeated.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// Something that happens to the two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// The hosts do not hear each other for a while.
    CutLink(Duration),
    /// One host does not hear the other for a while.
    Deafen(usize, Duration),
    /// The link comes and goes, so often.
    FlapLink(u32),
    /// `kill -9` of a host's daemon, which is started again.
    KillDaemon(usize),
    /// A host's daemon stands still for a while.
    HangDaemon(usize, Duration),
    /// `kill -9` of a host's libvirtd, which is started again.
    KillLibvirtd(usize),
    /// A host's libvirtd is ended and started as an upgrade does it.
    RestartLibvirtd(usize),
    /// A host loses its power and comes back.
    CutPower(usize),
    /// The guest writes much at once.
    Fill(usize),
    /// An administrator deletes a VM's checkpoints.
    DeleteCheckpoints(usize),
    /// A planned failover of a VM to the other host. It runs while the next events come.
    HandOver(usize),
}

impl Event {
    /// One word for each kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Event::CutLink(_) => "link cut",
            Event::Deafen(..) => "link cut one way",
            Event::FlapLink(_) => "link flapping",
            Event::KillDaemon(_) => "daemon killed",
            Event::HangDaemon(..) => "daemon hung",
            Event::KillLibvirtd(_) => "libvirtd killed",
            Event::RestartLibvirtd(_) => "libvirtd restarted",
            Event::CutPower(_) => "power cut",
            Event::Fill(_) => "guest writes much",
            Event::DeleteCheckpoints(_) => "checkpoints deleted",
            Event::HandOver(_) => "handover",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::CutLink(time) => write!(f, "{} for {time:.1?}", self.kind()),
            Event::FlapLink(times) => write!(f, "{} {times} times", self.kind()),
            Event::Deafen(host, time) | Event::HangDaemon(host, time) => {
                write!(f, "{} on host {} for {time:.1?}", self.kind(), host + 1)
            }
            Event::KillDaemon(host)
            | Event::KillLibvirtd(host)
            | Event::RestartLibvirtd(host)
            | Event::CutPower(host) => write!(f, "{} on host {}", self.kind(), host + 1),
            Event::Fill(vm) | Event::DeleteCheckpoints(vm) | Event::HandOver(vm) => {
                write!(f, "{} of VM {}", self.kind(), vm + 1)
            }
        }
    }
}

/// Events between two rests, each with the pause before it.
pub(super) type Round = Vec<(Duration, Event)>;

/// Rounds without end.
pub(super) struct Plan {
    chance: Rng,
    vms: usize,
}

impl Plan {
    pub(super) fn new(seed: u64, vms: usize) -> Plan {
        Plan { chance: Rng::with_seed(seed), vms }
    }

    fn milliseconds(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.chance.u64(..most))
    }

    /// Faults three times as often as anything else; power is cut seldom, since it takes longest to come back from.
    fn event(&mut self) -> Event {
        let (host, vm) = (self.chance.usize(..2), self.chance.usize(..self.vms));
        match self.chance.u8(..18) {
            0..3 => Event::CutLink(self.milliseconds(15_000)),
            3..6 => Event::KillDaemon(host),
            6..8 => Event::HangDaemon(host, self.milliseconds(20_000)),
            8 => Event::KillLibvirtd(host),
            9 => Event::RestartLibvirtd(host),
            10 => Event::CutPower(host),
            11 => Event::Fill(vm),
            12 => Event::DeleteCheckpoints(vm),
            13 => Event::Deafen(host, self.milliseconds(15_000)),
            14 => Event::FlapLink(self.chance.u32(2..12)),
            _ => Event::HandOver(vm),
        }
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let count = self.chance.usize(2..8);
        Some((0..count).map(|_| (self.milliseconds(6000), self.event())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Plan, Round};

    fn rounds(seed: u64) -> Vec<Round> {
        Plan::new(seed, 2).take(100).collect()
    }

    #[test]
    fn a_seed_repeats_its_events_and_another_brings_others() {
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
    }

    #[test]
    fn everything_happens_sooner_or_later() {
        let kinds: BTreeSet<_> = rounds(1).concat().into_iter().map(|(_, event)| event.kind()).collect();
        assert_eq!(kinds.len(), 11);
    }
}

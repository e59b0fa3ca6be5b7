//! What happens in a simulation, from its seed alone.

use std::time::Duration;

use fastrand::Rng;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The link swallows everything for a while.
    Swallow(Duration),
    /// All connections between the hosts break.
    Break,
    /// The connection that carries so many bytes from now on breaks.
    BreakAfter(u64),
    /// A host's daemon is killed, and is back after a while.
    Kill(usize, Duration),
    /// A host's power fails; its daemon is back after a while, and an administrator starts what ran.
    CutPower(usize, Duration),
    /// So many of a hundred verbs of a host's hypervisor fail for a while.
    Fail(usize, u8, Duration),
    /// A planned failover, typed on both hosts.
    HandOver,
    /// `operation cancel`, typed on a host.
    Cancel(usize),
}

/// Events between two rests, each with the pause before it.
pub(crate) type Round = Vec<(Duration, Event)>;

/// The rounds of a seed.
pub(crate) fn rounds(seed: u64, count: usize) -> Vec<Round> {
    let mut chance = Rng::with_seed(seed);
    let mut round =
        || (0..chance.usize(1..7)).map(|_| (time(&mut chance, 8_000), event(&mut chance))).collect();
    (0..count).map(|_| round()).collect()
}

fn time(chance: &mut Rng, most_ms: u64) -> Duration {
    Duration::from_millis(chance.u64(..most_ms))
}

/// Handovers are as frequent as all faults together: most of what can go wrong goes wrong in one.
fn event(chance: &mut Rng) -> Event {
    let host = chance.usize(..2);
    match chance.u8(..16) {
        0 => Event::Swallow(time(chance, 20_000)),
        1 => Event::Break,
        2 | 3 => Event::BreakAfter(chance.u64(..60_000)),
        4..7 => Event::Kill(host, time(chance, 6_000)),
        7 => Event::CutPower(host, time(chance, 20_000)),
        8 => Event::Fail(host, chance.u8(10..60), time(chance, 10_000)),
        9 => Event::Cancel(host),
        _ => Event::HandOver,
    }
}

#[cfg(test)]
mod tests {
    use super::rounds;

    #[test]
    fn a_seed_repeats_its_rounds_and_another_brings_others() {
        assert_eq!(rounds(7, 9), rounds(7, 9));
        assert_ne!(rounds(7, 9), rounds(8, 9));
    }
}

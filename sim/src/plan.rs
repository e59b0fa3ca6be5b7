//! What happens in a simulation, from its seed alone.

use std::time::Duration;

use fastrand::Rng;

/// Something that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The link swallows everything for a while.
    Swallow(Duration),
    /// All connections between the hosts break.
    Break,
    /// The connection that carries so many bytes from now on breaks.
    BreakAfter(u64),
    /// A host's daemon is killed, and is back after a while.
    Kill(usize, Duration),
    /// A host's power fails, and what was not synced may be lost; its daemon is back after a while, and an administrator starts
    /// what ran.
    CutPower(usize, Duration),
    /// The daemon is killed at one of its next syncs.
    KillAt(usize, u32, Duration),
    /// The power fails at one of its next syncs.
    CutPowerAt(usize, u32, Duration),
    /// The file system of a host's replicas is full for a while.
    Full(usize, Duration),
    /// A sync of a host's replicas takes so long for a while.
    Slow(usize, Duration, Duration),
    /// So many of a hundred verbs of a host's hypervisor fail for a while.
    Fail(usize, u8, Duration),
    /// A host's wall clock jumps by so many milliseconds, and is set right after a while.
    Jump(usize, i64, Duration),
    /// A host's daemon is replaced for a while by one that understands only another version of the protocol; what it asks itself is
    /// understood.
    Update(usize, Duration),
    /// A planned failover, typed on both hosts.
    HandOver,
    /// The primary's host loses its power, the VM is failed over without it from a point so many before the newest, and it comes
    /// back after a while.
    Disaster(usize, After, Duration),
    /// `pause`, typed on a host; `resume` comes when everything is to rest.
    Pause(usize, Duration),
    /// `operation cancel`, typed on a host.
    Cancel(usize),
    /// `virsh start` on a host, whoever the VM belongs to.
    Start(usize),
}

/// What a person does with a VM that was failed over, in the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// `reverse`, when the old primary is back.
    Reverse,
    /// `cancel-failover`, when the old primary is back.
    Cancel,
    /// `cancel-failover`, before it is.
    CancelAlone,
    /// `complete-failover` before it is, and then `reverse`.
    Complete,
}

/// Events between two rests, each with the pause before it.
pub type Round = Vec<(Duration, Event)>;

/// The rounds of a seed.
#[must_use]
pub fn rounds(seed: u64, count: usize) -> Vec<Round> {
    let mut chance = Rng::with_seed(seed);
    let mut round =
        || (0..chance.usize(1..7)).map(|_| (time(&mut chance, 8_000), event(&mut chance))).collect();
    (0..count).map(|_| round()).collect()
}

fn time(chance: &mut Rng, most_ms: u64) -> Duration {
    Duration::from_millis(chance.u64(..most_ms))
}

/// Handovers are the most frequent: most of what can go wrong goes wrong in one.
fn event(chance: &mut Rng) -> Event {
    let host = chance.usize(..2);
    match chance.u8(..32) {
        0 => Event::Swallow(time(chance, 20_000)),
        1 => Event::Break,
        2 | 3 => Event::BreakAfter(chance.u64(..60_000)),
        4..7 => Event::Kill(host, time(chance, 6_000)),
        7 | 8 => Event::CutPower(host, time(chance, 20_000)),
        9 => Event::Fail(host, chance.u8(10..60), time(chance, 10_000)),
        10 => Event::Cancel(host),
        11 | 12 => Event::Start(host),
        13 => {
            // Seconds, hours, years.
            let unit = [1_000, 3_600_000, 365 * 24 * 3_600_000][chance.usize(..3)];
            Event::Jump(host, chance.i64(-20..20) * unit, time(chance, 30_000))
        }
        14 | 15 => Event::KillAt(host, chance.u32(1..40), time(chance, 6_000)),
        16 | 17 => Event::CutPowerAt(host, chance.u32(1..40), time(chance, 20_000)),
        18 => Event::Full(host, time(chance, 20_000)),
        19 => Event::Slow(host, time(chance, 3_000), time(chance, 20_000)),
        20 => Event::Pause(host, time(chance, 10_000)),
        21 => Event::Update(host, time(chance, 15_000)),
        22..25 => {
            let after = [After::Reverse, After::Cancel, After::CancelAlone, After::Complete];
            Event::Disaster(chance.usize(..3), after[chance.usize(..4)], time(chance, 20_000))
        }
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

//! What nobody looks at, because it comes too often or from a page of another site, is recorded once a minute for each network, with
//! how many there were: the journal has each, and whoever sends them cannot fill the record. What is *not* here: who is turned away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::Timestamp;

use crate::network::network;

/// Pause between two records of one network.
const TOLD_AGAIN: Duration = Duration::from_secs(60);
/// Most networks that are remembered; of those beyond, each try is told by nobody but the journal.
const REMEMBERED_MAX: usize = 4096;

#[derive(Clone, Copy)]
struct Told {
    at: Timestamp,
    untold: u32,
}

/// Since when, and how many, by network.
#[derive(Default)]
pub(crate) struct TurnedAway(Mutex<HashMap<IpAddr, Told>>);

impl TurnedAway {
    /// One more. To be recorded: how many came before it and were not; none: it is counted for the next record.
    pub(crate) fn count(&self, from: IpAddr, now: Timestamp) -> Option<u32> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = network(from);
        if all.len() >= REMEMBERED_MAX && !all.contains_key(&from) {
            all.retain(|_, told| told.untold > 0 || now.since(told.at) < TOLD_AGAIN);
            if all.len() >= REMEMBERED_MAX {
                return None;
            }
        }
        match all.get_mut(&from) {
            Some(told) if now.since(told.at) < TOLD_AGAIN => {
                told.untold = told.untold.saturating_add(1);
                None
            }
            found => {
                let untold = found.map_or(0, |told| told.untold);
                all.insert(from, Told { at: now, untold: 0 });
                Some(untold)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_one_is_told_each_minute_with_the_number_of_the_others() {
        let (away, begun) = (TurnedAway::default(), Timestamp(1_800_000_000_000));
        let from = |last: u8| IpAddr::from([192, 0, 2, last]);
        let told: Vec<_> =
            (0..90).map(|second| away.count(from(1), begun.plus(Duration::from_secs(second)))).collect();
        assert_eq!((told[0], told[60]), (Some(0), Some(59)));
        assert_eq!(told.iter().flatten().count(), 2);
        assert_eq!(away.count(from(2), begun), Some(0), "another network is another");
    }

    #[test]
    fn the_table_does_not_grow_without_end() {
        let (away, now) = (TurnedAway::default(), Timestamp(1_800_000_000_000));
        for number in 0..REMEMBERED_MAX as u32 + 10 {
            let _ = away.count(IpAddr::V4(number.into()), now);
        }
        assert_eq!(away.0.lock().expect("not poisoned").len(), REMEMBERED_MAX);
        assert_eq!(
            away.count(IpAddr::V4(u32::MAX.into()), now.plus(TOLD_AGAIN)),
            Some(0),
            "later there is room"
        );
    }
}

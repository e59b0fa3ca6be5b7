//! The witness outside: writes numbers into the guest without pause, remembers what was acknowledged, and compares at the end.
//!
//! NOT a load generator: one write at a time, so that the longest gap between two acknowledgements is the downtime that a
//! user would see. Each attempt takes a fresh number: an unacknowledged one may exist once or not at all, never twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::guest::Guest;
use crate::lab::Lab;
use crate::namespace::Entrance;
use crate::workload::{Client, Dump};

/// Pause between two writes: short against any downtime worth measuring, long enough to leave the guest some processor.
const WRITE_PAUSE: Duration = Duration::from_millis(10);
/// Pause after a failed attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the guest when the records are fetched.
const FETCH_LIMIT: Duration = Duration::from_secs(60);

/// A number that the guest has stored durably.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// The number.
    pub number: u64,
    /// When the answer came.
    pub at: Instant,
}

/// What became of the writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many writes were acknowledged.
    pub acknowledged: usize,
    /// Acknowledged, but absent from a disk.
    pub lost: Vec<u64>,
    /// Stored more than once on a disk.
    pub doubled: Vec<u64>,
    /// Records that do not match their checksum.
    pub corrupt: usize,
}

impl Verdict {
    /// Nothing lost, doubled or corrupt.
    pub fn clean(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.corrupt == 0
    }
}

/// A running witness.
#[derive(Debug)]
pub struct Judge {
    address: SocketAddr,
    started: Instant,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: Mutex<Vec<Acknowledged>>,
}

impl Judge {
    /// Starts to write numbers from `first` on; a later judge of the same guest must begin above the earlier one's.
    pub fn start(lab: &Lab, guest: &Guest, first: u64) -> Result<Self> {
        let (shared, entrance, address) = (Arc::new(Shared::default()), lab.entrance()?, guest.workload);
        let for_thread = shared.clone();
        let thread = thread::Builder::new().name("judge".to_owned());
        let thread = thread.spawn(move || write_numbers(&entrance, address, first, &for_thread))?;
        Ok(Self { address, started: Instant::now(), shared, thread: Some(thread) })
    }

    /// What has been acknowledged until now.
    pub fn acknowledged(&self) -> Vec<Acknowledged> {
        self.shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Longest time without an acknowledgement since the start.
    pub fn downtime(&self) -> Duration {
        self.downtime_between(self.started, Instant::now())
    }

    /// Longest time without an acknowledgement between two moments.
    pub fn downtime_between(&self, from: Instant, to: Instant) -> Duration {
        longest_gap(from, to, self.acknowledged().iter().map(|one| one.at))
    }

    /// Waits until `count` more writes have been acknowledged.
    pub fn wait_more(&self, count: usize, limit: Duration) -> Result<()> {
        let (start, before) = (Instant::now(), self.acknowledged().len());
        while self.acknowledged().len() < before + count {
            ensure!(start.elapsed() < limit, "{} not written {count} times within {limit:?}", self.address);
            thread::sleep(RETRY_PAUSE);
        }
        Ok(())
    }

    /// Stops writing, fetches what every disk holds, and compares.
    pub fn finish(mut self, lab: &Lab) -> Result<Verdict> {
        self.stop()?;
        let address = self.address;
        let dumps = lab.outside(move || fetch(address))??;
        let numbers: Vec<u64> = self.acknowledged().iter().map(|one| one.number).collect();
        Ok(compare(&numbers, &dumps))
    }

    fn stop(&mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow::anyhow!("the judge panicked"))?
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        drop(self.stop());
    }
}

fn write_numbers(entrance: &Entrance, address: SocketAddr, first: u64, shared: &Shared) -> Result<()> {
    entrance.enter()?;
    let mut client = None;
    for number in first.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        match write_one(&mut client, address, number) {
            Ok(()) => {
                let one = Acknowledged { number, at: Instant::now() };
                shared.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                thread::sleep(WRITE_PAUSE);
            }
            Err(_) => {
                client = None;
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
    Ok(())
}

fn write_one(client: &mut Option<Client>, address: SocketAddr, number: u64) -> Result<()> {
    if client.is_none() {
        *client = Some(Client::connect(address)?);
    }
    client.as_mut().context("connected above")?.append(number)
}

/// The records of every disk, once the guest answers.
fn fetch(address: SocketAddr) -> Result<Vec<Dump>> {
    let start = Instant::now();
    loop {
        match fetch_once(address) {
            Err(_) if start.elapsed() < FETCH_LIMIT => thread::sleep(RETRY_PAUSE),
            outcome => return outcome.context("the guest's records cannot be fetched"),
        }
    }
}

fn fetch_once(address: SocketAddr) -> Result<Vec<Dump>> {
    let mut client = Client::connect(address)?;
    let folders = client.who()?.folders;
    (0..folders).map(|folder| client.dump(folder)).collect()
}

fn longest_gap(from: Instant, to: Instant, moments: impl Iterator<Item = Instant>) -> Duration {
    let inside = moments.filter(|moment| (from..to).contains(moment));
    let mut longest = Duration::ZERO;
    let mut last = from;
    for moment in inside.chain([to]) {
        longest = longest.max(moment - last);
        last = moment;
    }
    longest
}

fn compare(acknowledged: &[u64], dumps: &[Dump]) -> Verdict {
    let mut verdict = Verdict { acknowledged: acknowledged.len(), ..Verdict::default() };
    for dump in dumps {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for number in &dump.numbers {
            *counts.entry(*number).or_default() += 1;
        }
        verdict.lost.extend(acknowledged.iter().filter(|number| !counts.contains_key(number)));
        verdict.doubled.extend(counts.iter().filter(|(_, count)| **count > 1).map(|(number, _)| number));
        verdict.corrupt += dump.bad.len();
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::{Dump, Verdict, compare, longest_gap};
    use std::time::{Duration, Instant};

    fn dump(numbers: &[u64]) -> Dump {
        Dump { numbers: numbers.to_vec(), bad: Vec::new() }
    }

    #[test]
    fn a_number_missing_on_one_disk_is_lost_and_an_unacknowledged_one_is_welcome() {
        let verdict = compare(&[1, 2, 4], &[dump(&[1, 2, 3, 4]), dump(&[1, 2, 3])]);
        assert_eq!(verdict, Verdict { acknowledged: 3, lost: vec![4], ..Verdict::default() });
        assert!(!verdict.clean());
    }

    #[test]
    fn a_number_stored_twice_is_doubled() {
        assert_eq!(compare(&[1], &[dump(&[1, 1])]).doubled, [1]);
        assert!(compare(&[1], &[dump(&[1])]).clean());
    }

    #[test]
    fn the_gap_counts_from_the_start_and_to_the_end() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let gap = |moments: &[u64]| longest_gap(start, at(100), moments.iter().map(|ms| at(*ms))).as_millis();
        assert_eq!(gap(&[]), 100);
        assert_eq!(gap(&[30, 40]), 60);
        assert_eq!(gap(&[70, 500]), 70);
    }
}

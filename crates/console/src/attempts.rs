//! How often one may guess: by address and by account, each try that fails makes the next wait longer.
//!
//! A try is counted before it is judged, so that many at once are no way around, and taken back when it was right. An account's
//! wait is short: else whoever guesses badly keeps its owner out. Both tables are bounded. Names are counted whether or
//! not they exist.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};

use crate::network::network;

/// Tries before the first wait: a person who mistypes.
const FREE_TRIES: u32 = 5;
/// The first wait, longer than a refusal takes by itself; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_secs(10);
/// Longest wait of an address.
const ADDRESS_WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest wait of an account.
const ACCOUNT_WAIT_MAX: Duration = Duration::from_secs(60);
/// Tries are forgotten when none came for so long.
const FORGOTTEN: Duration = Duration::from_secs(30 * 60);
/// Most addresses, and most accounts, that are remembered; the one that tried longest ago goes first.
const REMEMBERED_MAX: usize = 4096;

/// A try that is being judged.
#[derive(Debug)]
#[must_use]
pub(crate) struct Try {
    address: IpAddr,
    account: Option<NameHash>,
}

/// Of a name, which may be of any length.
type NameHash = [u8; 32];

#[derive(Default)]
pub(crate) struct Attempts(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    addresses: Table<IpAddr>,
    accounts: Table<NameHash>,
}

impl Attempts {
    /// Counts a try, or says how long to wait for the next.
    pub(crate) fn begin(&self, from: IpAddr, account: Option<&str>, now: Instant) -> Result<Try, Duration> {
        let (address, account) = (network(from), account.map(name_hash));
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let by_address = tables.addresses.wait(&address, ADDRESS_WAIT_MAX, now);
        let by_account = account.as_ref().map(|it| tables.accounts.wait(it, ACCOUNT_WAIT_MAX, now));
        let wait = by_address.max(by_account.unwrap_or_default());
        if !wait.is_zero() {
            return Err(wait);
        }
        tables.addresses.count(&address, now);
        if let Some(account) = &account {
            tables.accounts.count(account, now);
        }
        Ok(Try { address, account })
    }

    /// It was right. The account begins anew; the address does not: with one good password one may not guess at others.
    pub(crate) fn was_right(&self, it: Try) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.addresses.take_back(&it.address);
        if let Some(account) = &it.account {
            tables.accounts.0.remove(account);
        }
    }

    /// It could not be judged: nobody is to blame.
    pub(crate) fn was_not_judged(&self, it: Try) {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tables.addresses.take_back(&it.address);
        if let Some(account) = &it.account {
            tables.accounts.take_back(account);
        }
    }
}

fn name_hash(name: &str) -> NameHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, name.as_bytes()).as_ref());
    hash
}

struct Tries {
    failed: u32,
    last: Instant,
}

struct Table<K>(HashMap<K, Tries>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Table(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn wait(&self, key: &K, most: Duration, now: Instant) -> Duration {
        let Some(tries) = self.0.get(key).filter(|tries| tries.failed >= FREE_TRIES) else {
            return Duration::ZERO;
        };
        let doublings = (tries.failed - FREE_TRIES).min(16);
        let wait = WAIT_FIRST.saturating_mul(1 << doublings).min(most);
        wait.saturating_sub(now.saturating_duration_since(tries.last))
    }

    fn count(&mut self, key: &K, now: Instant) {
        let stale = |tries: &Tries| now.saturating_duration_since(tries.last) >= FORGOTTEN;
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(key) {
            self.0.retain(|_, tries| !stale(tries));
            if self.0.len() >= REMEMBERED_MAX {
                let oldest = self.0.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| key.clone());
                oldest.and_then(|key| self.0.remove(&key));
            }
        }
        let tries = self.0.entry(key.clone()).or_insert(Tries { failed: 0, last: now });
        tries.failed = if stale(tries) { 1 } else { tries.failed.saturating_add(1) };
        tries.last = now;
    }

    fn take_back(&mut self, key: &K) {
        if let Some(tries) = self.0.get_mut(key) {
            tries.failed = tries.failed.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Tries until it must wait; gives how often it could.
    fn tries_until_wait(attempts: &Attempts, from: IpAddr, account: Option<&str>, now: Instant) -> usize {
        (0..100).take_while(|_| attempts.begin(from, account, now).is_ok()).count()
    }

    #[test]
    fn many_at_once_are_no_way_around_and_each_wait_is_twice_the_one_before_up_to_its_limit() {
        let (attempts, mut now) = (Attempts::default(), Instant::now());
        let from = address("192.0.2.1");
        assert_eq!(tries_until_wait(&attempts, from, None, now), FREE_TRIES as usize);
        let mut expected = WAIT_FIRST;
        for _ in 0..20 {
            let wait = attempts.begin(from, None, now).expect_err("wait");
            assert_eq!(wait, expected.min(ADDRESS_WAIT_MAX));
            now += wait;
            let _ = attempts.begin(from, None, now).expect("after the wait");
            expected = expected.saturating_mul(2);
        }
        let _ = attempts.begin(from, None, now + FORGOTTEN).expect("forgotten");
        assert_eq!(tries_until_wait(&attempts, from, None, now + FORGOTTEN), FREE_TRIES as usize - 1);
    }

    #[test]
    fn an_account_waits_wherever_the_guesses_come_from_but_not_long() {
        let (attempts, mut now) = (Attempts::default(), Instant::now());
        for number in 0..30 {
            let from = address(&format!("192.0.2.{number}"));
            if let Err(wait) = attempts.begin(from, Some("alice"), now) {
                assert!(wait <= ACCOUNT_WAIT_MAX, "{wait:?}");
                now += wait;
                let _ = attempts.begin(from, Some("alice"), now).expect("after the wait");
            }
        }
        assert!(attempts.begin(address("192.0.2.99"), Some("alice"), now).is_err());
        assert!(attempts.begin(address("192.0.2.99"), Some("bob"), now).is_ok());
    }

    #[test]
    fn one_good_password_is_no_licence_to_guess_at_others() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let from = address("192.0.2.1");
        let mut guesses = 0;
        while let Ok(good) = attempts.begin(from, Some("mallory"), now) {
            attempts.was_right(good);
            let Ok(_) = attempts.begin(from, Some("alice"), now) else { break };
            guesses += 1;
        }
        assert_eq!(guesses, FREE_TRIES);
    }

    #[test]
    fn a_try_that_was_not_judged_is_not_held_against_anybody() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for _ in 0..50 {
            let it = attempts.begin(address("192.0.2.1"), Some("alice"), now).expect("no wait");
            attempts.was_not_judged(it);
        }
    }

    #[test]
    fn the_tables_do_not_grow_without_end() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for number in 0..REMEMBERED_MAX as u32 + 500 {
            let from = IpAddr::V4(number.into());
            let _ =
                attempts.begin(from, Some(&number.to_string()), now + Duration::from_millis(number.into()));
        }
        let tables = attempts.0.lock().expect("not poisoned");
        assert_eq!((tables.addresses.0.len(), tables.accounts.0.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}

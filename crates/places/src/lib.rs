//! How many of one kind are in at once: connections of a peer, of an address. Whoever comes in takes a place and gives it back when it
//! is dropped; who finds none free is turned away at once. What is *not* here: who somebody is, and how many are too many.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is in, and how often. A cheap handle; nothing is kept of whoever has gone.
#[derive(Debug)]
pub struct Places<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One of somebody's places, given back when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Place<K: Eq + Hash> {
    places: Places<K>,
    who: K,
}

impl<K> Default for Places<K> {
    fn default() -> Self {
        Places(Arc::default())
    }
}

impl<K> Places<K> {
    fn taken(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// A place for somebody who may have `most` of them; none: all of those are taken.
    pub fn take(&self, who: K, most: usize) -> Option<Place<K>> {
        let mut taken = self.taken();
        let count = taken.get(&who).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        taken.insert(who.clone(), count + 1);
        Some(Place { places: Places(self.0.clone()), who })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn each_has_places_of_its_own_and_gives_them_back() {
        let places = Places::default();
        let of_one: Vec<_> = (0..3).map_while(|_| places.take("one", 2)).collect();
        assert_eq!(of_one.len(), 2);
        let of_other = places.take("other", 2);
        assert!(of_other.is_some() && places.take("one", 2).is_none());
        drop(of_one);
        assert!(places.take("one", 1).is_some());
        drop(of_other);
        assert!(places.taken().is_empty(), "nothing is kept of who has gone");
        assert!(places.take("one", 0).is_none() && places.taken().is_empty());
    }
}

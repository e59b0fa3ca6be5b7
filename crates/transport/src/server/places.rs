//! Who has how many connections open. A place is held until it is dropped.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Places by whom they are taken.
pub(super) struct Places<Who>(Arc<Mutex<HashMap<Who, usize>>>);

/// One that is taken.
pub(super) struct Place<Who: Eq + Hash> {
    all: Arc<Mutex<HashMap<Who, usize>>>,
    who: Who,
}

impl<Who> Default for Places<Who> {
    fn default() -> Self {
        Places(Arc::default())
    }
}

impl<Who: Copy + Eq + Hash> Places<Who> {
    /// One more for `who`; none, when that one has `most` already.
    pub(super) fn take(&self, who: Who, most: usize) -> Option<Place<Who>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.entry(who).or_insert(0);
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Place { all: Arc::clone(&self.0), who })
    }
}

impl<Who: Eq + Hash> Drop for Place<Who> {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = all.get_mut(&self.who) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.who);
            }
        }
    }
}

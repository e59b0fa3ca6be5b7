//! One-time links: root of this host lets somebody in for the first visit, without a password on the network. Kept in
//! memory only: a restart of the daemon takes them back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::Role;
use domain::Timestamp;

use crate::token::{Token, TokenHash};

/// How long a link opens the door.
pub const LINK_VALID: Duration = Duration::from_secs(10 * 60);
/// Most links at once; a further one takes back the one that is the first to expire.
const LINKS_MAX: usize = 32;

/// For whom a link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub(crate) user: String,
    pub(crate) role: Role,
    pub(crate) expires: Timestamp,
}

#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<TokenHash, Link>>);

impl Links {
    /// Makes one; none when the kernel gives no randomness.
    pub(crate) fn make(&self, user: &str, role: Role, now: Timestamp) -> Option<(Token, Link)> {
        let token = Token::random()?;
        let link = Link { user: user.to_owned(), role, expires: now.plus(LINK_VALID) };
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.expires > now);
        if links.len() >= LINKS_MAX {
            let first = links.iter().min_by_key(|(_, link)| link.expires).map(|(hash, _)| *hash);
            first.and_then(|hash| links.remove(&hash));
        }
        links.insert(token.hash(), link.clone());
        Some((token, link))
    }

    /// Uses one up: of two who come with it, exactly one comes in.
    pub(crate) fn take(&self, token: &Token, now: Timestamp) -> Option<Link> {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&token.hash())?;
        (link.expires > now).then_some(link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    #[test]
    fn a_link_opens_once_and_not_late_and_no_other_token_opens() {
        let links = Links::default();
        let make = || links.make("root", Role::Administrator, NOW).expect("made").0;
        let (once, late) = (make(), make());
        assert!(links.take(&Token::random().expect("random"), NOW).is_none());
        assert_eq!(links.take(&once, NOW).map(|link| link.user).as_deref(), Some("root"));
        assert!(links.take(&once, NOW).is_none());
        assert!(links.take(&late, NOW.plus(LINK_VALID)).is_none());
    }

    #[test]
    fn there_is_room_for_so_many_and_the_newest_always_opens() {
        let links = Links::default();
        let make =
            |second| links.make("root", Role::Viewer, NOW.plus(Duration::from_secs(second))).expect("made").0;
        let first = make(0);
        let last = (1..=LINKS_MAX as u64).map(make).last().expect("made");
        assert!(links.take(&first, NOW).is_none());
        assert!(links.take(&last, NOW).is_some());
    }
}

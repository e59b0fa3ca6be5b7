//! Who is signed in. Each session is its token's hash; kept in memory, written through to the store, so that a restart
//! of the daemon signs nobody out.
//!
//! A session ends when nothing was asked for half an hour, twelve hours after it began in any case, when its person signs out,
//! loses the role, or root ends it. What is *not* here: who may begin one (`sign_in`), the record of it (`door`), cookies (`cookie`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::Role;
use domain::Timestamp;
use tokio::sync::watch;

use crate::token::{Token, TokenHash};

/// A session that asks for nothing ends after this.
pub const IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A session ends after this, however busy.
pub const LIFE_MAX: Duration = Duration::from_secs(12 * 3600);
/// How stale the stored instant of last use may be: a write for each request would be a disk write for each.
const USE_WRITTEN: Duration = Duration::from_secs(60);
/// Most sessions of one person; a further one ends the one that was used least recently.
const PER_PERSON_MAX: usize = 10;
/// Most sessions at all, likewise.
const SESSIONS_MAX: usize = 1000;

/// Whatever the store says when it fails.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who vouched for a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vouched {
    /// The account of that name, with its password: its groups are looked at again and again.
    Account,
    /// Root, with a one-time link: there need be no account of that name.
    Link,
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// Of its token.
    pub hash: TokenHash,
    /// The person's name.
    pub user: String,
    /// What the person may do.
    pub role: Role,
    /// Who says so.
    pub vouched: Vouched,
    /// Where the person signed in from.
    pub from: IpAddr,
    /// When.
    pub begun: Timestamp,
    /// When something was last asked.
    pub used: Timestamp,
    /// When the person's groups were last looked at.
    pub role_seen: Timestamp,
}

impl Session {
    /// When it ends, if nothing else is asked.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        self.used.plus(IDLE_MAX).min(self.begun.plus(LIFE_MAX))
    }
}

/// Where sessions outlive the daemon.
pub trait SessionStore: Send + Sync + 'static {
    /// All that are kept.
    fn sessions(&self) -> Result<Vec<Session>, BoxError>;
    /// Keeps one, or its new state.
    fn keep_session(&self, session: &Session) -> Result<(), BoxError>;
    /// Forgets one.
    fn forget_session(&self, hash: &TokenHash) -> Result<(), BoxError>;
}

/// All sessions of this host's console.
pub(crate) struct Sessions {
    store: Arc<dyn SessionStore>,
    live: Mutex<HashMap<TokenHash, Session>>,
    /// Moves when a session ends; true: the daemon stops. Streams of events watch it.
    ended: watch::Sender<bool>,
}

impl Sessions {
    /// Those that the store kept.
    pub(crate) fn open(store: Arc<dyn SessionStore>) -> Result<Sessions, BoxError> {
        let live = store.sessions()?.into_iter().map(|session| (session.hash, session)).collect();
        Ok(Sessions { store, live: Mutex::new(live), ended: watch::Sender::new(false) })
    }

    /// Begins one; gives the token, which nobody but the browser keeps, and the sessions that had to end for it.
    pub(crate) fn begin(
        &self,
        user: &str,
        role: Role,
        vouched: Vouched,
        from: IpAddr,
        now: Timestamp,
    ) -> Result<(Token, Vec<Session>), BoxError> {
        let mut ended = self.make_room(|session| session.user == user, PER_PERSON_MAX);
        ended.extend(self.make_room(|_| true, SESSIONS_MAX));
        let token = Token::random().ok_or("the kernel gives no random numbers")?;
        let (user, hash) = (user.to_owned(), token.hash());
        let session = Session { hash, user, role, vouched, from, begun: now, used: now, role_seen: now };
        self.store.keep_session(&session)?;
        self.live().insert(hash, session);
        Ok((token, ended))
    }

    /// The session of a token, while it lasts; that it was asked for is noted.
    pub(crate) fn find(&self, hash: &TokenHash, now: Timestamp) -> Option<Session> {
        let session = self.live().get(hash).cloned()?;
        if session.ends() <= now {
            return None;
        }
        if now.since(session.used) < USE_WRITTEN {
            return Some(session);
        }
        self.change(hash, |session| session.used = now)
    }

    /// The person's groups were looked at, and gave this role.
    pub(crate) fn role_is(&self, hash: &TokenHash, role: Role, now: Timestamp) -> Option<Session> {
        self.change(hash, |session| (session.role, session.role_seen) = (role, now))
    }

    fn change(&self, hash: &TokenHash, change: impl FnOnce(&mut Session)) -> Option<Session> {
        let session = {
            let mut live = self.live();
            let session = live.get_mut(hash)?; // ended meanwhile
            change(session);
            session.clone()
        };
        if let Err(error) = self.store.keep_session(&session) {
            tracing::warn!(error, "the state of a session of the console was not stored");
        }
        Some(session)
    }

    /// Ends one; gives what it was.
    pub(crate) fn end(&self, hash: &TokenHash) -> Option<Session> {
        self.end_those(|session| session.hash == *hash).pop()
    }

    /// Ends all that fit; gives what they were.
    pub(crate) fn end_those(&self, fits: impl Fn(&Session) -> bool) -> Vec<Session> {
        let ended: Vec<Session> =
            self.live().extract_if(|_, session| fits(session)).map(|(_, it)| it).collect();
        for session in &ended {
            if let Err(error) = self.store.forget_session(&session.hash) {
                tracing::error!(
                    error,
                    user = session.user,
                    "an ended session of the console is still stored"
                );
            }
        }
        if !ended.is_empty() {
            self.ended.send_modify(|_| ());
        }
        ended
    }

    /// All of them, the newest first.
    pub(crate) fn all(&self) -> Vec<Session> {
        let mut all: Vec<Session> = self.live().values().cloned().collect();
        all.sort_by_key(|session| std::cmp::Reverse(session.begun));
        all
    }

    /// Returns when the session has ended by somebody's doing, or the daemon stops; time alone is not noticed here.
    pub(crate) async fn wait_ended(&self, hash: TokenHash) {
        let over = |stopping: &bool| *stopping || !self.live().contains_key(&hash);
        let _ = self.ended.subscribe().wait_for(over).await;
    }

    /// Ends no session, but everything that waits for the end of one.
    pub(crate) fn stop_waiting(&self) {
        self.ended.send_replace(true);
    }

    /// Leaves room for one more among those that fit; gives those that ended for it.
    fn make_room(&self, fits: impl Fn(&Session) -> bool, most: usize) -> Vec<Session> {
        let mut uses: Vec<(Timestamp, TokenHash)> = {
            let live = self.live();
            live.values()
                .filter(|session| fits(session))
                .map(|session| (session.used, session.hash))
                .collect()
        };
        uses.sort_unstable();
        let surplus = (uses.len() + 1).saturating_sub(most);
        uses[..surplus].iter().filter_map(|(_, hash)| self.end(hash)).collect()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<TokenHash, Session>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// A store as durable as the test.
    #[derive(Default)]
    pub(crate) struct Kept(Mutex<HashMap<TokenHash, Session>>);

    impl Kept {
        fn rows(&self) -> MutexGuard<'_, HashMap<TokenHash, Session>> {
            self.0.lock().expect("not poisoned")
        }
    }

    impl SessionStore for Kept {
        fn sessions(&self) -> Result<Vec<Session>, BoxError> {
            Ok(self.rows().values().cloned().collect())
        }

        fn keep_session(&self, session: &Session) -> Result<(), BoxError> {
            self.rows().insert(session.hash, session.clone());
            Ok(())
        }

        fn forget_session(&self, hash: &TokenHash) -> Result<(), BoxError> {
            self.rows().remove(hash);
            Ok(())
        }
    }

    const NOW: Timestamp = Timestamp(1_800_000_000_000);
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const MINUTE: Duration = Duration::from_secs(60);

    fn begin(sessions: &Sessions, user: &str, now: Timestamp) -> TokenHash {
        sessions.begin(user, Role::Viewer, Vouched::Account, HERE, now).expect("begun").0.hash()
    }

    #[test]
    fn a_session_ends_when_it_is_idle_and_when_it_is_old_and_not_before() {
        let store = Arc::new(Kept::default());
        let sessions = Sessions::open(store.clone()).expect("opened");
        let idle = begin(&sessions, "idle", NOW);
        let busy = begin(&sessions, "busy", NOW);
        let mut now = NOW;
        while now.since(NOW) + 10 * MINUTE < LIFE_MAX {
            now = now.plus(10 * MINUTE);
            assert!(sessions.find(&busy, now).is_some(), "{:?}", now.since(NOW));
            let lasts = sessions.all().iter().any(|it| it.hash == idle && it.ends() > now);
            assert_eq!(now.since(NOW) >= IDLE_MAX, !lasts);
        }
        for hash in [&idle, &busy] {
            assert!(sessions.find(hash, NOW.plus(LIFE_MAX)).is_none());
        }
        sessions.end_those(|session| session.ends() <= NOW.plus(LIFE_MAX));
        assert!(store.rows().is_empty(), "what has ended is not kept");
    }

    #[test]
    fn a_restart_signs_nobody_out_and_wakes_nobody_whose_time_is_over() {
        let store = Arc::new(Kept::default());
        let sessions = Sessions::open(store.clone()).expect("opened");
        let old = begin(&sessions, "old", NOW);
        let new = begin(&sessions, "new", NOW.plus(20 * MINUTE));
        sessions.role_is(&new, Role::Operator, NOW.plus(20 * MINUTE));
        let ended = begin(&sessions, "ended", NOW.plus(20 * MINUTE));
        sessions.end(&ended);
        drop(sessions);
        let later = NOW.plus(40 * MINUTE);
        let sessions = Sessions::open(store).expect("opened");
        assert!(sessions.find(&old, later).is_none());
        assert!(sessions.find(&ended, later).is_none());
        assert_eq!(sessions.find(&new, later).map(|session| session.role), Some(Role::Operator));
    }

    #[test]
    fn one_session_more_than_a_person_may_have_ends_the_least_used_of_that_person_only() {
        let sessions = Sessions::open(Arc::new(Kept::default())).expect("opened");
        let other = begin(&sessions, "other", NOW);
        let mine: Vec<TokenHash> = (0..PER_PERSON_MAX).map(|_| begin(&sessions, "me", NOW)).collect();
        let later = NOW.plus(2 * MINUTE);
        for hash in &mine[1..] {
            sessions.find(hash, later);
        }
        let newest = begin(&sessions, "me", later);
        assert!(sessions.find(&mine[0], later).is_none());
        assert!(mine[1..].iter().chain([&other, &newest]).all(|hash| sessions.find(hash, later).is_some()));
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_of_a_session_is_told_of_this_one_only() {
        let sessions = Arc::new(Sessions::open(Arc::new(Kept::default())).expect("opened"));
        let (mine, other) = (begin(&sessions, "me", NOW), begin(&sessions, "other", NOW));
        let waiting = tokio::spawn({
            let sessions = sessions.clone();
            async move { sessions.wait_ended(mine).await }
        });
        tokio::task::yield_now().await;
        sessions.end(&other);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        sessions.end(&mine);
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("told").expect("no panic");
    }
}

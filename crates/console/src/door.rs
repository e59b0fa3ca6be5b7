//! Who may come in: sessions, links, the count of tries, the roles. Shared by the listener and by root's commands.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use accounts::Accounts;
use api::Role;
use domain::Timestamp;

use crate::attempts::Attempts;
use crate::audit::{Audit, Deed, Entry};
use crate::certificate::Certificate;
use crate::links::Links;
use crate::looks::Looks;
use crate::roles::Roles;
use crate::sessions::{BoxError, IDLE_MAX, LIFE_MAX, Session, SessionStore, Sessions};
use crate::turned_away::TurnedAway;

/// Characters of a name that are recorded.
const NAME_CHARS_MAX: usize = 64;

/// Tells the time; tests have their own.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a door is made of.
pub struct DoorOptions {
    /// This host's name, for people.
    pub host_name: String,
    /// Which groups have which role.
    pub roles: Roles,
    /// Asks PAM.
    pub accounts: Accounts,
    /// Where sessions outlive the daemon.
    pub store: Arc<dyn SessionStore>,
    /// Where it is kept who came and went.
    pub audit: Arc<dyn Audit>,
    /// The time.
    pub clock: Clock,
    /// Every sign-in that fails takes this long, whatever it failed of.
    pub failure_takes: Duration,
}

impl DoorOptions {
    /// Longer than PAM lets a wrong password wait by itself (2 s, up to half more), so that no reason shows in the time.
    pub const FAILURE_TAKES: Duration = Duration::from_secs(4);
}

/// Who may come in.
pub struct Door {
    pub(crate) host_name: String,
    pub(crate) roles: Roles,
    pub(crate) accounts: Accounts,
    pub(crate) sessions: Sessions,
    pub(crate) links: Links,
    pub(crate) attempts: Attempts,
    pub(crate) looks: Looks,
    pub(crate) failure_takes: Duration,
    audit: Arc<dyn Audit>,
    clock: Clock,
    turned_away: TurnedAway,
    /// Where the console is served, or why it is not.
    served: RwLock<Result<Served, String>>,
}

/// Where the console is served.
#[derive(Clone, Debug)]
pub struct Served {
    /// Address and port.
    pub address: SocketAddr,
    /// What browsers see there.
    pub certificate: Arc<Certificate>,
}

/// A one-time link that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issued {
    /// What stands behind `#link=`.
    pub token: String,
    /// Until when it opens.
    pub expires: Timestamp,
}

impl Door {
    /// A door with the sessions that the store kept.
    pub fn open(options: DoorOptions) -> Result<Arc<Door>, BoxError> {
        let DoorOptions { host_name, roles, accounts, store, audit, clock, failure_takes } = options;
        let sessions = Sessions::open(store)?;
        let door = Arc::new(Door {
            host_name,
            roles,
            accounts,
            sessions,
            links: Links::default(),
            attempts: Attempts::default(),
            looks: Looks::default(),
            failure_takes,
            audit,
            clock,
            turned_away: TurnedAway::default(),
            served: RwLock::new(Err("it has not begun to listen".to_owned())),
        });
        door.end_old_sessions();
        Ok(door)
    }

    /// Which groups have which role.
    #[must_use]
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Where the console is served, or why it is not.
    pub fn served(&self) -> Result<Served, String> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes where the console is served, or why it is not.
    pub fn now_served(&self, at: Result<Served, String>) {
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Makes a one-time link for a person; none when the kernel gives no random numbers.
    pub fn make_link(&self, user: &str, role: Role) -> Option<Issued> {
        let (token, link) = self.links.make(user, role, self.now())?;
        Some(Issued { token: token.text(), expires: link.expires })
    }

    /// Everybody who is signed in, the newest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        self.end_old_sessions();
        self.sessions.all()
    }

    /// Puts out a person, or everybody; gives how many sessions ended.
    pub fn end_sessions(&self, user: Option<&str>) -> usize {
        self.end_old_sessions();
        let ended = self.sessions.end_those(|session| user.is_none_or(|user| session.user == user));
        for session in &ended {
            self.record(&session.user, session.from, Deed::PutOut("root ended the session"));
        }
        ended.len()
    }

    /// Ends the streams of events, so that the daemon can stop; their pages open new ones when it is back.
    pub fn end_streams(&self) {
        self.sessions.stop_waiting();
    }

    /// Sessions whose time is over end, and that is recorded. Whoever asks with one is refused without this, too.
    pub(crate) fn end_old_sessions(&self) {
        let now = self.now();
        for session in self.sessions.end_those(|session| session.ends() <= now) {
            let old = session.begun.plus(LIFE_MAX) <= session.used.plus(IDLE_MAX);
            let why = if old {
                "it had lasted as long as a session may"
            } else {
                "nothing was asked for half an hour"
            };
            self.record(&session.user, session.from, Deed::PutOut(why));
        }
    }

    /// Somebody was turned away unseen: told to the journal each time, and recorded now and then.
    /// Somebody was turned away unseen: each time that is told to the journal, and now and then recorded.
    pub(crate) fn turn_away(&self, who: &str, from: IpAddr, deed: Deed<'_>) {
        let (Deed::Refused(why) | Deed::Forged(why)) = deed else { return };
        tracing::warn!(who, %from, "turned away from the console: {why}");
        let Some(before) = self.turned_away.count(from, self.now()) else { return };
        let why = if before == 0 { why.to_owned() } else { format!("{why}; and {before} times before") };
        let deed = if matches!(deed, Deed::Forged(_)) { Deed::Forged(&why) } else { Deed::Refused(&why) };
        self.record(who, from, deed);
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// A name is whatever a stranger typed: the record keeps as much of it as a name can have.
    pub(crate) fn record(&self, who: &str, from: IpAddr, deed: Deed<'_>) {
        let who = who.char_indices().nth(NAME_CHARS_MAX).map_or(who, |(end, _)| &who[..end]);
        self.audit.record(&Entry { who, from, deed });
    }
}

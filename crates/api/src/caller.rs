//! Who asks, from where, and what that person may do. Whoever accepts the connection decides it (the control socket by the
//! kernel's word, the console's listener by its sign-in) and gives it to the router; the router holds each route's role
//! against it. What is *not* here: passwords, groups, sessions.

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a person may do; each role may do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Looks, and changes nothing.
    Viewer,
    /// Changes the replication of VMs: enable, pause, failovers, recovery points, tests.
    Operator,
    /// Changes the host as well: its limits, its peers; ends relationships, and uses force.
    Administrator,
}

impl Role {
    /// The word of CLI and JSON.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Administrator => "administrator",
        }
    }
}

/// A system account of this host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Person {
    /// By its name, as it signed in.
    Account(String),
    /// By its number, as the kernel says.
    Uid(u32),
    /// Nobody said.
    Unknown,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Person::Account(name) => f.write_str(name),
            Person::Uid(0) => f.write_str("root"),
            Person::Uid(uid) => write!(f, "uid {uid}"),
            Person::Unknown => f.write_str("unknown"),
        }
    }
}

/// Who asks. A listener puts it into the extensions of each request; a request without one is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The person.
    pub who: Person,
    /// The address that the connection comes from; none: this host's control socket.
    pub from: Option<IpAddr>,
    /// What the person may do.
    pub role: Role,
}

impl Caller {
    /// Who came through the control socket. Its mode decides who can (root and its group), and that is every command.
    #[must_use]
    pub fn of_socket(uid: Option<u32>) -> Caller {
        Caller { who: uid.map_or(Person::Unknown, Person::Uid), from: None, role: Role::Administrator }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.who.fmt(f)
    }
}

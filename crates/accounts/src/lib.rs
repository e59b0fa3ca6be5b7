//! The accounts of this system: whether a password is right (PAM) and which groups a person is in (NSS).
//!
//! ```text
//! Accounts ── one question, JSON on standard input ──► a process of its own: PAM and NSS
//!          ◄── one answer, JSON on standard output ──
//! ```
//! The modules behind PAM and NSS are the site's: they may wait for a directory server, leak, or crash. In a process of
//! its own that costs one sign-in; the daemon that replicates never loads them. What is *not* here: what a group may do, and how often one
//! may guess (`console`).

mod ask;
mod groups;
mod inside;
mod pam;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use ask::{Accounts, AccountsError};
pub use inside::answer;

/// The service name under which PAM is asked: `/etc/pam.d/virt-replica`.
pub const PAM_SERVICE: &str = "virt-replica";

/// Longest name and longest password, bytes; PAM takes no longer password.
pub const TEXT_BYTES_MAX: usize = 512;

/// What is asked.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Question {
    /// May this person come in with this password?
    SignIn { name: String, password: String, from: IpAddr },
    /// Is this account still good, and in which groups?
    LookUp { name: String },
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The account is good; at a sign-in, the password too.
    Good(Account),
    /// It is not. Why is for the journal of this host, never for whoever asked.
    Refused(String),
}

/// A system account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    /// Its name, as the system spells it.
    pub name: String,
    /// The names of its groups, its own one too.
    pub groups: Vec<String>,
}

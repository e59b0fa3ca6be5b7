//! What is recorded about the door: who came in or did not, from where, and why. That root made a link is recorded by the API, like any
//! other command.

use std::net::IpAddr;

use api::Role;

/// Keeps the record.
pub trait Audit: Send + Sync + 'static {
    /// Keeps one entry. Whether it could is the record's own business: nobody is let in or kept out by it.
    fn record(&self, entry: &Entry<'_>);
}

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The person, by the name that was given; nobody need have it.
    pub who: &'a str,
    /// From where.
    pub from: IpAddr,
    /// What was done.
    pub deed: Deed<'a>,
}

/// What was done at the door.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed<'a> {
    /// Came in, with a password.
    SignedIn(Role),
    /// Came in, with a one-time link.
    SignedInByLink(Role),
    /// Was not let in, and why. The person was told less.
    Refused(&'a str),
    /// A request that a page of another site made, or that no page of the console sent, and why it was taken for one.
    Forged(&'a str),
    /// Went out.
    SignedOut,
    /// Was put out, and why.
    PutOut(&'a str),
}

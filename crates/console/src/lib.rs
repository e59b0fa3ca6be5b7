//! The console of a host: the HTTPS listener, and who may come in.
//!
//! ```text
//! Listener ── limits, TLS ──► headers ──┬─ /session   sign in and out, with a password (PAM) or root's one-time link
//!                                       ├─ /api/v1    cookie ► session ► role ► forged? ► the same router as the socket's
//!                                       └─ else       the pages, which hold no secret
//! ```
//! [`Door`] is who may come in; [`routes()`] is what they find; [`Listener`] is the way there. What is *not* here: what a role may do
//! (`api`), passwords and groups (`accounts`), and where sessions and the record of who did what are kept (the daemon).

mod assets;
mod attempts;
mod audit;
mod body;
mod certificate;
mod cookie;
mod door;
mod forged;
mod guard;
mod headers;
mod links;
mod listener;
mod looks;
mod network;
mod roles;
mod routes;
mod session;
mod sessions;
mod sign_in;
mod token;
mod turned_away;

pub use audit::{Audit, Deed, Entry};
pub use certificate::{Certificate, CertificateError, Source};
pub use door::{Clock, Door, DoorOptions, Issued, Served};
pub use links::LINK_VALID;
pub use listener::{BindError, Listener};
pub use roles::Roles;
pub use routes::routes;
pub use session::Credentials;
pub use sessions::{BoxError, IDLE_MAX, LIFE_MAX, Session, SessionStore, Vouched};
pub use token::TokenHash;

/// The address that a connection comes from, in the extensions of each of its requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct From(pub std::net::IpAddr);

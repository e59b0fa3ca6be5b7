//! The way between two hosts: pairing, mutual TLS 1.3 with pinned certificates, commands and streams of deltas over HTTP/1.1.
//!
//! ```text
//! PeerClient ── TLS 1.3, both certificates pinned ──► PeerServer ──► PeerHandler (the engine)
//!    POST /v1/command      one JSON message, one JSON answer, each with a deadline
//!    PUT  /v1/delta        one delta; answered when it is sealed, or refused
//!    POST /v1/certificate  "this will be my next certificate", from a session that is trusted already
//!    POST /v1/join         the only door for a stranger, opened by an invite
//! ```
//! What is *not* here: what the messages mean (`wire`, `engine`) and where peers and invites are kept (a [`TrustStore`]
//! that the state store implements). Silence of the other host is always an error here, never an answer.

pub mod client;
pub mod error;
pub mod fingerprint;
pub mod identity;
pub mod invite;
pub mod limiter;
pub mod pairing;
pub mod server;
mod socket;
mod tls;
pub mod trust;
pub mod version;

pub use client::{ClientOptions, DeltaAnswer, DeltaOptions, PeerClient, TransferProgress};
pub use error::{BoxError, ErrorClass, PairingError, Refusal, TransportError};
pub use fingerprint::Fingerprint;
pub use identity::{Identity, IdentityError, expires};
pub use invite::{Invite, InviteToken, TokenError};
pub use limiter::RateLimiter;
pub use pairing::{Introduction, join};
pub use server::{DeltaBody, PeerHandler, PeerServer, ServerOptions};
pub use trust::{InviteVerdict, MemoryTrust, PeerRecord, TrustError, TrustStore};
pub use version::{VersionMismatch, VersionRange};

//! Hosts that trust each other.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ask for a one-time token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// How long the token can be used, seconds.
    #[schemars(range(min = 1, max = InviteRequest::VALID_SECONDS_MAX))]
    pub valid_seconds: u64,
}

impl InviteRequest {
    /// Long enough to walk to the other host, short enough to be forgotten.
    pub const VALID_SECONDS_DEFAULT: u64 = 3600;
    /// Long enough for a host that is still to be delivered.
    pub const VALID_SECONDS_MAX: u64 = 30 * 24 * 3600;
}

/// A token, shown once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Invitation {
    /// The token; whoever holds it may pair once.
    pub token: String,
    /// When it stops working.
    pub expires_at_ms: u64,
    /// The host that made it.
    pub host: String,
}

/// Use a token of another host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// What `peer invite` printed there. In no record.
    #[schemars(extend("writeOnly" = true))]
    pub token: String,
    /// Where to reach that host (`host[:port]`), when not at the address in the token.
    #[serde(default)]
    pub address: Option<String>,
}

/// A host that this one trusts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Peer {
    /// Its id, made once.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is reached (`host:port`).
    pub address: String,
    /// SHA-256 of its pinned certificate, hexadecimal.
    pub fingerprint: String,
    /// When the pinned certificate ends.
    #[serde(default)]
    pub certificate_expires_at_ms: Option<u64>,
    /// When it last answered; none: never since this daemon started.
    #[serde(default)]
    pub last_seen_at_ms: Option<u64>,
    /// Relationships with it.
    pub relationships: u64,
}

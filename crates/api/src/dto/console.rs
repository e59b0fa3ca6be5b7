//! The console's visitors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::caller::Role;

/// Let somebody into the console once, without a password.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsoleLinkRequest {
    /// What the visitor may do.
    pub role: Role,
    /// The visitor's name in the audit; there need be no such account. None: "root's guest".
    #[serde(default)]
    pub user: Option<String>,
}

/// A one-time link, shown once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleLink {
    /// Whoever opens it is in, once.
    pub url: String,
    /// For whom it was made.
    pub user: String,
    /// What that visitor may do.
    pub role: Role,
    /// When it stops working.
    pub expires_at_ms: u64,
    /// SHA-256 of the certificate that a browser must see there, hexadecimal.
    pub fingerprint: String,
}

/// Somebody who is signed in to the console.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleSession {
    /// The name.
    pub user: String,
    /// What that person may do.
    pub role: Role,
    /// Root let the person in with a link; else it was the account of that name.
    pub by_link: bool,
    /// The address from which the person signed in.
    pub from: String,
    /// When.
    pub begun_at_ms: u64,
    /// When something was last asked, to within a minute.
    pub used_at_ms: u64,
    /// When the session ends, if nothing else is asked.
    pub ends_at_ms: u64,
}

/// Which accounts have a role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ConsoleRole {
    /// The role.
    pub role: Role,
    /// Whoever is in one of these groups of the system has it, unless in one of a greater role.
    pub groups: Vec<String>,
}

/// Sign people out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndSessionsRequest {
    /// Whom; none: everybody.
    #[serde(default)]
    pub user: Option<String>,
}

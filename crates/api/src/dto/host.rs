//! This host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::RateLimit;

/// This host, as its daemon sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HostView {
    /// Its id, made once.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// Where the replication listener listens (`address:port`).
    pub listen: String,
    /// SHA-256 of its own certificate, hexadecimal.
    pub fingerprint: String,
    /// When its own certificate ends.
    #[serde(default)]
    pub certificate_expires_at_ms: Option<u64>,
    /// Where replicas are kept.
    pub storage: String,
    /// Free bytes there.
    #[serde(default)]
    pub storage_free_bytes: Option<u64>,
    /// Upper limit of all replication traffic of this host, bytes per second; none: no limit.
    #[serde(default)]
    pub rate_limit_bytes_per_second: Option<u64>,
    /// The hypervisor in its own words, for example "libvirt 11.3.0, QEMU 10.0.2".
    #[serde(default)]
    pub hypervisor: Option<String>,
    /// Relationships in which this host is primary.
    pub primaries: u64,
    /// Relationships in which this host is replica.
    pub replicas: u64,
}

/// Change what is not none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostChange {
    /// Upper limit of all replication traffic.
    #[serde(default)]
    pub rate_limit: Option<RateLimit>,
}

//! What a host has sent.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Host;

impl Host {
    /// Bytes that left this host by its wire.
    pub fn sent_bytes(&self) -> Result<u64> {
        let links: Value = serde_json::from_str(&self.exec(["ip", "-s", "-j", "link", "show"])?)?;
        let links = links.as_array().context("a list")?.iter();
        let wires = links.filter(|link| link["link_type"] == "ether" && link["ifname"] != "lo");
        let bytes = wires.map(|link| link.pointer("/stats64/tx/bytes").and_then(Value::as_u64));
        bytes.max().flatten().context("counters")
    }
}

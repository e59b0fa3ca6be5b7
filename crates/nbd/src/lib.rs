//! A client for NBD, as QEMU serves it: fixed newstyle handshake, structured replies, meta contexts, pipelined reads.
//!
//! Follows the protocol as described by the NBD project (doc/proto.md) and the `qemu:dirty-bitmap` context of QEMU's
//! docs/interop/nbd.txt. What is *not* here: TLS (the socket is a unix socket), writing, and any trust in the server:
//! every length, offset and id that it sends is checked against what was asked.

mod client;
mod connection;
mod error;
mod handshake;
mod offline;
mod reply;

pub use client::{Client, Deadlines, READ_BYTES, READ_BYTES_MAX};
pub use error::NbdError;
pub use offline::{OfflineDisk, OfflineExport, Simulated as SimulatedOffline, end_orphan, simulate_offline};
pub use reply::Chunk;

/// The meta context that tells data from holes and zeroes.
pub const ALLOCATION: &str = "base:allocation";

/// The meta context of a dirty bitmap.
#[must_use]
pub fn dirty_context(bitmap: &str) -> String {
    format!("qemu:dirty-bitmap:{bitmap}")
}

//! TCP as both ends use it: large reads, no waiting to fill packets, and a dead path noticed within fifteen seconds.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::BufReader;
use tokio::net::TcpStream;

/// Sent bytes that the other kernel does not acknowledge for so long mean a dead path.
const UNACKNOWLEDGED_MS_MAX: u32 = 15_000;
/// A silent connection is probed after this, then each interval, and is dead after so many probes: 5 + 3 × 3 = 14 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_PROBES: u32 = 3;
/// TLS reads 4 KiB at a time; one call to the kernel serves many of those.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Plaintext that TLS may hold encrypted but unsent, for large writes.
pub(crate) const TLS_BUFFER_BYTES: usize = 512 << 10;

/// What TLS runs on.
pub(crate) type Wire = BufReader<TcpStream>;

pub(crate) fn prepare(stream: TcpStream) -> io::Result<Wire> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS_MAX)?;
    Ok(BufReader::with_capacity(READ_BUFFER_BYTES, stream))
}

//! What goes wrong between us and an NBD server.

use std::io;
use std::time::Duration;

/// A failed connection or request. After any but [`NbdError::Server`], [`NbdError::Beyond`]
/// and [`NbdError::NotAgreed`] the connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The socket failed or the server hung up.
    #[error("the NBD connection broke while {doing}")]
    Connection {
        /// What was going on.
        doing: &'static str,
        /// The socket's error.
        #[source]
        source: io::Error,
    },
    /// Nothing came for too long.
    #[error("the NBD server was silent for {waited:?} while {doing}")]
    Silent {
        /// What was going on.
        doing: &'static str,
        /// For how long.
        waited: Duration,
    },
    /// The server refused an option of the handshake.
    #[error("the NBD server refused {option} for export {export:?} (reply {reply:#x}): {message}")]
    Refused {
        /// Which option.
        option: &'static str,
        /// Which export.
        export: String,
        /// The reply's number.
        reply: u32,
        /// The server's own words.
        message: String,
    },
    /// The server does not offer a meta context, for example because a bitmap is gone.
    #[error(
        "the NBD server offers no {context:?} on export {export:?}: the bitmap is missing or inconsistent"
    )]
    NoContext {
        /// Which context.
        context: String,
        /// Which export.
        export: String,
    },
    /// The caller asked for a context that was not named when connecting.
    #[error("the context {context:?} was not asked for when connecting")]
    NotAgreed {
        /// Which context.
        context: String,
    },
    /// The caller asked for what lies beyond the disk or is too much for one request.
    #[error(
        "{length} bytes at offset {offset} are too much for one request, or beyond a disk of {size} bytes"
    )]
    Beyond {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: u64,
        /// Size of the disk, bytes.
        size: u64,
    },
    /// The server broke the protocol.
    #[error("the NBD server broke the protocol: {what}")]
    Protocol {
        /// How.
        what: &'static str,
    },
    /// The server could not serve one request; the connection lives on.
    #[error("the NBD server failed at offset {offset} for {length} bytes: error {errno} {message}")]
    Server {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        length: u64,
        /// The server's error number (5 is an I/O error).
        errno: u32,
        /// The server's own words.
        message: String,
    },
    /// A disk lost track of its changes: a bitmap is missing, or was not closed when its host crashed.
    #[error("changes of {file} were not tracked all the time: {detail}; it must be resynchronized")]
    BitmapUnusable {
        /// Which file.
        file: String,
        /// What `qemu-nbd` said.
        detail: String,
    },
    /// `qemu-nbd` could not be started or did not open its socket.
    #[error("qemu-nbd could not export {file}: {detail}")]
    Export {
        /// Which file.
        file: String,
        /// What it said.
        detail: String,
    },
}

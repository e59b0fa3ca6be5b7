//! What two hosts say to each other: control messages ([`message`]) and the stream of a delta ([`delta`], [`frame`]).
//!
//! Pure: bytes in, bytes out. The formats are specified in `docs/formats/wire.md`. What is *not* here: sockets, TLS and
//! who may say what (`transport`, `engine`).

pub mod attachment;
pub mod codec;
pub mod delta;
pub mod digests;
pub mod frame;
pub mod message;

pub use attachment::{AttachmentForm, envelope_digest};
pub use codec::Codec;
pub use delta::{DeltaHeader, DeltaTrailer};
pub use frame::{DeltaDigest, Frame, FrameDecoder, FrameHeader, FrameKind, Item, WireError};

//! Recovery-point layers: files of guest data that are written front to back, sealed, stacked, merged and thrown away.
//!
//! Blocking: call it where blocking is allowed. Not here: digests of guest data and the database of recovery points
//! (their owners pass through opaque bytes and file names), reading guest data (QEMU does), libvirt.
//! The files are described in `docs/formats/replica-directory.md`.

mod backing;
mod chain;
mod error;
mod folder;
mod inspect;
mod name;
mod progress;
mod qcow2;
mod qemu_img;
mod writeback;
mod writer;

pub use backing::{Backing, BackingFormat, set_backing};
pub use chain::{
    Bitmap, CHAIN_FILES_MAX, CheckReport, Link, chain_check, check_image, commit_into_base, list_bitmaps,
    remove_bitmap,
};
pub use error::LayerError;
pub use inspect::{Gate, GateRefusal, LayerInfo, inspect};
pub use name::{FileName, NotAFileName};
pub use progress::CALLER_STATE_BYTES_MAX;
pub use qcow2::{CLUSTER_BYTES, HeaderError};
pub use writer::{
    LayerSpec, LayerWriter, Resumed, Sealed, VIRTUAL_SIZE_MAX, create_overlay, discard, remove_sealed,
};

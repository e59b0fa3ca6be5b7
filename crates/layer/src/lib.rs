//! Recovery-point layers: files of guest data that are written front to back, sealed, stacked, merged and thrown away.
//!
//! Blocking: call it where blocking is allowed. Not here: digests of guest data and the database of recovery points
//! (their owners pass through opaque bytes and file names), reading guest data (QEMU does), libvirt.
//! The files are described in `docs/formats/replica-directory.md`, the choice of an own writer in
//! `docs/adr/0001-layer-writer.md`.
//!
//! ```text
//! Storage ── ReplicaDirectory ── Manifest        where replicas are, what each holds
//!                 │      └────── Fold            a layer into the file below
//!                 └ LayerWriter ─ seal ─ layer   one delta of one disk
//!                   inspect, chain_check         nothing is opened before its header was read
//! ```

mod backing;
mod belongings;
mod chain;
mod disks;
mod durable;
mod error;
mod fold;
mod folder;
mod inspect;
mod manifest;
mod name;
mod owner;
mod progress;
mod qcow2;
mod qemu_img;
mod replica_directory;
mod storage;
mod survivor;
mod sync;
mod throwaway;
mod wrapper;
mod writeback;
mod writer;

pub use backing::{Backing, BackingFormat, set_backing};
pub use chain::{
    Bitmap, CHAIN_FILES_MAX, CheckReport, Link, chain_check, check_image, commit_into_base, list_bitmaps,
    own_extents, remove_bitmap,
};
pub use error::LayerError;
pub use fold::{Fold, FoldStep, Merge, Scope};
pub use folder::replace_file;
pub use inspect::{Gate, GateRefusal, LayerInfo, inspect};
pub use manifest::{MANIFEST_BYTES_MAX, Manifest, ManifestDisk, ManifestPoint};
pub use name::{FileName, NotAFileName};
pub use owner::Owner;
pub use progress::CALLER_STATE_BYTES_MAX;
pub use qcow2::{CLUSTER_BYTES, HeaderError};
pub use qemu_img::{Ended as ToolEnded, Simulated as SimulatedTool, simulate_qemu_img};
pub use replica_directory::ReplicaDirectory;
pub use storage::{Storage, directory_name};
pub use survivor::{Diverged, diverged_list_name, diverged_name};
pub use sync::{SimulatedSync, simulate_sync};
pub use wrapper::{Wrapper, wrapper};
pub use writer::{
    LayerSpec, LayerWriter, Resumed, Sealed, VIRTUAL_SIZE_MAX, create_overlay, discard, remove_sealed,
};

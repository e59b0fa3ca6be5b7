//! What can go wrong with files of a replica: each error says what, why, and the cure.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::inspect::GateRefusal;
use crate::name::NotAFileName;

/// Everything this crate refuses or fails at.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A name from outside is not one of ours.
    #[error(transparent)]
    Name(#[from] NotAFileName),
    /// A backing reference that QEMU could take for something else than a file.
    #[error(
        "{0:?} cannot be a backing file: a file name without a path, or an absolute path of at most 1023 bytes, can"
    )]
    NotABacking(String),
    /// The virtual size cannot be represented.
    #[error(
        "a disk of {bytes} bytes cannot be replicated: its size must be a multiple of 512 from 512 bytes to 64 TiB"
    )]
    VirtualSize {
        /// The size that was asked for.
        bytes: u64,
    },
    /// The file exists already, so nothing was written.
    #[error("{path} exists already and is never overwritten", path = .0.display())]
    Exists(PathBuf),
    /// A range outside the disk, out of order, or not on cluster borders.
    #[error(
        "range {offset}+{length} does not fit a layer of {virtual_size} bytes written up to {position}: ranges rise, \
         start on 64 KiB and end on 64 KiB or with the disk"
    )]
    Range {
        /// Start of the range in the guest's disk, bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// What was written before, bytes.
        position: u64,
        /// Size of the guest's disk, bytes.
        virtual_size: u64,
    },
    /// An earlier write or sync failed; what the kernel kept of it is unknown.
    #[error("{path} lost writes earlier and cannot be completed: abandon it and send the delta again", path = .0.display())]
    Poisoned(PathBuf),
    /// More state of the caller than a progress file holds.
    #[error("{bytes} bytes of caller state exceed the {max} of a progress file", max = crate::progress::CALLER_STATE_BYTES_MAX)]
    CallerState {
        /// How many were given.
        bytes: usize,
    },
    /// There is no partial layer to go on with.
    #[error("{path} has no durable progress: start it anew", path = .0.display())]
    NothingToResume(PathBuf),
    /// A progress file that is torn, damaged, or of another layer.
    #[error("{path} cannot be resumed, {why}: abandon it and start anew", path = path.display())]
    Progress {
        /// The partial layer.
        path: PathBuf,
        /// What does not fit.
        why: &'static str,
    },
    /// An image that we do not open.
    #[error("{path} is refused: {refusal}", path = path.display())]
    Gate {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        refusal: GateRefusal,
    },
    /// A path that a subprocess could misunderstand.
    #[error("{path} must be an absolute path", path = .0.display())]
    NotAbsolute(PathBuf),
    /// `qemu-img` could not be started.
    #[error("qemu-img could not be started ({source}): install the package qemu-utils")]
    NoQemuImg {
        /// What the system said.
        source: io::Error,
    },
    /// `qemu-img` failed.
    #[error("qemu-img {verb} failed: {message}")]
    QemuImg {
        /// Its subcommand.
        verb: &'static str,
        /// What it wrote, shortened.
        message: String,
    },
    /// `qemu-img` found the image locked by another process.
    #[error("qemu-img {verb} found the image in use by another process; it is tried again: {message}")]
    InUse {
        /// Its subcommand.
        verb: &'static str,
        /// What it wrote, shortened.
        message: String,
    },
    /// `qemu-img` took too long and was ended.
    #[error("qemu-img {verb} did not end within {seconds} s and was stopped; the images are as consistent as before", seconds = limit.as_secs())]
    Deadline {
        /// Its subcommand.
        verb: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// `qemu-img` was stopped because somebody else needs its files.
    #[error("qemu-img {verb} gave way to somebody who needs the files; it is done again later")]
    GaveWay {
        /// Its subcommand.
        verb: &'static str,
    },
    /// `qemu-img` answered something that we do not understand.
    #[error("qemu-img {verb} answered in an unknown form")]
    Answer {
        /// Its subcommand.
        verb: &'static str,
    },
    /// A chain that is longer than QEMU or we can bear, or a circle.
    #[error("the chain of {path} has more than {max} files or bites its own tail", path = path.display())]
    ChainLength {
        /// Its newest file.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// The chain on disk is not the one that the manifest tells of.
    #[error("{path} stands on {found:?} where the manifest says {expected:?}: resynchronize this VM", path = path.display())]
    ChainDiffers {
        /// The layer.
        path: PathBuf,
        /// What its header names.
        found: Option<String>,
        /// What the manifest names.
        expected: String,
    },
    /// An overlay stands on a file that something else is about to be done with.
    #[error(
        "{path} stands on {found}, and not on {expected}: the VM needs that file, and nothing below it is deleted or merged",
        path = path.display(), found = found.display(), expected = any_of(expected)
    )]
    StandsElsewhere {
        /// The overlay that the VM writes to.
        path: PathBuf,
        /// What its header names.
        found: PathBuf,
        /// What it should name, one of these.
        expected: Vec<PathBuf>,
    },
    /// Layers are not merged below a running VM.
    #[error("{path} exists: this side is or was primary, and its layers are not merged below it", path = .0.display())]
    Active(PathBuf),
    /// The disk is not one of this replica.
    #[error("the replica in {path} has no disk {target}", path = path.display())]
    NoSuchDisk {
        /// The replica directory.
        path: PathBuf,
        /// The target that was asked for.
        target: String,
    },
    /// The recovery point is not one of this replica.
    #[error("the replica in {path} has no recovery point {point}", path = path.display())]
    NoSuchPoint {
        /// The replica directory.
        path: PathBuf,
        /// The point that was asked for.
        point: domain::PointId,
    },
    /// The storage directory lacks its marker.
    #[error(
        "{path} has no .virt-replica-storage file: its file system is probably not mounted. Mount it, or, if this is \
         new storage, run: touch {path}/.virt-replica-storage",
        path = .0.display()
    )]
    NoStorageMarker(PathBuf),
    /// A manifest that cannot be read.
    #[error("{path} is not a manifest that this version reads: {why}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
}

fn any_of(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" or ")
}

impl LayerError {
    /// Makes a closure for `map_err` that keeps what was tried and where.
    pub(crate) fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> LayerError {
        let path = path.to_owned();
        move |source| LayerError::Io { what, path, source: source.into() }
    }

    /// Whether doing the same again later may succeed without a person.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, LayerError::InUse { .. } | LayerError::Deadline { .. } | LayerError::GaveWay { .. })
    }

    /// Whether the disk is full: a person must make room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            LayerError::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            LayerError::QemuImg { message, .. } => message.contains("No space left on device"),
            _ => false,
        }
    }
}

//! The gate: no image is opened by QEMU, or believed, before its header was read here.
//!
//! It looks at the header and at where the tables lie, because QEMU reads zeroes behind the end of a file: one that lost its tail
//! opens without an error and reads as the file below it. It does not verify tables or data; `qemu-img check` does.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::backing::{Backing, BackingFormat};
use crate::error::LayerError;
use crate::owner::Owner;
use crate::qcow2::{
    BackingFormatName, CLUSTER_BITS, ENTRY_OFFSET, FEATURE_COMPRESSION, FEATURE_CORRUPT, FEATURE_DATA_FILE,
    FEATURE_DIRTY, FEATURE_EXTENDED_L2, Header, HeaderError, L2_COVERS_BYTES,
};
use crate::wrapper::wrapper;
use crate::writer::VIRTUAL_SIZE_MAX;

/// The header and the backing name are within the first cluster, and clusters have at most 2 MiB; QEMU puts both
/// in its first few hundred bytes, so this much is always enough for an honest image.
const HEAD_READ_BYTES: u64 = 64 * 1024;
/// Entries of the largest L1 table that a file of ours has; QEMU rounds up when a disk grows.
const L1_ENTRIES_MAX: u64 = 2 * VIRTUAL_SIZE_MAX / L2_COVERS_BYTES;

/// What is expected of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gate<'a> {
    /// A layer or base that we made: our cluster size, no feature, no snapshot, exactly this backing file.
    Ours(Option<&'a Backing>),
    /// A disk that belongs to the user: any cluster size, known features, any backing file, snapshots and bitmaps.
    Foreign,
}

/// What the header of an accepted image says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerInfo {
    /// Size of the guest's disk, bytes.
    pub virtual_size: u64,
    /// Cluster size, bytes.
    pub cluster_bytes: u64,
    /// The name of the file below as the header has it.
    pub backing: Option<String>,
    /// Its format; `None` means that QEMU would guess (or that there is no file below).
    pub backing_format: Option<BackingFormat>,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Persistent bitmaps.
    pub bitmaps: u32,
    /// Whose file it is; none: it does not say so.
    pub owner: Option<Owner>,
    /// Whether QEMU would repair refcounts at the next writable open.
    pub dirty: bool,
    /// Size of the file, bytes.
    pub file_bytes: u64,
}

/// Why an image is not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateRefusal {
    /// A symlink or something that is no file.
    #[error("it is not a regular file")]
    NotRegular,
    /// The header cannot be read.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Guest data in another file: such an image can name any file of the host.
    #[error(
        "it keeps its data in another file (data_file), and is no wrapper that was made here; convert it with: qemu-img \
         convert -O qcow2"
    )]
    DataFile,
    /// Encrypted images cannot be read without a secret.
    #[error("it is encrypted; encrypted images are not supported")]
    Encrypted,
    /// Features that we do not know.
    #[error("it uses qcow2 features that are not known here (incompatible bits {0:#x})")]
    Features(u64),
    /// QEMU marked it.
    #[error("it is marked corrupt; repair it with: qemu-img check -r all")]
    Corrupt,
    /// Not written by us.
    #[error("its cluster size is {0} bytes where layers have 65536")]
    ClusterSize(u64),
    /// Internal snapshots in a file of ours.
    #[error("it has {0} internal snapshots, and layers have none")]
    Snapshots(u32),
    /// It stands on another file than it should.
    #[error("it stands on {} where {} was expected", named(found), named(expected))]
    Backing {
        /// What the header names.
        found: Option<String>,
        /// What was expected.
        expected: Option<String>,
    },
    /// The format of the file below is missing or not the expected one, so QEMU would guess.
    #[error("the format of its backing file is not the expected one")]
    BackingFormat,
    /// A file that is shorter than it was, or than its own header tells.
    #[error("its end is missing: it has {found} bytes, and at least {expected} were expected")]
    Cut {
        /// Size of the file, bytes.
        found: u64,
        /// What it had, or what its tables need.
        expected: u64,
    },
    /// What should be tables is not; a hole where the end of the file was looks like this.
    #[error("a part of it is missing: its tables are blank, or tell of what lies behind its end")]
    Tables,
    /// Another replica's, or another disk's.
    #[error("it is of {found}, and one of {expected} was expected")]
    Owner {
        /// What the header says.
        found: Owner,
        /// What was expected.
        expected: Owner,
    },
    /// A file whose disk has another size than it may have at its place in the chain.
    #[error("its disk has {found} bytes, and {words} {expected} was expected", words = if *is_exact { "exactly" } else { "at most" })]
    Size {
        /// What the header says.
        found: u64,
        /// What was expected.
        expected: u64,
        /// Whether that is the disk's size now; otherwise an older one's limit: disks of replicas never shrink.
        is_exact: bool,
    },
    /// A name of a backing file that is no text.
    #[error("the name of its backing file is not readable text")]
    BackingName,
}

/// The file below, in words.
fn named(file: &Option<String>) -> String {
    file.as_ref().map_or_else(|| "no other file".to_owned(), |file| format!("{file:?}"))
}

/// Reads the header of an image and lets it pass, or not.
pub fn inspect(path: &Path, gate: Gate<'_>) -> Result<LayerInfo, LayerError> {
    let file = open_image(path, false)?;
    let head = read_head(&file, path)?;
    // After the header: a file that QEMU writes to grows before the header tells of it.
    let file_bytes = file.metadata().map_err(LayerError::io("look at", path))?.size();
    let refused = |refusal| LayerError::Gate { path: path.to_owned(), refusal };
    let header = Header::parse(&head).map_err(|error| refused(error.into()))?;
    let trusted = wrapper(path).map(|wrapper| wrapper.data);
    judge(&header, gate, trusted.as_deref()).map_err(refused)?;
    expect_tables(&file, path, &header, file_bytes, gate)?;
    let backing_format = match header.backing_format {
        Some(BackingFormatName::Known(format)) => Some(format),
        _ => None,
    };
    Ok(LayerInfo {
        virtual_size: header.virtual_size,
        cluster_bytes: 1 << header.cluster_bits,
        backing: name_text(&header).map_err(refused)?,
        backing_format,
        snapshots: header.snapshots,
        bitmaps: header.bitmaps,
        owner: header.owner,
        dirty: header.incompatible & FEATURE_DIRTY != 0,
        file_bytes,
    })
}

/// Decides about a header, of an image that may have its data in `trusted`; pure.
fn judge(header: &Header, gate: Gate<'_>, trusted: Option<&Path>) -> Result<(), GateRefusal> {
    let wraps = header.incompatible & FEATURE_DATA_FILE != 0 || header.data_file.is_some();
    let trusted = trusted.filter(|_| gate == Gate::Foreign && header.data_is_raw);
    if wraps
        && (trusted.is_none()
            || header.data_file.as_deref() != trusted.map(Path::as_os_str).map(OsStr::as_bytes))
    {
        return Err(GateRefusal::DataFile);
    }
    if header.encrypted {
        return Err(GateRefusal::Encrypted);
    }
    if header.incompatible & FEATURE_CORRUPT != 0 {
        return Err(GateRefusal::Corrupt);
    }
    let allowed = match gate {
        Gate::Ours(_) => 0,
        Gate::Foreign if wraps => FEATURE_DIRTY | FEATURE_DATA_FILE,
        Gate::Foreign => FEATURE_DIRTY | FEATURE_COMPRESSION | FEATURE_EXTENDED_L2,
    };
    if header.incompatible & !allowed != 0 {
        return Err(GateRefusal::Features(header.incompatible & !allowed));
    }
    let found = name_text(header)?;
    match gate {
        Gate::Foreign => Ok(()),
        Gate::Ours(expected) => judge_ours(header, found, expected),
    }
}

/// The tables lie within the file; of a file of ours, which nobody writes to meanwhile, also what they name.
fn expect_tables(
    file: &File,
    path: &Path,
    header: &Header,
    file_bytes: u64,
    gate: Gate<'_>,
) -> Result<(), LayerError> {
    let refused = |refusal| LayerError::Gate { path: path.to_owned(), refusal };
    let tables = &header.tables;
    let end = tables.end(header.cluster_bits).ok_or_else(|| refused(HeaderError::Damaged.into()))?;
    if end > file_bytes {
        return Err(refused(GateRefusal::Cut { found: file_bytes, expected: end }));
    }
    let Gate::Ours(_) = gate else { return Ok(()) };
    if u64::from(tables.l1_entries) > L1_ENTRIES_MAX {
        return Err(refused(HeaderError::Damaged.into()));
    }
    let read = |offset, entries: u64| -> Result<Vec<u64>, LayerError> {
        let mut bytes = vec![0; entries as usize * 8];
        file.read_exact_at(&mut bytes, offset).map_err(LayerError::io("read", path))?;
        Ok(bytes
            .chunks_exact(8)
            .map(|entry| u64::from_be_bytes(entry.try_into().expect("eight bytes")))
            .collect())
    };
    let cluster = 1 << header.cluster_bits;
    let is_inside = |entry: &u64| (entry & ENTRY_OFFSET).saturating_add(cluster) <= file_bytes;
    if tables.refcount_table_clusters == 0 {
        return Err(refused(GateRefusal::Tables));
    }
    // The first refcount block is that of the header itself: never none.
    let first_block = read(tables.refcount_table_offset, 1)?;
    let l1 = read(tables.l1_offset, u64::from(tables.l1_entries))?;
    let are_sound = first_block[0] != 0 && first_block.iter().chain(&l1).all(is_inside);
    if are_sound { Ok(()) } else { Err(refused(GateRefusal::Tables)) }
}

fn judge_ours(header: &Header, found: Option<String>, expected: Option<&Backing>) -> Result<(), GateRefusal> {
    if header.version != 3 {
        return Err(HeaderError::Version(header.version).into());
    }
    if header.cluster_bits != CLUSTER_BITS {
        return Err(GateRefusal::ClusterSize(1 << header.cluster_bits));
    }
    if header.snapshots != 0 {
        return Err(GateRefusal::Snapshots(header.snapshots));
    }
    if found.as_deref() != expected.map(Backing::file) {
        return Err(GateRefusal::Backing {
            found,
            expected: expected.map(|backing| backing.file().to_owned()),
        });
    }
    let format = expected.map(|backing| BackingFormatName::Known(backing.format()));
    if format.is_some() && header.backing_format != format {
        return Err(GateRefusal::BackingFormat);
    }
    Ok(())
}

fn name_text(header: &Header) -> Result<Option<String>, GateRefusal> {
    let Some(name) = &header.backing_name else { return Ok(None) };
    String::from_utf8(name.clone()).map(Some).map_err(|_| GateRefusal::BackingName)
}

/// Opens an image, never through a symlink, never a device or a pipe.
pub(crate) fn open_image(path: &Path, writable: bool) -> Result<File, LayerError> {
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let refused = || LayerError::Gate { path: path.to_owned(), refusal: GateRefusal::NotRegular };
    let descriptor = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR | rustix::io::Errno::NXIO => refused(),
        other => LayerError::io("open", path)(other),
    })?;
    let file = File::from(descriptor);
    let metadata = file.metadata().map_err(LayerError::io("look at", path))?;
    if metadata.file_type().is_file() { Ok(file) } else { Err(refused()) }
}

/// The beginning of an image.
pub(crate) fn read_head(file: &File, path: &Path) -> Result<Vec<u8>, LayerError> {
    let size = file.metadata().map_err(LayerError::io("look at", path))?.size();
    let mut head = vec![0; size.min(HEAD_READ_BYTES) as usize];
    file.read_exact_at(&mut head, 0).map_err(LayerError::io("read", path))?;
    Ok(head)
}

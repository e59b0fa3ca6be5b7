//! The parts of the qcow2 format that we write and check: constants, the header, its extensions.
//!
//! Pure: bytes in, bytes out. Not a reader of guest data; QEMU's own tools do that.
//!
//! ```text
//! cluster 0 of a layer of ours     0  header, 104 bytes      ┐ one sector of 512 bytes: a change of the
//!                                104  backing format, if any │ backing file is one write of it
//!                                then  owner, end             ┘
//!                               1024  backing name, slot A     the slot that the header does not name
//!                               2048  backing name, slot B     is free for the next name
//! ```

use crate::backing::{Backing, BackingFormat};
use crate::owner::{OWNER_BYTES, Owner};

/// Cluster size of our layers, bytes: the granularity of dirty maps as well.
pub const CLUSTER_BYTES: u64 = 64 * 1024;
/// `log2` of [`CLUSTER_BYTES`], as the header has it.
pub(crate) const CLUSTER_BITS: u32 = 16;
/// Entries of one L2 table: one cluster of 8 bytes each.
pub(crate) const L2_ENTRIES: usize = 8192;
/// Guest bytes that one L2 table covers: 512 MiB.
pub(crate) const L2_COVERS_BYTES: u64 = CLUSTER_BYTES * L2_ENTRIES as u64;
/// Clusters that one refcount block covers, with 16-bit refcounts.
pub(crate) const REFCOUNTS_PER_BLOCK: u64 = CLUSTER_BYTES / 2;
/// Set in an L1 or L2 entry whose cluster has a refcount of exactly one, as all of ours have.
pub(crate) const ENTRY_COPIED: u64 = 1 << 63;
/// The bits of an L1, L2 or refcount table's entry that are an offset in the file.
pub(crate) const ENTRY_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// L2 entry of a cluster that reads as zeroes whatever the backing file holds.
pub(crate) const ENTRY_ZERO: u64 = 1;
/// Bytes that an atomic write of a disk covers at least.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Where the two slots for a backing name are in a layer of ours.
pub(crate) const NAME_SLOTS: [u64; 2] = [1024, 2048];
/// Longest backing name in bytes, by the format.
pub(crate) const NAME_BYTES_MAX: usize = 1023;
/// The bytes of cluster 0 that we write: header and both slots.
pub(crate) const HEAD_BYTES: usize = 4096;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const HEADER_V2_BYTES: usize = 72;
const HEADER_V3_BYTES: usize = 104;
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;
/// Ours, `VROW`: whose file it is. QEMU keeps what it does not know.
const EXTENSION_OWNER: u32 = u32::from_be_bytes(*b"VROW");
/// Bytes of a backing format in the header, its head included; both names are padded to 8.
const BACKING_FORMAT_BYTES: usize = 16;
/// QEMU itself knows six extensions; more than this many is not an image but an attack.
const EXTENSIONS_MAX: usize = 64;

/// Incompatible feature: refcounts may be stale after a crash.
pub(crate) const FEATURE_DIRTY: u64 = 1 << 0;
/// Incompatible feature: QEMU found metadata corruption.
pub(crate) const FEATURE_CORRUPT: u64 = 1 << 1;
/// Incompatible feature: guest data is in another file.
pub(crate) const FEATURE_DATA_FILE: u64 = 1 << 2;
/// Incompatible feature: compressed clusters are not deflate.
pub(crate) const FEATURE_COMPRESSION: u64 = 1 << 3;
/// Incompatible feature: subclusters.
pub(crate) const FEATURE_EXTENDED_L2: u64 = 1 << 4;

/// Autoclear feature: the data file is raw. A program that does not know it clears it when it writes.
const AUTOCLEAR_DATA_RAW: u64 = 1 << 1;

/// Where the tables of an image are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tables {
    pub(crate) l1_offset: u64,
    pub(crate) l1_entries: u32,
    pub(crate) refcount_table_offset: u64,
    pub(crate) refcount_table_clusters: u32,
}

impl Tables {
    /// The first byte behind both tables; none: no file is as long.
    pub(crate) fn end(&self, cluster_bits: u32) -> Option<u64> {
        let l1_end = self.l1_offset.checked_add(u64::from(self.l1_entries) * 8)?;
        let refcounts = u64::from(self.refcount_table_clusters) << cluster_bits;
        Some(l1_end.max(self.refcount_table_offset.checked_add(refcounts)?))
    }
}

/// The first [`HEAD_BYTES`] of a layer of ours.
pub(crate) fn encode_head(
    virtual_size: u64,
    backing: Option<&Backing>,
    owner: Option<&Owner>,
    tables: &Tables,
) -> Vec<u8> {
    let mut head = vec![0; HEAD_BYTES];
    put(&mut head, 0, &MAGIC);
    put(&mut head, 4, &3u32.to_be_bytes());
    put(&mut head, 20, &CLUSTER_BITS.to_be_bytes());
    put(&mut head, 24, &virtual_size.to_be_bytes());
    put(&mut head, 36, &tables.l1_entries.to_be_bytes());
    put(&mut head, 40, &tables.l1_offset.to_be_bytes());
    put(&mut head, 48, &tables.refcount_table_offset.to_be_bytes());
    put(&mut head, 56, &tables.refcount_table_clusters.to_be_bytes());
    put(&mut head, 96, &4u32.to_be_bytes());
    put(&mut head, 100, &(HEADER_V3_BYTES as u32).to_be_bytes());
    if let Some(backing) = backing {
        let slot = NAME_SLOTS[0];
        put(&mut head, slot as usize, backing.file().as_bytes());
        point_at_backing(&mut head, slot, backing);
    }
    if let Some(owner) = owner {
        let at = HEADER_V3_BYTES + if backing.is_some() { BACKING_FORMAT_BYTES } else { 0 };
        put(&mut head, at, &EXTENSION_OWNER.to_be_bytes());
        put(&mut head, at + 4, &(OWNER_BYTES as u32).to_be_bytes());
        put(&mut head, at + 8, &owner.encode());
    }
    head
}

/// Changes the first sector of a head so that it names a backing file whose name is in the slot at `slot`.
pub(crate) fn point_at_backing(head: &mut [u8], slot: u64, backing: &Backing) {
    put(head, 8, &slot.to_be_bytes());
    put(head, 16, &(backing.file().len() as u32).to_be_bytes());
    let name = backing.format().qemu_name().as_bytes();
    // What follows it stays.
    let mut extension = [0; BACKING_FORMAT_BYTES];
    put(&mut extension, 0, &EXTENSION_BACKING_FORMAT.to_be_bytes());
    put(&mut extension, 4, &(name.len() as u32).to_be_bytes());
    put(&mut extension, 8, name);
    put(head, HEADER_V3_BYTES, &extension);
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// What a qcow2 header says, before anybody judged it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) cluster_bits: u32,
    pub(crate) virtual_size: u64,
    pub(crate) tables: Tables,
    pub(crate) encrypted: bool,
    pub(crate) snapshots: u32,
    pub(crate) incompatible: u64,
    pub(crate) backing_name: Option<Vec<u8>>,
    pub(crate) backing_name_offset: u64,
    pub(crate) backing_format: Option<BackingFormatName>,
    pub(crate) backing_format_first: bool,
    pub(crate) bitmaps: u32,
    /// Whose file it is; none: it does not say so.
    pub(crate) owner: Option<Owner>,
    /// The file that guest data is in; none: this one.
    pub(crate) data_file: Option<Vec<u8>>,
    /// Whether that file is byte for byte what the guest sees.
    pub(crate) data_is_raw: bool,
}

/// A backing format as the file has it: one that we know, or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum BackingFormatName {
    Known(BackingFormat),
    Unknown(Vec<u8>),
}

/// Why bytes are no qcow2 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Too short, or no magic.
    #[error("it is not a qcow2 image")]
    NotQcow2,
    /// Neither version 2 nor 3.
    #[error("its qcow2 version {0} is unknown")]
    Version(u32),
    /// Cluster size outside 512 bytes to 2 MiB.
    #[error("its cluster size of 2^{0} bytes is not allowed by the format")]
    ClusterBits(u32),
    /// A part of the header points outside the first cluster.
    #[error("its header is damaged")]
    Damaged,
}

impl Header {
    /// Reads the header from the beginning of a file; `bytes` may be shorter than the first cluster.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
        if bytes.len() < HEADER_V2_BYTES || bytes[..4] != MAGIC {
            return Err(HeaderError::NotQcow2);
        }
        let version = u32_at(bytes, 4)?;
        if version != 2 && version != 3 {
            return Err(HeaderError::Version(version));
        }
        let cluster_bits = u32_at(bytes, 20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(HeaderError::ClusterBits(cluster_bits));
        }
        let first_cluster = &bytes[..bytes.len().min(1 << cluster_bits)];
        let header_bytes = if version == 2 { HEADER_V2_BYTES } else { u32_at(bytes, 100)? as usize };
        if version == 3 && (header_bytes < HEADER_V3_BYTES || header_bytes % 8 != 0) {
            return Err(HeaderError::Damaged);
        }
        let backing_name_offset = u64_at(bytes, 8)?;
        let mut header = Header {
            version,
            cluster_bits,
            virtual_size: u64_at(bytes, 24)?,
            tables: Tables {
                l1_offset: u64_at(bytes, 40)?,
                l1_entries: u32_at(bytes, 36)?,
                refcount_table_offset: u64_at(bytes, 48)?,
                refcount_table_clusters: u32_at(bytes, 56)?,
            },
            encrypted: u32_at(bytes, 32)? != 0,
            snapshots: u32_at(bytes, 60)?,
            incompatible: if version == 2 { 0 } else { u64_at(bytes, 72)? },
            backing_name: backing_name(first_cluster, backing_name_offset)?,
            backing_name_offset,
            backing_format: None,
            backing_format_first: false,
            bitmaps: 0,
            owner: None,
            data_file: None,
            data_is_raw: version == 3 && u64_at(bytes, 88)? & AUTOCLEAR_DATA_RAW != 0,
        };
        header.read_extensions(first_cluster, header_bytes)?;
        Ok(header)
    }

    fn read_extensions(&mut self, bytes: &[u8], start: usize) -> Result<(), HeaderError> {
        let end = match self.backing_name_offset {
            0 => bytes.len(),
            offset => usize::try_from(offset).map_err(|_| HeaderError::Damaged)?.min(bytes.len()),
        };
        let mut at = start;
        for _ in 0..EXTENSIONS_MAX {
            // A version 2 header may be followed by nothing at all.
            if at + 8 > end {
                return Ok(());
            }
            let kind = u32_at(bytes, at)?;
            let length = u32_at(bytes, at + 4)? as usize;
            let data = at + 8;
            if kind == EXTENSION_END {
                return Ok(());
            }
            let value = bytes
                .get(data..data.saturating_add(length))
                .filter(|_| data + length <= end)
                .ok_or(HeaderError::Damaged)?;
            match kind {
                EXTENSION_BACKING_FORMAT => {
                    self.backing_format = Some(BackingFormat::from_qemu_name(value).map_or_else(
                        || BackingFormatName::Unknown(value.iter().copied().take(32).collect()),
                        BackingFormatName::Known,
                    ));
                    self.backing_format_first = at == HEADER_V3_BYTES;
                }
                EXTENSION_BITMAPS => self.bitmaps = u32_at(value, 0)?,
                EXTENSION_DATA_FILE => self.data_file = Some(value.to_vec()),
                EXTENSION_OWNER => self.owner = Owner::decode(value),
                EXTENSION_CRYPTO => self.encrypted = true,
                _ => {}
            }
            at = data + length.next_multiple_of(8);
        }
        Err(HeaderError::Damaged)
    }
}

fn backing_name(first_cluster: &[u8], offset: u64) -> Result<Option<Vec<u8>>, HeaderError> {
    if offset == 0 {
        return Ok(None);
    }
    let start = usize::try_from(offset).map_err(|_| HeaderError::Damaged)?;
    let length = u32_at(first_cluster, 16)? as usize;
    if length == 0 || length > NAME_BYTES_MAX {
        return Err(HeaderError::Damaged);
    }
    let end = start.checked_add(length).ok_or(HeaderError::Damaged)?;
    first_cluster.get(start..end).map(|name| Some(name.to_vec())).ok_or(HeaderError::Damaged)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, HeaderError> {
    let field = bytes.get(at..at + 4).ok_or(HeaderError::Damaged)?;
    Ok(u32::from_be_bytes(field.try_into().map_err(|_| HeaderError::Damaged)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, HeaderError> {
    let field = bytes.get(at..at + 8).ok_or(HeaderError::Damaged)?;
    Ok(u64::from_be_bytes(field.try_into().map_err(|_| HeaderError::Damaged)?))
}

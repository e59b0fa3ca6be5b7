//! Writing one layer: a qcow2 file that grows in one direction only and exists only when it is complete.
//!
//! ```text
//! <name>.partial     [ no header yet ][ data … L2 ][ data … L2 ] …   grows; not a qcow2 file
//! <name>.progress    what a crash needs to go on (optional, see `make_durable`)
//!    seal:           … [ L1 ][ refcounts ]  sync ─ header ─ sync ─ rename to <name> ─ sync directory
//! ```
//!
//! Ranges arrive in rising order, so memory is one L2 table, the L1 table and a buffer, whatever the disk's size.
//! Not here: deciding what is zero (the sender), digests (the receiver), reading (QEMU).
//!
//! After a failed write or sync the writer refuses everything: the kernel may have dropped the pages, and a second
//! sync would say "fine". The layer is abandoned and its delta sent again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::backing::Backing;
use crate::durable::Durable;
use crate::error::LayerError;
use crate::folder::Folder;
use crate::name::FileName;
use crate::owner::Owner;
use crate::progress::{CALLER_STATE_BYTES_MAX, Progress, SIDECAR_BYTES_MAX};
use crate::qcow2::{
    CLUSTER_BYTES, ENTRY_COPIED, ENTRY_ZERO, HEAD_BYTES, L2_COVERS_BYTES, L2_ENTRIES, REFCOUNTS_PER_BLOCK,
    Tables, encode_head,
};
use crate::sync;
use crate::writeback::Writeback;

/// Largest disk, bytes: an L1 table of 1 MiB.
pub const VIRTUAL_SIZE_MAX: u64 = 64 << 40;
/// Small writes gather up to this many bytes; larger ones go straight to the file.
const BUFFER_BYTES: usize = 1024 * 1024;
const PARTIAL: &str = ".partial";
const PROGRESS: &str = ".progress";

/// What a layer is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LayerSpec {
    /// Size of the guest's disk, bytes; a multiple of 512.
    pub virtual_size: u64,
    /// The file below; none for a base.
    pub backing: Option<Backing>,
    /// Whose file it is; none: nobody asks.
    pub owner: Option<Owner>,
}

/// A sealed layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// Where it is.
    pub path: PathBuf,
    /// Size of the file, bytes.
    pub file_bytes: u64,
    /// Guest data in it, bytes.
    pub data_bytes: u64,
    /// Guest ranges that were declared zero, bytes.
    pub zero_bytes: u64,
}

/// A writer that goes on where a crash stopped it.
#[derive(Debug)]
pub struct Resumed {
    /// The writer, at its last durable position.
    pub writer: LayerWriter,
    /// What the caller gave to the last [`LayerWriter::make_durable`].
    pub caller_state: Vec<u8>,
}

/// Writes one layer, front to back.
#[derive(Debug)]
pub struct LayerWriter {
    folder: Folder,
    name: FileName,
    path: PathBuf,
    file: File,
    spec: LayerSpec,
    /// Guest bytes that are decided: written, zero, or skipped.
    position: u64,
    /// File offset after everything appended, buffered bytes included.
    next_host_offset: u64,
    /// Appended bytes that are not in the file yet; they end at `next_host_offset`.
    buffer: Vec<u8>,
    l1: Vec<u64>,
    open_table: Option<OpenTable>,
    data_bytes: u64,
    zero_bytes: u64,
    writeback: Writeback,
    durable: Durable,
    poisoned: bool,
}

/// The L2 table of the 512 MiB that are being written.
#[derive(Debug)]
struct OpenTable {
    number: u64,
    entries: Vec<u64>,
}

impl LayerWriter {
    /// Starts a layer in `folder`. Fails if the layer, or a partial one, exists: see [`LayerWriter::resume`], [`discard`].
    pub fn create(folder: &Path, name: &FileName, spec: LayerSpec) -> Result<LayerWriter, LayerError> {
        check_size(spec.virtual_size)?;
        let folder = Folder::open(folder)?;
        if folder.exists(name.as_str())? {
            return Err(LayerError::Exists(folder.path().join(name.as_str())));
        }
        let file = folder.create(&name.with_suffix(PARTIAL))?;
        // A sidecar without its partial file belongs to a layer that is gone.
        folder.remove(&name.with_suffix(PROGRESS))?;
        let l1 = vec![0; l1_entries(spec.virtual_size)];
        Ok(LayerWriter {
            path: folder.path().join(name.as_str()),
            folder,
            name: name.clone(),
            file,
            spec,
            position: 0,
            next_host_offset: CLUSTER_BYTES,
            buffer: Vec::new(),
            l1,
            open_table: None,
            data_bytes: 0,
            zero_bytes: 0,
            writeback: Writeback::from(CLUSTER_BYTES),
            durable: Durable::default(),
            poisoned: false,
        })
    }

    /// Goes on with a partial layer from its last durable position.
    pub fn resume(folder: &Path, name: &FileName, spec: &LayerSpec) -> Result<Resumed, LayerError> {
        let folder = Folder::open(folder)?;
        let path = folder.path().join(name.as_str());
        let (file, progress) = open_partial(&folder, name, spec)?;
        if file.metadata().is_ok_and(|it| it.len() > progress.next_host_offset) {
            cov_mark::hit!(a_resumed_layer_loses_what_was_not_durable);
        }
        // What was appended after the last durable moment is unknown, and so is a header of a seal that was cut.
        file.set_len(progress.next_host_offset).map_err(LayerError::io("cut", &path))?;
        file.write_all_at(&[0; HEAD_BYTES], 0).map_err(LayerError::io("write", &path))?;
        let writer = LayerWriter {
            path,
            folder,
            name: name.clone(),
            file,
            spec: spec.clone(),
            position: progress.position,
            next_host_offset: progress.next_host_offset,
            buffer: Vec::new(),
            l1: progress.l1,
            open_table: progress.open_table.map(|(number, entries)| OpenTable { number, entries }),
            data_bytes: progress.data_bytes,
            zero_bytes: progress.zero_bytes,
            writeback: Writeback::from(progress.next_host_offset),
            durable: Durable::default(),
            poisoned: false,
        };
        Ok(Resumed { writer, caller_state: progress.caller_state })
    }

    /// What the caller gave to the last [`LayerWriter::make_durable`] of a partial layer that can go on. Changes nothing.
    pub fn kept_state(folder: &Path, name: &FileName, spec: &LayerSpec) -> Result<Vec<u8>, LayerError> {
        let (_, progress) = open_partial(&Folder::open(folder)?, name, spec)?;
        Ok(progress.caller_state)
    }

    /// Guest bytes that are decided so far; the next range starts here or later.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Writes guest data. The last cluster of the disk may be short.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), LayerError> {
        let end = self.check_range(offset, data.len() as u64)?;
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let in_table = (L2_COVERS_BYTES - at % L2_COVERS_BYTES).min(rest.len() as u64);
            let (now, later) = rest.split_at(in_table as usize);
            self.open_table_of(at)?;
            self.map_data(at, in_table);
            self.append(now)?;
            self.append_padding(in_table.next_multiple_of(CLUSTER_BYTES) - in_table)?;
            at += in_table;
            rest = later;
        }
        self.data_bytes += data.len() as u64;
        self.position = end.next_multiple_of(CLUSTER_BYTES);
        Ok(())
    }

    /// Declares a guest range zero, whatever the file below holds.
    pub fn zero(&mut self, offset: u64, length: u64) -> Result<(), LayerError> {
        // Over nothing, what is not there reads as zeroes already.
        self.zero_range(offset, length, self.spec.backing.is_some())
    }

    /// The same in a file that stands on nothing, and may be laid over something later.
    pub fn zero_over_anything(&mut self, offset: u64, length: u64) -> Result<(), LayerError> {
        self.zero_range(offset, length, true)
    }

    fn zero_range(&mut self, offset: u64, length: u64, is_marked: bool) -> Result<(), LayerError> {
        let end = self.check_range(offset, length)?;
        let mut at = if is_marked { offset } else { end };
        while at < end {
            let in_table = (L2_COVERS_BYTES - at % L2_COVERS_BYTES).min(end - at);
            let first = entry_of(at);
            let last = entry_of(at + in_table - 1);
            self.open_table_of(at)?.entries[first..=last].fill(ENTRY_ZERO);
            at += in_table;
        }
        self.zero_bytes += length;
        self.position = end.next_multiple_of(CLUSTER_BYTES);
        Ok(())
    }

    /// Makes everything so far survive a power cut, together with the caller's own state.
    pub fn make_durable(&mut self, caller_state: &[u8]) -> Result<(), LayerError> {
        self.settle()?;
        self.begin_durable(caller_state)?;
        self.settle()
    }

    /// The same without waiting for the disk; nothing happens while the moment before is still on its way, and an error comes
    /// to light with a later call.
    pub fn make_durable_soon(&mut self, caller_state: &[u8]) -> Result<(), LayerError> {
        if self.durable.is_busy() {
            return self.check_sound();
        }
        self.settle()?;
        self.begin_durable(caller_state)
    }

    fn begin_durable(&mut self, caller_state: &[u8]) -> Result<(), LayerError> {
        if caller_state.len() > CALLER_STATE_BYTES_MAX {
            return Err(LayerError::CallerState { bytes: caller_state.len() });
        }
        self.flush()?;
        let progress = Progress {
            virtual_size: self.spec.virtual_size,
            backing: self.spec.backing.clone(),
            position: self.position,
            next_host_offset: self.next_host_offset,
            data_bytes: self.data_bytes,
            zero_bytes: self.zero_bytes,
            l1: self.l1.clone(),
            open_table: self.open_table.as_ref().map(|table| (table.number, table.entries.clone())),
            caller_state: caller_state.to_vec(),
        };
        let file = self.file.try_clone().map_err(LayerError::io("hold", &self.path))?;
        let folder = Folder::open(self.folder.path())?;
        self.durable.begin(file, folder, self.name.with_suffix(PROGRESS), progress.encode())
    }

    fn settle(&mut self) -> Result<(), LayerError> {
        self.check_sound()?;
        let settled = self.durable.settle();
        self.poisoned |= settled.is_err();
        settled
    }

    /// Completes the layer: when this returns, it survives a power cut; before, it does not exist.
    pub fn seal(mut self) -> Result<Sealed, LayerError> {
        self.settle()?;
        self.close_table()?;
        let tables = self.append_tables()?;
        self.flush()?;
        self.sync()?;
        let head = encode_head(
            self.spec.virtual_size,
            self.spec.backing.as_ref(),
            self.spec.owner.as_ref(),
            &tables,
        );
        self.file.write_all_at(&head, 0).map_err(LayerError::io("write the header of", &self.path))?;
        self.sync()?;
        self.folder.publish(&self.name.with_suffix(PARTIAL), self.name.as_str())?;
        // Left behind by a crash at this point, the sidecar is harmless: `resume` sees the sealed layer first.
        self.folder.remove(&self.name.with_suffix(PROGRESS))?;
        Ok(Sealed {
            path: self.path,
            file_bytes: self.next_host_offset,
            data_bytes: self.data_bytes,
            zero_bytes: self.zero_bytes,
        })
    }

    /// Gives up: removes the partial file and its progress.
    pub fn abandon(mut self) -> Result<(), LayerError> {
        // Whatever became of it, nothing may appear after it was removed.
        drop(self.durable.settle());
        remove_partial(&self.folder, &self.name)
    }

    fn check_sound(&self) -> Result<(), LayerError> {
        if self.poisoned { Err(LayerError::Poisoned(self.path.clone())) } else { Ok(()) }
    }

    /// Checks a range and gives its end.
    fn check_range(&self, offset: u64, length: u64) -> Result<u64, LayerError> {
        self.check_sound()?;
        let virtual_size = self.spec.virtual_size;
        let end = offset.checked_add(length).filter(|end| *end <= virtual_size && length > 0);
        end.filter(|end| {
            offset >= self.position && offset.is_multiple_of(CLUSTER_BYTES) && ends_well(*end, virtual_size)
        })
        .ok_or(LayerError::Range { offset, length, position: self.position, virtual_size })
    }

    /// The table that maps `offset`; the one before is written out.
    fn open_table_of(&mut self, offset: u64) -> Result<&mut OpenTable, LayerError> {
        let number = offset / L2_COVERS_BYTES;
        if self.open_table.as_ref().is_none_or(|table| table.number != number) {
            self.close_table()?;
        }
        Ok(self.open_table.get_or_insert_with(|| OpenTable { number, entries: vec![0; L2_ENTRIES] }))
    }

    /// Maps a range within the open table to the end of the file.
    fn map_data(&mut self, offset: u64, length: u64) {
        let clusters = entry_of(offset)..=entry_of(offset + length - 1);
        let table = self.open_table.as_mut().expect("opened by the caller for this offset");
        let mut host = self.next_host_offset;
        for entry in &mut table.entries[clusters] {
            *entry = host | ENTRY_COPIED;
            host += CLUSTER_BYTES;
        }
    }

    fn close_table(&mut self) -> Result<(), LayerError> {
        let Some(table) = self.open_table.take() else { return Ok(()) };
        self.l1[table.number as usize] = self.next_host_offset | ENTRY_COPIED;
        self.append(&big_endian(&table.entries))
    }

    /// Appends the L1 table and the refcounts; every cluster of the file has a refcount of one.
    fn append_tables(&mut self) -> Result<Tables, LayerError> {
        let l1_offset = self.next_host_offset;
        let l1 = big_endian(&self.l1);
        self.append(&l1)?;
        self.append_padding((l1.len() as u64).next_multiple_of(CLUSTER_BYTES) - l1.len() as u64)?;

        let counts = refcount_clusters(self.next_host_offset / CLUSTER_BYTES);
        let blocks_offset = self.next_host_offset;
        for block in 0..counts.blocks {
            let used = (counts.file_clusters - block * REFCOUNTS_PER_BLOCK).min(REFCOUNTS_PER_BLOCK);
            let mut bytes = vec![0; CLUSTER_BYTES as usize];
            bytes[..used as usize * 2].chunks_exact_mut(2).for_each(|count| count[1] = 1);
            self.append(&bytes)?;
        }
        let refcount_table_offset = self.next_host_offset;
        let table: Vec<u64> = (0..counts.blocks).map(|block| blocks_offset + block * CLUSTER_BYTES).collect();
        let table = big_endian(&table);
        self.append(&table)?;
        self.append_padding(counts.table_clusters * CLUSTER_BYTES - table.len() as u64)?;
        debug_assert_eq!(self.next_host_offset, counts.file_clusters * CLUSTER_BYTES);
        Ok(Tables {
            l1_offset,
            l1_entries: self.l1.len() as u32,
            refcount_table_offset,
            refcount_table_clusters: counts.table_clusters as u32,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.next_host_offset += bytes.len() as u64;
        if self.buffer.is_empty() && bytes.len() >= BUFFER_BYTES {
            return self.write_out(bytes, self.next_host_offset - bytes.len() as u64);
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn append_padding(&mut self, bytes: u64) -> Result<(), LayerError> {
        debug_assert!(bytes < CLUSTER_BYTES);
        self.append(&[0; CLUSTER_BYTES as usize][..bytes as usize])
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        if !buffer.is_empty() {
            self.write_out(&buffer, self.next_host_offset - buffer.len() as u64)?;
            buffer.clear();
        }
        self.buffer = buffer;
        Ok(())
    }

    fn write_out(&mut self, bytes: &[u8], offset: u64) -> Result<(), LayerError> {
        let written = self.file.write_all_at(bytes, offset);
        self.poisoned |= written.is_err();
        written.map_err(LayerError::io("write", &self.path))?;
        self.writeback.reached(&self.file, offset + bytes.len() as u64);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), LayerError> {
        let synced = sync::data(&self.file);
        self.poisoned |= synced.is_err();
        synced.map_err(LayerError::io("sync", &self.path))
    }
}

/// Removes what an interrupted writer left: the partial file and its progress. A sealed layer stays.
pub fn discard(folder: &Path, name: &FileName) -> Result<(), LayerError> {
    remove_partial(&Folder::open(folder)?, name)
}

/// Removes a sealed layer, durably; a missing one is fine. The caller knows that nothing stands on it.
pub fn remove_sealed(folder: &Path, name: &FileName) -> Result<(), LayerError> {
    let folder = Folder::open(folder)?;
    folder.remove(name.as_str())?;
    folder.sync()
}

/// An empty layer over another file: reads as the file below until somebody writes to it.
pub fn create_overlay(folder: &Path, name: &FileName, spec: LayerSpec) -> Result<Sealed, LayerError> {
    LayerWriter::create(folder, name, spec)?.seal()
}

fn remove_partial(folder: &Folder, name: &FileName) -> Result<(), LayerError> {
    // The sidecar first: without it nobody takes the partial file for one that can go on.
    folder.remove(&name.with_suffix(PROGRESS))?;
    folder.remove(&name.with_suffix(".progress.tmp"))?;
    folder.remove(&name.with_suffix(PARTIAL))?;
    folder.sync()
}

fn check_size(bytes: u64) -> Result<(), LayerError> {
    if bytes == 0 || !bytes.is_multiple_of(512) || bytes > VIRTUAL_SIZE_MAX {
        return Err(LayerError::VirtualSize { bytes });
    }
    Ok(())
}

/// The partial file of a layer and what is known of it.
fn open_partial(folder: &Folder, name: &FileName, spec: &LayerSpec) -> Result<(File, Progress), LayerError> {
    let path = folder.path().join(name.as_str());
    if folder.exists(name.as_str())? {
        return Err(LayerError::Exists(path));
    }
    let sidecar = folder.read(&name.with_suffix(PROGRESS), SIDECAR_BYTES_MAX)?;
    let file = folder.open_file(&name.with_suffix(PARTIAL))?;
    let (Some(sidecar), Some(file)) = (sidecar, file) else {
        return Err(LayerError::NothingToResume(path));
    };
    let progress = check_progress(&path, &sidecar, &file, spec)?;
    Ok((file, progress))
}

fn check_progress(
    path: &Path,
    sidecar: &[u8],
    file: &File,
    spec: &LayerSpec,
) -> Result<Progress, LayerError> {
    let refused = |why| LayerError::Progress { path: path.to_owned(), why };
    let progress = Progress::decode(sidecar).ok_or_else(|| refused("its progress file is damaged"))?;
    if progress.virtual_size != spec.virtual_size || progress.backing != spec.backing {
        return Err(refused("it was begun with another size or over another file"));
    }
    let sane = progress.l1.len() == l1_entries(spec.virtual_size)
        && progress.next_host_offset.is_multiple_of(CLUSTER_BYTES)
        && progress.next_host_offset >= CLUSTER_BYTES
        && progress.position <= spec.virtual_size.next_multiple_of(CLUSTER_BYTES)
        && progress.open_table.as_ref().is_none_or(|(number, _)| *number < progress.l1.len() as u64);
    if !sane {
        return Err(refused("its progress file does not fit it"));
    }
    let length = file.metadata().map_err(LayerError::io("look at", path))?.len();
    // Before any data the file may be shorter than its (empty) first cluster.
    if length < progress.next_host_offset && progress.next_host_offset > CLUSTER_BYTES {
        return Err(refused("it is shorter than its progress file says"));
    }
    Ok(progress)
}

/// How many clusters the refcounts of a file need, their own included.
struct RefcountClusters {
    file_clusters: u64,
    blocks: u64,
    table_clusters: u64,
}

fn refcount_clusters(others: u64) -> RefcountClusters {
    let (mut blocks, mut table_clusters) = (1, 1);
    // Each round can only raise both numbers, and by ever less: it settles in three.
    loop {
        let file_clusters = others + blocks + table_clusters;
        let needed = file_clusters.div_ceil(REFCOUNTS_PER_BLOCK);
        let table_needed = (needed * 8).div_ceil(CLUSTER_BYTES);
        if needed == blocks && table_needed == table_clusters {
            return RefcountClusters { file_clusters, blocks, table_clusters };
        }
        (blocks, table_clusters) = (needed, table_needed);
    }
}

fn l1_entries(virtual_size: u64) -> usize {
    virtual_size.div_ceil(L2_COVERS_BYTES) as usize
}

fn entry_of(offset: u64) -> usize {
    (offset % L2_COVERS_BYTES / CLUSTER_BYTES) as usize
}

fn ends_well(end: u64, virtual_size: u64) -> bool {
    end.is_multiple_of(CLUSTER_BYTES) || end == virtual_size
}

fn big_endian(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

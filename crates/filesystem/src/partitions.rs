//! Where file systems may be on a disk: GPT or MBR partitions, or the whole disk when there is neither.
//!
//! Written here rather than taken: a library for partition tables believes the counts that it reads. Extended partitions
//! and whatever is inside of a partition (LVM, LUKS, RAID) are not looked into.

use std::io;

use crate::Disk;

const SECTOR: u64 = 512;
/// More are not looked at; GPT tables have room for 128.
const PARTITIONS_MAX: usize = 128;
/// Where both tables have their signature.
const MBR_SIGNATURE_AT: usize = 510;
const MBR_ENTRIES_AT: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;
/// Type of the one entry that a GPT disk has in its MBR.
const PROTECTIVE: u8 = 0xee;
const GPT_SIGNATURE: &[u8] = b"EFI PART";
/// Sizes of a GPT entry that are believed, in bytes.
const GPT_ENTRY_BYTES: std::ops::RangeInclusive<u64> = 128..=1024;

/// A piece of a disk that may have a file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Its number; none: the whole disk.
    pub number: Option<usize>,
    /// Where it begins, bytes.
    pub offset: u64,
    /// Its size, bytes; it lies within the disk.
    pub bytes: u64,
}

/// All of a disk. What points outside of it is left out.
pub fn partitions(disk: &dyn Disk) -> io::Result<Vec<Partition>> {
    let whole = Partition { number: None, offset: 0, bytes: disk.size() };
    if disk.size() < 4 * SECTOR {
        return Ok(vec![whole]);
    }
    let mut first = [0; SECTOR as usize];
    disk.read_at(0, &mut first)?;
    if first[MBR_SIGNATURE_AT..] != [0x55, 0xaa] {
        return Ok(vec![whole]);
    }
    let entries = (0..4).map(|at| {
        let from = MBR_ENTRIES_AT + at * MBR_ENTRY_BYTES;
        &first[from..from + MBR_ENTRY_BYTES]
    });
    let entries: Vec<&[u8]> = entries.collect();
    let mut found = match entries.iter().any(|entry| entry[4] == PROTECTIVE) {
        true => gpt(disk)?,
        false => entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry[4] != 0)
            .filter_map(|(at, entry)| {
                let (start, length) = (u32_at(entry, 8), u32_at(entry, 12));
                within(disk, at + 1, u64::from(start), u64::from(length))
            })
            .collect(),
    };
    if found.is_empty() {
        // A boot sector without a table: a file system may begin with one.
        found.push(whole);
    }
    Ok(found)
}

fn gpt(disk: &dyn Disk) -> io::Result<Vec<Partition>> {
    let mut header = [0; SECTOR as usize];
    disk.read_at(SECTOR, &mut header)?;
    if !header.starts_with(GPT_SIGNATURE) {
        return Ok(Vec::new());
    }
    let (table, count, each) = (u64_at(&header, 72), u32_at(&header, 80), u64::from(u32_at(&header, 84)));
    if !GPT_ENTRY_BYTES.contains(&each) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for at in 0..(count as usize).min(PARTITIONS_MAX) {
        let mut entry = [0; 128];
        let offset = table.checked_mul(SECTOR).and_then(|start| start.checked_add(at as u64 * each));
        let Some(offset) = offset.filter(|offset| offset.saturating_add(each) <= disk.size()) else { break };
        disk.read_at(offset, &mut entry)?;
        if entry[..16] == [0; 16] {
            continue;
        }
        let (start, last) = (u64_at(&entry, 32), u64_at(&entry, 40));
        let length = last.checked_sub(start).map_or(0, |length| length.saturating_add(1));
        found.extend(within(disk, at + 1, start, length));
    }
    Ok(found)
}

/// A partition, if it lies within the disk.
fn within(disk: &dyn Disk, number: usize, start: u64, length: u64) -> Option<Partition> {
    let (offset, bytes) = (start.checked_mul(SECTOR)?, length.checked_mul(SECTOR)?);
    let fits = start > 0 && bytes > 0 && offset.checked_add(bytes)? <= disk.size();
    fits.then_some(Partition { number: Some(number), offset, bytes })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

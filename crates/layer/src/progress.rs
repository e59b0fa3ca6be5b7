//! The progress sidecar: what a partial layer needs to go on after a crash.
//!
//! Layout, all numbers little-endian: magic, version, virtual size, position, next host offset, data and zero bytes,
//! backing (length + name, format), L1 entries, the open L2 table, the caller's state, BLAKE3 of all before. A file
//! whose digest does not fit is as good as none: the layer starts anew.

use crate::backing::{Backing, BackingFormat};
use crate::qcow2::{L2_ENTRIES, NAME_BYTES_MAX};

/// Most state of the caller that a sidecar keeps: a running digest and counters need far less.
pub const CALLER_STATE_BYTES_MAX: usize = 64 * 1024;
/// L1 entries of the largest disk (64 TiB).
pub(crate) const L1_ENTRIES_MAX: usize = 128 * 1024;
/// Largest sidecar that is read.
pub(crate) const SIDECAR_BYTES_MAX: u64 = 2 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"VRPROG\0\x01";
const DIGEST_BYTES: usize = 32;
/// An open L2 table number that stands for "none".
const NO_TABLE: u64 = u64::MAX;

/// The state of a writer at one durable moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Progress {
    pub(crate) virtual_size: u64,
    pub(crate) backing: Option<Backing>,
    pub(crate) position: u64,
    pub(crate) next_host_offset: u64,
    pub(crate) data_bytes: u64,
    pub(crate) zero_bytes: u64,
    pub(crate) l1: Vec<u64>,
    pub(crate) open_table: Option<(u64, Vec<u64>)>,
    pub(crate) caller_state: Vec<u8>,
}

impl Progress {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + 8 * (self.l1.len() + L2_ENTRIES) + self.caller_state.len());
        bytes.extend_from_slice(MAGIC);
        let numbers =
            [self.virtual_size, self.position, self.next_host_offset, self.data_bytes, self.zero_bytes];
        put_numbers(&mut bytes, &numbers);
        let (name, format) = match &self.backing {
            None => ("", 0),
            Some(backing) => (backing.file(), if backing.format() == BackingFormat::Qcow2 { 1 } else { 2 }),
        };
        put_numbers(&mut bytes, &[format, name.len() as u64]);
        bytes.extend_from_slice(name.as_bytes());
        put_numbers(&mut bytes, &[self.l1.len() as u64]);
        put_numbers(&mut bytes, &self.l1);
        match &self.open_table {
            None => put_numbers(&mut bytes, &[NO_TABLE]),
            Some((number, entries)) => {
                put_numbers(&mut bytes, &[*number]);
                put_numbers(&mut bytes, entries);
            }
        }
        put_numbers(&mut bytes, &[self.caller_state.len() as u64]);
        bytes.extend_from_slice(&self.caller_state);
        let digest = blake3::hash(&bytes);
        bytes.extend_from_slice(digest.as_bytes());
        bytes
    }

    /// Reads a sidecar; `None` when it is torn, damaged or of another version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Progress> {
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST_BYTES)?)?;
        if blake3::hash(body).as_bytes() != digest {
            return None;
        }
        let mut rest = Cursor(body.strip_prefix(MAGIC)?);
        let [virtual_size, position, next_host_offset, data_bytes, zero_bytes] =
            rest.numbers(5)?.try_into().ok()?;
        let format = rest.number()?;
        let name_bytes = rest.length(NAME_BYTES_MAX)?;
        let name = std::str::from_utf8(rest.bytes(name_bytes)?).ok()?;
        let backing = match format {
            0 => None,
            1 => Some(Backing::new(name, BackingFormat::Qcow2).ok()?),
            2 => Some(Backing::new(name, BackingFormat::Raw).ok()?),
            _ => return None,
        };
        let l1_entries = rest.length(L1_ENTRIES_MAX)?;
        let l1 = rest.numbers(l1_entries)?;
        let open_table = match rest.number()? {
            NO_TABLE => None,
            number => Some((number, rest.numbers(L2_ENTRIES)?)),
        };
        let state_bytes = rest.length(CALLER_STATE_BYTES_MAX)?;
        let caller_state = rest.bytes(state_bytes)?.to_vec();
        rest.0.is_empty().then_some(Progress {
            virtual_size,
            backing,
            position,
            next_host_offset,
            data_bytes,
            zero_bytes,
            l1,
            open_table,
            caller_state,
        })
    }
}

fn put_numbers(bytes: &mut Vec<u8>, numbers: &[u64]) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn numbers(&mut self, count: usize) -> Option<Vec<u64>> {
        let bytes = self.bytes(count.checked_mul(8)?)?;
        bytes.chunks_exact(8).map(|chunk| Some(u64::from_le_bytes(chunk.try_into().ok()?))).collect()
    }

    /// A length, checked before anything is allocated for it.
    fn length(&mut self, max: usize) -> Option<usize> {
        usize::try_from(self.number()?).ok().filter(|length| *length <= max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Progress {
        Progress {
            virtual_size: 1 << 30,
            backing: Backing::new("base.qcow2", BackingFormat::Qcow2).ok(),
            position: 65536,
            next_host_offset: 131_072,
            data_bytes: 65536,
            zero_bytes: 0,
            l1: vec![0, 7],
            open_table: Some((1, vec![3; L2_ENTRIES])),
            caller_state: b"state".to_vec(),
        }
    }

    #[test]
    fn progress_survives_its_bytes_and_any_damage_is_noticed() {
        let progress = sample();
        let bytes = progress.encode();
        assert_eq!(Progress::decode(&bytes), Some(progress));
        for at in (0..bytes.len()).step_by(997) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(Progress::decode(&damaged), None, "byte {at}");
            assert_eq!(Progress::decode(&bytes[..at]), None, "cut at {at}");
        }
    }
}

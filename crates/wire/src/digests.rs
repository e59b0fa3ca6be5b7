//! Digests of a range of a disk, block by block: what two hosts compare instead of sending the range.
//!
//! A block of zeroes has no digest: it is known to be zero, which costs nothing where the disk has a hole. So two blocks are
//! equal if and only if their entries are.

use serde::{Deserialize, Serialize};

/// Length of a block in bytes; the last one of a disk may be shorter.
pub const BLOCK_BYTES: u64 = 64 << 10;
/// Most bytes of a disk that are asked for at once: the answer stays far below the limit of a command.
pub const RANGE_BYTES_MAX: u64 = 256 << 20;

/// BLAKE3 of one block; none: it holds zeroes.
pub type BlockDigest = Option<[u8; 32]>;

/// Digests of a range on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestsForm {
    /// Runs of blocks that hold zeroes, as (first block of the range, blocks), in order.
    pub zero: Vec<(u32, u32)>,
    /// The digests of all others, in order, 64 hexadecimal digits each.
    pub digests: String,
}

/// Digests that are not those of the range that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other host sent digests that are not those of the range that was asked for")]
pub struct NotTheRange;

impl DigestsForm {
    /// Packs the digests of a range.
    #[must_use]
    pub fn pack(blocks: &[BlockDigest]) -> DigestsForm {
        let (mut zero, mut digests) = (Vec::<(u32, u32)>::new(), String::new());
        for (index, block) in (0_u32..).zip(blocks) {
            match (block, zero.last_mut()) {
                (Some(digest), _) => digests.push_str(&blake3::Hash::from_bytes(*digest).to_hex()),
                (None, Some((first, count))) if *first + *count == index => *count += 1,
                (None, _) => zero.push((index, 1)),
            }
        }
        DigestsForm { zero, digests }
    }

    /// The digests of a range of `count` blocks. Trusts nothing.
    pub fn unpack(&self, count: usize) -> Result<Vec<BlockDigest>, NotTheRange> {
        let mut is_zero = vec![false; count];
        for (first, length) in &self.zero {
            let first = *first as usize;
            let run = is_zero.get_mut(first..first.saturating_add(*length as usize)).ok_or(NotTheRange)?;
            run.fill(true);
        }
        let mut digests = self.digests.as_bytes().chunks(64);
        let blocks = is_zero.into_iter().map(|is_zero| {
            if is_zero {
                return Ok(None);
            }
            let digest = digests.next().and_then(|digits| blake3::Hash::from_hex(digits).ok());
            digest.map(|digest| Some(*digest.as_bytes())).ok_or(NotTheRange)
        });
        let blocks = blocks.collect::<Result<_, _>>()?;
        if digests.next().is_some() { Err(NotTheRange) } else { Ok(blocks) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_and_no_other_count_is_believed(
            blocks in proptest::collection::vec(proptest::option::of(any::<[u8; 32]>()), 0..200)
        ) {
            let form = DigestsForm::pack(&blocks);
            prop_assert_eq!(form.unpack(blocks.len()), Ok(blocks.clone()));
            prop_assert_eq!(form.unpack(blocks.len() + 1), Err(NotTheRange));
            if let Some(fewer) = blocks.len().checked_sub(1) {
                prop_assert_eq!(form.unpack(fewer), Err(NotTheRange));
            }
            let runs = blocks.chunk_by(|a, b| a.is_none() == b.is_none()).filter(|run| run[0].is_none());
            prop_assert_eq!(form.zero.len(), runs.count());
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let form =
            |zero: &[(u32, u32)], digests: &str| DigestsForm { zero: zero.to_vec(), digests: digests.into() };
        for nonsense in [
            form(&[(0, u32::MAX)], ""),
            form(&[(u32::MAX, u32::MAX)], ""),
            form(&[], &"g".repeat(64)),
            form(&[], &"a".repeat(63)),
            form(&[(0, 1)], &"a".repeat(64)),
        ] {
            assert_eq!(nonsense.unpack(1), Err(NotTheRange), "{nonsense:?}");
        }
    }
}

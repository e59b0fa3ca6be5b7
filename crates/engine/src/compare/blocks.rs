//! Digests of the blocks of an open disk, read and hashed side by side.

use extent::{Extent, ExtentSet};
use futures_util::{StreamExt, TryStreamExt, stream};
use nbd::Client;
use wire::digests::{BLOCK_BYTES, BlockDigest};

use crate::frames::{is_zero, joined};
use crate::{Refusal, Result};

/// Reads in flight: two are read while two are hashed.
const READS_IN_FLIGHT: usize = 4;

/// How many blocks a range has.
pub(crate) fn count(range: Extent) -> usize {
    range.length().div_ceil(BLOCK_BYTES) as usize
}

/// The digests of a range that begins at a block. `allocated` is all that is no hole, in whole blocks.
pub(crate) async fn digests(
    client: &Client,
    allocated: &ExtentSet,
    range: Extent,
) -> Result<Vec<BlockDigest>> {
    let mut blocks = vec![None; count(range)];
    let wanted = allocated.within(range);
    let read = wanted.iter().flat_map(|extent| extent.pieces(nbd::READ_BYTES)).map(|piece| async move {
        let chunks = client.read(piece).await.map_err(Refusal::failed)?;
        let hashed = tokio::task::spawn_blocking(move || hashed(&joined(piece, chunks))).await;
        Ok::<_, Refusal>((piece, hashed.map_err(Refusal::failed)?))
    });
    let mut read = stream::iter(read).buffer_unordered(READS_IN_FLIGHT);
    while let Some((piece, hashed)) = read.try_next().await? {
        let first = ((piece.offset() - range.offset()) / BLOCK_BYTES) as usize;
        blocks[first..first + hashed.len()].copy_from_slice(&hashed);
    }
    Ok(blocks)
}

fn hashed(data: &[u8]) -> Vec<BlockDigest> {
    let digest = |block: &[u8]| (!is_zero(block)).then(|| *blake3::hash(block).as_bytes());
    data.chunks(BLOCK_BYTES as usize).map(digest).collect()
}

/// A block that is not the same on both sides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Difference {
    pub(crate) block: Extent,
    pub(crate) ours: BlockDigest,
    pub(crate) theirs: BlockDigest,
}

/// The blocks of a range whose digests are not the same.
pub(crate) fn differing(range: Extent, ours: &[BlockDigest], theirs: &[BlockDigest]) -> Vec<Difference> {
    let offsets = (range.offset()..).step_by(BLOCK_BYTES as usize);
    let pairs = ours.iter().zip(theirs).zip(offsets).filter(|((ours, theirs), _)| ours != theirs);
    let difference = |((ours, theirs), at): ((&BlockDigest, &BlockDigest), u64)| {
        let block = Extent::new(at, BLOCK_BYTES.min(range.end() - at)).ok()?;
        Some(Difference { block, ours: *ours, theirs: *theirs })
    };
    pairs.filter_map(difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_differ_are_named_and_the_last_may_be_short() {
        let range = Extent::new(4 * BLOCK_BYTES, 3 * BLOCK_BYTES + 10).expect("a range");
        let [a, b, c] = [1_u8, 2, 3].map(|byte| Some([byte; 32]));
        let differs = |ours: [BlockDigest; 4], theirs: [BlockDigest; 4]| -> Vec<(u64, u64)> {
            let found = differing(range, &ours, &theirs);
            let found: ExtentSet = found.iter().map(|difference| difference.block).collect();
            found.iter().map(|it| (it.offset() / BLOCK_BYTES, it.length())).collect()
        };
        assert_eq!(count(range), 4);
        assert_eq!(differs([a, b, c, None], [a, b, c, None]), vec![]);
        assert_eq!(differs([a, b, c, None], [a, None, b, None]), vec![(5, 2 * BLOCK_BYTES)]);
        assert_eq!(differs([a, None, c, None], [a, None, c, a]), vec![(7, 10)]);
    }

    #[test]
    fn a_block_of_zeroes_has_no_digest_however_short_it_is() {
        let mut data = vec![0; 2 * BLOCK_BYTES as usize + 5];
        data[BLOCK_BYTES as usize] = 1;
        let hashed = hashed(&data);
        assert_eq!(hashed.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    }
}

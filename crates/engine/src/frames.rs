//! From what was read to frames: whole clusters, zeroes as ranges, digests made here, where the bytes were read.

use bytes::{Bytes, BytesMut};
use extent::Extent;
use nbd::Chunk;
use wire::frame::{data_frame, zero_frame};
use wire::{FrameHeader, FrameKind};

/// Granularity of everything that travels; the cluster of a layer.
pub(crate) const CLUSTER: u64 = layer::CLUSTER_BYTES;

static ZEROES: [u8; CLUSTER as usize] = [0; CLUSTER as usize];

/// A frame that is ready to go.
pub(crate) struct Ready {
    pub(crate) header: FrameHeader,
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

/// The frames of one piece of a disk. Zeroes are said too where nothing lies below: that costs little, and the other side
/// sees that the transfer goes on.
pub(crate) fn frames_of(disk: u16, piece: Extent, chunks: Vec<Chunk>, compress: bool) -> Vec<Ready> {
    let data = joined(piece, chunks);
    let mut frames = Vec::new();
    let mut from = 0;
    while from < data.len() {
        let zero = is_zero(&data[from..(from + CLUSTER as usize).min(data.len())]);
        let mut to = from;
        while to < data.len() {
            let cluster = &data[to..(to + CLUSTER as usize).min(data.len())];
            if is_zero(cluster) != zero {
                break;
            }
            to += cluster.len();
        }
        let offset = piece.offset() + from as u64;
        if !zero {
            let (header, head, payload) = data_frame(disk, offset, &data.slice(from..to), compress);
            frames.push(Ready { header, head, payload });
        } else {
            frames.push(zeroes(disk, offset, (to - from) as u64));
        }
        from = to;
    }
    frames
}

/// A frame of zeroes.
pub(crate) fn zeroes(disk: u16, offset: u64, length: u64) -> Ready {
    let (header, head) = zero_frame(disk, offset, length);
    debug_assert_eq!(header.kind, FrameKind::Zero);
    Ready { header, head, payload: Bytes::new() }
}

pub(crate) fn is_zero(cluster: &[u8]) -> bool {
    cluster == &ZEROES[..cluster.len()]
}

/// One buffer over the piece; free when the piece came as one chunk.
pub(crate) fn joined(piece: Extent, mut chunks: Vec<Chunk>) -> Bytes {
    if let [Chunk::Data { bytes, .. }] = chunks.as_mut_slice() {
        return std::mem::take(bytes);
    }
    let mut data = BytesMut::with_capacity(piece.length() as usize);
    for chunk in chunks {
        match chunk {
            Chunk::Data { bytes, .. } => data.extend_from_slice(&bytes),
            Chunk::Hole(hole) => data.resize(data.len() + hole.length() as usize, 0),
        }
    }
    data.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroes_are_found_by_cluster_and_the_rest_keeps_its_place() {
        let cluster = CLUSTER as usize;
        let piece = Extent::new(3 * CLUSTER, 4 * CLUSTER + 100).expect("a range");
        let mut first = vec![0; 2 * cluster];
        first[cluster] = 1;
        let hole = Extent::new(5 * CLUSTER, CLUSTER).expect("a range");
        let chunks = vec![
            Chunk::Data { offset: 3 * CLUSTER, bytes: Bytes::from(first) },
            Chunk::Hole(hole),
            Chunk::Data { offset: 6 * CLUSTER, bytes: Bytes::from(vec![7; cluster + 100]) },
        ];
        let ranges = || -> Vec<(FrameKind, u64, u64)> {
            let frames = frames_of(0, piece, chunks.clone(), false);
            frames.iter().map(|it| (it.header.kind, it.header.offset / CLUSTER, it.header.length)).collect()
        };
        let (zero, data) = (FrameKind::Zero, FrameKind::Data);
        assert_eq!(
            ranges(),
            vec![(zero, 3, CLUSTER), (data, 4, CLUSTER), (zero, 5, CLUSTER), (data, 6, CLUSTER + 100)]
        );
    }
}

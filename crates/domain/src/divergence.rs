//! What an old primary wrote after the recovery point from which its VM was failed over: its disks differ from the common
//! point there, until the new primary's content has arrived over it.

use crate::Timestamp;
use crate::ids::{DiskTarget, PointId};

/// Pieces of a disk, as (offset, length) in bytes, in ascending order and apart from each other.
pub type Pieces = Vec<(u64, u64)>;

/// Where the disks of an old primary differ from the common recovery point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The common recovery point.
    pub since: PointId,
    /// When the old primary stepped down, by its own clock; names what it sets aside.
    pub at: Timestamp,
    /// For each disk where it differs at most; none: that is not known, and only a comparison can tell.
    pub disks: Vec<(DiskTarget, Option<Pieces>)>,
    /// The recovery point whose delta has covered it; none: it still has to.
    pub covered_by: Option<PointId>,
}

impl Divergence {
    /// Whether every disk's pieces are known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.disks.iter().all(|(_, pieces)| pieces.is_some())
    }

    /// Bytes in the pieces that are known.
    #[must_use]
    pub fn known_bytes(&self) -> u64 {
        self.disks.iter().filter_map(|(_, pieces)| pieces.as_ref()).flatten().map(|(_, length)| length).sum()
    }
}

/// Joins the pieces that are nearest to each other until at most `pieces_max` are left: what is told of a disk stays small,
/// and covers a little more.
#[must_use]
pub fn coarsen(pieces: Pieces, pieces_max: usize) -> Pieces {
    let mut gap = 64 << 10;
    let mut pieces = pieces;
    while pieces.len() > pieces_max.max(1) {
        let mut joined = Pieces::new();
        for (offset, length) in pieces {
            match joined.last_mut() {
                Some((begin, have)) if offset <= begin.saturating_add(*have).saturating_add(gap) => {
                    *have = (offset + length).saturating_sub(*begin).max(*have);
                }
                _ => joined.push((offset, length)),
            }
        }
        pieces = joined;
        gap *= 2;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_pieces_cover_all_that_the_many_covered_and_stay_apart() {
        let many: Pieces = (0..10_000_u64).map(|index| (index * index * 8192, 4096)).collect();
        for pieces_max in [1, 7, 1000, 20_000] {
            let few = coarsen(many.clone(), pieces_max);
            assert!(few.len() <= pieces_max);
            assert!(few.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
            for (offset, length) in &many {
                let covers = |(begin, have): &(u64, u64)| begin <= offset && offset + length <= begin + have;
                assert!(few.iter().any(covers), "{offset}");
            }
        }
        assert_eq!(coarsen(many.clone(), 20_000), many);
    }

    #[test]
    fn bytes_are_summed_over_all_disks_and_one_unknown_disk_makes_it_unknown() {
        let divergence = |disks: Vec<Option<Pieces>>| Divergence {
            since: crate::fixture::point_id(1),
            at: Timestamp(1),
            disks: disks.into_iter().map(|pieces| (crate::fixture::vda(), pieces)).collect(),
            covered_by: None,
        };
        let known = divergence(vec![Some(vec![(0, 3), (10, 4)]), Some(vec![(5, 30)])]);
        assert_eq!((known.is_known(), known.known_bytes()), (true, 37));
        let unknown = divergence(vec![Some(vec![(0, 3)]), None]);
        assert_eq!((unknown.is_known(), unknown.known_bytes()), (false, 3));
    }

    #[test]
    fn pieces_that_need_not_be_joined_stay_and_those_nearest_are_joined_first() {
        let apart: Pieces = vec![(0, 4096), (4096 + (64 << 10), 4096), (1 << 30, 4096)];
        assert_eq!(coarsen(apart.clone(), 3), apart);
        assert_eq!(coarsen(apart.clone(), 2), [(0, 8192 + (64 << 10)), (1 << 30, 4096)]);
        assert_eq!(coarsen(apart, 0), [(0, 4096 + (1 << 30))]);
        // One that lies in another takes nothing away from it.
        assert_eq!(coarsen(vec![(0, 1 << 20), (4096, 4096), (1 << 30, 1)], 2), [(0, 1 << 20), (1 << 30, 1)]);
    }
}

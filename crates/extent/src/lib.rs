//! Byte ranges of a disk and sets of them: dirty maps, their union, difference and alignment.
//!
//! Pure. Offsets and lengths are bytes. Values from outside are checked when an [`Extent`] is made: an extent is never
//! empty and never ends beyond 2⁶³, so the arithmetic of the sets cannot overflow.

/// The end of the largest disk that is handled; QEMU's own limit.
pub const END_MAX: u64 = i64::MAX as u64;

/// A range of bytes: never empty, never beyond [`END_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Extent {
    offset: u64,
    length: u64,
}

/// A range that is empty or ends beyond every disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at offset {offset} are no range of a disk")]
pub struct NoExtent {
    /// Where it would begin.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

impl Extent {
    /// Checks a range from outside.
    pub fn new(offset: u64, length: u64) -> Result<Extent, NoExtent> {
        match offset.checked_add(length) {
            Some(end) if length > 0 && end <= END_MAX => Ok(Extent { offset, length }),
            _ => Err(NoExtent { offset, length }),
        }
    }

    fn between(offset: u64, end: u64) -> Option<Extent> {
        (offset < end).then(|| Extent { offset, length: end - offset })
    }

    /// First byte.
    #[must_use]
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// Number of bytes.
    #[must_use]
    pub fn length(self) -> u64 {
        self.length
    }

    /// First byte after it.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset + self.length
    }

    /// Cuts it into pieces of at most `piece` bytes, in order.
    pub fn pieces(self, piece: u64) -> impl Iterator<Item = Extent> {
        let piece = piece.max(1);
        (0..self.length.div_ceil(piece)).map(move |index| {
            let offset = self.offset + index * piece;
            Extent { offset, length: piece.min(self.end() - offset) }
        })
    }
}

/// Sorted, disjoint, coalesced ranges.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ExtentSet {
    extents: Vec<Extent>,
}

impl ExtentSet {
    /// No byte.
    #[must_use]
    pub fn new() -> ExtentSet {
        ExtentSet::default()
    }

    /// Every byte of a disk of `size` bytes.
    #[must_use]
    pub fn whole(size: u64) -> ExtentSet {
        Extent::between(0, size.min(END_MAX)).into_iter().collect()
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Extent> + '_ {
        self.extents.iter().copied()
    }

    /// Number of bytes in the set.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.extents.iter().map(|extent| extent.length).sum()
    }

    /// Whether the set holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Adds a range.
    pub fn insert(&mut self, extent: Extent) {
        // Those from `first` up to `last` touch or overlap it and become one with it.
        let first = self.extents.partition_point(|it| it.end() < extent.offset);
        let last = self.extents.partition_point(|it| it.offset <= extent.end());
        let offset =
            self.extents[first..last].first().map_or(extent.offset, |it| it.offset.min(extent.offset));
        let end = self.extents[first..last].last().map_or(extent.end(), |it| it.end().max(extent.end()));
        self.extents.splice(first..last, Extent::between(offset, end));
    }

    /// Bytes in either set.
    #[must_use]
    pub fn union(&self, other: &ExtentSet) -> ExtentSet {
        self.iter().chain(other.iter()).collect()
    }

    /// Bytes in both sets.
    #[must_use]
    pub fn intersection(&self, other: &ExtentSet) -> ExtentSet {
        let (mut ours, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        let mut extents = Vec::new();
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            extents.extend(Extent::between(our.offset.max(their.offset), our.end().min(their.end())));
            if our.end() < their.end() {
                ours.next()
            } else {
                theirs.next()
            };
        }
        ExtentSet { extents }
    }

    /// Bytes of this set that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &ExtentSet) -> ExtentSet {
        let mut extents = Vec::new();
        let mut others = other.iter().peekable();
        for extent in self.iter() {
            let mut from = extent.offset;
            while let Some(hole) = others.peek().filter(|hole| hole.offset < extent.end()) {
                extents.extend(Extent::between(from, hole.offset));
                from = from.max(hole.end());
                if hole.end() > extent.end() {
                    break;
                }
                others.next();
            }
            extents.extend(Extent::between(from, extent.end()));
        }
        ExtentSet { extents }
    }

    /// Grown to whole blocks of `granularity` bytes, cut at the end of a disk of `size` bytes.
    #[must_use]
    pub fn aligned_out(&self, granularity: u64, size: u64) -> ExtentSet {
        let granularity = granularity.max(1);
        let grown = self.iter().filter_map(|extent| {
            let offset = extent.offset - extent.offset % granularity;
            let end = extent.end().div_ceil(granularity).saturating_mul(granularity);
            Extent::between(offset, end.min(size).min(END_MAX))
        });
        grown.collect()
    }

    /// Bytes before `size`: what is left of the set on a disk of that size.
    #[must_use]
    pub fn clipped(&self, size: u64) -> ExtentSet {
        let extents = self.iter().map_while(|extent| Extent::between(extent.offset, extent.end().min(size)));
        ExtentSet { extents: extents.collect() }
    }

    /// Bytes inside of one range; finds them without a look at the others.
    #[must_use]
    pub fn within(&self, range: Extent) -> ExtentSet {
        let first = self.extents.partition_point(|it| it.end() <= range.offset);
        let inside = self.extents[first..].iter().take_while(|it| it.offset < range.end());
        let cut =
            inside.filter_map(|it| Extent::between(it.offset.max(range.offset), it.end().min(range.end())));
        ExtentSet { extents: cut.collect() }
    }

    /// Bytes at or after `offset`.
    #[must_use]
    pub fn from_offset(&self, offset: u64) -> ExtentSet {
        let extents =
            self.iter().filter_map(|extent| Extent::between(extent.offset.max(offset), extent.end()));
        ExtentSet { extents: extents.collect() }
    }
}

impl FromIterator<Extent> for ExtentSet {
    fn from_iter<I: IntoIterator<Item = Extent>>(extents: I) -> Self {
        let mut sorted: Vec<Extent> = extents.into_iter().collect();
        // Stable, because it finds runs: one sorted list, or two in a row, cost one pass.
        sorted.sort();
        let mut extents: Vec<Extent> = Vec::with_capacity(sorted.len());
        for extent in sorted {
            match extents.last_mut() {
                Some(last) if last.end() >= extent.offset => {
                    last.length = last.end().max(extent.end()) - last.offset;
                }
                _ => extents.push(extent),
            }
        }
        ExtentSet { extents }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: u64 = 64;

    fn sets() -> impl Strategy<Value = ExtentSet> {
        proptest::collection::vec((0..SIZE, 1..12_u64), 0..8).prop_map(|ranges| {
            ranges
                .into_iter()
                .filter_map(|(offset, length)| Extent::between(offset, (offset + length).min(SIZE)))
                .collect()
        })
    }

    fn bits(set: &ExtentSet) -> Vec<bool> {
        (0..SIZE)
            .map(|byte| set.iter().any(|extent| (extent.offset()..extent.end()).contains(&byte)))
            .collect()
    }

    fn is_canonical(set: &ExtentSet) -> bool {
        set.extents.windows(2).all(|pair| pair[0].end() < pair[1].offset)
            && set.iter().all(|it| it.length > 0)
    }

    proptest! {
        #[test]
        fn set_algebra_agrees_with_a_bitmap(ours in sets(), theirs in sets(), granularity in 1..9_u64, from in 0..SIZE) {
            let (a, b) = (bits(&ours), bits(&theirs));
            let check = |set: ExtentSet, oracle: &dyn Fn(usize) -> bool| {
                prop_assert!(is_canonical(&set), "{:?}", set);
                prop_assert_eq!(set.total(), bits(&set).iter().filter(|bit| **bit).count() as u64);
                prop_assert_eq!(set.is_empty(), set.total() == 0);
                prop_assert_eq!(bits(&set), (0..SIZE as usize).map(oracle).collect::<Vec<_>>());
                Ok(())
            };
            check(ours.union(&theirs), &|i| a[i] || b[i])?;
            check(ours.intersection(&theirs), &|i| a[i] && b[i])?;
            check(ours.difference(&theirs), &|i| a[i] && !b[i])?;
            check(ours.from_offset(from), &|i| a[i] && i as u64 >= from)?;
            check(ours.clipped(from), &|i| a[i] && (i as u64) < from)?;
            let to = (from + granularity).min(SIZE);
            if let Some(range) = Extent::between(from, to) {
                check(ours.within(range), &|i| a[i] && (from..to).contains(&(i as u64)))?;
            }
            let mut grown = ours.clone();
            theirs.iter().for_each(|extent| grown.insert(extent));
            check(grown, &|i| a[i] || b[i])?;
            let block = |i: usize| i / granularity as usize;
            check(ours.aligned_out(granularity, SIZE), &|i| (0..SIZE as usize).any(|j| a[j] && block(j) == block(i)))?;
        }

        #[test]
        fn pieces_cover_an_extent_in_order(offset in 0..100_u64, length in 1..100_u64, piece in 1..40_u64) {
            let extent = Extent::new(offset, length).expect("in range");
            let mut at = offset;
            for part in extent.pieces(piece) {
                prop_assert_eq!((part.offset(), part.length()), (at, part.end() - at));
                prop_assert!(part.length() <= piece);
                at = part.end();
            }
            prop_assert_eq!(at, extent.end());
        }
    }

    #[test]
    fn sets_at_the_end_of_the_largest_disk_never_overflow() {
        let last = Extent::new(END_MAX - 1, 1).expect("in range");
        let mut set: ExtentSet = [last, Extent::new(0, END_MAX).expect("in range")].into_iter().collect();
        set.insert(last);
        assert_eq!(set, ExtentSet::whole(u64::MAX));
        assert_eq!(set.aligned_out(u64::MAX, u64::MAX), set);
        assert_eq!(set.clipped(u64::MAX).from_offset(END_MAX - 1).iter().collect::<Vec<_>>(), [last]);
        assert!(set.from_offset(u64::MAX).is_empty());
    }

    #[test]
    fn ranges_from_outside_never_overflow() {
        assert!(Extent::new(0, 0).is_err());
        assert!(Extent::new(u64::MAX, 1).is_err());
        assert!(Extent::new(END_MAX, 1).is_err());
        assert!(Extent::new(0, END_MAX).is_ok());
    }
}

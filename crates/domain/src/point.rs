//! Recovery points: moments a replica can start from.

use std::fmt;

use crate::ids::{Epoch, PointId};
use crate::time::Timestamp;

/// A digest of a point and all its ancestors: BLAKE3(parent's lineage ‖ digest of the delta).
///
/// Both sides compute it for themselves, the primary from what it read, the replica from what it sealed. Two hosts
/// with the same lineage hold the same history of the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lineage(pub [u8; 32]);

impl Lineage {
    /// The lineage before the first delta.
    pub const ORIGIN: Lineage = Lineage([0; 32]);

    /// Sixty-four hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads what [`Lineage::to_hex`] wrote.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Lineage> {
        // A sign is no digit, though a number may begin with one.
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Lineage(bytes))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({})", self.to_hex())
    }
}

/// What a point holds of the guest's state; always what was reached, never what was wished.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Consistency {
    /// As after a power cut: all disks at one instant.
    Crash,
    /// File systems were frozen by the guest agent.
    FileSystem,
    /// File systems were frozen and the guest's own hooks ran.
    Application,
    /// The VM was shut down.
    PoweredOff,
}

/// One moment the replica can start from: one sealed layer per disk, one database row, one id known to both sides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoveryPoint {
    /// Its id on both sides.
    pub id: PointId,
    /// The point before it; none for the first.
    pub parent: Option<PointId>,
    /// Rises by one from point to point of a relationship; it, not time, orders them.
    pub ordinal: u64,
    /// The epoch in which it was made.
    pub epoch: Epoch,
    /// When the primary froze it, by the primary's clock.
    pub instant: Timestamp,
    /// What consistency was really reached.
    pub consistency: Consistency,
    /// Digest of the whole history up to here.
    pub lineage: Lineage,
    /// Bytes of guest data that its delta carried, over all disks.
    pub delta_bytes: u64,
    /// What a person called it; a tagged point stays until it is removed by name.
    pub tag: Option<String>,
}

/// A verification found a replica to differ from its primary: the points up to that one are not known to be right. What is repaired
/// is the next point; nothing tells when the damage began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// The epoch in which it was found; points of later ones are another history.
    pub epoch: Epoch,
    /// The newest point that is doubted.
    pub ordinal: u64,
    /// What was found, in words.
    pub what: String,
}

impl Doubt {
    /// Whether this point is among them.
    #[must_use]
    pub fn covers(&self, point: &RecoveryPoint) -> bool {
        point.epoch <= self.epoch && point.ordinal <= self.ordinal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_before_a_difference_was_found_is_doubted_and_what_repairs_it_is_not() {
        let point = crate::fixture::point;
        let doubt = Doubt { epoch: point(3).epoch, ordinal: 3, what: "a test".into() };
        let doubted = [1, 3, 4].map(|ordinal| doubt.covers(&point(ordinal)));
        assert_eq!(doubted, [true, true, false]);
        let later = RecoveryPoint { epoch: doubt.epoch.next(), ..point(2) };
        assert!(!doubt.covers(&later), "after a failover the ordinals may begin again below");
    }

    #[test]
    fn a_lineage_survives_its_text() {
        let lineage = Lineage(std::array::from_fn(|index| index as u8 * 7));
        assert_eq!(Lineage::from_hex(&lineage.to_hex()), Some(lineage));
        assert_eq!(Lineage::ORIGIN.to_hex(), "0".repeat(64));
        assert_eq!(format!("{lineage:?}"), format!("Lineage({})", lineage.to_hex()));
        let long = "0".repeat(66);
        for broken in ["", "00", &long, &"zz".repeat(32), &"é".repeat(32), &"+f".repeat(32)] {
            assert_eq!(Lineage::from_hex(broken), None);
        }
    }
}

//! Values for tests, where only what the test is about is said: `RecoveryPoint { tag, ..point(3) }`. No part of the product.

use uuid::Uuid;

use crate::{
    Consistency, DiskTarget, Epoch, Lineage, Phase, PointId, RecoveryPoint, Relationship, Settings, Timestamp,
};

/// The disk `vda`.
#[must_use]
pub fn vda() -> DiskTarget {
    DiskTarget::new("vda").expect("a target")
}

/// The id of [`point`].
#[must_use]
pub fn point_id(ordinal: u64) -> PointId {
    PointId(Uuid::from_u128(1000 + u128::from(ordinal)))
}

/// A crash-consistent point of the first epoch, made `ordinal` ms after the beginning of time, after the one before.
#[must_use]
pub fn point(ordinal: u64) -> RecoveryPoint {
    RecoveryPoint {
        id: point_id(ordinal),
        parent: ordinal.checked_sub(1).map(point_id),
        ordinal,
        epoch: Epoch::FIRST,
        instant: Timestamp(ordinal),
        consistency: Consistency::Crash,
        lineage: Lineage([ordinal.to_le_bytes()[0]; 32]),
        delta_bytes: 1,
        tag: None,
    }
}

/// A relationship of VM 2, whose name is awkward, with host 3: its id is 1, and it has the disk `vda`.
#[must_use]
pub fn relationship(phase: Phase) -> Relationship {
    Relationship {
        id: Uuid::from_u128(1).into(),
        vm: Uuid::from_u128(2).into(),
        vm_name: "it's a \"VM\"/ü".into(),
        peer: Uuid::from_u128(3).into(),
        epoch: Epoch::FIRST,
        phase,
        paused_since: None,
        settings: Settings::of(vec![(vda(), crate::DiskChoice::Replicated)]),
    }
}

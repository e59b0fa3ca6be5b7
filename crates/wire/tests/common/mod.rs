//! The header of a delta, for whatever travels behind it.

use wire::delta::{DeltaDisk, DeltaHeader};

/// An ordinary one of these disks.
pub fn header(disks: Vec<DeltaDisk>) -> DeltaHeader {
    DeltaHeader {
        relationship: uuid::Uuid::from_u128(1),
        epoch: 1,
        point: uuid::Uuid::from_u128(2),
        parent: None,
        ordinal: 1,
        instant_ms: 0,
        consistency: "crash".into(),
        disks,
        resume_at: None,
        domain_xml: "<domain/>".into(),
        attachments: Vec::new(),
        expected_bytes: 0,
        tag: None,
        autostart: None,
    }
}

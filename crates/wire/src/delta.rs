//! The header and trailer of a delta: what it is, what it stands on, and what it must add up to.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::attachment::AttachmentForm;
use crate::frame::{PREAMBLE, WireError};
use crate::message::form::{ORDINAL_MAX, expect_few_disks};

/// The first thing in a delta's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaHeader {
    /// Whose delta.
    pub relationship: Uuid,
    /// The sender's epoch.
    pub epoch: u64,
    /// The point that it makes.
    pub point: Uuid,
    /// The point that it stands on; none for the first.
    pub parent: Option<Uuid>,
    /// Its place in the order of points.
    pub ordinal: u64,
    /// When it was frozen, milliseconds since 1970 by the sender's clock.
    pub instant_ms: u64,
    /// `crash`, `file-system`, `application` or `powered-off`.
    pub consistency: String,
    /// The disks, in the order that frames use.
    pub disks: Vec<DeltaDisk>,
    /// A transfer that goes on: (disk, offset) of the first frame.
    pub resume_at: Option<(u16, u64)>,
    /// The VM's definition at that instant.
    pub domain_xml: String,
    /// Files that belong to the VM beside its disks; at most one of each kind.
    pub attachments: Vec<AttachmentForm>,
    /// Bytes of disk content that are expected; for progress only.
    pub expected_bytes: u64,
    /// What a person called the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whether the primary server starts the VM when it boots; none: not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
}

/// One disk of a delta.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaDisk {
    /// Target name.
    pub target: String,
    /// Size that the guest sees, bytes.
    pub virtual_size: u64,
}

/// The last thing in a delta's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeltaTrailer {
    /// Digest over all frames, hexadecimal.
    pub digest: String,
    /// Lineage of the point, as the sender computed it.
    pub lineage: String,
    /// Bytes of disk content in data frames.
    pub data_bytes: u64,
}

impl DeltaHeader {
    /// The beginning of a stream.
    ///
    /// # Panics
    /// If the header does not fit its limit; definitions are checked against it when a VM is enabled.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("plain data becomes JSON");
        let mut bytes = BytesMut::with_capacity(12 + json.len());
        bytes.put_slice(PREAMBLE);
        bytes.put_u32_le(u32::try_from(json.len()).expect("headers are bounded"));
        bytes.put_slice(&json);
        bytes.freeze()
    }

    /// Reads what [`crate::FrameDecoder`] cut out.
    pub fn from_json(json: &[u8]) -> Result<DeltaHeader, WireError> {
        let header: DeltaHeader =
            serde_json::from_slice(json).map_err(|error| WireError::Header { why: error.to_string() })?;
        if header.disks.is_empty() {
            return Err(WireError::Header { why: "no disk".to_owned() });
        }
        expect_few_disks(header.disks.iter().map(|disk| disk.target.as_str()))
            .map_err(|error| WireError::Header { why: error.to_string() })?;
        if header.ordinal >= ORDINAL_MAX {
            return Err(WireError::Header { why: format!("ordinal {}", header.ordinal) });
        }
        let kinds: BTreeSet<&str> = header.attachments.iter().map(|it| it.kind.as_str()).collect();
        if kinds.len() < header.attachments.len() {
            return Err(WireError::Header { why: "an attachment comes twice".to_owned() });
        }
        Ok(header)
    }
}

impl DeltaTrailer {
    /// JSON for the end frame.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data becomes JSON")
    }

    /// Reads the end frame.
    pub fn from_json(json: &[u8]) -> Result<DeltaTrailer, WireError> {
        serde_json::from_slice(json).map_err(|error| WireError::Header { why: error.to_string() })
    }
}

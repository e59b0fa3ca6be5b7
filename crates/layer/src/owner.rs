//! Whose file a layer is, as its header says: names of files are alike in every replica (`base.qcow2`), and a storage that is
//! restored by hand mixes them easily.
//!
//! QEMU keeps the header extensions that it does not know. What this is not: proof of the content (digests are, `engine`'s
//! `verify`), or protection against somebody who writes headers.

use std::fmt;

use domain::{DiskTarget, RelationshipId};
use uuid::Uuid;

/// The replica and the disk that a file belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Of which relationship.
    pub relationship: RelationshipId,
    /// Of which disk.
    pub disk: DiskTarget,
}

/// Bytes of an owner in a header: the relationship's UUID, the target padded with zeroes.
pub(crate) const OWNER_BYTES: usize = 16 + DiskTarget::LENGTH_MAX;

impl Owner {
    pub(crate) fn encode(&self) -> [u8; OWNER_BYTES] {
        let mut bytes = [0; OWNER_BYTES];
        let (relationship, disk) = (self.relationship.0.as_bytes(), self.disk.as_str().as_bytes());
        bytes[..16].copy_from_slice(relationship);
        bytes[16..16 + disk.len()].copy_from_slice(disk);
        bytes
    }

    /// None: it is not one of ours.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Owner> {
        let (relationship, disk) = bytes.split_at_checked(16).filter(|_| bytes.len() == OWNER_BYTES)?;
        let disk = std::str::from_utf8(disk).ok()?.trim_end_matches('\0');
        Some(Owner {
            relationship: RelationshipId(Uuid::from_slice(relationship).ok()?),
            disk: DiskTarget::new(disk).ok()?,
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {} of replica {}", self.disk, self.relationship)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_as_it_was_written_and_other_bytes_are_none() {
        for disk in ["vda", "abcdefghijklmnop"] {
            let disk = DiskTarget::new(disk).expect("a target");
            let owner = Owner { relationship: RelationshipId(Uuid::from_u128(7)), disk };
            assert_eq!(Owner::decode(&owner.encode()), Some(owner.clone()));
            assert_eq!(Owner::decode(&owner.encode()[1..]), None);
        }
        assert_eq!(Owner::decode(&[0xFF; OWNER_BYTES]), None);
        assert_eq!(Owner::decode(&[]), None);
    }
}

//! Identities: every thing that two hosts talk about has a type of its own, so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map($name)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                $name(id)
            }
        }
    };
}

uuid_id!(
    /// A libvirt domain's UUID; the same on both sides of a relationship.
    VmId
);
uuid_id!(
    /// The replication of one VM between two hosts.
    RelationshipId
);
uuid_id!(
    /// A recovery point; known to both sides by the same id.
    PointId
);
uuid_id!(
    /// One run of a procedure, for example one planned failover.
    OperationId
);
uuid_id!(
    /// A host, made once when its daemon first starts; it outlives names, addresses and certificates.
    HostId
);

uuid_id!(
    /// One test failover: a throw-away copy of a VM.
    TestId
);

/// Rises by one with each change of role. Every command between hosts carries it; an older one is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch in which a relationship is born.
    pub const FIRST: Epoch = Epoch(1);

    /// An epoch read from outside; zero is no epoch.
    #[must_use]
    pub fn new(number: u64) -> Option<Epoch> {
        (number > 0).then_some(Epoch(number))
    }

    /// The number itself, at least 1.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }

    /// The epoch after this one. Saturates: 2⁶⁴ role changes do not happen.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A disk of a VM by its target name in the guest's definition (`vda`, `sdb`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DiskTarget(String);

/// Why a text is no disk target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a disk target: 1 to 16 lower-case letters and digits are, for example \"vda\"")]
pub struct NotADiskTarget(pub String);

impl DiskTarget {
    /// Longest target that is accepted; libvirt's own names have at most four characters.
    pub const LENGTH_MAX: usize = 16;

    /// Checks a name from outside: it becomes part of file names, so nothing but letters and digits passes.
    pub fn new(name: &str) -> Result<DiskTarget, NotADiskTarget> {
        let fits = !name.is_empty() && name.len() <= Self::LENGTH_MAX;
        if fits && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            Ok(DiskTarget(name.to_owned()))
        } else {
            Err(NotADiskTarget(name.chars().take(64).collect()))
        }
    }

    /// The name, safe as one component of a path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DiskTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_no_epoch_and_an_epoch_only_rises() {
        assert_eq!(Epoch::new(0), None);
        assert!(Epoch::FIRST < Epoch::FIRST.next());
    }

    #[test]
    fn a_disk_target_never_leaves_its_directory() {
        for hostile in ["", "..", "a/b", "vda\n", "VDA", "vda.qcow2", "abcdefghijklmnopq"] {
            assert!(DiskTarget::new(hostile).is_err(), "{hostile:?} was accepted");
        }
        assert_eq!(DiskTarget::new("vda").expect("a target").as_str(), "vda");
    }

    #[test]
    fn ids_epochs_and_targets_read_as_they_are_written() {
        let third = Epoch::new(3).expect("an epoch");
        assert_eq!((third.number(), third.to_string(), third.next().number()), (3, "3".into(), 4));
        assert_eq!(Epoch::new(u64::MAX).expect("an epoch").next().number(), u64::MAX);
        assert_eq!(DiskTarget::new("sdab1").expect("a target").to_string(), "sdab1");
        assert!(DiskTarget::new("abcdefghijklmnop").is_ok(), "as long as it may be");
    }
}

//! Versions of the protocol between hosts, and the one that two hosts have in common.

use std::fmt;
use std::str::FromStr;

/// The header of every request and answer that names the versions which its sender speaks.
pub(crate) const HEADER_NAME: &str = "virt-replica-protocol";

/// The versions that a daemon speaks, both ends included. Zero is no version.
///
/// | version | since | means |
/// |---|---|---|
/// | 1 | 0.1 | commands, deltas, joining, announced certificates |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionRange {
    oldest: u16,
    newest: u16,
}

/// Two daemons have no version in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VersionMismatch {
    /// The other daemon must be updated.
    #[error(
        "the other host's daemon is too old: it speaks protocol {theirs}, this one {ours}; update virt-replica on the other host"
    )]
    PeerTooOld {
        /// What this daemon speaks.
        ours: VersionRange,
        /// What the other speaks.
        theirs: VersionRange,
    },
    /// This daemon must be updated.
    #[error(
        "the other host's daemon is too new: it speaks protocol {theirs}, this one {ours}; update virt-replica on this host"
    )]
    PeerTooNew {
        /// What this daemon speaks.
        ours: VersionRange,
        /// What the other speaks.
        theirs: VersionRange,
    },
}

/// A text that names no versions.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no range of protocol versions, such as \"1-2\"")]
pub struct NotVersions(pub String);

impl VersionRange {
    /// What this program speaks: the current version and, when there is one, the version before it.
    pub const OURS: VersionRange = VersionRange { oldest: 1, newest: 1 };

    /// A range; `None` when it holds zero or is upside down.
    #[must_use]
    pub fn new(oldest: u16, newest: u16) -> Option<VersionRange> {
        (oldest > 0 && oldest <= newest).then_some(VersionRange { oldest, newest })
    }

    /// The newest version that both speak.
    pub fn in_common(self, theirs: VersionRange) -> Result<u16, VersionMismatch> {
        if theirs.newest < self.oldest {
            Err(VersionMismatch::PeerTooOld { ours: self, theirs })
        } else if theirs.oldest > self.newest {
            Err(VersionMismatch::PeerTooNew { ours: self, theirs })
        } else {
            Ok(self.newest.min(theirs.newest))
        }
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

impl FromStr for VersionRange {
    type Err = NotVersions;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = text
            .split_once('-')
            .and_then(|(oldest, newest)| VersionRange::new(oldest.parse().ok()?, newest.parse().ok()?));
        range.ok_or_else(|| NotVersions(text.chars().take(32).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> VersionRange {
        text.parse().expect("a range")
    }

    #[test]
    fn two_daemons_speak_the_newest_version_that_both_know() {
        assert_eq!(range("1-3").in_common(range("2-5")), Ok(3));
        assert_eq!(range("2-5").in_common(range("1-3")), Ok(3));
    }

    #[test]
    fn a_mismatch_says_which_side_is_old() {
        assert!(matches!(range("3-4").in_common(range("1-2")), Err(VersionMismatch::PeerTooOld { .. })));
        assert!(matches!(range("1-2").in_common(range("3-4")), Err(VersionMismatch::PeerTooNew { .. })));
    }

    #[test]
    fn nonsense_is_no_range() {
        for text in ["", "1", "0-1", "3-2", "1-", "-1", "1-70000", "a-b"] {
            assert!(text.parse::<VersionRange>().is_err(), "{text:?} was accepted");
        }
    }
}

//! Names of files that we make: one component of a path, of harmless characters only.
//!
//! A name like this means the same to a shell, to QEMU (no `nbd:`, no `json:`) and to a directory. Not for paths
//! that a person chose: those are absolute paths and are never built from parts.

use std::fmt;

/// The name of one file in a directory of ours, for example `base.qcow2`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileName(String);

/// Why a text is not the name of a file of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a name that virt-replica gives to a file: 1 to 200 letters, digits, '.', '_' and '-' are, \
     the first a letter or a digit"
)]
pub struct NotAFileName(pub String);

impl FileName {
    /// Longest name in bytes: leaves room for our suffixes within the 255 bytes of common file systems.
    pub const LENGTH_MAX: usize = 200;

    /// Checks a name.
    pub fn new(name: &str) -> Result<FileName, NotAFileName> {
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if starts_well && name.len() <= Self::LENGTH_MAX && name.bytes().all(harmless) {
            Ok(FileName(name.to_owned()))
        } else {
            Err(NotAFileName(name.chars().take(64).collect()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This name with a suffix of ours, for example `.partial`.
    pub(crate) fn with_suffix(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.0)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leaves_its_directory_and_is_never_an_option_or_a_protocol() {
        let long = "a".repeat(201);
        for hostile in ["", ".", "..", "a/b", "-f", ".hidden", "nbd:x", "a b", "a\n", "é", "a\0", &long] {
            assert!(FileName::new(hostile).is_err(), "{hostile:?} was accepted");
        }
        assert!(FileName::new("12-0190b3c4-0000-7000-8000-000000000001.qcow2").is_ok());
    }
}

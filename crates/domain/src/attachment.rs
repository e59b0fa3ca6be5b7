//! Files that belong to a VM beside its disks and travel with every recovery point.

/// Which file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Attachment {
    /// The UEFI variables.
    Nvram,
    /// The state of the emulated TPM: keys and counters that survive a power cycle.
    Tpm,
}

impl Attachment {
    /// All of them.
    pub const ALL: [Attachment; 2] = [Attachment::Nvram, Attachment::Tpm];

    /// Its name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Attachment::Nvram => "nvram",
            Attachment::Tpm => "tpm",
        }
    }

    /// Reads what [`Attachment::name`] wrote.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Attachment> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// Largest file of this kind that is carried: edk2's largest variable store is 64 MiB on Arm, a TPM has far below 1 MiB.
    #[must_use]
    pub fn bytes_max(self) -> u64 {
        match self {
            Attachment::Nvram => 80 << 20,
            Attachment::Tpm => 1 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_name_and_has_room_for_the_largest_of_its_files() {
        assert_eq!(Attachment::ALL.map(Attachment::name), ["nvram", "tpm"]);
        for kind in Attachment::ALL {
            assert_eq!(Attachment::from_name(kind.name()), Some(kind));
        }
        assert_eq!(Attachment::from_name("disk"), None);
        assert!(Attachment::Nvram.bytes_max() >= 64 << 20, "edk2 on Arm");
        assert!((256 << 10..=1 << 20).contains(&Attachment::Tpm.bytes_max()));
    }
}

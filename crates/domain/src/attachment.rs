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

//! What a lab is made with.

use std::path::PathBuf;

use crate::binaries::checkout;

/// How guests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// Emulated processor: works on every machine.
    #[default]
    Tcg,
    /// The processor's own virtualization, through `/dev/kvm`.
    Kvm,
}

impl Accel {
    /// Domain type in libvirt's XML.
    pub fn domain_type(self) -> &'static str {
        match self {
            Self::Tcg => "qemu",
            Self::Kvm => "kvm",
        }
    }
}

/// Options of [`crate::Lab::up`].
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// Name of the lab; labs of different names live side by side, and so do those of different checkouts.
    pub name: String,
    /// Folder that holds the files of all labs. Must not lie under `/etc`, `/var/lib`, `/var/cache` or `/var/log`.
    pub root: PathBuf,
    /// How guests are run.
    pub accel: Accel,
}

impl LabOptions {
    /// Options from the environment: `VR_LAB_ROOT` (default `/var/tmp/vr-lab-` and a word for the checkout),
    /// `VR_LAB_ACCEL=kvm` (default TCG).
    pub fn named(name: &str) -> Self {
        let usual = || PathBuf::from(format!("/var/tmp/vr-lab-{}", checkout()));
        let root = std::env::var_os("VR_LAB_ROOT").map_or_else(usual, PathBuf::from);
        let accel = if std::env::var_os("VR_LAB_ACCEL").is_some_and(|word| word == "kvm") {
            Accel::Kvm
        } else {
            Accel::Tcg
        };
        Self { name: name.to_owned(), root, accel }
    }

    /// Folder of this lab's files.
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }
}

impl Default for LabOptions {
    fn default() -> Self {
        Self::named("vr")
    }
}

//! What a hypervisor knows about a host and its VMs.

use std::path::PathBuf;

use domain::{DiskTarget, VmId};

/// Why a VM is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShutoffReason {
    /// The guest shut down.
    Shutdown,
    /// It was turned off (`virsh destroy`): data in flight may be lost.
    Destroyed,
    /// The guest or QEMU crashed.
    Crashed,
    /// Its memory was saved to a file; it will go on where it was.
    Saved,
    /// It could not start, or libvirt lost it.
    Failed,
    /// It was migrated away.
    Migrated,
    /// libvirt does not know: it started after the VM had stopped.
    Unknown,
}

/// Whether a VM runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmState {
    /// Runs.
    Running,
    /// Is in memory and does not run.
    Paused,
    /// Is off.
    ShutOff(ShutoffReason),
}

impl VmState {
    /// Whether a QEMU process holds the disks.
    #[must_use]
    pub fn is_active(self) -> bool {
        !matches!(self, VmState::ShutOff(_))
    }
}

/// What a VM boots with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// UEFI.
    Uefi {
        /// Path of the loader, when the definition names one.
        loader: Option<PathBuf>,
        /// Path of the variable store, when it exists.
        nvram: Option<PathBuf>,
    },
}

/// Something that keeps a VM from being replicated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// A device of the host is passed through; the text names it.
    Passthrough(String),
    /// A directory of the host is shared with the guest.
    SharedDirectory(String),
    /// A disk that is a raw file or a block device: it cannot carry a dirty bitmap, and a wrapper around it can.
    Raw {
        /// Which disk.
        target: String,
        /// Whether it is a block device.
        is_device: bool,
    },
    /// A disk that cannot carry a dirty bitmap, and cannot be wrapped either.
    NoBitmap {
        /// Which disk.
        target: String,
        /// What it is: `vmdk file`, `disk shared between VMs`, …
        kind: String,
    },
    /// A part of the definition that would silently be missing on another host; the text names it.
    Unsupported(String),
    /// The VM is transient: libvirt forgets it when it stops.
    NotPersistent,
}

impl Obstacle {
    /// The disk that cannot carry a dirty bitmap, and what it is.
    #[must_use]
    pub fn disk(&self) -> Option<(&str, &str)> {
        match self {
            Obstacle::Raw { target, is_device: true } => Some((target, "block device")),
            Obstacle::Raw { target, is_device: false } => Some((target, "raw file")),
            Obstacle::NoBitmap { target, kind } => Some((target, kind)),
            _ => None,
        }
    }
}

/// One disk of a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskFacts {
    /// Target name.
    pub target: DiskTarget,
    /// The file that the VM writes to.
    pub source: PathBuf,
    /// `qcow2`, `raw`, …
    pub format: String,
    /// The bus of its controller: `virtio`, `scsi`, `sata`, …
    pub bus: String,
}

/// A qcow2 file around a raw disk, as a definition names both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskWrapper {
    /// Which disk.
    pub target: DiskTarget,
    /// The qcow2 file that has the bitmaps.
    pub file: PathBuf,
    /// The raw file or block device that has the data.
    pub data: PathBuf,
    /// Whether that is a block device.
    pub is_device: bool,
}

/// What a network card is plugged into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NicKind {
    /// A bridge of the host.
    Bridge,
    /// A libvirt network.
    Network,
    /// Anything else; it needs nothing of the host.
    Other,
}

/// One network card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NicFacts {
    /// What it is plugged into.
    pub kind: NicKind,
    /// Name of the bridge or network.
    pub source: String,
    /// MAC address.
    pub mac: String,
}

/// One VM.
#[derive(Clone, Debug)]
pub struct VmFacts {
    /// UUID.
    pub id: VmId,
    /// Name.
    pub name: String,
    /// Whether it runs, and why not.
    pub state: VmState,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Number of virtual processors.
    pub vcpus: u32,
    /// Domain type: `kvm`, `qemu`.
    pub kind: String,
    /// Architecture, for example `x86_64`.
    pub arch: String,
    /// Machine type, for example `pc-q35-10.0`.
    pub machine: String,
    /// The `<cpu>` element, if the definition has one.
    pub cpu_xml: Option<String>,
    /// What it boots with.
    pub firmware: Firmware,
    /// Kernel and initrd of a direct boot.
    pub boot_files: Vec<PathBuf>,
    /// Hard disks in the order of the definition; no CD-ROMs, no floppies.
    pub disks: Vec<DiskFacts>,
    /// Hard disks that the definition has, whatever is plugged in now.
    pub configured: Vec<DiskFacts>,
    /// Network cards.
    pub nics: Vec<NicFacts>,
    /// What keeps it from being replicated.
    pub obstacles: Vec<Obstacle>,
    /// Whether the definition has a guest agent channel.
    pub has_agent: bool,
    /// File with the state of the emulated TPM, when the VM has one.
    pub tpm_state: Option<PathBuf>,
    /// Whether libvirt starts it when the host boots; false in facts that were read from a definition alone.
    pub autostart: bool,
    /// The inactive definition.
    pub definition: String,
}

/// What a host offers.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Host name.
    pub hostname: String,
    /// libvirt's version, for people.
    pub libvirt_version: String,
    /// QEMU's version, for people.
    pub qemu_version: String,
    /// Bridges, by name.
    pub bridges: Vec<String>,
    /// Active libvirt networks, by name.
    pub networks: Vec<String>,
    /// Machine types that QEMU offers here, with their aliases, as (architecture, machine).
    pub machines: Vec<(String, String)>,
    /// Domain types: `kvm`, `qemu`.
    pub kinds: Vec<String>,
    /// UEFI loaders that QEMU's firmware descriptors name here.
    pub loaders: Vec<PathBuf>,
    /// Whether VMs can have an emulated TPM here.
    pub tpm_emulator: bool,
    /// Memory that a VM could have, in bytes; unknown when the host does not say.
    pub free_memory_bytes: Option<u64>,
}

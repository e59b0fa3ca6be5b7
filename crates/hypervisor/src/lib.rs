//! What virt-replica needs of a hypervisor: facts about hosts and VMs, and a dozen verbs.
//!
//! The trait is blocking: libvirt is. Callers run it on threads of their own and put their own deadline on every wait.
//! What is *not* here: definitions are opaque text (only `libvirt` reads or writes domain XML), and nothing knows about
//! relationships or roles.

mod error;
mod facts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::{DiskTarget, VmId};

pub use error::{ErrorClass, HypervisorError};
pub use facts::{
    DiskFacts, DiskWrapper, Firmware, HostFacts, NicFacts, NicKind, Obstacle, ShutoffReason, VmFacts, VmState,
};

/// The prefix of every checkpoint and bitmap that is ours; others belong to somebody else and are never touched.
pub const CHECKPOINT_PREFIX: &str = "vr-";

/// A backup job in pull mode, together with a new checkpoint: one instant for all disks.
#[derive(Clone, Debug)]
pub struct BackupRequest {
    /// Name of the checkpoint that is made at the same instant; none: no tracking from here.
    pub checkpoint: Option<String>,
    /// The older checkpoint whose changes the job exports as a dirty bitmap; none: everything.
    pub since: Option<String>,
    /// The disks to export; all others are left alone. The export has the target's name.
    pub disks: Vec<DiskTarget>,
    /// Those of them that the older checkpoint does not know: all of such a disk is exported.
    pub whole: Vec<DiskTarget>,
    /// Directory for the scratch files (blocks that the guest overwrites while the job is open).
    pub scratch_dir: PathBuf,
    /// Unix socket on which QEMU serves NBD.
    pub socket: PathBuf,
}

/// A backup job that is open.
#[derive(Clone, Debug)]
pub struct OpenBackup {
    /// Unix socket on which QEMU serves NBD.
    pub socket: PathBuf,
    /// The exported disks.
    pub disks: Vec<OpenDisk>,
}

/// One exported disk.
#[derive(Clone, Debug)]
pub struct OpenDisk {
    /// Which disk.
    pub target: DiskTarget,
    /// NBD export name.
    pub export: String,
    /// NBD meta context of the dirty bitmap (`qemu:dirty-bitmap:…`); none in a full job.
    pub dirty_context: Option<String>,
}

/// Where the parts of a definition live on this host.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Whose definition it must be: one of another VM would replace that VM's own.
    pub vm: VmId,
    /// Source file of each disk; all are qcow2.
    pub disks: Vec<(DiskTarget, PathBuf)>,
    /// Disks that have no copy here and are left out.
    pub strangers: Vec<DiskTarget>,
    /// Bridges and libvirt networks by other names here: (name in the definition, name here).
    pub networks: Vec<(String, String)>,
    /// Where the UEFI variable store lives, if the VM has one.
    pub nvram: Option<PathBuf>,
    /// The definition that this host had for the VM until now. What belongs to the host and not to the VM (pinning, huge
    /// pages, NUMA tuning, graphics ports, ISO images in CD-ROM drives) comes from it; without one it is left out.
    pub local_definition: Option<String>,
}

/// Who a throw-away copy of a VM is, so that it can live beside the VM itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its own UUID; its MAC addresses follow from it.
    pub vm: VmId,
    /// Its own name.
    pub name: String,
    /// What all its network cards are plugged into: a bridge or a libvirt network.
    pub network: (NicKind, String),
}

/// An address of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestAddress {
    /// The address.
    pub address: std::net::Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix: u8,
}

/// Something that happened in the hypervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Happening {
    /// The VM started or stopped.
    Lifecycle(VmId),
    /// Its definition changed, appeared or vanished, or a device was plugged.
    Definition(VmId),
    /// The connection was lost: nothing is known until it is back.
    Lost,
    /// The connection was lost and is back: anything may have happened.
    Reconnected,
}

/// Result of a verb.
pub type Result<T> = std::result::Result<T, HypervisorError>;

/// The hypervisor of this host.
pub trait Hypervisor: Send + Sync {
    /// What this host offers.
    fn host_facts(&self) -> Result<HostFacts>;

    /// All VMs, running or not.
    fn vms(&self) -> Result<Vec<VmFacts>>;

    /// Only their ids and names, cheaply however many there are.
    fn names(&self) -> Result<Vec<(VmId, String)>> {
        Ok(self.vms()?.into_iter().map(|vm| (vm.id, vm.name)).collect())
    }

    /// Those of these VMs that are defined, in no order, as a list shows them: why one is off, and whether it starts by itself, need
    /// not be told.
    fn vms_among(&self, ids: &[VmId]) -> Result<Vec<VmFacts>> {
        let mut vms = self.vms()?;
        vms.retain(|vm| ids.contains(&vm.id));
        Ok(vms)
    }

    /// One VM; none when it is not defined.
    fn vm(&self, id: VmId) -> Result<Option<VmFacts>>;

    /// Only the state, cheaply; none when it is not defined.
    fn vm_state(&self, id: VmId) -> Result<Option<VmState>>;

    /// Asks the guest to shut down, by the guest agent when `by_agent`, else by ACPI. Does not wait.
    fn shut_down(&self, id: VmId, by_agent: bool) -> Result<()>;

    /// Starts the VM; `paused`: before its first instruction.
    fn start(&self, id: VmId, paused: bool) -> Result<()>;

    /// Lets a paused VM run.
    fn resume(&self, id: VmId) -> Result<()>;

    /// Defines or redefines a VM.
    fn define(&self, definition: &str) -> Result<()>;

    /// Forgets a VM: its definition and its checkpoints' metadata, never its disks or variable store.
    fn undefine(&self, id: VmId) -> Result<()>;

    /// Whether this hypervisor asks the start guard before a VM starts, as tried with one that is nothing; none: that could not be
    /// tried.
    fn asks_guard(&self) -> Result<Option<bool>>;

    /// Opens a backup job. Fails with a transient error while another job is open.
    fn begin_backup(&self, id: VmId, request: &BackupRequest) -> Result<OpenBackup>;

    /// The backup job that is open, if it is ours; that of another program is as good as none.
    fn open_backup(&self, id: VmId) -> Result<Option<OpenBackup>>;

    /// Ends the open backup job and waits until it is gone. No job, or the job of another program: done.
    fn end_backup(&self, id: VmId) -> Result<()>;

    /// Makes a checkpoint of a running or paused VM.
    fn create_checkpoint(&self, id: VmId, name: &str, disks: &[DiskTarget]) -> Result<()>;

    /// Makes a checkpoint of a VM that is shut off: a persistent bitmap in each disk file and the metadata for it.
    fn create_checkpoint_offline(&self, id: VmId, name: &str, disks: &[DiskTarget]) -> Result<()>;

    /// Names of all checkpoints, ours and foreign, oldest first.
    fn checkpoints(&self, id: VmId) -> Result<Vec<String>>;

    /// Deletes a checkpoint. Running: its bitmap is merged into the older one. Shut off: metadata and the bitmaps in the
    /// disk files go, nothing is merged. No such checkpoint: done.
    fn delete_checkpoint(&self, id: VmId, name: &str) -> Result<()>;

    /// Bytes of all its disks that changed since a checkpoint; none when the VM is off or there is no such checkpoint.
    fn changed_bytes(&self, id: VmId, checkpoint: &str) -> Result<Option<u64>>;

    /// Whether libvirt starts the VM when the host boots.
    fn set_autostart(&self, id: VmId, autostart: bool) -> Result<()>;

    /// Freezes all file systems of the guest by its agent, within `deadline`; gives their number. The caller must thaw,
    /// also after an error: a freeze that answered too late may still have happened.
    fn freeze(&self, id: VmId, deadline: Duration) -> Result<u32>;

    /// Thaws all file systems of the guest by its agent, within `deadline`; gives their number. Nothing frozen: done, with 0.
    fn thaw(&self, id: VmId, deadline: Duration) -> Result<u32>;

    /// Whether freezing the guest also lets its applications bring their files to rest, as Windows' shadow copies do. Of others
    /// nobody outside can tell whether their agent runs hooks.
    fn freezes_applications(&self, id: VmId, deadline: Duration) -> Result<bool>;

    /// Whether the guest agent answers within `deadline`.
    fn agent_answers(&self, id: VmId, deadline: Duration) -> Result<bool>;

    /// The definition under which this host may run or hold the VM: an allow-list of the given one, with our paths.
    fn place_definition(&self, definition: &str, placement: &Placement) -> Result<String>;

    /// Facts read from a definition that need no running hypervisor: memory, machine, disks, networks, obstacles.
    fn read_definition(&self, definition: &str) -> Result<VmFacts>;

    /// Whether two definitions mean the same VM: order of attributes, spaces and comments do not count.
    fn same_definition(&self, one: &str, other: &str) -> Result<bool>;

    /// Why the CPU that the definition asks for is not to be had on this host; none: it is.
    fn cpu_obstacle(&self, definition: &str) -> Result<Option<String>>;

    /// Whether a peer's definition may name this file (loader, kernel, initrd) here: it exists, in a place for such files.
    fn boot_file_available(&self, path: &Path) -> bool;

    /// Virtual size and allocated bytes of a disk image, also of one that a VM or a cycle has open. `format` is what its definition
    /// says, never what the file looks like: a guest can write any header into a raw disk.
    fn image_size(&self, path: &Path, format: &str) -> Result<ImageSize>;

    /// The definition with the disk, which is raw in it, on its wrapper; everything else is as it was.
    fn wrap_disk(&self, definition: &str, wrapper: &DiskWrapper) -> Result<String>;

    /// The definition with the disk, which is on its wrapper in it, on the raw disk again.
    fn unwrap_disk(&self, definition: &str, wrapper: &DiskWrapper) -> Result<String>;

    /// Gives a definition of this host another identity. What could reach another VM or be mistaken for the original (UUID,
    /// MAC addresses, generation id, every network) is made anew.
    fn disguise_definition(&self, definition: &str, identity: &Identity) -> Result<String>;

    /// Turns a VM off as by pulling its plug, because a person said so. Off already: done.
    fn turn_off(&self, id: VmId) -> Result<()>;

    /// Begins to merge the files from `top` down into `base` below a disk of a running VM, which goes on meanwhile. A job
    /// that is there already is left alone.
    fn begin_merge(&self, id: VmId, disk: &DiskTarget, top: &Path, base: &Path) -> Result<()>;

    /// How far the merge of a disk is: bytes done and in all; none: none is under way.
    fn merging(&self, id: VmId, disk: &DiskTarget) -> Result<Option<(u64, u64)>>;

    /// Ends the merge of a disk before its end: the disk reads as before. It may go on for a while. None is under way: done.
    fn end_merge(&self, id: VmId, disk: &DiskTarget) -> Result<()>;

    /// Turns a VM off as by pulling its plug, and forgets it with its variable store and TPM. Only for copies that were made to
    /// be thrown away. No such VM: done.
    fn discard(&self, id: VmId) -> Result<()>;

    /// What the first screen of a running VM shows, as the bytes of a PNG file; none when it has no screen.
    fn screen(&self, id: VmId) -> Result<Option<Vec<u8>>>;

    /// The guest's own IPv4 addresses, as its agent tells them within `deadline`.
    fn addresses(&self, id: VmId, deadline: Duration) -> Result<Vec<GuestAddress>>;

    /// Calls `notify` for what happens from now on, from a thread of the hypervisor's own.
    fn watch(&self, notify: Box<dyn Fn(Happening) + Send + Sync>) -> Result<()>;
}

/// Size of a disk image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageSize {
    /// Bytes that the guest sees.
    pub virtual_bytes: u64,
    /// Bytes that the file takes.
    pub allocated_bytes: u64,
}

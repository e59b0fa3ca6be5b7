//! libvirt behind the [`Hypervisor`] trait: the only crate that links it, and the only one that reads or writes domain XML.
//!
//! What is *not* here: waiting for guests, retries and deadlines (the engine's), and any knowledge of relationships.

mod agent;
mod backup;
mod checkpoint;
mod connection;
mod definition;
mod error;
mod events;
mod guard;
mod host;
mod image;
mod raw;
mod screen;
mod turns;
mod vm;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use domain::{DiskTarget, VmId};
use hypervisor::{
    BackupRequest, CHECKPOINT_PREFIX, DiskWrapper, GuestAddress, Happening, HostFacts, Hypervisor,
    HypervisorError, Identity, ImageSize, OpenBackup, Placement, Result, VmFacts, VmState,
};
use virt::domain::Domain;
use virt::error::ErrorNumber;

use connection::Connection;
use error::{is, of_host, of_vm};
use turns::Turns;
use vm::if_there;

/// The libvirt of this host.
pub struct Libvirt {
    connection: Arc<Connection>,
    turns: Turns,
}

impl Libvirt {
    /// For this URI, usually [`Libvirt::SYSTEM`]. Connects when it is first used.
    #[must_use]
    pub fn new(uri: &str) -> Libvirt {
        Libvirt { connection: Connection::new(uri), turns: Turns::default() }
    }

    /// The URI of the host's own QEMU.
    pub const SYSTEM: &str = "qemu:///system";

    fn find(&self, id: VmId) -> Result<Option<Domain>> {
        vm::find(&self.connection.get()?, id)
    }

    fn need(&self, id: VmId) -> Result<Domain> {
        self.find(id)?.ok_or(HypervisorError::NoSuchVm { id })
    }
}

impl Hypervisor for Libvirt {
    fn host_facts(&self) -> Result<HostFacts> {
        host::facts(&self.connection.get()?)
    }

    fn vms(&self) -> Result<Vec<VmFacts>> {
        let all = vm::all(&self.connection.get()?, 0)?;
        all.iter().filter_map(|(_, found)| if_there(vm::facts(found)).transpose()).collect()
    }

    fn names(&self) -> Result<Vec<(VmId, String)>> {
        let named =
            |(id, found): (VmId, Domain)| Ok((id, found.name().map_err(|it| of_vm("domname", id, &it))?));
        vm::all(&self.connection.get()?, 0)?.into_iter().map(named).collect()
    }

    fn vms_among(&self, ids: &[VmId]) -> Result<Vec<VmFacts>> {
        vm::outlines(&self.connection.get()?, &ids.iter().copied().collect())
    }

    fn vm(&self, id: VmId) -> Result<Option<VmFacts>> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        if_there(vm::facts(&found))
    }

    fn vm_state(&self, id: VmId) -> Result<Option<VmState>> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        if_there(vm::state(&found, id))
    }

    fn shut_down(&self, id: VmId, by_agent: bool) -> Result<()> {
        let found = self.need(id)?;
        if !vm::state(&found, id)?.is_active() {
            return Ok(());
        }
        if by_agent {
            return agent::shut_down(&found, id);
        }
        let asked = found.shutdown_flags(virt_sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN);
        asked.map(drop).map_err(|error| of_vm("shutdown", id, &error))
    }

    fn start(&self, id: VmId, paused: bool) -> Result<()> {
        let found = self.need(id)?;
        match (vm::state(&found, id)?, paused) {
            (VmState::Paused, true) | (VmState::Running, false) => return Ok(()),
            (VmState::Paused, false) => return self.resume(id),
            (VmState::Running, true) => {
                let detail = "the VM runs already, so it cannot be started paused".to_owned();
                return Err(HypervisorError::Failed { verb: "start", detail });
            }
            (VmState::ShutOff(_), _) => {}
        }
        let flags = if paused { virt_sys::VIR_DOMAIN_START_PAUSED } else { 0 };
        found.create_with_flags(flags).map(drop).map_err(|error| of_vm("start", id, &error))
    }

    fn resume(&self, id: VmId) -> Result<()> {
        let found = self.need(id)?;
        if vm::state(&found, id)? == VmState::Running {
            return Ok(());
        }
        found.resume().map(drop).map_err(|error| of_vm("resume", id, &error))
    }

    fn define(&self, definition: &str) -> Result<()> {
        let defined = self.connection.get()?.define_domain_xml(definition);
        defined.map(drop).map_err(|error| {
            let refused = is(&error, ErrorNumber::XmlError) || is(&error, ErrorNumber::ConfigUnsupported);
            match refused {
                true => HypervisorError::Definition { reason: error.message().to_owned() },
                false => of_host("define", &error),
            }
        })
    }

    fn undefine(&self, id: VmId) -> Result<()> {
        let Some(found) = self.find(id)? else { return Ok(()) };
        let flags = virt_sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM
            | virt_sys::VIR_DOMAIN_UNDEFINE_KEEP_TPM
            | virt_sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA;
        let undefined = self.turns.change(id, || found.undefine_flags(flags));
        let undefined = undefined.map(drop).map_err(|error| of_vm("undefine", id, &error));
        if_there(undefined).map(drop)
    }

    fn set_autostart(&self, id: VmId, autostart: bool) -> Result<()> {
        let set = self.need(id)?.set_autostart(autostart);
        set.map(drop).map_err(|error| of_vm("autostart", id, &error))
    }

    fn asks_guard(&self) -> Result<Option<bool>> {
        guard::is_asked(&self.connection.get()?)
    }

    fn begin_backup(&self, id: VmId, request: &BackupRequest) -> Result<OpenBackup> {
        let found = self.need(id)?;
        self.turns.change(id, || backup::begin(&found, id, request))
    }

    fn open_backup(&self, id: VmId) -> Result<Option<OpenBackup>> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        backup::open(&found, id)
    }

    fn end_backup(&self, id: VmId) -> Result<()> {
        let Some(found) = self.find(id)? else { return Ok(()) };
        if_there(backup::end(&found, id)).map(drop)
    }

    fn create_checkpoint(&self, id: VmId, name: &str, disks: &[DiskTarget]) -> Result<()> {
        let found = self.need(id)?;
        self.turns.change(id, || checkpoint::create(&found, id, name, disks))
    }

    fn create_checkpoint_offline(&self, id: VmId, name: &str, disks: &[DiskTarget]) -> Result<()> {
        let found = self.need(id)?;
        let facts = vm::facts(&found)?;
        self.turns.change(id, || checkpoint::create_offline(&found, &facts, name, disks))
    }

    fn checkpoints(&self, id: VmId) -> Result<Vec<String>> {
        checkpoint::names(&self.need(id)?, id)
    }

    fn delete_checkpoint(&self, id: VmId, name: &str) -> Result<()> {
        let found = self.need(id)?;
        let facts = vm::facts(&found)?;
        self.turns.change(id, || checkpoint::delete(&found, &facts, name))
    }

    fn changed_bytes(&self, id: VmId, checkpoint: &str) -> Result<Option<u64>> {
        let Some(found) = self.find(id)? else { return Ok(None) };
        if !vm::state(&found, id)?.is_active() {
            return Ok(None);
        }
        // Another program's hands do not wait for their turn.
        if checkpoint::names(&found, id)?.iter().any(|name| !name.starts_with(CHECKPOINT_PREFIX)) {
            return Ok(None);
        }
        self.turns.look(id, || checkpoint::changed_bytes(&found, id, checkpoint)).unwrap_or(Ok(None))
    }

    fn freeze(&self, id: VmId, deadline: Duration) -> Result<u32> {
        agent::freeze(&self.need(id)?, id, deadline)
    }

    fn thaw(&self, id: VmId, deadline: Duration) -> Result<u32> {
        agent::thaw(&self.need(id)?, id, deadline)
    }

    fn freezes_applications(&self, id: VmId, deadline: Duration) -> Result<bool> {
        agent::is_windows(&self.need(id)?, id, deadline)
    }

    fn agent_answers(&self, id: VmId, deadline: Duration) -> Result<bool> {
        agent::answers(&self.need(id)?, id, deadline)
    }

    fn place_definition(&self, definition: &str, placement: &Placement) -> Result<String> {
        definition::place(definition, placement)
    }

    fn read_definition(&self, definition: &str) -> Result<VmFacts> {
        definition::read(definition)
    }

    fn same_definition(&self, one: &str, other: &str) -> Result<bool> {
        definition::same(one, other)
    }

    fn cpu_obstacle(&self, definition: &str) -> Result<Option<String>> {
        host::cpu_obstacle(&self.connection.get()?, definition)
    }

    fn boot_file_available(&self, path: &Path) -> bool {
        definition::is_boot_file_here(path)
    }

    fn image_size(&self, path: &Path, format: &str) -> Result<ImageSize> {
        image::size(path, format)
    }

    fn turn_off(&self, id: VmId) -> Result<()> {
        vm::turn_off(&self.need(id)?, id)
    }

    fn begin_merge(&self, id: VmId, disk: &DiskTarget, top: &Path, base: &Path) -> Result<()> {
        let found = self.need(id)?;
        if self.merging(id, disk)?.is_some() {
            return Ok(());
        }
        // The overlay names its new base as it named the layer: without a folder, so that the directory may move. The user's own
        // disk at the bottom lies elsewhere, and is named by its whole path.
        let beside = top.parent() == base.parent();
        let flags = if beside { virt_sys::VIR_DOMAIN_BLOCK_COMMIT_RELATIVE } else { 0 };
        let (top, base) = (top.to_string_lossy(), base.to_string_lossy());
        let begun = raw::block_commit(&found, disk.as_str(), &base, &top, flags);
        begun.map_err(|error| of_vm("blockcommit", id, &error))
    }

    fn merging(&self, id: VmId, disk: &DiskTarget) -> Result<Option<(u64, u64)>> {
        let job = raw::block_job(&self.need(id)?, disk.as_str());
        job.map_err(|error| of_vm("blockjob", id, &error))
    }

    fn end_merge(&self, id: VmId, disk: &DiskTarget) -> Result<()> {
        if self.merging(id, disk)?.is_none() {
            return Ok(());
        }
        // It is not waited for: QEMU ends a job when the requests of it that are on their way have ended.
        let flags = virt_sys::VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC;
        let ended = raw::abort_block_job(&self.need(id)?, disk.as_str(), flags);
        ended.map_err(|error| of_vm("blockjob --abort", id, &error))
    }

    fn wrap_disk(&self, definition: &str, wrapper: &DiskWrapper) -> Result<String> {
        definition::wrap(definition, wrapper)
    }

    fn unwrap_disk(&self, definition: &str, wrapper: &DiskWrapper) -> Result<String> {
        definition::unwrap(definition, wrapper)
    }

    fn disguise_definition(&self, definition: &str, identity: &Identity) -> Result<String> {
        definition::disguise(definition, identity)
    }

    fn discard(&self, id: VmId) -> Result<()> {
        let Some(found) = self.find(id)? else { return Ok(()) };
        if_there(self.turns.change(id, || vm::discard(&found, id))).map(drop)
    }

    fn screen(&self, id: VmId) -> Result<Option<Vec<u8>>> {
        screen::picture(&self.connection.get()?, &self.need(id)?, id)
    }

    fn addresses(&self, id: VmId, deadline: Duration) -> Result<Vec<GuestAddress>> {
        agent::addresses(&self.need(id)?, id, deadline)
    }

    fn watch(&self, notify: Box<dyn Fn(Happening) + Send + Sync>) -> Result<()> {
        self.connection.watch(Arc::from(notify))
    }
}

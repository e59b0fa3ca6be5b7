//! libvirt, as far as a host with one VM needs it: a definition, whether it runs, and merges of what lies below it. The start guard
//! is asked as libvirt's hook asks it. NOT a guest: nothing writes to the VM's disk.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::fixture::vda;
use domain::{DiskTarget, VmId};
use hypervisor::{
    BackupRequest, DiskFacts, DiskWrapper, Firmware, GuestAddress, Happening, HostFacts, Hypervisor,
    HypervisorError, Identity, ImageSize, OpenBackup, Placement, Result, ShutoffReason, VmFacts, VmState,
};
use serde::{Deserialize, Serialize};
use store::{Guard, GuardVerdict};

use crate::host::SIZE;

/// What libvirt would call domain XML.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Form {
    pub(crate) id: uuid::Uuid,
    pub(crate) name: String,
    pub(crate) disk: PathBuf,
}

struct Vm {
    form: Form,
    state: VmState,
    checkpoints: Vec<String>,
    autostart: bool,
}

struct Inner {
    vm: Mutex<Option<Vm>>,
    /// The store of the host, which the start guard reads.
    state: PathBuf,
}

#[derive(Clone)]
pub(crate) struct OneVm(Arc<Inner>);

fn failed(verb: &'static str, detail: impl ToString) -> HypervisorError {
    HypervisorError::Failed { verb, detail: detail.to_string() }
}

fn read(definition: &str) -> Result<Form> {
    serde_json::from_str(definition)
        .map_err(|error| HypervisorError::Definition { reason: error.to_string() })
}

fn facts(form: &Form) -> VmFacts {
    let disks = vec![DiskFacts {
        target: vda(),
        source: form.disk.clone(),
        format: "qcow2".into(),
        bus: "virtio".into(),
    }];
    VmFacts {
        id: form.id.into(),
        name: form.name.clone(),
        state: VmState::ShutOff(ShutoffReason::Unknown),
        memory_bytes: 1 << 20,
        vcpus: 1,
        kind: "qemu".into(),
        arch: "x86_64".into(),
        machine: "pc".into(),
        cpu_xml: None,
        firmware: Firmware::Bios,
        boot_files: Vec::new(),
        configured: disks.clone(),
        disks,
        nics: Vec::new(),
        obstacles: Vec::new(),
        has_agent: false,
        tpm_state: None,
        autostart: false,
        definition: serde_json::to_string(form).expect("plain data"),
    }
}

impl OneVm {
    pub(crate) fn new(state: &Path) -> OneVm {
        OneVm(Arc::new(Inner { vm: Mutex::default(), state: state.to_owned() }))
    }

    fn vm(&self) -> MutexGuard<'_, Option<Vm>> {
        self.0.vm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, id: VmId, verb: impl FnOnce(&mut Vm) -> Result<T>) -> Result<T> {
        verb(self.vm().as_mut().ok_or(HypervisorError::NoSuchVm { id })?)
    }

    pub(crate) fn runs(&self) -> bool {
        self.vm().as_ref().is_some_and(|vm| vm.state.is_active())
    }
}

/// `qemu-img`; what it says when it fails.
fn qemu_img(words: &[&str]) -> Result<()> {
    let ran = Command::new("qemu-img").args(words).output();
    let ran = ran.map_err(|error| failed("merge", error))?;
    if ran.status.success() { Ok(()) } else { Err(failed("merge", String::from_utf8_lossy(&ran.stderr))) }
}

impl Hypervisor for OneVm {
    fn host_facts(&self) -> Result<HostFacts> {
        Ok(HostFacts {
            hostname: "alone".into(),
            libvirt_version: "none".into(),
            qemu_version: "none".into(),
            bridges: Vec::new(),
            networks: Vec::new(),
            machines: vec![("x86_64".into(), "pc".into())],
            kinds: vec!["qemu".into()],
            loaders: Vec::new(),
            tpm_emulator: false,
            free_memory_bytes: Some(1 << 30),
        })
    }

    fn vms(&self) -> Result<Vec<VmFacts>> {
        let vm = self.vm();
        let facts_of = |vm: &Vm| VmFacts { state: vm.state, autostart: vm.autostart, ..facts(&vm.form) };
        Ok(vm.iter().map(facts_of).collect())
    }

    fn vm(&self, id: VmId) -> Result<Option<VmFacts>> {
        Ok(self.vms()?.into_iter().find(|vm| vm.id == id))
    }

    fn vm_state(&self, id: VmId) -> Result<Option<VmState>> {
        Ok(Hypervisor::vm(self, id)?.map(|vm| vm.state))
    }

    fn shut_down(&self, id: VmId, _by_agent: bool) -> Result<()> {
        self.turn_off(id)
    }

    fn start(&self, id: VmId, paused: bool) -> Result<()> {
        let verdict = Guard::open(&self.0.state).and_then(|guard| guard.map(|it| it.verdict(id)).transpose());
        if let Some(GuardVerdict::Refused(why)) = verdict.map_err(|error| failed("start", error))? {
            return Err(failed("start", why));
        }
        self.with(id, |vm| {
            if !vm.form.disk.exists() {
                return Err(failed("start", "its disk is not there"));
            }
            vm.state = if paused { VmState::Paused } else { VmState::Running };
            Ok(())
        })
    }

    fn resume(&self, id: VmId) -> Result<()> {
        self.with(id, |vm| {
            vm.state = VmState::Running;
            Ok(())
        })
    }

    fn define(&self, definition: &str) -> Result<()> {
        let form = read(definition)?;
        match &mut *self.vm() {
            Some(vm) => vm.form = form,
            none => {
                let state = VmState::ShutOff(ShutoffReason::Unknown);
                *none = Some(Vm { form, state, checkpoints: Vec::new(), autostart: false });
            }
        }
        Ok(())
    }

    fn undefine(&self, _id: VmId) -> Result<()> {
        if self.runs() {
            return Err(failed("undefine", "it runs"));
        }
        *self.vm() = None;
        Ok(())
    }

    fn asks_guard(&self) -> Result<Option<bool>> {
        Ok(Some(true))
    }

    fn begin_backup(&self, _id: VmId, _request: &BackupRequest) -> Result<OpenBackup> {
        Err(failed("backup", "nothing is replicated from here"))
    }

    fn open_backup(&self, _id: VmId) -> Result<Option<OpenBackup>> {
        Ok(None)
    }

    fn end_backup(&self, _id: VmId) -> Result<()> {
        Ok(())
    }

    fn create_checkpoint(&self, id: VmId, name: &str, _disks: &[DiskTarget]) -> Result<()> {
        self.with(id, |vm| {
            vm.checkpoints.push(name.to_owned());
            Ok(())
        })
    }

    fn create_checkpoint_offline(&self, id: VmId, name: &str, disks: &[DiskTarget]) -> Result<()> {
        self.create_checkpoint(id, name, disks)
    }

    fn checkpoints(&self, id: VmId) -> Result<Vec<String>> {
        self.with(id, |vm| Ok(vm.checkpoints.clone()))
    }

    fn delete_checkpoint(&self, id: VmId, name: &str) -> Result<()> {
        self.with(id, |vm| {
            vm.checkpoints.retain(|known| known != name);
            Ok(())
        })
    }

    fn changed_bytes(&self, _id: VmId, _checkpoint: &str) -> Result<Option<u64>> {
        Ok(None)
    }

    fn set_autostart(&self, id: VmId, autostart: bool) -> Result<()> {
        self.with(id, |vm| {
            vm.autostart = autostart;
            Ok(())
        })
    }

    fn freeze(&self, _id: VmId, _deadline: Duration) -> Result<u32> {
        Err(failed("freeze", "there is no agent"))
    }

    fn thaw(&self, _id: VmId, _deadline: Duration) -> Result<u32> {
        Ok(0)
    }

    fn freezes_applications(&self, _id: VmId, _deadline: Duration) -> Result<bool> {
        Ok(false)
    }

    fn agent_answers(&self, _id: VmId, _deadline: Duration) -> Result<bool> {
        Ok(false)
    }

    fn place_definition(&self, definition: &str, placement: &Placement) -> Result<String> {
        let mut form = read(definition)?;
        if let Some((_, path)) = placement.disks.first() {
            form.disk.clone_from(path);
        }
        Ok(facts(&form).definition)
    }

    fn read_definition(&self, definition: &str) -> Result<VmFacts> {
        read(definition).map(|form| facts(&form))
    }

    fn same_definition(&self, one: &str, other: &str) -> Result<bool> {
        Ok(read(one)? == read(other)?)
    }

    fn cpu_obstacle(&self, _definition: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn boot_file_available(&self, _path: &Path) -> bool {
        false
    }

    fn image_size(&self, _path: &Path, _format: &str) -> Result<ImageSize> {
        Ok(ImageSize { virtual_bytes: SIZE, allocated_bytes: SIZE })
    }

    fn wrap_disk(&self, _definition: &str, _wrapper: &DiskWrapper) -> Result<String> {
        Err(failed("wrap", "all disks are qcow2"))
    }

    fn unwrap_disk(&self, _definition: &str, _wrapper: &DiskWrapper) -> Result<String> {
        Err(failed("unwrap", "all disks are qcow2"))
    }

    fn disguise_definition(&self, _definition: &str, _identity: &Identity) -> Result<String> {
        Err(failed("disguise", "there are no test failovers"))
    }

    fn turn_off(&self, id: VmId) -> Result<()> {
        self.with(id, |vm| {
            vm.state = VmState::ShutOff(ShutoffReason::Shutdown);
            Ok(())
        })
    }

    /// As QEMU does below a VM that runs, and at its end before this returns.
    fn begin_merge(&self, id: VmId, _disk: &DiskTarget, top: &Path, base: &Path) -> Result<()> {
        let text = |path: &Path| path.to_str().expect("paths of tests are text").to_owned();
        let active = self.with(id, |vm| Ok(vm.form.disk.clone()))?;
        qemu_img(&["commit", "-q", "-f", "qcow2", "-d", "-b", &text(base), &text(top)])?;
        let below = base.file_name().and_then(|name| name.to_str()).expect("a name");
        qemu_img(&["rebase", "-q", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", &text(&active)])
    }

    fn merging(&self, _id: VmId, _disk: &DiskTarget) -> Result<Option<(u64, u64)>> {
        Ok(None)
    }

    fn end_merge(&self, _id: VmId, _disk: &DiskTarget) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _id: VmId) -> Result<()> {
        Ok(())
    }

    fn screen(&self, _id: VmId) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn addresses(&self, _id: VmId, _deadline: Duration) -> Result<Vec<GuestAddress>> {
        Ok(Vec::new())
    }

    fn watch(&self, _notify: Box<dyn Fn(Happening) + Send + Sync>) -> Result<()> {
        Ok(())
    }
}

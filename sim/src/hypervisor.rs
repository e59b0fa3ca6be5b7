//! The hypervisor of a simulated host: one disk for each VM, in memory while the VM runs and in a real qcow2 file, with its
//! bitmaps, while it is off. Definitions are in [`crate::form`].

#[cfg(test)]
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{DiskTarget, VmId};
use hypervisor::{
    BackupRequest, CHECKPOINT_PREFIX, DiskWrapper, GuestAddress, Happening, HostFacts, Hypervisor,
    HypervisorError, Identity, ImageSize, OpenBackup, OpenDisk, Placement, Result, ShutoffReason, VmFacts,
    VmState,
};
use tokio::runtime::Handle;

use crate::Sabotage;
use crate::bitmaps::Bitmap;
use crate::export::{Export, Server};
use crate::form::{Form, disk, facts_of, read_form};
use crate::image::{self, CLUSTER, CLUSTERS, Content};
use crate::machine::Machine;
use crate::witness::Witness;

struct Checkpoint {
    name: String,
    /// The file that has its bitmap.
    file: PathBuf,
    /// What was written from it on until the next.
    marks: BTreeSet<usize>,
}

struct Vm {
    form: Form,
    state: VmState,
    /// While it is active.
    content: Content,
    /// Written since it started.
    touched: BTreeSet<usize>,
    checkpoints: Vec<Checkpoint>,
    job: Option<(Server, OpenBackup)>,
    /// A merge of its files is under way.
    merges: bool,
    autostart: bool,
}

/// May this VM start here? The start hook's answer.
type Hook = Arc<dyn Fn(VmId) -> std::result::Result<(), String> + Send + Sync>;

/// Somebody who wants to know what happens, and where that one lives.
type Bell = (Handle, Arc<dyn Fn(Happening) + Send + Sync>);

/// How long a guest takes to shut down.
const SHUTS_DOWN: Duration = Duration::from_secs(1);
/// Pause between two looks of a start that hangs, of the machine's time: on a busy machine one that wakes often is taken for one that works.
const HANGS_FOR: Duration = Duration::from_millis(50);

/// A host's hypervisor; it outlives the daemons.
pub(crate) struct SimHypervisor(Arc<Inner>);

struct Inner {
    host: usize,
    sabotage: Option<Sabotage>,
    machine: Arc<Machine>,
    witness: Arc<Witness>,
    vms: Mutex<BTreeMap<VmId, Vm>>,
    bells: Mutex<Vec<Bell>>,
    hook: Mutex<Option<Hook>>,
    /// Of a hundred verbs, how many fail.
    fails: Mutex<(u8, fastrand::Rng)>,
    /// Merges end before they have merged anything.
    cannot_merge: AtomicBool,
    /// A merge that has begun stands still.
    merges_stall: AtomicBool,
    /// A start that has begun hangs.
    starts_hang: AtomicBool,
    /// QEMU does not come up.
    starts_fail: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(verb: &'static str, detail: impl ToString) -> HypervisorError {
    HypervisorError::Failed { verb, detail: detail.to_string() }
}

impl Clone for SimHypervisor {
    fn clone(&self) -> Self {
        SimHypervisor(Arc::clone(&self.0))
    }
}

impl SimHypervisor {
    pub(crate) fn new(
        (host, sabotage): (usize, Option<Sabotage>),
        machine: Arc<Machine>,
        witness: Arc<Witness>,
        seed: u64,
    ) -> SimHypervisor {
        SimHypervisor(Arc::new(Inner {
            host,
            sabotage,
            machine,
            witness,
            vms: Mutex::default(),
            bells: Mutex::default(),
            hook: Mutex::default(),
            fails: Mutex::new((0, fastrand::Rng::with_seed(seed))),
            cannot_merge: AtomicBool::new(false),
            merges_stall: AtomicBool::default(),
            starts_hang: AtomicBool::default(),
            starts_fail: AtomicBool::default(),
        }))
    }

    pub(crate) fn set_hook(&self, hook: Hook) {
        *locked(&self.0.hook) = Some(hook);
    }

    /// From now on so many of a hundred verbs fail.
    pub(crate) fn fail(&self, percent: u8) {
        locked(&self.0.fails).0 = percent;
    }

    /// The daemon that listened is gone.
    pub(crate) fn forget_listeners(&self) {
        locked(&self.0.bells).clear();
    }

    /// The guest writes a cluster, if it runs.
    pub(crate) fn guest_writes(&self, cluster: usize) {
        for vm in locked(&self.0.vms).values_mut().filter(|vm| vm.state == VmState::Running) {
            let version = {
                let mut seen = self.0.witness.seen();
                seen.versions += 1;
                seen.versions
            };
            vm.content[cluster] = version;
            vm.touched.insert(cluster);
            let missed = self.0.sabotage == Some(Sabotage::BitmapMisses) && version % 8 == 0;
            if let Some(newest) = vm.checkpoints.last_mut().filter(|_| !missed) {
                newest.marks.insert(cluster);
            }
        }
    }

    /// Whether a VM runs here.
    pub(crate) fn runs(&self) -> bool {
        locked(&self.0.vms).values().any(|vm| vm.state.is_active())
    }

    /// The power fails: VMs are off as they are, and their bitmaps are worth nothing.
    pub(crate) fn cut_power(&self) -> anyhow::Result<()> {
        let mut vms = locked(&self.0.vms);
        for vm in vms.values_mut().filter(|vm| vm.state.is_active()) {
            vm.checkpoints.clear();
            self.0.stop(vm, ShutoffReason::Crashed)?;
        }
        Ok(())
    }
}

impl Inner {
    fn verb(&self, verb: &'static str) -> Result<MutexGuard<'_, BTreeMap<VmId, Vm>>> {
        Machine::expect_life();
        let (percent, chance) = &mut *locked(&self.fails);
        if chance.u8(..100) < *percent {
            return Err(HypervisorError::Unreachable { detail: format!("{verb}: the connection broke") });
        }
        Ok(locked(&self.vms))
    }

    fn ring(&self, happening: Happening) {
        for (home, bell) in locked(&self.bells).iter() {
            let bell = Arc::clone(bell);
            home.spawn(async move { bell(happening) });
        }
    }

    /// Brings what the VM wrote into its file, with the bitmaps.
    fn stop(&self, vm: &mut Vm, reason: ShutoffReason) -> anyhow::Result<()> {
        (vm.job, vm.merges) = (None, false);
        let file = &vm.form.disk;
        image::write(file, &vm.content, &vm.touched)?;
        // As QEMU does when it closes an image.
        self.machine.disk.flush(file)?;
        let own = vm.checkpoints.iter().filter(|checkpoint| checkpoint.file == *file);
        let bitmap = |checkpoint: &Checkpoint| {
            let (name, marks) = (checkpoint.name.clone(), checkpoint.marks.clone());
            Bitmap { name, marks, records: false }
        };
        let mut bitmaps: Vec<Bitmap> = own.map(bitmap).collect();
        if let Some(newest) = bitmaps.last_mut() {
            newest.records = true;
        }
        self.machine.bitmaps.put(file, bitmaps);
        vm.state = VmState::ShutOff(reason);
        vm.touched.clear();
        self.witness.stopped(self.host, vm.content.clone());
        Ok(())
    }

    fn facts(&self, vm: &Vm) -> VmFacts {
        VmFacts { state: vm.state, autostart: vm.autostart, ..facts_of(&vm.form) }
    }
}

fn need<'a>(vms: &'a mut MutexGuard<'_, BTreeMap<VmId, Vm>>, id: VmId) -> Result<&'a mut Vm> {
    vms.get_mut(&id).ok_or(HypervisorError::NoSuchVm { id })
}

impl Hypervisor for SimHypervisor {
    fn host_facts(&self) -> Result<HostFacts> {
        drop(self.0.verb("facts")?);
        Ok(HostFacts {
            hostname: format!("simhost{:02}", self.0.host + 1),
            libvirt_version: "simulated".into(),
            qemu_version: "simulated".into(),
            bridges: Vec::new(),
            networks: Vec::new(),
            machines: vec![("x86_64".into(), "pc-q35-10.0".into())],
            kinds: vec!["qemu".into()],
            loaders: Vec::new(),
            tpm_emulator: false,
            free_memory_bytes: Some(1 << 30),
        })
    }

    fn vms(&self) -> Result<Vec<VmFacts>> {
        Ok(self.0.verb("vms")?.values().map(|vm| self.0.facts(vm)).collect())
    }

    fn vm(&self, id: VmId) -> Result<Option<VmFacts>> {
        Ok(self.0.verb("vm")?.get(&id).map(|vm| self.0.facts(vm)))
    }

    fn vm_state(&self, id: VmId) -> Result<Option<VmState>> {
        Ok(self.0.verb("state")?.get(&id).map(|vm| vm.state))
    }

    fn shut_down(&self, id: VmId, _by_agent: bool) -> Result<()> {
        need(&mut self.0.verb("shutdown")?, id)?;
        let inner = Arc::clone(&self.0);
        self.0.machine.outside.handle.spawn(async move {
            tokio::time::sleep(SHUTS_DOWN).await;
            let mut vms = locked(&inner.vms);
            let Some(vm) = vms.get_mut(&id).filter(|vm| vm.state.is_active()) else { return };
            if let Err(error) = inner.stop(vm, ShutoffReason::Shutdown) {
                inner.witness.seen().wrong.push(format!("the simulation failed: {error:#}"));
            }
            drop(vms);
            inner.ring(Happening::Lifecycle(id));
        });
        Ok(())
    }

    fn start(&self, id: VmId, paused: bool) -> Result<()> {
        drop(self.0.verb("start")?);
        let hook = locked(&self.0.hook).clone();
        if let Some(hook) = hook.filter(|_| self.0.sabotage != Some(Sabotage::NoHook)) {
            hook(id).map_err(|why| failed("start", why))?;
        }
        while self.0.starts_hang.load(Ordering::SeqCst) {
            Machine::expect_life();
            std::thread::sleep(HANGS_FOR);
        }
        if self.0.starts_fail.load(Ordering::SeqCst) {
            return Err(failed("start", "the process exited while connecting to its monitor"));
        }
        let mut vms = locked(&self.0.vms);
        let vm = need(&mut vms, id)?;
        if vm.state.is_active() {
            return Err(failed("start", "the domain is running already"));
        }
        vm.content = image::read(&vm.form.disk).map_err(|error| failed("start", format!("{error:#}")))?;
        vm.touched.clear();
        vm.state = if paused { VmState::Paused } else { VmState::Running };
        self.0.witness.starts(self.0.host, &vm.content);
        drop(vms);
        self.0.ring(Happening::Lifecycle(id));
        Ok(())
    }

    fn resume(&self, id: VmId) -> Result<()> {
        let mut vms = self.0.verb("resume")?;
        let vm = need(&mut vms, id)?;
        if !vm.state.is_active() {
            return Err(failed("resume", "the domain is not running"));
        }
        vm.state = VmState::Running;
        Ok(())
    }

    fn define(&self, definition: &str) -> Result<()> {
        let form = read_form(definition)?;
        let id = form.id.into();
        let mut vms = self.0.verb("define")?;
        match vms.get_mut(&id) {
            Some(vm) => vm.form = form,
            None => {
                let vm = Vm {
                    form,
                    state: VmState::ShutOff(ShutoffReason::Unknown),
                    content: vec![0; CLUSTERS],
                    touched: BTreeSet::new(),
                    checkpoints: Vec::new(),
                    job: None,
                    merges: false,
                    autostart: false,
                };
                vms.insert(id, vm);
            }
        }
        drop(vms);
        self.0.ring(Happening::Definition(id));
        Ok(())
    }

    fn undefine(&self, id: VmId) -> Result<()> {
        let mut vms = self.0.verb("undefine")?;
        if vms.get(&id).is_some_and(|vm| vm.state.is_active()) {
            return Err(failed("undefine", "the domain is running"));
        }
        vms.remove(&id);
        Ok(())
    }

    fn begin_backup(&self, id: VmId, request: &BackupRequest) -> Result<OpenBackup> {
        let mut vms = self.0.verb("backup")?;
        let vm = need(&mut vms, id)?;
        if !vm.state.is_active() {
            return Err(failed("backup", "the domain is not running"));
        }
        if vm.job.is_some() {
            return Err(HypervisorError::Busy { detail: "a backup job is open".into() });
        }
        let dirty = match &request.since {
            None => Vec::new(),
            Some(since) => {
                let from = vm.checkpoints.iter().position(|it| it.name == *since && it.file == vm.form.disk);
                let unusable = || HypervisorError::CheckpointUnusable {
                    name: since.clone(),
                    detail: "its bitmap is missing".into(),
                };
                let from = from.ok_or_else(unusable)?;
                let marks = vm.checkpoints[from..].iter().flat_map(|it| it.marks.iter().copied()).collect();
                vec![("qemu:dirty-bitmap:backup-vda".to_owned(), marks)]
            }
        };
        let open = OpenBackup {
            socket: request.socket.clone(),
            disks: vec![OpenDisk {
                target: disk(),
                export: "vda".into(),
                dirty_context: dirty.first().map(|(name, _)| name.clone()),
            }],
        };
        let export = Export { content: vm.content.clone(), dirty };
        let server = Server::start(&self.0.machine.outside, &request.socket, export)
            .map_err(|error| failed("backup", error))?;
        if let Some(name) = &request.checkpoint {
            self.0.witness.seen().moments.insert(name.clone(), vm.content.clone());
            let marks = BTreeSet::new();
            vm.checkpoints.push(Checkpoint { name: name.clone(), file: vm.form.disk.clone(), marks });
        }
        vm.job = Some((server, open.clone()));
        Ok(open)
    }

    fn open_backup(&self, id: VmId) -> Result<Option<OpenBackup>> {
        let mut vms = self.0.verb("open backup")?;
        Ok(need(&mut vms, id)?.job.as_ref().map(|(_, open)| open.clone()))
    }

    fn end_backup(&self, id: VmId) -> Result<()> {
        let mut vms = self.0.verb("end backup")?;
        need(&mut vms, id)?.job = None;
        Ok(())
    }

    fn create_checkpoint(&self, id: VmId, name: &str, _disks: &[DiskTarget]) -> Result<()> {
        let mut vms = self.0.verb("checkpoint")?;
        let vm = need(&mut vms, id)?;
        if !vm.state.is_active() {
            return Err(failed("checkpoint", "the domain is not running"));
        }
        self.0.witness.seen().moments.insert(name.to_owned(), vm.content.clone());
        let (file, marks) = (vm.form.disk.clone(), BTreeSet::new());
        vm.checkpoints.push(Checkpoint { name: name.to_owned(), file, marks });
        Ok(())
    }

    fn create_checkpoint_offline(&self, id: VmId, name: &str, _disks: &[DiskTarget]) -> Result<()> {
        let mut vms = self.0.verb("checkpoint")?;
        let vm = need(&mut vms, id)?;
        if vm.state.is_active() {
            return Err(failed("checkpoint", "the domain is running"));
        }
        let file = vm.form.disk.clone();
        let content = image::read(&file).map_err(|error| failed("checkpoint", format!("{error:#}")))?;
        self.0.machine.bitmaps.add(&file, name);
        self.0.witness.seen().moments.insert(name.to_owned(), content);
        vm.checkpoints.push(Checkpoint { name: name.to_owned(), file, marks: BTreeSet::new() });
        Ok(())
    }

    fn checkpoints(&self, id: VmId) -> Result<Vec<String>> {
        let mut vms = self.0.verb("checkpoints")?;
        Ok(need(&mut vms, id)?.checkpoints.iter().map(|it| it.name.clone()).collect())
    }

    fn delete_checkpoint(&self, id: VmId, name: &str) -> Result<()> {
        let mut vms = self.0.verb("delete checkpoint")?;
        let vm = need(&mut vms, id)?;
        let Some(place) = vm.checkpoints.iter().position(|it| it.name == name) else { return Ok(()) };
        let gone = vm.checkpoints.remove(place);
        if vm.state.is_active() {
            if let Some(older) = place.checked_sub(1) {
                vm.checkpoints[older].marks.extend(gone.marks);
            }
            return Ok(());
        }
        self.0.machine.bitmaps.remove(&gone.file, name);
        Ok(())
    }

    fn changed_bytes(&self, id: VmId, checkpoint: &str) -> Result<Option<u64>> {
        let mut vms = self.0.verb("changed bytes")?;
        let vm = need(&mut vms, id)?;
        let from = vm.checkpoints.iter().position(|it| it.name == checkpoint && vm.state.is_active());
        Ok(from.map(|from| {
            let marks: BTreeSet<usize> =
                vm.checkpoints[from..].iter().flat_map(|it| it.marks.iter().copied()).collect();
            (marks.len() * CLUSTER) as u64
        }))
    }

    fn set_autostart(&self, id: VmId, autostart: bool) -> Result<()> {
        need(&mut self.0.verb("autostart")?, id).map(|vm| vm.autostart = autostart)
    }

    fn asks_guard(&self) -> Result<Option<bool>> {
        Ok(Some(true))
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
        let mut form = read_form(definition)?;
        if VmId::from(form.id) != placement.vm {
            return Err(HypervisorError::Definition { reason: "it is of another VM".into() });
        }
        if let Some((_, path)) = placement.disks.first() {
            form.disk = path.clone();
        }
        Ok(facts_of(&form).definition)
    }

    fn read_definition(&self, definition: &str) -> Result<VmFacts> {
        read_form(definition).map(|form| facts_of(&form))
    }

    fn same_definition(&self, one: &str, other: &str) -> Result<bool> {
        Ok(read_form(one)? == read_form(other)?)
    }

    fn cpu_obstacle(&self, _definition: &str) -> Result<Option<String>> {
        Ok(None)
    }

    fn boot_file_available(&self, _path: &Path) -> bool {
        false
    }

    fn image_size(&self, path: &Path, _format: &str) -> Result<ImageSize> {
        drop(self.0.verb("image size")?);
        let length = std::fs::metadata(path)
            .map_err(|error| HypervisorError::Image { path: path.to_owned(), detail: error.to_string() })?;
        Ok(ImageSize { virtual_bytes: (CLUSTERS * CLUSTER) as u64, allocated_bytes: length.len() })
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
        let mut vms = self.0.verb("turn off")?;
        let vm = need(&mut vms, id)?;
        if vm.state.is_active() {
            self.0
                .stop(vm, ShutoffReason::Destroyed)
                .map_err(|error| failed("turn off", format!("{error:#}")))?;
        }
        Ok(())
    }

    /// Is done at once; or nothing is merged, as by QEMU's job when it has no room, or it stands still, as it does when the disk does.
    fn begin_merge(&self, id: VmId, _disk: &DiskTarget, top: &Path, base: &Path) -> Result<()> {
        let mut vms = self.0.verb("merge")?;
        let vm = need(&mut vms, id)?;
        if !vm.state.is_active() {
            return Err(failed("merge", "the domain is not running"));
        }
        if self.0.merges_stall.load(Ordering::SeqCst) {
            vm.merges = true;
            return Ok(());
        }
        if self.0.cannot_merge.load(Ordering::SeqCst) {
            return Ok(());
        }
        let merged = image::merge(&vm.form.disk, top, base);
        let changed = merged.map_err(|error| failed("merge", format!("{error:#}")))?;
        [base, changed.as_path()]
            .into_iter()
            .try_for_each(|file| self.0.machine.disk.flush(file))
            .map_err(|error| failed("merge", error))
    }

    fn merging(&self, id: VmId, _disk: &DiskTarget) -> Result<Option<(u64, u64)>> {
        let merges = need(&mut self.0.verb("merging")?, id)?.merges;
        Ok(merges.then_some((0, CLUSTER as u64)))
    }

    fn end_merge(&self, id: VmId, _disk: &DiskTarget) -> Result<()> {
        need(&mut self.0.verb("end merge")?, id)?.merges = false;
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

    fn watch(&self, notify: Box<dyn Fn(Happening) + Send + Sync>) -> Result<()> {
        drop(self.0.verb("watch")?);
        locked(&self.0.bells).push((Handle::current(), Arc::from(notify)));
        Ok(())
    }
}

/// The name of the checkpoint that is made for a point.
pub(crate) fn checkpoint_of(point: domain::PointId) -> String {
    format!("{CHECKPOINT_PREFIX}{point}")
}

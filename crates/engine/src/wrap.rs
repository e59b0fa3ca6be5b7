//! Raw disks behind wrappers, so that their changes can be tracked, and out of them again. Both only while the VM is off, and
//! both change only the definition: the raw disk is never written here, and either definition shows the guest the same bytes.
//!
//! ```text
//! wrap     make the wrapper ─▶ store ─▶ define        cut short: made anew by the next wrap
//! unwrap   define ─▶ off? ─▶ delete ─▶ store          cut short: finished by the next unwrap
//! ```
//! NOT a conversion: no data moves, and what a disk is on the replica server has nothing to do with it.

use std::path::PathBuf;

use domain::{DiskTarget, Notice, Role, vm_argument};
use hypervisor::{DiskWrapper, Obstacle, ShutoffReason, VmFacts, VmState};
use layer::Wrapper;
use store::WrappedDisk;

use crate::events::Number;
use crate::seen::{Seen, SeenDisk};
use crate::{Code, Engine, Refusal, Result, blocking, replica};

/// A VM that is off, and the disks of it that are wrapped or unwrapped.
#[derive(Clone, Debug)]
pub struct DisksToMove {
    facts: VmFacts,
    disks: Vec<WrappedDisk>,
}

impl DisksToMove {
    /// Each disk: its target, the raw disk, the wrapper.
    pub fn iter(&self) -> impl Iterator<Item = (&DiskTarget, &PathBuf, &PathBuf)> {
        self.disks.iter().map(|disk| (&disk.target, &disk.data, &disk.file))
    }

    /// The VM's name.
    #[must_use]
    pub fn vm(&self) -> &str {
        &self.facts.name
    }
}

impl Engine {
    /// Lets the wrappers that this host made pass the gate for images.
    pub(crate) fn trust_wrappers(&self) -> Result<()> {
        for disk in self.store().wrappers().map_err(Refusal::failed)? {
            Wrapper { file: disk.file, data: disk.data }.trust();
        }
        Ok(())
    }

    /// The raw disks of a VM, by its name or UUID, if they can be wrapped now.
    pub async fn disks_to_wrap(&self, named: &str) -> Result<DisksToMove> {
        let facts = self.vm_that_is_off(named, "wrap-raw-disks").await?;
        if let Ok(record) = self.find(&facts.id.to_string()) {
            self.must_be_idle(&record)?;
            if record.relationship.role() == Role::Replica {
                let found = format!(
                    "this host is the replica server of VM {:?}, which has no raw disk here",
                    facts.name
                );
                let primary = self.peer_name(&record);
                let cure = format!("on {primary}: virt-replica wrap-raw-disks {}", vm_argument(&facts.name));
                return Err(Refusal::new(Code::Refused, found, cure));
            }
        }
        let storage = replica::storage(self)?;
        let raw = facts.obstacles.iter().filter_map(|obstacle| match obstacle {
            Obstacle::Raw { target, is_device } => Some((target, *is_device)),
            _ => None,
        });
        let disks: Vec<WrappedDisk> = raw
            .filter_map(|(target, is_device)| {
                let disk = facts.disks.iter().find(|disk| disk.target.as_str() == target)?;
                let (target, data) = (disk.target.clone(), disk.source.clone());
                let file = Wrapper::of(&storage, facts.id, &target, data.clone()).file;
                Some(WrappedDisk { vm: facts.id, target, file, data, is_device })
            })
            .collect();
        if disks.is_empty() {
            let found = format!("VM {:?} has no raw disk; nothing was changed", facts.name);
            return Err(Refusal::new(
                Code::Refused,
                found,
                format!("virsh domblklist --details {}", vm_argument(&facts.name)),
            ));
        }
        Ok(DisksToMove { facts, disks })
    }

    /// Wraps them.
    pub async fn wrap(&self, wanted: DisksToMove) -> Result<()> {
        let DisksToMove { facts, disks } = wanted;
        let mut definition = facts.definition.clone();
        for disk in &disks {
            let (wrapper, storage) = (wrapper_of(disk), replica::storage(self)?);
            let made = blocking(move || wrapper.create(&storage).map_err(Refusal::failed)).await;
            made.map_err(|error| {
                let cure = format!("virsh domblklist --details {}", vm_argument(&facts.name));
                Refusal::new(
                    Code::Refused,
                    format!("disk {} cannot be wrapped: {}", disk.target, error.detail),
                    cure,
                )
            })?;
            self.store().keep_wrapper(disk).map_err(Refusal::failed)?;
            let place = place_of(disk);
            definition = self.hypervisor(move |it| it.wrap_disk(&definition, &place)).await?;
        }
        self.reach("wrap.made").await;
        self.hypervisor(move |it| it.define(&definition)).await?;
        let targets: Vec<&str> = disks.iter().map(|disk| disk.target.as_str()).collect();
        let text = format!("raw disks {} are behind wrappers now, and can be replicated", targets.join(", "));
        self.event(Number::CarriedOver, &facts.name, text);
        Ok(())
    }

    /// The wrapped disks of a VM, if they can be unwrapped now.
    pub async fn disks_to_unwrap(&self, named: &str) -> Result<DisksToMove> {
        let facts = self.vm_that_is_off(named, "unwrap-raw-disks").await?;
        if let Ok(record) = self.find(&facts.id.to_string()) {
            let vm = vm_argument(&facts.name);
            let found =
                format!("VM {:?} is replicated, and its replication stands on the wrappers", facts.name);
            return Err(Refusal::new(
                Code::Refused,
                found,
                format!(
                    "virt-replica remove {vm}, then virt-replica unwrap-raw-disks {}",
                    vm_argument(&record.relationship.vm_name)
                ),
            ));
        }
        let mut disks = self.store().wrappers().map_err(Refusal::failed)?;
        disks.retain(|disk| disk.vm == facts.id);
        let strayed = disks.iter().find(|disk| {
            facts
                .disks
                .iter()
                .any(|it| it.target == disk.target && it.source != disk.file && it.source != disk.data)
        });
        if let Some(disk) = strayed {
            let (vm, file) = (vm_argument(&facts.name), disk.file.display());
            let found = format!(
                "disk {} is written to another file now, which stands on the wrapper or has nothing to do with it",
                disk.target
            );
            return Err(Refusal::new(
                Code::Refused,
                found,
                format!(
                    "merge it into {file}: start the VM, then virsh blockcommit {vm} {} --base {file} --active --pivot --wait",
                    disk.target
                ),
            ));
        }
        if disks.is_empty() {
            let found = format!("no disk of VM {:?} was wrapped here; nothing was changed", facts.name);
            return Err(Refusal::new(
                Code::Refused,
                found,
                format!("virsh domblklist --details {}", vm_argument(&facts.name)),
            ));
        }
        Ok(DisksToMove { facts, disks })
    }

    /// Unwraps them.
    pub async fn unwrap(&self, wanted: DisksToMove) -> Result<()> {
        let DisksToMove { facts, disks } = wanted;
        let vm = facts.id;
        let mut definition = facts.definition.clone();
        let on_wrapper = |disk: &WrappedDisk| {
            facts.disks.iter().any(|it| it.target == disk.target && it.source == disk.file)
        };
        let moved: Vec<DiskWrapper> = disks.iter().filter(|disk| on_wrapper(disk)).map(place_of).collect();
        if !moved.is_empty() {
            definition = self
                .hypervisor(move |it| {
                    moved.iter().try_fold(definition, |definition, place| it.unwrap_disk(&definition, place))
                })
                .await?;
            self.hypervisor(move |it| it.define(&definition)).await?;
        }
        self.reach("unwrap.defined").await;
        if self.hypervisor(move |it| it.vm_state(vm)).await?.is_some_and(VmState::is_active) {
            return Err(must_be_off(&facts, "unwrap-raw-disks"));
        }
        for disk in disks {
            let wrapper = wrapper_of(&disk);
            blocking(move || wrapper.delete().map_err(Refusal::failed)).await?;
            self.store().forget_wrapper(vm, &disk.target).map_err(Refusal::failed)?;
        }
        self.event(Number::CarriedOver, &facts.name, "its raw disks are out of their wrappers");
        Ok(())
    }

    async fn vm_that_is_off(&self, named: &str, verb: &str) -> Result<VmFacts> {
        let facts = self.vm_named(named).await?.ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("there is no VM {named:?} on this host"), "virsh list --all")
        })?;
        match facts.state {
            VmState::ShutOff(ShutoffReason::Saved) => {
                let found = format!("the memory of VM {:?} was saved with its disks as they are", facts.name);
                let vm = vm_argument(&facts.name);
                Err(Refusal::new(
                    Code::Refused,
                    found,
                    format!("virsh start {vm}; virsh shutdown {vm}; then virt-replica {verb} {vm}"),
                ))
            }
            VmState::ShutOff(_) => Ok(facts),
            _ => Err(must_be_off(&facts, verb)),
        }
    }
}

fn must_be_off(facts: &VmFacts, verb: &str) -> Refusal {
    let vm = vm_argument(&facts.name);
    let found = format!("VM {:?} runs: where its disks are can change only while it is off", facts.name);
    Refusal::new(
        Code::Refused,
        found,
        format!("virsh shutdown {vm}; when it is off: virt-replica {verb} {vm}"),
    )
}

fn wrapper_of(disk: &WrappedDisk) -> Wrapper {
    Wrapper { file: disk.file.clone(), data: disk.data.clone() }
}

fn place_of(disk: &WrappedDisk) -> DiskWrapper {
    DiskWrapper {
        target: disk.target.clone(),
        file: disk.file.clone(),
        data: disk.data.clone(),
        is_device: disk.is_device,
    }
}

/// Why both sides must be compared since the last look: a disk grew whose data is not the wrapper's own.
pub(crate) fn grown(before: &Seen, now: &Seen) -> Option<String> {
    let grew = |disk: &&SeenDisk| {
        let old = before.disks.iter().find(|old| old.target == disk.target);
        old.is_some_and(|old| {
            old.file == disk.file && old.size_bytes < disk.size_bytes && old.size_bytes.is_some()
        }) && layer::wrapper(&disk.file).is_some()
    };
    let disk = now.disks.iter().find(grew)?;
    Some(format!("the raw disk {} grew, and its new part need not be empty", disk.target))
}

/// A raw disk that was made larger below its wrapper: the guest does not see it yet.
pub(crate) fn grown_below(facts: &VmFacts) -> Vec<Notice> {
    let mut notices = Vec::new();
    for disk in &facts.disks {
        let Some(wrapper) = layer::wrapper(&disk.source) else { continue };
        let shown = layer::inspect(&disk.source, layer::Gate::Foreign).map(|info| info.virtual_size);
        let (Ok(shown), Ok(there)) = (shown, wrapper.data_size()) else { continue };
        if there == shown {
            continue;
        }
        let (vm, target, file) = (vm_argument(&facts.name), &disk.target, wrapper.file.display());
        let cure = match facts.state.is_active() {
            true => format!(
                "virsh blockresize {vm} {target} {there}B; while a cycle has the disk open it says busy: try again"
            ),
            false => format!("qemu-img resize -f qcow2 {file} {there}"),
        };
        notices.push(Notice {
            severity: domain::Health::Warning,
            what: format!(
                "{} behind disk {target} has {there} bytes, and the guest sees {shown}",
                wrapper.data.display()
            ),
            cure,
        });
    }
    notices
}

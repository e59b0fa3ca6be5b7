//! Checkpoints: a dirty bitmap in each disk, and libvirt's record of it (libvirt's formatcheckpoint.html).
//!
//! While the VM is off, libvirt keeps only the record; the bitmaps in the files are made and removed here.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::{DiskTarget, VmId};
use hypervisor::{CHECKPOINT_PREFIX, HypervisorError, Result, VmFacts};
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};

use crate::definition::tree::{Element, parse};
use crate::error::{is, of_vm};
use crate::image;
use crate::raw::Checkpoint;

/// Deletes libvirt's record and leaves the bitmaps alone.
const RECORD_ONLY: u32 = virt_sys::VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY;

/// A new checkpoint of these disks; the bitmap has its name. Disks that are not listed take no part.
pub(crate) fn description(name: &str, disks: &[DiskTarget]) -> Element {
    let mut list = Element::new("disks");
    for target in disks {
        let disk = Element::new("disk").with("name", target.as_str()).with("checkpoint", "bitmap");
        list.push(disk.with("bitmap", name));
    }
    Element::new("domaincheckpoint").holding(Element::new("name").saying(name)).holding(list)
}

/// Makes a checkpoint of a VM that is in memory.
pub(crate) fn create(domain: &Domain, id: VmId, name: &str, disks: &[DiskTarget]) -> Result<()> {
    let created = Checkpoint::create(domain, &description(name, disks).to_xml(), 0);
    created.map(drop).map_err(|error| of_vm("checkpoint-create", id, &error))
}

/// Makes a checkpoint of a VM that is off.
pub(crate) fn create_offline(domain: &Domain, vm: &VmFacts, name: &str, disks: &[DiskTarget]) -> Result<()> {
    for disk in vm.disks.iter().filter(|disk| disks.contains(&disk.target)) {
        image::add_bitmap(&disk.source, name)?;
    }
    let known = names(domain, vm.id)?;
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    record(domain, vm, name, disks, known.last()).map(drop)
}

/// Tells libvirt of a checkpoint whose bitmaps exist already.
fn record(
    domain: &Domain,
    vm: &VmFacts,
    name: &str,
    disks: &[DiskTarget],
    parent: Option<&String>,
) -> Result<Checkpoint> {
    let mut record = description(name, disks);
    if let Some(parent) = parent {
        record.push(Element::new("parent").holding(Element::new("name").saying(parent)));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    record.push(Element::new("creationTime").saying(&now.to_string()));
    record.push(parse(&vm.definition)?);
    let redefine = virt_sys::VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE;
    let created = Checkpoint::create(domain, &record.to_xml(), redefine);
    created.map_err(|error| of_vm("checkpoint-create", vm.id, &error))
}

/// Names of all checkpoints, oldest first.
pub(crate) fn names(domain: &Domain, id: VmId) -> Result<Vec<String>> {
    let all = Checkpoint::all(domain).map_err(|error| of_vm("checkpoint-list", id, &error))?;
    Ok(all.iter().map(Checkpoint::name).collect())
}

/// Bytes of all disks of a running VM that changed since; none without such a checkpoint, or when libvirt does not count.
pub(crate) fn changed_bytes(domain: &Domain, id: VmId, name: &str) -> Result<Option<u64>> {
    let found = match Checkpoint::find(domain, name) {
        Err(error) if is(&error, ErrorNumber::NoDomainCheckpoint) => return Ok(None),
        found => found.map_err(|error| of_vm("checkpoint-info", id, &error))?,
    };
    let text = found.xml_with_sizes().map_err(|error| of_vm("checkpoint-dumpxml", id, &error))?;
    sizes(&parse(&text)?)
}

/// The sum over the disks that take part; none if one of them has no size.
fn sizes(checkpoint: &Element) -> Result<Option<u64>> {
    let disks = checkpoint.all("disks").flat_map(|disks| disks.all("disk"));
    let tracked = disks.filter(|disk| disk.get("checkpoint") == Some("bitmap"));
    let sizes: Vec<Option<u64>> = tracked.map(|disk| disk.get("size")?.parse().ok()).collect();
    let sum = sizes.iter().copied().try_fold(0_u64, |sum, size| sum.checked_add(size?));
    Ok(sum.filter(|_| !sizes.is_empty()))
}

/// Deletes one of our checkpoints.
pub(crate) fn delete(domain: &Domain, vm: &VmFacts, name: &str) -> Result<()> {
    if !name.starts_with(CHECKPOINT_PREFIX) {
        let detail = format!("checkpoint {name:?} belongs to another program");
        return Err(HypervisorError::Failed { verb: "checkpoint-delete", detail });
    }
    if !vm.state.is_active() {
        // First the bitmaps: as long as there is a record, a repeated command finds its way here.
        let mut files = vm.disks.iter().filter(|disk| disk.format == "qcow2" && disk.source.exists());
        files.try_for_each(|disk| image::remove_bitmap(&disk.source, name))?;
    }
    let found = match Checkpoint::find(domain, name) {
        Err(error) if is(&error, ErrorNumber::NoDomainCheckpoint) => return Ok(()),
        found => found.map_err(|error| of_vm("checkpoint-info", vm.id, &error))?,
    };
    let failed = |error: Error| of_vm("checkpoint-delete", vm.id, &error);
    if !vm.state.is_active() {
        return found.delete(RECORD_ONLY).map_err(failed);
    }
    match found.delete(0) {
        Err(error) if is(&error, ErrorNumber::InternalError) => {
            tracing::info!(vm = %vm.name, checkpoint = name, %error, "a bitmap is gone; removing those that are left");
            found.delete(RECORD_ONLY).map_err(failed)?;
            delete_each(domain, vm, name)
        }
        other => other.map_err(failed),
    }
}

/// Removes the bitmaps disk by disk: libvirt removes those of a checkpoint only if every one is there.
fn delete_each(domain: &Domain, vm: &VmFacts, name: &str) -> Result<()> {
    for disk in &vm.disks {
        let one = record(domain, vm, name, std::slice::from_ref(&disk.target), None)?;
        if one.delete(0).is_err() {
            one.delete(RECORD_ONLY).map_err(|error| of_vm("checkpoint-delete", vm.id, &error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_bytes_are_summed_and_one_unknown_makes_all_unknown() {
        let sum = |disks: &str| {
            sizes(&parse(&format!("<domaincheckpoint><disks>{disks}</disks></domaincheckpoint>")).unwrap())
                .unwrap()
        };
        let one = "<disk name='vda' checkpoint='bitmap' bitmap='a' size='65536'/>";
        assert_eq!(sum(&format!("{one}<disk name='vdb' checkpoint='bitmap' size='1'/>")), Some(65537));
        assert_eq!(sum(&format!("{one}<disk name='vdb' checkpoint='no'/>")), Some(65536));
        assert_eq!(sum(&format!("{one}<disk name='vdb' checkpoint='bitmap'/>")), None);
        assert_eq!(sum("<disk name='vdb' checkpoint='no'/>"), None);
    }

    #[test]
    fn a_checkpoint_is_described() {
        let disks = ["vda", "sdb"].map(|name| DiskTarget::new(name).unwrap());
        insta::assert_snapshot!(description("vr-1", &disks).to_xml());
    }
}

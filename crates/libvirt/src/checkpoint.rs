//! Checkpoints: a dirty bitmap in each disk, and libvirt's record of it (libvirt's formatcheckpoint.html).
//!
//! While the VM is off, libvirt keeps only the record; the bitmaps in the files are made and removed here.

use std::time::{SystemTime, UNIX_EPOCH};

use domain::{DiskTarget, VmId};
use hypervisor::{CHECKPOINT_PREFIX, DiskFacts, HypervisorError, Result};
use virt::domain::Domain;
use virt::error::ErrorNumber;

use crate::definition::tree::{Element, parse};
use crate::error::{is, of_vm};
use crate::image;
use crate::raw::Checkpoint;

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

/// Makes a checkpoint of a VM that is off; `all` are its disks, `definition` its definition.
pub(crate) fn create_offline(
    domain: &Domain,
    id: VmId,
    name: &str,
    disks: &[DiskTarget],
    all: &[DiskFacts],
    definition: &str,
) -> Result<()> {
    for disk in all.iter().filter(|disk| disks.contains(&disk.target)) {
        image::add_bitmap(&disk.source, name)?;
    }
    if names(domain, id)?.iter().any(|known| known == name) {
        return Ok(());
    }
    let mut record = description(name, disks);
    if let Some(parent) = names(domain, id)?.last() {
        record.push(Element::new("parent").holding(Element::new("name").saying(parent)));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    record.push(Element::new("creationTime").saying(&now.to_string()));
    record.push(parse(definition)?);
    let redefine = virt_sys::VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE;
    let created = Checkpoint::create(domain, &record.to_xml(), redefine);
    created.map(drop).map_err(|error| of_vm("checkpoint-create", id, &error))
}

/// Names of all checkpoints, oldest first.
pub(crate) fn names(domain: &Domain, id: VmId) -> Result<Vec<String>> {
    let all = Checkpoint::all(domain).map_err(|error| of_vm("checkpoint-list", id, &error))?;
    Ok(all.iter().map(Checkpoint::name).collect())
}

/// Deletes one of our checkpoints; `all` are the VM's disks, `active` whether it is in memory.
pub(crate) fn delete(domain: &Domain, id: VmId, name: &str, all: &[DiskFacts], active: bool) -> Result<()> {
    if !name.starts_with(CHECKPOINT_PREFIX) {
        let detail = format!("checkpoint {name:?} belongs to another program");
        return Err(HypervisorError::Failed { verb: "checkpoint-delete", detail });
    }
    if !active {
        // First the bitmaps: as long as there is a record, a repeated command finds its way here.
        let there = all.iter().filter(|disk| disk.format == "qcow2" && disk.source.exists());
        there.map(|disk| image::remove_bitmap(&disk.source, name)).collect::<Result<()>>()?;
    }
    let found = match Checkpoint::find(domain, name) {
        Err(error) if is(&error, ErrorNumber::NoDomainCheckpoint) => return Ok(()),
        found => found.map_err(|error| of_vm("checkpoint-info", id, &error))?,
    };
    let record_only = virt_sys::VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY;
    let deleted = found.delete(if active { 0 } else { record_only });
    match deleted {
        // The bitmap is lost (a crash, somebody's hand): only the record is left to remove.
        Err(error) if active && is(&error, ErrorNumber::CheckpointInconsistent) => found.delete(record_only),
        other => other,
    }
    .map_err(|error| of_vm("checkpoint-delete", id, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_described() {
        let disks = ["vda", "sdb"].map(|name| DiskTarget::new(name).unwrap());
        insta::assert_snapshot!(description("vr-1", &disks).to_xml(), @r"");
    }
}

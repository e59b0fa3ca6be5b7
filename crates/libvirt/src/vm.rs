//! What libvirt says about one VM.

use std::collections::HashSet;

use domain::VmId;
use hypervisor::{HypervisorError, Obstacle, Result, ShutoffReason, VmFacts, VmState};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::ErrorNumber;

use crate::definition;
use crate::error::{is, of_host, of_vm};
use crate::raw;

/// All facts.
pub(crate) fn facts(domain: &Domain) -> Result<VmFacts> {
    let id = VmId(domain.uuid().map_err(|error| of_host("domuuid", &error))?);
    let persistent = domain.is_persistent().map_err(|error| of_vm("dumpxml", id, &error))?;
    let mut facts = outline(domain, id, state(domain, id)?, persistent)?;
    facts.autostart = domain.autostart().unwrap_or(false);
    Ok(facts)
}

/// All facts but why it is off, unless `state` tells, and whether it starts by itself.
fn outline(domain: &Domain, id: VmId, state: VmState, persistent: bool) -> Result<VmFacts> {
    let failed = |error: virt::error::Error| of_vm("dumpxml", id, &error);
    let inactive = virt_sys::VIR_DOMAIN_XML_INACTIVE | virt_sys::VIR_DOMAIN_XML_SECURE;
    let mut facts = definition::read(&domain.xml_desc(inactive).map_err(failed)?)?;
    facts.state = state;
    if facts.state.is_active() {
        // The definition may differ from what runs (an edit, an external snapshot); what is written to is what counts.
        facts.disks = definition::disks_of(&domain.xml_desc(0).map_err(failed)?)?;
    }
    if !persistent {
        facts.obstacles.push(Obstacle::NotPersistent);
    }
    Ok(facts)
}

/// The VM, if it is there.
pub(crate) fn find(connect: &Connect, id: VmId) -> Result<Option<Domain>> {
    match connect.lookup_domain_by_uuid(id.0) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is(&error, ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(of_vm("domid", id, &error)),
    }
}

/// VMs of the host by their ids, all of which libvirt tells in one answer.
pub(crate) fn all(connect: &Connect, flags: u32) -> Result<Vec<(VmId, Domain)>> {
    let failed = |error| of_host("list", &error);
    let all = connect.list_all_domains(flags).map_err(failed)?;
    all.into_iter().map(|found| Ok((VmId(found.uuid().map_err(failed)?), found))).collect()
}

/// So many are asked about one by one: libvirt's lists name every VM of the host, wanted or not.
const FEW: usize = 64;

/// Those of these VMs that are there, as a list shows them.
pub(crate) fn outlines(connect: &Connect, wanted: &HashSet<VmId>) -> Result<Vec<VmFacts>> {
    if wanted.len() > FEW { of_many(connect, wanted) } else { of_few(connect, wanted) }
}

fn of_few(connect: &Connect, wanted: &HashSet<VmId>) -> Result<Vec<VmFacts>> {
    let one = |id: VmId| {
        let Some(domain) = find(connect, id)? else { return Ok(None) };
        let persistent = domain.is_persistent().map_err(|error| of_vm("dumpxml", id, &error))?;
        outline(&domain, id, state(&domain, id)?, persistent).map(Some)
    };
    let found = wanted.iter().map(|id| if_there(one(*id)).map(Option::flatten));
    found.filter_map(Result::transpose).collect()
}

/// Asking libvirt four times about each of a thousand takes too long.
fn of_many(connect: &Connect, wanted: &HashSet<VmId>) -> Result<Vec<VmFacts>> {
    let ids =
        |flag| -> Result<HashSet<VmId>> { Ok(all(connect, flag)?.into_iter().map(|(id, _)| id).collect()) };
    let off = ids(virt_sys::VIR_CONNECT_LIST_DOMAINS_SHUTOFF)?;
    let running = ids(virt_sys::VIR_CONNECT_LIST_DOMAINS_RUNNING)?;
    let transient = ids(virt_sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT)?;
    let found = all(connect, 0)?.into_iter().filter(|(id, _)| wanted.contains(id));
    let outlines = found.map(|(id, domain)| {
        let state = match id {
            id if off.contains(&id) => VmState::ShutOff(ShutoffReason::Unknown),
            id if running.contains(&id) => VmState::Running,
            id => state(&domain, id)?,
        };
        outline(&domain, id, state, !transient.contains(&id))
    });
    outlines.filter_map(|it| if_there(it).transpose()).collect()
}

/// None for a VM that vanished meanwhile.
pub(crate) fn if_there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(HypervisorError::NoSuchVm { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// Only the state. A VM that is being started has passed its start guard before libvirt calls it anything but shut off; libvirt counts it
/// among the active ones from the beginning of that start (`qemuProcessInit`), and so does this: whoever looks after a lock was
/// written sees each start that the guard allowed before it.
pub(crate) fn state(domain: &Domain, id: VmId) -> Result<VmState> {
    let failed = |error| of_vm("domstate", id, &error);
    let (state, reason) = raw::state(domain).map_err(failed)?;
    Ok(match state {
        virt_sys::VIR_DOMAIN_SHUTOFF if domain.is_active().map_err(failed)? => VmState::Paused,
        virt_sys::VIR_DOMAIN_SHUTOFF => VmState::ShutOff(shutoff_reason(reason.unsigned_abs())),
        virt_sys::VIR_DOMAIN_PAUSED | virt_sys::VIR_DOMAIN_CRASHED => VmState::Paused,
        _ => VmState::Running,
    })
}

fn shutoff_reason(reason: u32) -> ShutoffReason {
    match reason {
        virt_sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => ShutoffReason::Shutdown,
        virt_sys::VIR_DOMAIN_SHUTOFF_DESTROYED => ShutoffReason::Destroyed,
        virt_sys::VIR_DOMAIN_SHUTOFF_CRASHED => ShutoffReason::Crashed,
        virt_sys::VIR_DOMAIN_SHUTOFF_MIGRATED => ShutoffReason::Migrated,
        virt_sys::VIR_DOMAIN_SHUTOFF_SAVED => ShutoffReason::Saved,
        virt_sys::VIR_DOMAIN_SHUTOFF_FAILED => ShutoffReason::Failed,
        _ => ShutoffReason::Unknown,
    }
}

/// Turns it off without asking the guest.
pub(crate) fn turn_off(domain: &Domain, id: VmId) -> Result<()> {
    if state(domain, id)?.is_active()
        && let Err(error) = domain.destroy()
        && state(domain, id)?.is_active()
    {
        return Err(of_vm("destroy", id, &error));
    }
    Ok(())
}

/// Turns it off without asking the guest, and forgets it with the files that libvirt keeps for it.
pub(crate) fn discard(domain: &Domain, id: VmId) -> Result<()> {
    turn_off(domain, id)?;
    let flags = virt_sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | virt_sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | virt_sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | virt_sys::VIR_DOMAIN_UNDEFINE_NVRAM
        | virt_sys::VIR_DOMAIN_UNDEFINE_TPM;
    domain.undefine_flags(flags).map(drop).map_err(|error| of_vm("undefine", id, &error))
}

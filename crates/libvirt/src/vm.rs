//! What libvirt says about one VM.

use domain::VmId;
use hypervisor::{Obstacle, Result, ShutoffReason, VmFacts, VmState};
use virt::domain::Domain;

use crate::definition;
use crate::error::{of_host, of_vm};
use crate::raw;

/// All facts.
pub(crate) fn facts(domain: &Domain) -> Result<VmFacts> {
    let id = VmId(domain.uuid().map_err(|error| of_host("domuuid", &error))?);
    let failed = |error: virt::error::Error| of_vm("dumpxml", id, &error);
    let inactive = virt_sys::VIR_DOMAIN_XML_INACTIVE | virt_sys::VIR_DOMAIN_XML_SECURE;
    let mut facts = definition::read(&domain.xml_desc(inactive).map_err(failed)?)?;
    facts.state = state(domain, id)?;
    facts.autostart = domain.autostart().unwrap_or(false);
    if facts.state.is_active() {
        // The definition may differ from what runs (an edit, an external snapshot); what is written to is what counts.
        facts.disks = definition::disks_of(&domain.xml_desc(0).map_err(failed)?)?;
    }
    if !domain.is_persistent().map_err(failed)? {
        facts.obstacles.push(Obstacle::NotPersistent);
    }
    Ok(facts)
}

/// Only the state.
pub(crate) fn state(domain: &Domain, id: VmId) -> Result<VmState> {
    let (state, reason) = raw::state(domain).map_err(|error| of_vm("domstate", id, &error))?;
    Ok(match state {
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

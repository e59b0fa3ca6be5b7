//! Whether libvirt asks the start guard. It is tried with a VM that is nothing: no disk, no network, a megabyte of memory, and a name
//! that the guard's script refuses. Where libvirt does not ask, the VM starts, paused, and is turned off before its first instruction.

use domain::GUARD_PROBE;
use hypervisor::Result;
use uuid::Uuid;
use virt::connect::Connect;
use virt::error::ErrorNumber;

use crate::error::{is, of_host};
use crate::host;

/// None: libvirt refused it for another reason, and nothing is known.
pub(crate) fn is_asked(connect: &Connect) -> Result<Option<bool>> {
    let kinds = host::kinds(connect)?;
    // Emulation is to be had by everybody; where a host has it not, the kernel's.
    let Some(kind) = ["qemu", "kvm"].into_iter().find(|kind| kinds.iter().any(|it| it == kind)) else {
        return Ok(None);
    };
    let flags = virt_sys::VIR_DOMAIN_START_PAUSED | virt_sys::VIR_DOMAIN_START_AUTODESTROY;
    match connect.create_domain_xml(&nothing(kind, Uuid::new_v4()), flags) {
        Ok(started) => {
            started.destroy().map_err(|error| of_host("destroy", &error))?;
            Ok(Some(false))
        }
        Err(error) if is(&error, ErrorNumber::HookScriptFailed) => Ok(Some(true)),
        Err(error) => {
            tracing::debug!(error = error.message(), "the start guard could not be tried");
            Ok(None)
        }
    }
}

fn nothing(kind: &str, id: Uuid) -> String {
    format!(
        "<domain type='{kind}'><name>{GUARD_PROBE}{id}</name><uuid>{id}</uuid><memory unit='KiB'>1024</memory><vcpu>1</vcpu>\
         <os><type>hvm</type></os><devices><controller type='usb' model='none'/><memballoon model='none'/></devices></domain>"
    )
}

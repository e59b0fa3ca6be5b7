//! Coming home: what belongs to a host stays on it while the VM is away, and is put back when it returns.

use super::rules::OF_THE_HOST;
use super::tree::{Content, Element};

/// Puts the host's own parts of `local`, the definition it had for the VM, into `domain`.
pub(super) fn bring_home(domain: &mut Element, local: &Element) {
    let mine = local.children().filter(|part| OF_THE_HOST.contains(&part.name.as_str()));
    domain.content.extend(mine.cloned().map(Content::Element));
    if let (Some(here), Some(there)) = (local.child("vcpu"), domain.child_mut("vcpu")) {
        for attribute in ["placement", "cpuset"] {
            if let Some(value) = here.get(attribute) {
                there.set(attribute, value);
            }
        }
    }
    let Some(was) = local.child("devices") else { return };
    let Some(devices) = domain.child_mut("devices") else { return };
    for name in ["graphics", "audio", "serial", "parallel", "console"] {
        let count = was.all(name).count();
        if count > 0 && count == devices.all(name).count() {
            devices.remove(name);
            devices.content.extend(was.all(name).cloned().map(Content::Element));
        }
    }
    // The state of the TPM lies where this host had it.
    let state = was.child("tpm").and_then(|tpm| tpm.child("backend")?.child("source"));
    let backend = devices.children_mut().find(|device| device.name == "tpm");
    if let (Some(state), Some(backend)) = (state, backend.and_then(|tpm| tpm.child_mut("backend"))) {
        backend.push(state.clone());
    }
    for drive in devices.children_mut().filter(|device| is_drive(device)) {
        let target = drive.child_attribute("target", "dev");
        let same = |had: &&Element| is_drive(had) && had.child_attribute("target", "dev") == target;
        if let Some(had) = was.children().find(same) {
            *drive = had.clone();
        }
    }
}

/// A drive for exchangeable media.
fn is_drive(device: &Element) -> bool {
    device.name == "disk" && ["cdrom", "floppy"].contains(&device.get("device").unwrap_or_default())
}

//! Coming home: what belongs to a host stays on it while the VM is away, and is put back when it returns.

use super::place_of;
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
    for drive in devices.children_mut().filter(|device| is_drive(device) || is_disk(device)) {
        let target = drive.child_attribute("target", "dev");
        let same = |had: &&Element| had.name == "disk" && had.child_attribute("target", "dev") == target;
        let had = was.children().find(same);
        match had {
            Some(had) if is_drive(had) || is_left_out(had, drive) => *drive = had.clone(),
            // On the file that it had: so is whatever that says of where its data is.
            Some(had) if is_disk(had) && place_of(had) == place_of(drive) => {
                drive.remove("source");
                drive.content.extend(had.child("source").cloned().map(Content::Element));
            }
            _ => {}
        }
    }
}

/// A disk that was not replicated, back on the file or device that it has here, which need not be a qcow2 file.
fn is_left_out(had: &Element, placed: &Element) -> bool {
    let qcow2 = had.get("type") == Some("file") && had.child_attribute("driver", "type") == Some("qcow2");
    is_disk(had) && !qcow2 && place_of(had) == place_of(placed)
}

fn is_disk(device: &Element) -> bool {
    device.name == "disk" && device.get("device").unwrap_or("disk") == "disk"
}

/// A drive for exchangeable media.
fn is_drive(device: &Element) -> bool {
    device.name == "disk" && ["cdrom", "floppy"].contains(&device.get("device").unwrap_or_default())
}

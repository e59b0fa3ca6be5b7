//! The transform: a definition from elsewhere becomes one that this host may hold and run.

use std::path::Path;

use hypervisor::{HypervisorError, Placement};

use super::tree::{Element, parse};
use super::{devices, host_parts, is_boot_file, is_firmware, refuse, rules};

/// Domain types that are accepted.
const KINDS: [&str; 2] = ["kvm", "qemu"];

/// Makes the definition of this host.
pub(crate) fn place(definition: &str, placement: &Placement) -> Result<String, HypervisorError> {
    let original = parse(definition)?;
    check_root(&original)?;
    let id = original.child("uuid").map(Element::text).and_then(|text| text.parse().ok());
    if id != Some(placement.vm) {
        return Err(refuse(format!("it is not that of VM {}", placement.vm)));
    }
    let mut domain = rules::allowed(&original);
    place_os(&mut domain, placement)?;
    domain.retain(|part| part.name != "sysinfo" || part.get("type") == Some("smbios"));
    if let Some(all) = domain.child_mut("devices") {
        devices::place(all, placement)?;
    }
    if let Some(local) = &placement.local_definition {
        host_parts::bring_home(&mut domain, &parse(local)?);
    }
    Ok(domain.to_xml() + "\n")
}

fn check_root(domain: &Element) -> Result<(), HypervisorError> {
    if domain.name != "domain" || domain.namespace.is_some() {
        return Err(refuse(format!("its root is <{}>, not <domain>", domain.name)));
    }
    if !KINDS.contains(&domain.get("type").unwrap_or_default()) {
        return Err(refuse("its domain type is neither kvm nor qemu"));
    }
    // libvirt takes the first; two would let a reader and libvirt disagree.
    for once in ["name", "uuid", "os", "devices"] {
        if domain.all(once).count() != 1 {
            return Err(refuse(format!("it must have exactly one <{once}>")));
        }
    }
    Ok(())
}

/// Firmware and direct boot: paths survive only in the folders for such files; the variable store is ours.
fn place_os(domain: &mut Element, placement: &Placement) -> Result<(), HypervisorError> {
    let Some(os) = domain.child_mut("os") else { return Ok(()) };
    for name in ["kernel", "initrd"] {
        if let Some(path) = os.all(name).map(Element::text).find(|path| !is_boot_file(Path::new(path))) {
            return Err(refuse(format!(
                "it boots from {path:?}; move its <{name}> to /var/lib/libvirt/boot on both hosts"
            )));
        }
    }
    let strange = |path: &String| !path.is_empty() && !is_firmware(Path::new(path));
    if let Some(path) = os.all("loader").map(Element::text).find(strange) {
        return Err(refuse(format!(
            "its firmware {path:?} lies in no folder for firmware; use that of the packages ovmf, qemu-efi-aarch64 or seabios"
        )));
    }
    let had = os.child("nvram").cloned();
    os.remove("nvram");
    let uefi = os.get("firmware") == Some("efi") || os.child_attribute("loader", "type") == Some("pflash");
    if let (Some(path), true) = (&placement.nvram, uefi) {
        os.push(variable_store(had, path)?);
    }
    Ok(())
}

fn variable_store(had: Option<Element>, path: &Path) -> Result<Element, HypervisorError> {
    let mut store = Element::new("nvram").saying(text_of(path)?);
    store.attributes = had.map(|had| had.attributes).unwrap_or_default();
    if store.get("template").is_some_and(|template| !is_firmware(Path::new(template))) {
        store.unset("template");
        store.unset("templateFormat");
    }
    Ok(store)
}

/// A path as text for a definition.
pub(super) fn text_of(path: &Path) -> Result<&str, HypervisorError> {
    let text = path.to_str().filter(|text| path.is_absolute() && !text.chars().any(char::is_control));
    text.ok_or_else(|| refuse(format!("{} is no absolute path of plain text", path.display())))
}

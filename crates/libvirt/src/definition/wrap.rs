//! A raw disk in a definition moves behind a wrapper, and back. Only where the disk is changes; what the guest sees of it,
//! and how it is cached, stays.

use hypervisor::{DiskWrapper, HypervisorError};

use super::place::text_of;
use super::tree::{Element, parse};
use super::{place_of, refuse};

/// The definition with the disk on its wrapper.
pub(crate) fn wrap(definition: &str, wrapper: &DiskWrapper) -> Result<String, HypervisorError> {
    let data = data_source(wrapper)?;
    // Named in the stored definition too, so that who reads it sees where the data is.
    let store = Element::new("dataStore")
        .with("type", kind(wrapper))
        .holding(Element::new("format").with("type", "raw"))
        .holding(data.clone());
    let source = Element::new("source").with("file", text_of(&wrapper.file)?).holding(store);
    moved(definition, wrapper, &data, ("file", "qcow2", source))
}

/// The definition with the raw disk itself.
pub(crate) fn unwrap(definition: &str, wrapper: &DiskWrapper) -> Result<String, HypervisorError> {
    let source = Element::new("source").with("file", text_of(&wrapper.file)?);
    moved(definition, wrapper, &source, (kind(wrapper), "raw", data_source(wrapper)?))
}

fn kind(wrapper: &DiskWrapper) -> &'static str {
    if wrapper.is_device { "block" } else { "file" }
}

fn data_source(wrapper: &DiskWrapper) -> Result<Element, HypervisorError> {
    let attribute = if wrapper.is_device { "dev" } else { "file" };
    Ok(Element::new("source").with(attribute, text_of(&wrapper.data)?))
}

/// Moves the disk that is on `from` now.
fn moved(
    definition: &str,
    wrapper: &DiskWrapper,
    from: &Element,
    (kind, format, source): (&str, &str, Element),
) -> Result<String, HypervisorError> {
    let mut domain = parse(definition)?;
    let from = from.get("file").or(from.get("dev"));
    let is_it = |disk: &&mut Element| {
        disk.name == "disk"
            && disk.child_attribute("target", "dev") == Some(wrapper.target.as_str())
            && place_of(disk) == from
    };
    let disk = domain.child_mut("devices").and_then(|devices| devices.children_mut().find(is_it));
    let disk = disk.ok_or_else(|| {
        refuse(format!("its disk {} is not on {}", wrapper.target, from.unwrap_or_default()))
    })?;
    disk.set("type", kind);
    match disk.child_mut("driver") {
        Some(driver) => driver.set("type", format),
        None => disk.push(Element::new("driver").with("name", "qemu").with("type", format)),
    }
    if let Some(place) = disk.child_mut("source") {
        *place = source;
    }
    // libvirt finds out by itself what is below.
    disk.remove("backingStore");
    Ok(domain.to_xml() + "\n")
}

//! What keeps a VM from being replicated: whatever `place` would leave out although the guest would miss it.

use hypervisor::Obstacle;

use super::rules;
use super::tree::Element;

/// Parts of `<os>` that name files and are not carried.
const LOST_BOOT_PARTS: [&str; 6] = ["init", "initarg", "dtb", "shim", "acpi", "varstore"];

/// All obstacles, in the order of the definition.
pub(super) fn obstacles(domain: &Element, devices: &Element) -> Vec<Obstacle> {
    let parts = domain.children().filter_map(lost_part);
    let boot_parts = domain.all("os").flat_map(Element::children).filter_map(lost_boot_part);
    parts.chain(boot_parts).chain(devices.children().filter_map(device_obstacle)).collect()
}

/// True for a disk that is replicated, false for drives with exchangeable media.
pub(super) fn is_hard_disk(disk: &Element) -> bool {
    !["cdrom", "floppy"].contains(&disk.get("device").unwrap_or("disk"))
}

fn lost_part(part: &Element) -> Option<Obstacle> {
    let known = rules::knows_part(&part.name) || rules::OF_THE_HOST.contains(&part.name.as_str());
    let lost =
        part.namespace.is_some() || !known || (part.name == "sysinfo" && part.get("type") == Some("fwcfg"));
    let name = if part.namespace.as_deref().is_some_and(|space| space.contains("/qemu/")) {
        format!("<qemu:{}>", part.name)
    } else {
        format!("<{}>", part.name)
    };
    lost.then_some(Obstacle::Unsupported(name))
}

fn lost_boot_part(part: &Element) -> Option<Obstacle> {
    let lost = LOST_BOOT_PARTS.contains(&part.name.as_str());
    lost.then(|| Obstacle::Unsupported(format!("<{}> in <os>", part.name)))
}

fn device_obstacle(device: &Element) -> Option<Obstacle> {
    let kind = device.get("type").unwrap_or_default();
    let backend = device.child_attribute("backend", "model").unwrap_or_default();
    let model = device.get("model").unwrap_or_default();
    let passthrough = |what: &str| Some(Obstacle::Passthrough(what.trim_end().to_owned()));
    let unsupported = |what: String| Some(Obstacle::Unsupported(what));
    match device.name.as_str() {
        "hostdev" => passthrough(&hostdev_name(device, kind)),
        "filesystem" => Some(Obstacle::SharedDirectory(shared_directory(device))),
        "disk" if is_hard_disk(device) => disk_obstacle(device, kind),
        "interface" if !["bridge", "network", "user"].contains(&kind) => {
            let source = device.child_attribute("source", "dev").unwrap_or_default();
            passthrough(&format!("network card of type {kind} {source}"))
        }
        "interface" if device.child("teaming").is_some() => unsupported("network card in a team".to_owned()),
        "input" if !["mouse", "tablet", "keyboard"].contains(&kind) => {
            passthrough(&format!("input device of type {kind}"))
        }
        "tpm" => tpm_obstacle(device),
        "memory" if !["dimm", "virtio-mem"].contains(&model) => unsupported(format!("memory device {model}")),
        "graphics" if device.child_attribute("gl", "enable") == Some("yes") => {
            passthrough("graphics card of the host (OpenGL)")
        }
        "smartcard" if device.get("mode") != Some("passthrough") => passthrough("smart card"),
        "crypto" if backend != "builtin" => unsupported("crypto device".to_owned()),
        name if rules::knows_device(name) || rules::DEVICES_OF_THE_HOST.contains(&name) => None,
        name => unsupported(format!("device <{name}>")),
    }
}

fn hostdev_name(device: &Element, kind: &str) -> String {
    let bus = if kind.is_empty() { device.get("mode").unwrap_or_default() } else { kind };
    let Some(source) = device.child("source") else { return format!("{bus} device") };
    let parts = source.children().chain([source]).flat_map(|part| &part.attributes);
    let parts: Vec<&str> = parts.map(|(_, value)| value.as_str()).collect();
    format!("{bus} device {}", parts.join(" "))
}

fn shared_directory(device: &Element) -> String {
    let path = device.child_attribute("source", "dir").or(device.child_attribute("source", "socket"));
    path.or(device.child_attribute("target", "dir")).unwrap_or_default().to_owned()
}

fn tpm_obstacle(device: &Element) -> Option<Obstacle> {
    let backend = device.child("backend");
    if backend.is_none_or(|backend| backend.get("type") != Some("emulator")) {
        return Some(Obstacle::Passthrough("TPM".to_owned()));
    }
    let sealed = backend.is_some_and(|backend| backend.child("encryption").is_some());
    sealed
        .then(|| Obstacle::Unsupported("TPM whose state is encrypted with a secret of this host".to_owned()))
}

fn disk_obstacle(disk: &Element, kind: &str) -> Option<Obstacle> {
    let format = disk.child_attribute("driver", "type").unwrap_or("raw");
    let has = |name: &str| disk.child(name).is_some();
    let encrypted =
        has("encryption") || disk.child("source").is_some_and(|s| s.child("encryption").is_some());
    let target = disk.child_attribute("target", "dev").unwrap_or_default().to_owned();
    let what = match () {
        () if disk.get("device") == Some("lun") => "SCSI device of the host".to_owned(),
        () if !["block", "file"].contains(&kind) => format!("disk of type {kind}"),
        () if has("shareable") => "disk shared between VMs".to_owned(),
        () if has("transient") => "disk that forgets its writes".to_owned(),
        () if encrypted => format!("encrypted {format}"),
        () if format == "raw" => return Some(Obstacle::Raw { target, is_device: kind == "block" }),
        () if kind == "block" => format!("block device with {format} in it"),
        () if format != "qcow2" => format!("{format} file"),
        () => return None,
    };
    Some(Obstacle::NoBitmap { target, kind: what })
}

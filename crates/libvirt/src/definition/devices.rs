//! Devices of a definition that comes from elsewhere: what each stands on becomes this host's own.

use hypervisor::{HypervisorError, Placement};

use super::place::text_of;
use super::refuse;
use super::tree::{Content, Element};

/// Addresses on which a screen may listen on any host.
const LISTEN_ANYWHERE: [&str; 5] = ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::"];
/// Longest name of a bridge or network; the kernel allows 15 characters for a bridge, libvirt sets no limit.
const NETWORK_NAME_MAX: usize = 128;

/// Changes all devices, and leaves out those that cannot live here.
pub(super) fn place(devices: &mut Element, placement: &Placement) -> Result<(), HypervisorError> {
    devices.content.retain(|content| matches!(content, Content::Element(_)));
    devices.retain(can_live_here);
    let stranger = |device: &Element| {
        let target = device.child_attribute("target", "dev").unwrap_or_default();
        device.name == "disk" && placement.strangers.iter().any(|it| it.as_str() == target)
    };
    devices.retain(|device| !stranger(device));
    for device in devices.children_mut() {
        match device.name.as_str() {
            "disk" => place_disk(device, placement)?,
            "interface" => place_interface(device, placement)?,
            "serial" | "parallel" | "console" => place_serial(device),
            "channel" => place_channel(device),
            "graphics" => place_graphics(device),
            "audio" => place_audio(device),
            "rng" => place_rng(device),
            "vsock" => place_vsock(device),
            _ => {}
        }
    }
    Ok(())
}

/// False for a device whose other end is a thing of the host that is not made anew.
fn can_live_here(device: &Element) -> bool {
    let kind = device.get("type").unwrap_or_default();
    match device.name.as_str() {
        "input" => ["mouse", "tablet", "keyboard"].contains(&kind),
        "tpm" => device.child_attribute("backend", "type") == Some("emulator"),
        "graphics" => ["vnc", "spice"].contains(&kind),
        "redirdev" => kind == "spicevmc",
        "smartcard" => device.get("mode") == Some("passthrough") && kind == "spicevmc",
        "crypto" => device.child_attribute("backend", "model") == Some("builtin"),
        "memory" => ["dimm", "virtio-mem"].contains(&device.get("model").unwrap_or_default()),
        "channel" => device.child_attribute("target", "type") == Some("virtio"),
        "interface" => ["bridge", "network", "user"].contains(&kind),
        _ => true,
    }
}

fn place_disk(disk: &mut Element, placement: &Placement) -> Result<(), HypervisorError> {
    if disk.all("target").count() != 1 {
        return Err(refuse("a disk must have exactly one <target>"));
    }
    let target = disk.child_attribute("target", "dev").unwrap_or_default().to_owned();
    disk.set("type", "file");
    match disk.get("device").unwrap_or("disk") {
        // The medium stays at home; the drive is there, empty.
        "cdrom" | "floppy" => {
            disk.remove("driver");
            Ok(())
        }
        "disk" => {
            let place = placement.disks.iter().find(|(known, _)| known.as_str() == target);
            let (_, path) =
                place.ok_or_else(|| refuse(format!("no place is known for its disk {target:?}")))?;
            let mut driver = disk.child("driver").cloned().unwrap_or_else(|| Element::new("driver"));
            driver.set("name", "qemu");
            driver.set("type", "qcow2");
            disk.remove("driver");
            disk.push(driver);
            disk.push(Element::new("source").with("file", text_of(path)?));
            Ok(())
        }
        other => Err(refuse(format!("its disk {target:?} is a {other:?}, which cannot be replicated"))),
    }
}

fn place_interface(interface: &mut Element, placement: &Placement) -> Result<(), HypervisorError> {
    let kind = interface.get("type").unwrap_or_default().to_owned();
    let old = interface.child("source").cloned().unwrap_or_else(|| Element::new("source"));
    interface.remove("source");
    if kind == "user" {
        return Ok(());
    }
    // The type and the attribute have the same name: <interface type='bridge'><source bridge='br0'/>.
    let name = old.get(&kind).unwrap_or_default();
    let here = placement.networks.iter().find(|(there, _)| there == name).map_or(name, |(_, here)| here);
    if here.is_empty() || here.len() > NETWORK_NAME_MAX || here.contains('/') {
        return Err(refuse(format!("{here:?} is no name of a {kind}")));
    }
    let mut source = Element::new("source").with(&kind, here);
    if let (Some(group), "network") = (old.get("portgroup"), kind.as_str()) {
        source.set("portgroup", group);
    }
    interface.push(source);
    Ok(())
}

/// A serial port ends in a terminal that `virsh console` opens, never in a file or socket of the peer's choice.
fn place_serial(port: &mut Element) {
    if port.get("type") != Some("null") {
        port.set("type", "pty");
    }
}

/// A channel ends in a socket that libvirt names, or in the screen's protocol.
fn place_channel(channel: &mut Element) {
    if !["spicevmc", "qemu-vdagent"].contains(&channel.get("type").unwrap_or_default()) {
        channel.set("type", "unix");
    }
}

/// A screen gets a port that is free here, and listens on an address that exists here.
fn place_graphics(graphics: &mut Element) {
    graphics.unset("port");
    graphics.unset("tlsPort");
    graphics.set("autoport", "yes");
    let wanted = graphics.child_attribute("listen", "address").unwrap_or_default();
    let address = if LISTEN_ANYWHERE.contains(&wanted) { wanted } else { "127.0.0.1" };
    let listen = Element::new("listen").with("type", "address").with("address", address);
    graphics.remove("listen");
    graphics.push(listen);
}

/// Sound goes to the screen's protocol or nowhere, never to a file or server.
fn place_audio(audio: &mut Element) {
    if audio.get("type") != Some("spice") {
        audio.set("type", "none");
    }
}

fn place_rng(rng: &mut Element) {
    let random = rng.child_attribute("backend", "model") == Some("random");
    rng.remove("backend");
    rng.push(if random {
        Element::new("backend").with("model", "random").saying("/dev/urandom")
    } else {
        Element::new("backend").with("model", "builtin")
    });
}

/// Each host gives its VMs numbers of its own.
fn place_vsock(vsock: &mut Element) {
    vsock.remove("cid");
    vsock.push(Element::new("cid").with("auto", "yes"));
}

//! The definition of a VM, as libvirt wrote it or a peer sent it.

use std::path::PathBuf;

use hypervisor::{Hypervisor, Identity, NicKind, Placement};
use libvirt::Libvirt;

/// A whole VM as any administrator may have made it, and one that names everything a host has.
pub(super) fn definitions() -> Vec<Vec<u8>> {
    let ordinary = include_bytes!("../../../crates/libvirt/src/definition/tests/ordinary.xml");
    let hostile = include_bytes!("../../../crates/libvirt/src/definition/tests/hostile.xml");
    vec![ordinary.to_vec(), hostile.to_vec()]
}

pub(super) fn definition(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // Nothing of this asks libvirt.
    let libvirt = Libvirt::new(Libvirt::SYSTEM);
    let Ok(facts) = libvirt.read_definition(text) else { return };
    let placement = Placement {
        vm: facts.id,
        disks: vec![(domain::fixture::vda(), PathBuf::from("/copy"))],
        strangers: Vec::new(),
        networks: Vec::new(),
        nvram: None,
        local_definition: Some(text.to_owned()),
    };
    drop(libvirt.place_definition(text, &placement));
    let identity =
        Identity { vm: facts.id, name: "test".into(), network: (NicKind::Bridge, "isolated".into()) };
    drop(libvirt.disguise_definition(text, &identity));
}

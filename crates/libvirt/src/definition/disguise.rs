//! Another identity for a definition of this host, so that a throw-away copy lives beside the VM and meets nobody.

use domain::VmId;
use hypervisor::{HypervisorError, Identity, NicKind};

use super::refuse;
use super::tree::{Content, Element, parse};

/// Parts of a network card that say nothing about where it is plugged in.
const OF_THE_CARD: [&str; 10] =
    ["model", "driver", "link", "mtu", "rom", "address", "alias", "boot", "acpi", "coalesce"];

/// The same machine as somebody else.
pub(crate) fn disguise(definition: &str, identity: &Identity) -> Result<String, HypervisorError> {
    let mut domain = parse(definition)?;
    for (part, text) in [("name", identity.name.clone()), ("uuid", identity.vm.to_string())] {
        let found = domain.child_mut(part).ok_or_else(|| refuse(format!("it has no <{part}>")))?;
        found.content = vec![Content::Text(text)];
    }
    // Empty, libvirt makes a new one: the guest learns that it is a copy.
    if let Some(generation) = domain.child_mut("genid") {
        generation.content.clear();
    }
    forget_serial_uuid(&mut domain);
    let (kind, network) = (kind_of(identity)?, &identity.network.1);
    if let Some(devices) = domain.child_mut("devices") {
        let cards = devices.children_mut().filter(|device| device.name == "interface");
        for (card, index) in cards.zip(0_u8..) {
            card.set("type", kind);
            card.retain(|part| OF_THE_CARD.contains(&part.name.as_str()));
            card.push(Element::new("mac").with("address", &mac(identity.vm, index)));
            card.push(Element::new("source").with(kind, network));
        }
    }
    Ok(domain.to_xml() + "\n")
}

fn kind_of(identity: &Identity) -> Result<&'static str, HypervisorError> {
    match identity.network.0 {
        NicKind::Bridge => Ok("bridge"),
        NicKind::Network => Ok("network"),
        NicKind::Other => Err(refuse("a copy is plugged into a bridge or a network")),
    }
}

/// The UUID that the firmware tells the guest must be the VM's, or absent; then it is the VM's.
fn forget_serial_uuid(domain: &mut Element) {
    for part in domain.children_mut().filter(|part| part.name == "sysinfo") {
        if let Some(system) = part.child_mut("system") {
            system.retain(|entry| entry.get("name") != Some("uuid"));
        }
    }
}

/// QEMU's own prefix, and three bytes of a UUID that is random.
fn mac(vm: VmId, index: u8) -> String {
    let bytes = vm.0.as_bytes();
    format!("52:54:00:{:02x}:{:02x}:{:02x}", bytes[13], bytes[14], bytes[15].wrapping_add(index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::read;

    const ORIGINAL: &str = "<domain type='qemu'><name>a &amp; b</name><uuid>11111111-1111-1111-1111-111111111111</uuid>
      <genid>22222222-2222-2222-2222-222222222222</genid><memory unit='MiB'>1</memory>
      <sysinfo type='smbios'><system><entry name='uuid'>11111111-1111-1111-1111-111111111111</entry>
        <entry name='serial'>s1</entry></system></sysinfo><os><type>hvm</type></os><devices>
      <interface type='bridge'><mac address='52:54:00:11:11:11'/><source bridge='br0'/><model type='virtio'/>
        <vlan><tag id='7'/></vlan><virtualport type='openvswitch'/><filterref filter='x'/><target dev='vnet3'/></interface>
      <interface type='network'><mac address='52:54:00:22:22:22'/><source network='lan' portgroup='p'/></interface>
      <interface type='user'><mac address='52:54:00:33:33:33'/></interface>
      <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>";

    #[test]
    fn nothing_of_the_original_identity_or_of_its_networks_is_left() {
        let vm: VmId = "3f3f3f3f-0000-4000-8000-0000000000ff".parse().unwrap();
        let name = "a & b - Test".to_owned();
        for (kind, word) in [(NicKind::Bridge, "bridge"), (NicKind::Network, "network")] {
            let network = (kind, "vr-test-1234567".to_owned());
            let copy = disguise(ORIGINAL, &Identity { vm, name: name.clone(), network }).unwrap();
            let facts = read(&copy).unwrap();
            assert_eq!((facts.id, &facts.name), (vm, &name));
            assert!(facts.has_agent && facts.nics.len() == 3);
            for nic in &facts.nics {
                assert_eq!((nic.kind, nic.source.as_str()), (kind, "vr-test-1234567"), "{word}");
            }
            let macs: Vec<&str> = facts.nics.iter().map(|nic| nic.mac.as_str()).collect();
            assert_eq!(macs, ["52:54:00:00:00:ff", "52:54:00:00:00:00", "52:54:00:00:00:01"]);
            for secret in ["1111", "2222", "br0", "lan", "openvswitch", "vlan", "filter", "vnet3", "user"] {
                assert!(!copy.replace("vr-test-1234567", "").contains(secret), "{secret} is in {copy}");
            }
            assert!(copy.contains("<serial>") || copy.contains("s1"));
        }
    }
}

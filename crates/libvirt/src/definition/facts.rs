//! What a definition says about a VM.

use std::path::PathBuf;

use domain::{DiskTarget, VmId};
use hypervisor::{DiskFacts, Firmware, HypervisorError, NicFacts, NicKind, ShutoffReason, VmFacts, VmState};
use uuid::Uuid;

use super::obstacles::{is_hard_disk, obstacles};
use super::refuse;
use super::tree::{Element, parse};

/// Where libvirt keeps the state of emulated TPMs.
const TPM_FOLDER: &str = "/var/lib/libvirt/swtpm";
/// The guest agent's channel.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// Facts of a definition; the state is unknown.
pub(crate) fn read(definition: &str) -> Result<VmFacts, HypervisorError> {
    let domain = parse(definition)?;
    let text = |name: &str| domain.all(name).next().map(Element::text).unwrap_or_default();
    let id = VmId(Uuid::parse_str(&text("uuid")).map_err(|_| refuse("it has no valid <uuid>"))?);
    let name = text("name");
    if name.is_empty() {
        return Err(refuse("it has no <name>"));
    }
    let nothing = Element::new("devices");
    let devices = domain.child("devices").unwrap_or(&nothing);
    let kind = domain.child("os").and_then(|os| os.child("type"));
    let attribute = |name: &str| kind.and_then(|kind| kind.get(name)).unwrap_or_default().to_owned();
    let agent = |channel: &Element| channel.child_attribute("target", "name") == Some(AGENT_CHANNEL);
    let disks = disks(devices)?;
    Ok(VmFacts {
        id,
        name,
        state: VmState::ShutOff(ShutoffReason::Unknown),
        memory_bytes: memory(&domain)?,
        vcpus: text("vcpu").parse().unwrap_or(1),
        kind: domain.get("type").unwrap_or_default().to_owned(),
        arch: attribute("arch"),
        machine: attribute("machine"),
        cpu_xml: domain.child("cpu").map(Element::to_xml),
        firmware: firmware(&domain),
        boot_files: boot_files(&domain),
        configured: disks.clone(),
        disks,
        nics: devices.all("interface").map(nic).collect(),
        obstacles: obstacles(&domain, devices),
        has_agent: devices.all("channel").any(agent),
        tpm_state: devices.all("tpm").find_map(|tpm| tpm_state(tpm, id)),
        autostart: false,
        definition: definition.to_owned(),
    })
}

/// Only the disks, for example of the live definition.
pub(crate) fn disks_of(definition: &str) -> Result<Vec<DiskFacts>, HypervisorError> {
    parse(definition)?.child("devices").map_or(Ok(Vec::new()), disks)
}

fn memory(domain: &Element) -> Result<u64, HypervisorError> {
    let element = domain.child("memory").ok_or_else(|| refuse("it has no <memory>"))?;
    let unit: u64 = match element.get("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => 0,
    };
    let amount = element.text().parse::<u64>().ok();
    let bytes = amount.and_then(|amount| amount.checked_mul(unit)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| refuse("its <memory> is no number with a known unit"))
}

fn firmware(domain: &Element) -> Firmware {
    let Some(os) = domain.child("os") else { return Firmware::Bios };
    let path = |name| os.all(name).map(Element::text).find(|text| !text.is_empty()).map(PathBuf::from);
    if os.get("firmware") == Some("efi") || os.child_attribute("loader", "type") == Some("pflash") {
        Firmware::Uefi { loader: path("loader"), nvram: path("nvram") }
    } else {
        Firmware::Bios
    }
}

fn boot_files(domain: &Element) -> Vec<PathBuf> {
    let Some(os) = domain.child("os") else { return Vec::new() };
    os.all("kernel").chain(os.all("initrd")).map(|file| PathBuf::from(file.text())).collect()
}

fn disks(devices: &Element) -> Result<Vec<DiskFacts>, HypervisorError> {
    devices.all("disk").filter(|disk| is_hard_disk(disk)).map(disk).collect()
}

fn disk(disk: &Element) -> Result<DiskFacts, HypervisorError> {
    let target = disk.child_attribute("target", "dev").unwrap_or_default();
    let target = DiskTarget::new(target).map_err(|error| refuse(error.to_string()))?;
    let source = disk.child("source");
    let places = ["file", "dev", "dir", "name", "volume"];
    let path = source.and_then(|source| places.iter().find_map(|place| source.get(place)));
    let format = disk.child_attribute("driver", "type").unwrap_or("raw").to_owned();
    let bus = disk.child_attribute("target", "bus").unwrap_or_default().to_owned();
    Ok(DiskFacts { target, source: PathBuf::from(path.unwrap_or_default()), format, bus })
}

fn nic(interface: &Element) -> NicFacts {
    let source =
        |attribute: &str| interface.child_attribute("source", attribute).unwrap_or_default().to_owned();
    let (kind, source) = match interface.get("type") {
        Some("bridge") => (NicKind::Bridge, source("bridge")),
        Some("network") => (NicKind::Network, source("network")),
        _ => (NicKind::Other, String::new()),
    };
    let mac = interface.child_attribute("mac", "address").unwrap_or_default().to_owned();
    NicFacts { kind, source, mac }
}

fn tpm_state(tpm: &Element, id: VmId) -> Option<PathBuf> {
    let backend = tpm.child("backend").filter(|backend| backend.get("type") == Some("emulator"))?;
    let (folder, file) = match backend.get("version") {
        Some("1.2") => ("tpm1.2", "tpm-00.permall"),
        _ => ("tpm2", "tpm2-00.permall"),
    };
    let source = backend.child("source");
    let path = source.and_then(|source| source.get("path")).map(PathBuf::from);
    Some(match (source.and_then(|source| source.get("type")), path) {
        (Some("file"), Some(path)) => path,
        (Some("dir"), Some(path)) => path.join(file),
        _ => PathBuf::from(format!("{TPM_FOLDER}/{id}/{folder}/{file}")),
    })
}

//! What libvirt says about this host.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use hypervisor::{HostFacts, Result, VmFacts};
use virt::connect::Connect;
use virt::error::ErrorNumber;

use crate::definition;
use crate::definition::tree::{Element, parse};
use crate::error::{is, of_host};
use crate::raw;

/// Where the kernel lists the network devices of this host.
const NETWORK_DEVICES: &str = "/sys/class/net";
/// Where the kernel counts memory. libvirt's own count of free memory takes the page cache for used, and a host that has run
/// for a while would always seem full.
const MEMORY: &str = "/proc/meminfo";

/// All facts.
pub(crate) fn facts(connect: &Connect) -> Result<HostFacts> {
    let failed = |error: virt::error::Error| of_host("capabilities", &error);
    let capabilities = parse(&connect.capabilities().map_err(failed)?)?;
    let (machines, kinds) = abilities(&capabilities);
    let arch = capabilities.find(&["host", "cpu", "arch"]).map(Element::text);
    let said = connect.domain_capabilities(None, arch.as_deref(), None, None, 0);
    let said = said.ok().and_then(|text| parse(&text).ok());
    Ok(HostFacts {
        hostname: connect.hostname().map_err(failed)?,
        libvirt_version: version(connect.lib_version().map_err(failed)?),
        qemu_version: version(connect.hyp_version().map_err(failed)?),
        bridges: bridges(),
        networks: networks(connect),
        machines,
        kinds,
        loaders: said.as_ref().map(loaders).unwrap_or_default(),
        tpm_emulator: said.as_ref().is_some_and(has_tpm_emulator),
        free_memory_bytes: available_memory(&fs::read_to_string(MEMORY).unwrap_or_default()),
    })
}

/// Domain types that this host can run.
pub(crate) fn kinds(connect: &Connect) -> Result<Vec<String>> {
    let capabilities = connect.capabilities().map_err(|error| of_host("capabilities", &error))?;
    Ok(abilities(&parse(&capabilities)?).1)
}

fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

/// Machine types as (architecture, machine), and domain types.
fn abilities(capabilities: &Element) -> (Vec<(String, String)>, Vec<String>) {
    let (mut machines, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for arch in capabilities.all("guest").flat_map(|guest| guest.all("arch")) {
        let name = arch.get("name").unwrap_or_default();
        for level in arch.all("domain").chain([arch]) {
            machines.extend(level.all("machine").map(|machine| (name.to_owned(), machine.text())));
        }
        kinds.extend(arch.all("domain").filter_map(|kind| kind.get("type")).map(str::to_owned));
    }
    (machines.into_iter().collect(), kinds.into_iter().collect())
}

/// What a new program could have without swapping, in bytes.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bridges as the kernel lists them. Those of Open vSwitch look like any device, so they are not here.
fn bridges() -> Vec<String> {
    let entries = fs::read_dir(NETWORK_DEVICES).into_iter().flatten().flatten();
    let bridges = entries.filter(|entry| entry.path().join("bridge").exists());
    let mut names: Vec<String> = bridges.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Active libvirt networks. A libvirt without the network driver has none.
fn networks(connect: &Connect) -> Vec<String> {
    let active = connect.list_all_networks(virt_sys::VIR_CONNECT_LIST_NETWORKS_ACTIVE).unwrap_or_default();
    let mut names: Vec<String> = active.iter().filter_map(|network| network.name().ok()).collect();
    names.sort();
    names
}

fn loaders(said: &Element) -> Vec<PathBuf> {
    let loader = said.find(&["os", "loader"]).into_iter();
    loader.flat_map(|loader| loader.all("value")).map(|value| PathBuf::from(value.text())).collect()
}

/// libvirt names the back end only when it finds swtpm and its tools.
fn has_tpm_emulator(said: &Element) -> bool {
    let tpm = said.find(&["devices", "tpm"]).into_iter();
    let back_ends =
        tpm.flat_map(|tpm| tpm.all("enum")).filter(|list| list.get("name") == Some("backendModel"));
    back_ends.flat_map(|list| list.all("value")).any(|value| value.text() == "emulator")
}

/// Why the CPU of a definition is not to be had here.
pub(crate) fn cpu_obstacle(connect: &Connect, definition: &str) -> Result<Option<String>> {
    let vm: VmFacts = definition::read(definition)?;
    let Some(text) = &vm.cpu_xml else { return Ok(None) };
    let cpu = parse(text)?;
    // All other modes take whatever this host has.
    if cpu.get("mode").unwrap_or("custom") != "custom" {
        return Ok(None);
    }
    let Some(model) = cpu.child("model").map(Element::text) else { return Ok(None) };
    let said = connect.domain_capabilities(None, Some(&vm.arch), Some(&vm.machine), Some(&vm.kind), 0);
    let said = parse(&said.map_err(|error| of_host("domcapabilities", &error))?)?;
    match model_is_usable(&said, &model) {
        Some(true) => {}
        Some(false) => return Ok(Some(format!("the processor of this host cannot act as {model}"))),
        None => return Ok(Some(format!("QEMU of this host knows no CPU model {model}"))),
    }
    if vm.kind != "kvm" {
        return Ok(None);
    }
    match raw::cpu_fits(connect, &vm.arch, &vm.machine, &vm.kind, text) {
        Ok(true) => Ok(None),
        Ok(false) => {
            Ok(Some(format!("the processor of this host lacks features that the VM's {model} needs")))
        }
        Err(error) if is(&error, ErrorNumber::CpuIncompatible) => Ok(Some(error.message().to_owned())),
        // Not every architecture can compare; the model itself is usable.
        Err(error) if is(&error, ErrorNumber::NoSupport) => Ok(None),
        Err(error) => Err(of_host("hypervisor-cpu-compare", &error)),
    }
}

/// None: QEMU does not know the model.
fn model_is_usable(capabilities: &Element, model: &str) -> Option<bool> {
    let modes = capabilities.child("cpu")?.all("mode");
    let models = modes.filter(|mode| mode.get("name") == Some("custom")).flat_map(|mode| mode.all("model"));
    let known = models.into_iter().find(|known| known.text() == model)?;
    Some(known.get("usable") != Some("no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_and_kinds_are_read_wherever_capabilities_list_them() {
        let text = "<capabilities><guest><arch name='x86_64'><machine>pc-q35-10.0</machine>\
            <machine canonical='pc-q35-10.0'>q35</machine><domain type='qemu'/>\
            <domain type='kvm'><machine>microvm</machine></domain></arch></guest></capabilities>";
        let (machines, kinds) = abilities(&parse(text).unwrap());
        let names: Vec<&str> = machines.iter().map(|(_, machine)| machine.as_str()).collect();
        assert_eq!(names, ["microvm", "pc-q35-10.0", "q35"]);
        assert_eq!(kinds, ["kvm", "qemu"]);
    }

    #[test]
    fn memory_that_the_page_cache_would_give_back_is_available() {
        let meminfo =
            "MemTotal:        8000000 kB\nMemFree:          100000 kB\nMemAvailable:    6000000 kB\n";
        assert_eq!(available_memory(meminfo), Some(6_000_000 * 1024));
        assert_eq!(available_memory("MemFree: 1 kB"), None);
    }

    #[test]
    fn a_cpu_model_is_usable_not_usable_or_unknown() {
        let text = "<domainCapabilities><cpu><mode name='host-model'><model>Skylake</model></mode>\
            <mode name='custom'><model usable='yes'>qemu64</model><model usable='no'>EPYC</model></mode></cpu></domainCapabilities>";
        let said = parse(text).unwrap();
        assert_eq!(model_is_usable(&said, "qemu64"), Some(true));
        assert_eq!(model_is_usable(&said, "EPYC"), Some(false));
        assert_eq!(model_is_usable(&said, "Skylake"), None);
    }
}

//! What of a peer's definition survives: a list of allowed elements and attributes; everything else is left out.
//!
//! The rule for the list: an element or attribute is here only if no value of it names a file, a device, a socket or a
//! program of the host. What does name one and is needed is put in anew by `place`.

use super::tree::{Content, Element};

/// An allowed element.
pub(super) struct Rule {
    name: &'static str,
    attributes: &'static [&'static str],
    children: Children,
}

enum Children {
    /// These, and for a device also its address and names.
    Only(&'static [Rule]),
    /// Whatever is inside, with all attributes: libvirt knows nothing there that names a thing of the host.
    All,
}

const fn leaf(name: &'static str, attributes: &'static [&'static str]) -> Rule {
    Rule { name, attributes, children: Children::Only(&[]) }
}

const fn node(name: &'static str, attributes: &'static [&'static str], children: &'static [Rule]) -> Rule {
    Rule { name, attributes, children: Children::Only(children) }
}

const fn whole(name: &'static str) -> Rule {
    Rule { name, attributes: &[], children: Children::All }
}

/// Where a device sits in the guest, and what it is called: allowed in every device.
const SEAT: &[Rule] =
    &[whole("address"), leaf("alias", &["name"]), leaf("boot", &["order"]), leaf("acpi", &["index"])];

const DISK: &[Rule] = &[
    Rule {
        name: "driver",
        attributes: &[
            "cache",
            "io",
            "discard",
            "detect_zeroes",
            "iothread",
            "queues",
            "queue_size",
            "error_policy",
            "rerror_policy",
            "ioeventfd",
            "event_idx",
            "copy_on_read",
            "packed",
            "discard_no_unref",
            "iommu",
            "ats",
            "page_per_vq",
        ],
        children: Children::Only(&[whole("iothreads"), whole("metadata_cache")]),
    },
    leaf("target", &["dev", "bus", "rotation_rate", "removable"]),
    leaf("serial", &[]),
    leaf("wwn", &[]),
    leaf("vendor", &[]),
    leaf("product", &[]),
    whole("blockio"),
    whole("geometry"),
    whole("iotune"),
    leaf("readonly", &[]),
];

const INTERFACE: &[Rule] = &[
    leaf("mac", &["address"]),
    leaf("source", &["bridge", "network", "portgroup"]),
    leaf("model", &["type"]),
    whole("driver"),
    whole("link"),
    whole("mtu"),
    whole("bandwidth"),
    whole("vlan"),
    whole("virtualport"),
    whole("coalesce"),
    whole("filterref"),
    whole("port"),
    whole("tune"),
    leaf("rom", &["bar", "enabled"]),
];

const CHARACTER_DEVICE: &[Rule] = &[Rule {
    name: "target",
    attributes: &["type", "name", "port"],
    children: Children::Only(&[leaf("model", &["name"])]),
}];

const GRAPHICS: &[Rule] = &[
    whole("image"),
    whole("jpeg"),
    whole("zlib"),
    whole("playback"),
    whole("streaming"),
    whole("clipboard"),
    whole("mouse"),
    whole("filetransfer"),
    leaf("listen", &["type", "address"]),
];

const VIDEO: &[Rule] = &[
    node(
        "model",
        &["type", "ram", "vram", "vram64", "vgamem", "heads", "primary", "blob", "edid"],
        &[whole("resolution")],
    ),
    leaf("driver", &["vgaconf", "iommu", "ats", "packed", "page_per_vq"]),
];

const TPM: &[Rule] = &[node(
    "backend",
    &["type", "version", "persistent_state"],
    &[whole("active_pcr_banks"), leaf("profile", &["name", "remove_disabled"])],
)];

/// Allowed devices.
const DEVICES: &[Rule] = &[
    node("disk", &["type", "device", "model"], DISK),
    node(
        "controller",
        &["type", "index", "model", "ports", "vectors"],
        &[whole("driver"), whole("master"), whole("target"), leaf("model", &["name"])],
    ),
    node("interface", &["type", "trustGuestRxFilters"], INTERFACE),
    node("serial", &["type"], CHARACTER_DEVICE),
    node("parallel", &["type"], CHARACTER_DEVICE),
    node("console", &["type"], CHARACTER_DEVICE),
    node("channel", &["type"], CHARACTER_DEVICE),
    node("input", &["type", "bus", "model"], &[whole("driver")]),
    node("tpm", &["model"], TPM),
    node(
        "graphics",
        &[
            "type",
            "port",
            "tlsPort",
            "autoport",
            "passwd",
            "passwdValidTo",
            "connected",
            "keymap",
            "defaultMode",
            "sharePolicy",
        ],
        GRAPHICS,
    ),
    node("video", &[], VIDEO),
    node(
        "sound",
        &["model", "multichannel", "streams"],
        &[whole("codec"), leaf("audio", &["id"]), whole("driver")],
    ),
    leaf("audio", &["id", "type"]),
    node("watchdog", &["model", "action"], &[]),
    node("memballoon", &["model", "autodeflate", "freePageReporting"], &[whole("stats"), whole("driver")]),
    node("rng", &["model"], &[whole("rate"), leaf("backend", &["model"]), whole("driver")]),
    node("panic", &["model"], &[]),
    node("vsock", &["model"], &[leaf("cid", &["auto"]), whole("driver")]),
    node("iommu", &["model"], &[whole("driver")]),
    node("hub", &["type"], &[]),
    node("memory", &["model", "access", "discard"], &[whole("target")]),
    node("redirdev", &["bus", "type"], &[]),
    whole("redirfilter"),
    node("smartcard", &["mode", "type"], &[]),
    node("crypto", &["model", "type"], &[leaf("backend", &["model", "queues"])]),
    node("nvram", &[], &[]),
];

const OS: &[Rule] = &[
    leaf("type", &["arch", "machine"]),
    whole("firmware"),
    leaf("loader", &["readonly", "secure", "type", "stateless", "format"]),
    leaf("nvram", &["template", "templateFormat", "format"]),
    leaf("boot", &["dev"]),
    whole("bootmenu"),
    whole("smbios"),
    whole("bios"),
    leaf("kernel", &[]),
    leaf("initrd", &[]),
    leaf("cmdline", &[]),
];

/// The whole definition.
const DOMAIN: &[Rule] = &[
    leaf("name", &[]),
    leaf("uuid", &[]),
    leaf("genid", &[]),
    leaf("title", &[]),
    leaf("description", &[]),
    whole("metadata"),
    leaf("maxMemory", &["slots", "unit"]),
    leaf("memory", &["unit", "dumpCore"]),
    leaf("currentMemory", &["unit"]),
    leaf("vcpu", &["current"]),
    whole("vcpus"),
    leaf("iothreads", &[]),
    whole("iothreadids"),
    whole("defaultiothread"),
    whole("throttlegroups"),
    node(
        "sysinfo",
        &["type"],
        &[whole("bios"), whole("system"), whole("baseBoard"), whole("chassis"), whole("oemStrings")],
    ),
    node("os", &["firmware"], OS),
    whole("features"),
    whole("cpu"),
    whole("clock"),
    leaf("on_poweroff", &[]),
    leaf("on_reboot", &[]),
    leaf("on_crash", &[]),
    leaf("on_lockfailure", &[]),
    whole("pm"),
    node("devices", &[], DEVICES),
];

/// Parts that belong to the host and not to the VM: they stay where they are.
pub(super) const OF_THE_HOST: &[&str] =
    &["memoryBacking", "memtune", "numatune", "cputune", "blkiotune", "resource", "seclabel", "perf"];
/// Devices that are no loss: libvirt makes them anew, or they belong to the host.
pub(super) const DEVICES_OF_THE_HOST: &[&str] = &["emulator", "lease"];

/// What of the definition is allowed.
pub(super) fn allowed(domain: &Element) -> Element {
    const ROOT: Rule = node("domain", &["type"], DOMAIN);
    ROOT.keep(domain, &[])
}

/// True if a part of the definition has a rule.
pub(super) fn knows_part(name: &str) -> bool {
    DOMAIN.iter().any(|rule| rule.name == name)
}

/// True if a device has a rule.
pub(super) fn knows_device(name: &str) -> bool {
    DEVICES.iter().any(|rule| rule.name == name)
}

impl Rule {
    fn keep(&self, element: &Element, also: &[Rule]) -> Element {
        let Children::Only(rules) = &self.children else { return element.clone() };
        let mut kept = Element::new(&element.name);
        kept.attributes = element
            .attributes
            .iter()
            .filter(|(name, _)| self.attributes.contains(&name.as_str()))
            .cloned()
            .collect();
        // Only the children of <devices> have a seat.
        let seat = if self.name == "devices" { SEAT } else { &[] };
        kept.content = element
            .content
            .iter()
            .filter_map(|content| match content {
                Content::Text(text) => Some(Content::Text(text.clone())),
                Content::Element(child) if child.namespace.is_some() => None,
                Content::Element(child) => {
                    let rule = rules.iter().chain(also).find(|rule| rule.name == child.name)?;
                    Some(Content::Element(rule.keep(child, seat)))
                }
            })
            .collect();
        kept
    }
}

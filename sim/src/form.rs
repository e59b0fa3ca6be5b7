//! What libvirt would call domain XML: a few lines of JSON, and what they say of a VM.

use std::path::PathBuf;

use domain::DiskTarget;
use hypervisor::{
    DiskFacts, Firmware, HypervisorError, NicFacts, NicKind, Result, ShutoffReason, VmFacts, VmState,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The definition of a VM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) struct Form {
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) disk: PathBuf,
    /// Whether its guest is to have an agent; none ever answers.
    #[serde(default)]
    pub(crate) agent: bool,
    /// The bridge into which it is plugged; none: it has no network.
    #[serde(default)]
    pub(crate) bridge: Option<String>,
}

/// The one disk that each VM has.
pub(crate) fn disk() -> DiskTarget {
    DiskTarget::new("vda").unwrap_or_else(|_| unreachable!("a target"))
}

/// What is known of a VM from its definition alone.
pub(crate) fn facts_of(form: &Form) -> VmFacts {
    let disks = vec![DiskFacts {
        target: disk(),
        source: form.disk.clone(),
        format: "qcow2".into(),
        bus: "virtio".into(),
    }];
    VmFacts {
        id: form.id.into(),
        name: form.name.clone(),
        state: VmState::ShutOff(ShutoffReason::Unknown),
        memory_bytes: 1 << 20,
        vcpus: 1,
        kind: "qemu".into(),
        arch: "x86_64".into(),
        machine: "pc-q35-10.0".into(),
        cpu_xml: None,
        firmware: Firmware::Bios,
        boot_files: Vec::new(),
        configured: disks.clone(),
        disks,
        nics: form.bridge.iter().map(|bridge| nic(bridge)).collect(),
        obstacles: Vec::new(),
        has_agent: form.agent,
        tpm_state: None,
        autostart: false,
        definition: serde_json::to_string(form).unwrap_or_default(),
    }
}

fn nic(bridge: &str) -> NicFacts {
    NicFacts { kind: NicKind::Bridge, source: bridge.to_owned(), mac: "52:54:00:00:00:01".into() }
}

/// Reads a definition.
pub(crate) fn read_form(definition: &str) -> Result<Form> {
    serde_json::from_str(definition)
        .map_err(|error| HypervisorError::Definition { reason: error.to_string() })
}

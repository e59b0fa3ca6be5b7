//! Prerequisites by name. A check that fails says what was found and the command that cures it.

/// The names of VMs that are nothing begin with this: the start guard refuses them, and so shows that it is asked.
pub const GUARD_PROBE: &str = "vr-guard-probe-";

/// The prerequisites, in the order in which they are shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)] // each variant is its own name; `words` says it to people
pub enum CheckName {
    ReplicaReachable,
    VersionsMatch,
    ClocksAgree,
    HealthNormal,
    NoOtherOperation,
    VmShutDownNotTurnedOff,
    DefinitionMovable,
    DisksCarryBitmaps,
    HookInPlace,
    CertificatesValid,
    NetworksPresent,
    MachineTypeAvailable,
    CpuCompatible,
    FirmwareAvailable,
    TpmAvailable,
    BootFilesPresent,
    DiskSpace,
    Memory,
    NameFree,
    RecoveryPointTrusted,
    NotRunningThere,
}

impl CheckName {
    /// Every check, in the order in which they are shown.
    pub const ALL: [CheckName; 21] = [
        CheckName::ReplicaReachable,
        CheckName::VersionsMatch,
        CheckName::ClocksAgree,
        CheckName::HealthNormal,
        CheckName::NoOtherOperation,
        CheckName::VmShutDownNotTurnedOff,
        CheckName::DefinitionMovable,
        CheckName::DisksCarryBitmaps,
        CheckName::HookInPlace,
        CheckName::CertificatesValid,
        CheckName::NetworksPresent,
        CheckName::MachineTypeAvailable,
        CheckName::CpuCompatible,
        CheckName::FirmwareAvailable,
        CheckName::TpmAvailable,
        CheckName::BootFilesPresent,
        CheckName::DiskSpace,
        CheckName::Memory,
        CheckName::NameFree,
        CheckName::RecoveryPointTrusted,
        CheckName::NotRunningThere,
    ];

    /// What the check proves, for people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            CheckName::ReplicaReachable => "Replica server is reachable",
            CheckName::VersionsMatch => "Both daemons speak the same protocol",
            CheckName::ClocksAgree => "Clocks of both hosts agree",
            CheckName::HealthNormal => "Replication health is Normal",
            CheckName::NoOtherOperation => "No other operation is under way",
            CheckName::VmShutDownNotTurnedOff => "VM is running or was shut down cleanly",
            CheckName::DefinitionMovable => "No passthrough device or shared directory",
            CheckName::DisksCarryBitmaps => "Disks can track changes",
            CheckName::HookInPlace => "Start guard (libvirt hook) is in place",
            CheckName::CertificatesValid => "Certificates are valid",
            CheckName::NetworksPresent => "Networks of the VM exist on the replica server",
            CheckName::MachineTypeAvailable => "Machine type is available on the replica server",
            CheckName::CpuCompatible => "CPU model runs on the replica server",
            CheckName::FirmwareAvailable => "Firmware is available on the replica server",
            CheckName::TpmAvailable => "TPM emulator is available on the replica server",
            CheckName::BootFilesPresent => "Kernel and initrd of a direct boot exist on the replica server",
            CheckName::DiskSpace => "Enough disk space on the replica server",
            CheckName::Memory => "Enough memory on the replica server",
            CheckName::NameFree => "VM's name and UUID are free on the replica server",
            CheckName::RecoveryPointTrusted => {
                "Recovery point is complete, and its files are what they should be"
            }
            CheckName::NotRunningThere => "VM is not known to run on the other host",
        }
    }
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The prerequisite holds.
    Pass,
    /// It does not hold.
    Fail {
        /// What was found, and why it matters.
        found: String,
        /// The command or action that cures it.
        cure: String,
    },
}

/// One prerequisite with its verdict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Which prerequisite.
    pub name: CheckName,
    /// What was found.
    pub verdict: Verdict,
}

impl Check {
    /// The prerequisite holds.
    #[must_use]
    pub fn pass(name: CheckName) -> Check {
        Check { name, verdict: Verdict::Pass }
    }

    /// The prerequisite does not hold.
    pub fn fail(name: CheckName, found: impl Into<String>, cure: impl Into<String>) -> Check {
        Check { name, verdict: Verdict::Fail { found: found.into(), cure: cure.into() } }
    }

    /// Pass when `holds`, else the failure that `otherwise` words as (found, cure).
    pub fn when<F: Into<String>, C: Into<String>>(
        name: CheckName,
        holds: bool,
        otherwise: impl FnOnce() -> (F, C),
    ) -> Check {
        if holds {
            return Check::pass(name);
        }
        let (found, cure) = otherwise();
        Check::fail(name, found, cure)
    }

    /// Whether the prerequisite holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdict == Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_says_something_of_its_own_and_holds_only_when_it_passed() {
        let words: std::collections::BTreeSet<&str> =
            CheckName::ALL.into_iter().map(CheckName::words).collect();
        assert_eq!(words.len(), CheckName::ALL.len(), "two checks read alike");
        assert!(words.iter().all(|words| words.len() > 10));
        let name = CheckName::Memory;
        let failed = Check::fail(name, "found", "cure");
        assert!(Check::pass(name).holds() && !failed.holds());
        assert_eq!(Check::when(name, true, || -> (String, String) { panic!("it holds") }), Check::pass(name));
        assert_eq!(Check::when(name, false, || ("found", "cure")), failed);
    }
}

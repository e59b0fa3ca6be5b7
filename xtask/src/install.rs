//! Installs what building, testing and the lab need: Debian packages and cargo tools. Says what and why; quiet when all is there.
//!
//! NOT an installer of the product. No service is started: libvirtd runs only inside the lab's hosts.

mod backports;
mod browser;
mod schemathesis;
mod services;

use anyhow::{Context, Result, ensure};

pub(crate) use browser::browser;

use crate::program::{output, run, succeeds};

/// Debian packages, with the reason for each.
const PACKAGES: [(&str, &str); 22] = [
    ("gcc", "linker of Rust programs"),
    ("pkg-config", "finds libvirt when building"),
    ("libvirt-dev", "headers that the libvirt crate links against"),
    ("libpam0g-dev", "library that the accounts crate links against"),
    ("libvirt-daemon", "libvirtd of the lab's hosts"),
    ("libvirt-daemon-driver-qemu", "libvirtd's QEMU driver"),
    ("libvirt-clients", "virsh"),
    ("qemu-system-x86", "runs the lab's guest"),
    ("qemu-utils", "qemu-img and qemu-nbd"),
    ("ovmf", "UEFI of the lab's guest"),
    ("swtpm", "TPM of the lab's guest"),
    ("swtpm-tools", "makes the state of a new TPM"),
    ("iproute2", "network of the lab"),
    ("nftables", "cuts the link between the lab's hosts"),
    ("util-linux", "namespaces of the lab"),
    ("e2fsprogs", "file system of the guest's disk"),
    ("fdisk", "partition tables of test disks"),
    ("curl", "tests sign in to the console as a program would"),
    ("procps", "tests look at running programs"),
    ("strace", "tests kill programs and cut their power at chosen calls"),
    ("python3-venv", "a folder for schemathesis, which tests the REST API"),
    ("libfaketime", "tests let the clocks of the lab's hosts differ"),
];

/// What the benchmark is measured beside.
const RIVALS: [(&str, &str); 2] = [
    ("libnbd-bin", "nbdcopy, which the benchmark compares with"),
    ("rsync", "which the benchmark compares resynchronizations with"),
];

/// What fuzzing that is led by coverage is built with.
const CXX: [(&str, &str); 1] = [("g++", "compiles libFuzzer")];

/// Packages that Debian 12 has too old a version of, so that they come from its backports.
const NEWER: [&str; 6] = [
    "libvirt-dev",
    "libvirt-daemon",
    "libvirt-daemon-driver-qemu",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
];

/// Tools for people and continuous integration.
pub(crate) fn everything() -> Result<()> {
    packages()?;
    for_lab()?;
    nextest().map(drop)
}

/// What the lab's cases need of other registries than Debian's, and what that needs.
pub(crate) fn for_lab() -> Result<()> {
    browser()?;
    schemathesis::install()
}

/// Debian packages that are missing.
pub(crate) fn packages() -> Result<()> {
    ensure_installed(&PACKAGES)
}

/// The same, with what the benchmark is measured beside.
pub(crate) fn packages_and_rivals() -> Result<()> {
    packages()?;
    ensure_installed(&RIVALS)
}

/// The same, with a C++ compiler.
pub(crate) fn packages_and_cxx() -> Result<()> {
    packages()?;
    ensure_installed(&CXX)
}

fn ensure_installed(packages: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&(&str, &str)> = packages.iter().filter(|(name, _)| !installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let release = release().context("cannot tell which Debian this is")?;
    ensure!(
        succeeds(&["apt-get", "--version"]) && is_root(),
        "missing packages: {}. Install them by hand, or run this as root on Debian",
        missing.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    );
    for (name, reason) in &missing {
        eprintln!("installing {name}: {reason}");
    }
    let suite = backports::suite_if_needed(&release);
    if let Some(suite) = &suite {
        backports::ensure_source(suite)?;
    }
    let _no_services = services::forbid_start()?;
    run(&["apt-get", "update", "-qq"])?;
    let (newer, plain): (Vec<&str>, Vec<&str>) =
        missing.iter().map(|(name, _)| *name).partition(|name| suite.is_some() && NEWER.contains(name));
    install(&plain, None)?;
    install(&newer, suite.as_deref())
}

fn install(names: &[&str], suite: Option<&str>) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut words =
        vec!["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "--no-install-recommends"];
    words.extend(suite.iter().flat_map(|suite| ["-t", suite]));
    words.extend(names);
    run(&words)
}

/// True if cargo-nextest is there or could be installed; the tests fall back to `cargo test` otherwise.
pub(crate) fn nextest() -> Result<bool> {
    if succeeds(&["cargo", "nextest", "--version"]) {
        return Ok(true);
    }
    eprintln!("installing cargo-nextest: runs the tests side by side");
    Ok(succeeds(&["cargo", "install", "cargo-nextest", "--locked"]))
}

fn installed(name: &str) -> bool {
    let status = output(&["dpkg-query", "-W", "-f", "${db:Status-Status}", name]);
    status.is_ok_and(|status| status == "installed")
}

fn release() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("no code name in /etc/os-release")?.to_owned())
}

fn is_root() -> bool {
    output(&["id", "-u"]).is_ok_and(|id| id.trim() == "0")
}

//! Kernel and initramfs of the guest: Debian's cloud kernel, busybox, the guest agent with its libraries, our workload.
//!
//! NOT the disk, which holds data only (see `disk`). The result is kept in a cache folder named by a hash of the recipe;
//! delete `target/lab-cache` to take up newer packages.

mod cpio;
mod modules;
mod packages;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::run;

const INIT: &str = include_str!("../guest/init.sh");
const SHUTDOWN: &str = include_str!("../guest/shutdown.sh");
const WORKLOAD: &str = include_str!("../guest/workload.rs");
/// Raised when the code in this module changes what comes out.
const RECIPE: u32 = 1;

/// Drivers that the guest needs; what they depend on comes by itself.
const DRIVERS: [&str; 8] =
    ["virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio-rng", "evdev", "button", "efivarfs"];

/// A bootable pair of files.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
}

impl Image {
    /// The image from the cache, built if it is not there.
    pub fn get(cache: &Path) -> Result<Self> {
        let folder = cache.join(format!("guest-{:016x}", recipe_hash()));
        let image = Self { kernel: folder.join("vmlinuz"), initramfs: folder.join("initramfs") };
        if image.initramfs.exists() {
            return Ok(image);
        }
        fs::create_dir_all(cache)?;
        // Cases begin side by side: one builds it, the others wait.
        let builders = File::create(cache.join("builders"))?;
        builders.lock()?;
        if !image.initramfs.exists() {
            build(cache, &folder).context("cannot build the guest image")?;
        }
        Ok(image)
    }
}

fn recipe_hash() -> u64 {
    let mut hasher = DefaultHasher::new();
    (RECIPE, INIT, SHUTDOWN, WORKLOAD, DRIVERS, packages::NAMES).hash(&mut hasher);
    hasher.finish()
}

/// Builds in a folder aside and renames it when complete, so that a killed build leaves nothing half made.
fn build(cache: &Path, folder: &Path) -> Result<()> {
    let aside = tempfile::Builder::new().prefix("building-").tempdir_in(cache)?;
    let tree = aside.path().join("packages");
    packages::unpack(&tree)?;
    let (kernel, drivers) = modules::locate(&tree)?;

    let result = aside.path().join("result");
    fs::create_dir(&result)?;
    fs::copy(kernel, result.join("vmlinuz"))?;
    let workload = build_workload(aside.path())?;
    let archive = assemble(&tree, &drivers, &workload)?;
    fs::write(result.join("initramfs"), archive)?;
    fs::rename(&result, folder).context("cannot place the guest image")
}

fn build_workload(aside: &Path) -> Result<PathBuf> {
    let (source, binary) = (aside.join("workload.rs"), aside.join("guest-workload"));
    fs::write(&source, WORKLOAD)?;
    run(std::process::Command::new("rustc")
        .args([
            "--edition=2024",
            "-O",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
            "-o",
        ])
        .args([&binary, &source]))?;
    Ok(binary)
}

fn assemble(tree: &Path, drivers: &Path, workload: &Path) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for folder in
        ["bin", "dev", "proc", "sys", "run", "tmp", "data", "data2", "etc", "etc/acpi", "etc/acpi/PWRF"]
    {
        archive.folder(folder);
    }
    for folder in ["lib", "lib/modules", "lib/x86_64-linux-gnu", "lib64", "usr", "usr/sbin", "sbin", "var"] {
        archive.folder(folder);
    }
    archive.link("var/run", "/run");
    archive.program("init", INIT.as_bytes());
    archive.program("sbin/shutdown", SHUTDOWN.as_bytes());
    archive.program("etc/acpi/PWRF/00000080", b"#!/bin/sh\nexec /sbin/shutdown -P\n");
    archive.program("bin/busybox", &fs::read(tree.join("bin/busybox"))?);
    archive.program("bin/guest-workload", &fs::read(workload)?);

    let agent = tree.join("usr/sbin/qemu-ga");
    archive.program("usr/sbin/qemu-ga", &fs::read(&agent)?);
    for library in libraries(&agent)? {
        let content = fs::read(&library).with_context(|| format!("library {library} of the guest agent"))?;
        archive.program(library.trim_start_matches('/'), &content);
    }

    let mut order = String::new();
    for driver in modules::in_order(drivers, &DRIVERS)? {
        let name = format!("{}.ko", driver.name);
        archive.file(&format!("lib/modules/{name}"), &driver.content);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("lib/modules/order", order.as_bytes());
    Ok(archive.finish())
}

/// Absolute paths of the shared libraries of a program, as this machine resolves them.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let listing = run(std::process::Command::new("ldd").arg(program))?;
    let paths = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(|path| path.replacen("/usr/lib/", "/lib/", 1)).collect())
}

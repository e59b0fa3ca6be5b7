//! Debian packages that the guest is made of: fetched by apt and unpacked aside, never installed on this machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::run::run;

/// What is fetched; the first stands for the kernel package it depends on.
pub(super) const NAMES: [&str; 3] = ["linux-image-cloud-amd64", "busybox-static", "qemu-guest-agent"];

/// Downloads and unpacks all packages into one tree.
pub(super) fn unpack(tree: &Path) -> Result<()> {
    let store = tree.with_extension("downloads");
    std::fs::create_dir_all(&store)?;
    let [kernel, others @ ..] = NAMES;
    let kernel = kernel_package(kernel)?;
    run(Command::new("apt-get")
        .args(["download", "-q", "-o", "APT::Sandbox::User=root", &kernel])
        .args(others)
        .current_dir(&store))
    .context("run `apt-get update` if a package is no longer found")?;
    for package in std::fs::read_dir(&store)? {
        run(Command::new("dpkg").arg("-x").arg(package?.path()).arg(tree))?;
    }
    Ok(())
}

fn kernel_package(name: &str) -> Result<String> {
    let listing = run(Command::new("apt-cache").args(["depends", name]))?;
    let package = listing.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(package.context("the kernel's package names no kernel: run `apt-get update`")?.to_owned())
}

//! Definitions (domain XML): reading facts, and making one host's definition fit another. Pure: text in, text out.
//!
//! A definition that comes from a peer is hostile until proven otherwise. `place` writes a new one from what is on the
//! list in `rules`; every path in the result is this host's own choice.

mod devices;
mod disguise;
mod facts;
mod host_parts;
mod obstacles;
mod place;
mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
mod wrap;

pub(crate) use disguise::disguise;
pub(crate) use facts::{disks_of, read};
pub(crate) use place::place;
pub(crate) use wrap::{unwrap, wrap};

use std::path::{Component, Path};

use hypervisor::HypervisorError;

/// Folders from which a definition may name a kernel or an initrd: libvirt's own for this purpose.
const BOOT_FOLDERS: &[&str] = &["/var/lib/libvirt/boot"];
/// Folders from which a definition may name firmware.
const FIRMWARE_FOLDERS: &[&str] = &[
    "/usr/share/OVMF",
    "/usr/share/ovmf",
    "/usr/share/edk2",
    "/usr/share/edk2-ovmf",
    "/usr/share/AAVMF",
    "/usr/share/qemu",
    "/usr/share/qemu-efi-aarch64",
    "/usr/share/seabios",
];

/// True if two definitions mean the same VM.
pub(crate) fn same(one: &str, other: &str) -> Result<bool, HypervisorError> {
    Ok(tree::parse(one)?.sorted() == tree::parse(other)?.sorted())
}

/// True if a peer's definition may name the file as a kernel or initrd.
pub(crate) fn is_boot_file(path: &Path) -> bool {
    lies_in(path, BOOT_FOLDERS)
}

/// True if a peer's definition may name the file as firmware.
pub(crate) fn is_firmware(path: &Path) -> bool {
    lies_in(path, FIRMWARE_FOLDERS)
}

fn lies_in(path: &Path, folders: &[&str]) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain && folders.iter().any(|folder| path.starts_with(folder) && path != Path::new(folder))
}

/// The file or device of a disk.
fn place_of(disk: &tree::Element) -> Option<&str> {
    disk.child("source").and_then(|source| source.get("file").or(source.get("dev")))
}

/// A definition that is not accepted.
fn refuse(reason: impl Into<String>) -> HypervisorError {
    HypervisorError::Definition { reason: reason.into() }
}

/// True if such a file exists here, and links lead to no other folder.
pub(crate) fn is_boot_file_here(path: &Path) -> bool {
    let real = path.canonicalize().ok().filter(|real| real.is_file());
    (is_boot_file(path) && real.as_deref().is_some_and(is_boot_file))
        || (is_firmware(path) && real.as_deref().is_some_and(is_firmware))
}

//! Where the programs of the product are that a lab case runs: beside the program that runs now.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Built programs of the product.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The daemon.
    pub virtreplicad: PathBuf,
    /// The command line.
    pub virt_replica: PathBuf,
    /// What libvirt's `qemu` hook calls.
    pub virt_replica_hook: PathBuf,
}

/// Finds the programs; `cargo xtask test` builds them before it runs the lab cases.
pub fn binaries() -> Result<Binaries> {
    binaries_in(&build_folder()?)
}

/// The programs of another build, such as those in `target/release`.
pub fn binaries_in(folder: &Path) -> Result<Binaries> {
    let find = |name: &str| {
        let path = folder.join(name);
        if !path.exists() {
            bail!("{} is not built: run `cargo build -p {name}`", path.display());
        }
        Ok(path)
    };
    Ok(Binaries {
        virtreplicad: find("virtreplicad")?,
        virt_replica: find("virt-replica")?,
        virt_replica_hook: find("virt-replica-hook")?,
    })
}

/// Folder of the built programs, such as `target/debug`.
pub(crate) fn build_folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("path of this program")?;
    let folder = program.parent().context("a program lies in a folder")?;
    let above_deps = folder.parent().filter(|_| folder.ends_with("deps"));
    Ok(above_deps.unwrap_or(folder).to_owned())
}

/// A short word that is the same for all programs of one checkout, and another for every other checkout.
pub(crate) fn checkout() -> &'static str {
    static WORD: OnceLock<String> = OnceLock::new();
    WORD.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        cache_folder().unwrap_or_default().hash(&mut hasher);
        format!("{:08x}", hasher.finish() as u32)
    })
}

/// Folder for what is built once and used by all labs: `target/lab-cache`.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let folder = build_folder()?;
    Ok(folder.parent().unwrap_or(Path::new(".")).join("lab-cache"))
}

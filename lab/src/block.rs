//! Block devices of a host: a raw file behind a loop device, for want of logical volumes on machines without a device mapper.
//!
//! The kernel has them for all hosts together, so that a lab that was killed leaves them; the next one of its name lets them go.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::run::run;

/// A block device whose content is a file of a host's disk.
#[derive(Debug)]
pub struct BlockDevice {
    path: PathBuf,
}

impl BlockDevice {
    /// Makes a device of `file`, a path on the host's disk.
    pub fn of(host: &Host, file: &str) -> Result<BlockDevice> {
        let made = run(Command::new("losetup").args(["--find", "--show"]).arg(host.on_disk(file)))?;
        Ok(BlockDevice { path: PathBuf::from(made.trim()) })
    }

    /// Where it is, on every host.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the size of the file, which grew.
    pub fn grow(&self) -> Result<()> {
        run(Command::new("losetup").arg("--set-capacity").arg(&self.path)).map(drop)
    }
}

impl Drop for BlockDevice {
    fn drop(&mut self) {
        drop(run(Command::new("losetup").arg("--detach").arg(&self.path)));
    }
}

/// Lets go of every device whose file lies in a lab's folder.
pub(crate) fn release(folder: &Path) -> Result<()> {
    for entry in fs::read_dir("/sys/block").context("/sys/block")? {
        let name = entry?.file_name();
        let backing = Path::new("/sys/block").join(&name).join("loop/backing_file");
        if fs::read_to_string(backing).is_ok_and(|file| Path::new(file.trim()).starts_with(folder)) {
            run(Command::new("losetup").arg("--detach").arg(Path::new("/dev").join(&name)))?;
        }
    }
    Ok(())
}

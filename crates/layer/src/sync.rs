//! The moments at which bytes and names become durable, in one place: a simulation looks on, and may let one fail.
//!
//! Not here: deciding what must be durable when.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

/// Hears of each file or directory that is synced, before the call returns; an error is the call's.
pub type SimulatedSync = fn(BorrowedFd<'_>) -> io::Result<()>;

static SIMULATED: OnceLock<SimulatedSync> = OnceLock::new();

/// From now on, in this process, `disk` hears of every sync. For a simulation alone.
pub fn simulate_sync(disk: SimulatedSync) {
    let _ = SIMULATED.set(disk);
}

/// Everything of a file survives a power cut.
pub(crate) fn all(file: &File) -> io::Result<()> {
    file.sync_all()?;
    told(file.as_fd())
}

/// Everything that was written to a file does.
pub(crate) fn data(file: &File) -> io::Result<()> {
    file.sync_data()?;
    told(file.as_fd())
}

/// The names in a directory do.
pub(crate) fn names(directory: impl AsFd) -> io::Result<()> {
    rustix::fs::fsync(directory.as_fd())?;
    told(directory.as_fd())
}

fn told(what: BorrowedFd<'_>) -> io::Result<()> {
    SIMULATED.get().map_or(Ok(()), |disk| disk(what))
}

//! The disk of a host's replicas, as far as it can fail: what was not synced may be lost with the power, a sync may find it
//! full or take long, and a host can die in the middle of one. Files are real, and kept in memory; a copy of each is kept as it
//! was synced. It is NOT a file system's exact behaviour: real ones lose less. Databases are not on it: SQLite syncs each commit
//! itself.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::Notify;

use crate::machine::Machine;

/// What a disk writes at once.
const SECTOR: usize = 4096;

pub(crate) struct Disk {
    root: PathBuf,
    /// Says that it has synced, and has not.
    forgets: bool,
    state: Mutex<State>,
    /// Time passed, or everything ended.
    changed: Condvar,
    /// The host died at a sync.
    pub(crate) death: Notify,
}

/// Who syncs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A thread of its own, which can stand still.
    Blocking,
    /// The thread on which everything happens: it cannot.
    Driver,
}

#[derive(Default)]
struct State {
    /// By inode, the bytes that are safe.
    files: HashMap<u64, Vec<u8>>,
    /// By directory, the names that are safe, and the inodes behind them.
    names: HashMap<PathBuf, BTreeMap<OsString, u64>>,
    /// Syncs until the host dies; 0: it does not.
    left: u32,
    is_dead: bool,
    is_full: bool,
    has_ended: bool,
    /// How many daemons were killed.
    kills: u64,
    /// What a sync takes.
    takes: Duration,
    now: Duration,
}

impl Disk {
    pub(crate) fn new(root: PathBuf, forgets: bool) -> Disk {
        Disk { root, forgets, state: Mutex::default(), changed: Condvar::new(), death: Notify::new() }
    }

    /// Whether this path is on it.
    pub(crate) fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.root)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file or directory was synced by the product.
    pub(crate) fn synced(&self, path: &Path, what: BorrowedFd<'_>, caller: Caller) -> io::Result<()> {
        let mut state = self.state();
        if state.left == 1 {
            state.is_dead = true;
            self.death.notify_one();
        }
        state.left = state.left.saturating_sub(1);
        let (done, kills) = (state.now + state.takes, state.kills);
        while caller == Caller::Blocking && state.now < done && state.lets_live(kills) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.lets_live(kills) {
            drop(state);
            if caller == Caller::Blocking {
                Machine::stand_still();
            }
            return Err(io::Error::other("the host is dead"));
        }
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.forgets { Ok(()) } else { state.keep(path, what) }
    }

    /// Whoever was killed does nothing any more, as long as anybody looks.
    pub(crate) fn wait_for_the_end(&self) {
        let mut state = self.state();
        while !state.has_ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A file was synced by somebody else.
    pub(crate) fn flush(&self, path: &Path) -> io::Result<()> {
        if !self.has(path) {
            return Ok(());
        }
        let file = File::open(path)?;
        self.state().keep(path, file.as_fd())
    }

    /// From now on it is full, or not.
    pub(crate) fn fill(&self, full: bool) {
        self.state().is_full = full;
    }

    /// From now on a sync takes so long.
    pub(crate) fn slow_down(&self, takes: Duration) {
        self.state().takes = takes;
    }

    /// It is so late now.
    pub(crate) fn reach(&self, now: Duration) {
        self.state().now = now;
        self.changed.notify_all();
    }

    /// The host dies before this sync from now is done.
    pub(crate) fn die_at(&self, syncs: u32) {
        self.state().left = syncs;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state().is_dead
    }

    /// The host can live again; threads of before stay where they are.
    pub(crate) fn revive(&self) {
        let mut state = self.state();
        state.left = 0;
        state.is_dead = false;
    }

    /// Threads that died may end.
    pub(crate) fn end(&self) {
        self.state().has_ended = true;
        self.changed.notify_all();
    }

    /// The power fails: of what was not synced, names and bytes survive as chance wants it.
    pub(crate) fn lose_power(&self, chance: &mut Rng) -> io::Result<()> {
        let mut state = self.state();
        state.cut(&self.root, chance)?;
        state.keep_all(&self.root)
    }

    /// The daemon was killed: what it waits for does not come.
    pub(crate) fn kill(&self) {
        self.state().kills += 1;
        self.changed.notify_all();
    }

    /// Everything that is there now is safe.
    pub(crate) fn flush_all(&self) -> io::Result<()> {
        self.state().keep_all(&self.root)
    }
}

impl State {
    /// Whether a daemon that began a sync after so many kills goes on.
    fn lets_live(&self, kills: u64) -> bool {
        !self.is_dead && !self.has_ended && self.kills == kills
    }

    fn keep(&mut self, path: &Path, what: BorrowedFd<'_>) -> io::Result<()> {
        // The descriptor's own path: the file may have no name any more.
        let opened = PathBuf::from(format!("/proc/self/fd/{}", what.as_raw_fd()));
        let metadata = std::fs::metadata(&opened)?;
        if metadata.is_dir() {
            self.names.insert(path.to_owned(), listed(&opened)?);
        } else {
            self.files.insert(metadata.ino(), std::fs::read(&opened)?);
        }
        Ok(())
    }

    fn keep_all(&mut self, root: &Path) -> io::Result<()> {
        self.files.clear();
        self.names.clear();
        self.keep_below(root)
    }

    fn keep_below(&mut self, folder: &Path) -> io::Result<()> {
        self.keep(folder, File::open(folder)?.as_fd())?;
        for name in listed(folder)?.keys() {
            let path = folder.join(name);
            if path.is_dir() {
                self.keep_below(&path)?;
            } else {
                self.keep(&path, File::open(&path)?.as_fd())?;
            }
        }
        Ok(())
    }

    fn cut(&self, folder: &Path, chance: &mut Rng) -> io::Result<()> {
        let (now, none) = (listed(folder)?, BTreeMap::new());
        let safe = self.names.get(folder).unwrap_or(&none);
        let names_survive = chance.bool();
        for (name, inode) in &now {
            let path = folder.join(name);
            let survives = names_survive || safe.get(name) == Some(inode);
            match (path.is_dir(), survives) {
                (true, true) => self.cut(&path, chance)?,
                (true, false) => std::fs::remove_dir_all(&path)?,
                (false, true) => self.tear(&path, *inode, chance)?,
                (false, false) => std::fs::remove_file(&path)?,
            }
        }
        let lost = safe.iter().filter(|(name, inode)| !names_survive && now.get(*name) != Some(*inode));
        for (name, inode) in lost {
            // Removed or renamed without a sync of the directory.
            if let Some(bytes) = self.files.get(inode) {
                std::fs::write(folder.join(name), bytes)?;
            }
        }
        Ok(())
    }

    /// Of the bytes that were not synced, all, none or some survive.
    fn tear(&self, path: &Path, inode: u64, chance: &mut Rng) -> io::Result<()> {
        let (now, none) = (std::fs::read(path)?, Vec::new());
        let safe = self.files.get(&inode).unwrap_or(&none);
        if now == *safe {
            return Ok(());
        }
        let left = match chance.u8(..3) {
            0 => return Ok(()),
            1 => safe.clone(),
            _ => {
                let mut left = now.clone();
                for (index, sector) in left.chunks_mut(SECTOR).enumerate().filter(|_| chance.bool()) {
                    let old = safe.get(index * SECTOR..).unwrap_or_default();
                    let length = old.len().min(sector.len());
                    sector[..length].copy_from_slice(&old[..length]);
                    sector[length..].fill(0);
                }
                left
            }
        };
        std::fs::write(path, left)
    }
}

fn listed(folder: &Path) -> io::Result<BTreeMap<OsString, u64>> {
    std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| (entry.file_name(), entry.ino()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_of_the_rest_anything_may() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..1000 {
            let root = tempfile::tempdir().expect("a folder");
            let disk = Disk::new(root.path().to_owned(), false);
            let path = root.path().join("file");
            std::fs::write(&path, vec![1; 3 * SECTOR]).expect("written");
            disk.flush(&path).expect("synced");
            disk.flush(root.path()).expect("synced");
            std::fs::write(&path, vec![2; 3 * SECTOR]).expect("written");
            std::fs::write(root.path().join("new"), b"new").expect("written");
            disk.lose_power(&mut Rng::with_seed(seed)).expect("cut");
            let left = std::fs::read(&path).expect("its name was synced");
            assert_eq!(left.len(), 3 * SECTOR);
            let sectors: Vec<u8> = left.chunks(SECTOR).map(|sector| sector[0]).collect();
            outcomes.insert((sectors, root.path().join("new").exists()));
        }
        assert_eq!(outcomes.len(), 16, "every sector is old or new, and the new name is there or not");
    }
}

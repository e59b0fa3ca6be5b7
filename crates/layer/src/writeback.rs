//! Starts writing dirty pages while more data arrives, so that the sync at the seal has little left to do.
//!
//! It only *starts* writing: it never waits and never collects errors, which stay for the real sync to report. (A
//! second `fdatasync` in the background would swallow an error that the seal must see.) Correctness never needs it,
//! so every failure here is passed over in silence.
//!
//! What was written long enough ago leaves the page cache: nobody reads a copy soon, the cache of the host belongs to its
//! running VMs, and pages that are used again and again are quicker than ever new ones. Dropping skips what is not on
//! disk yet, and collects no errors either.

use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How much gathers before it is pushed out: large enough for one stream of big requests, small against a second.
const WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Windows that wait for the thread. A disk that is further behind gets one larger window later.
const WINDOWS_WAITING_MAX: usize = 2;

/// The newest part of a layer stays in the cache: a VM that is started from it reads there first.
const CACHED_BYTES: u64 = 128 * 1024 * 1024;

/// A range of the file, bytes.
struct Window {
    offset: u64,
    length: u64,
}

/// Follows a growing file. Starting to write can block on a full device queue, so a thread of its own does it; a
/// layer smaller than one window never has one.
#[derive(Debug)]
pub(crate) struct Writeback {
    started_to: u64,
    windows: Option<SyncSender<Window>>,
}

impl Writeback {
    pub(crate) fn from(offset: u64) -> Writeback {
        Writeback { started_to: offset, windows: None }
    }

    /// Tells that the file has bytes up to `end`.
    pub(crate) fn reached(&mut self, file: &File, end: u64) {
        let length = end.saturating_sub(self.started_to);
        if length < WINDOW_BYTES {
            return;
        }
        if self.windows.is_none() {
            self.windows = spawn(file);
        }
        let Some(windows) = &self.windows else { return };
        if windows.try_send(Window { offset: self.started_to, length }).is_ok() {
            self.started_to = end;
        }
    }
}

/// The thread ends with its sender, at the latest after the windows that wait.
fn spawn(file: &File) -> Option<SyncSender<Window>> {
    let file = file.try_clone().ok()?;
    let (sender, receiver) = sync_channel(WINDOWS_WAITING_MAX);
    std::thread::Builder::new().name("writeback".to_owned()).spawn(move || serve(&file, &receiver)).ok()?;
    Some(sender)
}

fn serve(file: &File, windows: &Receiver<Window>) {
    for window in windows {
        start(file, &window);
        drop_before(file, window.offset.saturating_sub(CACHED_BYTES));
    }
}

/// Lets go of everything before a place; what is gone already costs nothing to ask for again.
fn drop_before(file: &File, end: u64) {
    if let Some(length) = NonZeroU64::new(end) {
        let _ = rustix::fs::fadvise(file, 0, Some(length), rustix::fs::Advice::DontNeed);
    }
}

/// Asks the kernel to begin writing a range.
fn start(file: &File, window: &Window) {
    let (Ok(offset), Ok(length)) = (i64::try_from(window.offset), i64::try_from(window.length)) else {
        return;
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory of ours.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

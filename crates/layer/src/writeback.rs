//! Starts writing dirty pages while more data arrives, so that the sync at the seal has little left to do.
//!
//! It only *starts* writing: it never waits and never collects errors, which stay for the real sync to report. (A
//! second `fdatasync` in the background would swallow an error that the seal must see.) Correctness never needs it.

use std::fs::File;
use std::os::fd::AsRawFd;

/// How much gathers before it is pushed out: large enough for one stream of big requests, small against a second.
const WINDOW_BYTES: u64 = 16 * 1024 * 1024;

/// Follows a growing file.
#[derive(Debug)]
pub(crate) struct Writeback {
    started_to: u64,
}

impl Writeback {
    pub(crate) fn from(offset: u64) -> Writeback {
        Writeback { started_to: offset }
    }

    /// Tells that the file has bytes up to `end`.
    pub(crate) fn reached(&mut self, file: &File, end: u64) {
        if end.saturating_sub(self.started_to) >= WINDOW_BYTES {
            start(file, self.started_to, end - self.started_to);
            self.started_to = end;
        }
    }
}

/// Asks the kernel to begin writing a range; a refusal changes nothing, as the sync does it later.
fn start(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory of ours.
    #[allow(unsafe_code)]
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

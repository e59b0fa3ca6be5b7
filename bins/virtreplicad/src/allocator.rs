//! How the C library's allocator treats frames of a megabyte that come and go a thousand times a second.
//!
//! Left alone it gives each back to the kernel and asks for it again: every page is then cleared and mapped anew, a seventh
//! of the daemon's processor time in a copy. And it keeps an arena for each thread, so that what rests unused grows with
//! the number of processors.

use std::ffi::c_int;

/// Free memory at the end of an arena that stays with the daemon, bytes.
const KEPT_BYTES_MAX: c_int = 16 << 20;
/// Larger pieces come from the kernel one by one, bytes. The largest that the C library allows.
const MAPPED_BYTES_MIN: c_int = 32 << 20;
/// Arenas; threads that meet in one wait for nanoseconds.
const ARENAS_MAX: c_int = 4;

/// Called before the first thread is made.
#[allow(unsafe_code)]
pub(crate) fn prepare() {
    let settings = [
        (libc::M_TRIM_THRESHOLD, KEPT_BYTES_MAX),
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        (libc::M_ARENA_MAX, ARENAS_MAX),
    ];
    for (name, value) in settings {
        // SAFETY: sets a number inside the allocator; no other thread runs yet. A refusal only costs speed.
        let _ = unsafe { libc::mallopt(name, value) };
    }
}

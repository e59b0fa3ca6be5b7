//! Frames between the reader of the disk and the sender on the link.
//!
//! While a backup job is open the guest pays for it, so the reader never waits for the link: what the memory part cannot
//! hold goes to a file without a name in the scratch directory. Only when that file too is full does the reader wait.
//!
//! A spool that keeps what was taken can be rewound: after a broken link the same bytes go again from the frame where the
//! other host stands, although the source is long closed. It is NOT durable: it ends with the daemon.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

/// Bytes kept in memory; enough for some frames in flight, small beside the daemon's memory limit.
const MEMORY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Place of a frame in a delta: index of the disk, offset.
pub type Position = (u16, u64);

/// What the end of the stream counts as: behind every frame.
pub const END: Position = (u16::MAX, u64::MAX);

struct Piece {
    /// Where the frame begins that starts with this piece; none: more of the frame before.
    begins: Option<Position>,
    length: usize,
    place: Place,
}

enum Place {
    Memory(Bytes),
    File { offset: u64 },
}

struct State {
    pieces: VecDeque<Piece>,
    /// How many of them were taken and are only kept.
    taken: usize,
    keeps: bool,
    memory_bytes: u64,
    file_bytes: u64,
    /// The link is gone: nobody will make room.
    abandoned: bool,
    closed: bool,
    failed: bool,
}

struct Shared {
    state: Mutex<State>,
    file: File,
    file_bytes_max: u64,
    grown: Notify,
    shrunk: Notify,
    queued: Arc<AtomicU64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The reader's end.
pub struct SpoolWriter(Arc<Shared>);

/// The sender's end.
#[derive(Clone)]
pub struct SpoolReader(Arc<Shared>);

/// Makes a spool whose overflow lives in `scratch_dir` and takes at most `file_bytes_max`. `keeps`: it can be rewound.
pub fn spool(scratch_dir: &Path, file_bytes_max: u64, keeps: bool) -> io::Result<(SpoolWriter, SpoolReader)> {
    let file = crate::files::nameless(scratch_dir)?;
    let state = State {
        pieces: VecDeque::new(),
        taken: 0,
        keeps,
        memory_bytes: 0,
        file_bytes: 0,
        abandoned: false,
        closed: false,
        failed: false,
    };
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        file,
        file_bytes_max,
        grown: Notify::new(),
        shrunk: Notify::new(),
        queued: Arc::default(),
    });
    Ok((SpoolWriter(Arc::clone(&shared)), SpoolReader(shared)))
}

impl SpoolWriter {
    /// Appends one piece; waits only while memory and file are both full.
    pub async fn push(&self, piece: Bytes, begins: Option<Position>) -> io::Result<()> {
        loop {
            let room = self.0.shrunk.notified();
            if self.try_push(&piece, begins)? {
                self.0.queued.fetch_add(piece.len() as u64, Ordering::Relaxed);
                self.0.grown.notify_one();
                return Ok(());
            }
            room.await;
        }
    }

    /// What comes out will be incomplete: the reader gets an error instead of an end.
    pub fn fail(&self) {
        self.0.state().failed = true;
    }

    fn try_push(&self, piece: &Bytes, begins: Option<Position>) -> io::Result<bool> {
        let length = piece.len() as u64;
        let mut state = self.0.state();
        let in_file = state.pieces.back().is_some_and(|last| matches!(last.place, Place::File { .. }));
        let place =
            if !in_file && (state.memory_bytes + length <= MEMORY_BYTES_MAX || state.pieces.is_empty()) {
                state.memory_bytes += length;
                Place::Memory(piece.clone())
            } else if state.file_bytes + length <= self.0.file_bytes_max {
                cov_mark::hit!(a_spool_overflows_into_its_file);
                let offset = state.file_bytes;
                self.0.file.write_all_at(piece, offset)?;
                state.file_bytes += length;
                Place::File { offset }
            } else if state.abandoned {
                return Err(io::ErrorKind::StorageFull.into());
            } else {
                cov_mark::hit!(a_full_spool_gives_up_going_back);
                // Going on matters more than going back.
                state.keeps = false;
                state.forget_taken();
                self.0.reuse_file(&mut state)?;
                return Ok(false);
            };
        state.pieces.push_back(Piece { begins, length: piece.len(), place });
        Ok(true)
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.grown.notify_one();
    }
}

impl State {
    fn forget_taken(&mut self) {
        for piece in self.pieces.drain(..self.taken) {
            if let Place::Memory(bytes) = piece.place {
                self.memory_bytes -= bytes.len() as u64;
            }
        }
        self.taken = 0;
    }
}

impl Shared {
    /// The file begins anew when nothing in it is needed any more.
    fn reuse_file(&self, state: &mut State) -> io::Result<()> {
        if state.file_bytes > 0 && state.pieces.is_empty() {
            cov_mark::hit!(a_spool_uses_its_file_again);
            state.file_bytes = 0;
            self.file.set_len(0)?;
        }
        Ok(())
    }
}

impl SpoolReader {
    /// Bytes that wait here, as a number that can be watched from elsewhere.
    pub fn queued(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.0.queued)
    }

    /// The next piece; none when the writer is gone and everything was taken.
    pub async fn pop(&self) -> io::Result<Option<Bytes>> {
        loop {
            let more = self.0.grown.notified();
            match self.try_pop()? {
                Popped::Piece(piece) => {
                    self.0.queued.fetch_sub(piece.len() as u64, Ordering::Relaxed);
                    self.0.shrunk.notify_one();
                    return Ok(Some(piece));
                }
                Popped::End => return Ok(None),
                Popped::NotYet => more.await,
            }
        }
    }

    /// Nobody takes pieces for now: a writer that finds no room fails instead of waiting.
    pub fn abandon(&self) {
        self.0.state().abandoned = true;
        self.0.shrunk.notify_one();
    }

    /// The next piece will be the beginning of the frame at `position`; false if that is not kept.
    pub fn rewind(&self, position: Position) -> bool {
        let mut state = self.0.state();
        let Some(first) = state.pieces.iter().position(|piece| piece.begins.is_some_and(|it| it >= position))
        else {
            return false;
        };
        // What lies before the first piece that is kept was thrown away: it cannot be told whether something is missing.
        if !state.keeps {
            return false;
        }
        state.taken = first;
        state.abandoned = false;
        let waiting: usize = state.pieces.iter().skip(first).map(|piece| piece.length).sum();
        self.0.queued.store(waiting as u64, Ordering::Relaxed);
        true
    }

    fn try_pop(&self) -> io::Result<Popped> {
        let mut state = self.0.state();
        let next = state.taken;
        let Some(piece) = state.pieces.get(next) else {
            return match (state.closed, state.failed) {
                (true, true) => Err(io::ErrorKind::BrokenPipe.into()),
                (true, false) => Ok(Popped::End),
                (false, _) => Ok(Popped::NotYet),
            };
        };
        let bytes = match &piece.place {
            Place::Memory(bytes) => bytes.clone(),
            Place::File { offset } => {
                let mut bytes = vec![0; piece.length];
                self.0.file.read_exact_at(&mut bytes, *offset)?;
                Bytes::from(bytes)
            }
        };
        state.taken += 1;
        if !state.keeps {
            state.forget_taken();
            self.0.reuse_file(&mut state)?;
        }
        Ok(Popped::Piece(bytes))
    }
}

enum Popped {
    Piece(Bytes),
    NotYet,
    End,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: u8) -> Bytes {
        Bytes::from(vec![number; 1 << 20])
    }

    #[tokio::test]
    async fn pieces_come_out_in_order_through_memory_and_file() {
        cov_mark::check!(a_spool_overflows_into_its_file);
        cov_mark::check!(a_spool_uses_its_file_again);
        for keeps in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let (writer, reader) = spool(dir.path(), 1 << 30, keeps).expect("a spool");
            for number in 0..64 {
                writer.push(piece(number), None).await.expect("room");
            }
            for number in 0..40 {
                assert_eq!(reader.pop().await.expect("read"), Some(piece(number)));
            }
            for number in 64..80 {
                writer.push(piece(number), None).await.expect("room");
            }
            drop(writer);
            for number in 40..80 {
                assert_eq!(reader.pop().await.expect("read"), Some(piece(number)));
            }
            assert_eq!(reader.pop().await.expect("read"), None);
        }
    }

    #[tokio::test]
    async fn a_full_spool_makes_the_writer_wait_until_nobody_will_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let (writer, reader) = spool(dir.path(), 1 << 20, true).expect("a spool");
        for number in 0..17 {
            writer.push(piece(number), None).await.expect("room");
        }
        let waiting = tokio::spawn(async move { writer.push(piece(17), None).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        reader.abandon();
        assert!(waiting.await.expect("no panic").is_err());
    }

    #[tokio::test]
    async fn a_spool_that_keeps_is_rewound_to_a_frame_also_after_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let (writer, reader) = spool(dir.path(), 1 << 30, true).expect("a spool");
        for number in 0..40_u8 {
            let offset = u64::from(number / 2) << 20;
            let begins = number.is_multiple_of(2).then_some((0, offset));
            writer.push(piece(number), begins).await.expect("room");
        }
        drop(writer);
        while reader.pop().await.expect("read").is_some() {}
        for (offset_mib, first) in [(30, None), (12, Some(24)), (0, Some(0)), (19, Some(38))] {
            assert_eq!(reader.rewind((0, offset_mib << 20)), first.is_some(), "{offset_mib}");
            if let Some(first) = first {
                assert_eq!(reader.pop().await.expect("read"), Some(piece(first)));
            }
        }
    }

    #[tokio::test]
    async fn a_spool_that_had_to_forget_says_so_and_goes_on() {
        cov_mark::check!(a_full_spool_gives_up_going_back);
        let dir = tempfile::tempdir().expect("a directory");
        let (writer, reader) = spool(dir.path(), 4 << 20, true).expect("a spool");
        let writing = tokio::spawn(async move {
            for number in 0..60 {
                writer.push(piece(number), Some((0, u64::from(number)))).await.expect("room");
            }
        });
        for number in 0..60 {
            assert_eq!(reader.pop().await.expect("read"), Some(piece(number)));
        }
        writing.await.expect("no panic");
        assert!(!reader.rewind((0, 0)));
    }
}

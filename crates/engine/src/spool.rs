//! Frames between the reader of the disk and the sender on the link.
//!
//! While a backup job is open the guest pays for it, so the reader never waits for the link: what the memory part cannot
//! hold goes to a file without a name in the scratch directory. Only when that file too is full does the reader wait.
//! The spool is no resume store: after a broken link frames are read again or the next cycle covers them.

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

struct State {
    memory: VecDeque<Bytes>,
    memory_bytes: u64,
    /// Lengths of the pieces in the file, oldest first; they are younger than every piece in memory.
    in_file: VecDeque<usize>,
    read_at: u64,
    write_at: u64,
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
pub struct SpoolReader(Arc<Shared>);

/// Makes a spool whose overflow lives in `scratch_dir` and takes at most `file_bytes_max`.
pub fn spool(scratch_dir: &Path, file_bytes_max: u64) -> io::Result<(SpoolWriter, SpoolReader)> {
    let file = crate::files::nameless(scratch_dir)?;
    let state = State {
        memory: VecDeque::new(),
        memory_bytes: 0,
        in_file: VecDeque::new(),
        read_at: 0,
        write_at: 0,
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
    pub async fn push(&self, piece: Bytes) -> io::Result<()> {
        loop {
            let room = self.0.shrunk.notified();
            if self.try_push(&piece)? {
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

    fn try_push(&self, piece: &Bytes) -> io::Result<bool> {
        let length = piece.len() as u64;
        let mut state = self.0.state();
        if state.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.in_file.is_empty()
            && (state.memory_bytes + length <= MEMORY_BYTES_MAX || state.memory.is_empty())
        {
            state.memory_bytes += length;
            state.memory.push_back(piece.clone());
            return Ok(true);
        }
        if state.write_at - state.read_at + length > self.0.file_bytes_max {
            return Ok(false);
        }
        // The write goes to the page cache; holding the lock keeps the order of the pieces simple.
        self.0.file.write_all_at(piece, state.write_at)?;
        state.write_at += length;
        state.in_file.push_back(piece.len());
        Ok(true)
    }
}

impl Drop for SpoolWriter {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.grown.notify_one();
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

    fn try_pop(&self) -> io::Result<Popped> {
        let mut state = self.0.state();
        if let Some(piece) = state.memory.pop_front() {
            state.memory_bytes -= piece.len() as u64;
            return Ok(Popped::Piece(piece));
        }
        let Some(length) = state.in_file.pop_front() else {
            return match (state.closed, state.failed) {
                (true, true) => Err(io::ErrorKind::BrokenPipe.into()),
                (true, false) => Ok(Popped::End),
                (false, _) => Ok(Popped::NotYet),
            };
        };
        let mut piece = vec![0; length];
        self.0.file.read_exact_at(&mut piece, state.read_at)?;
        state.read_at += length as u64;
        if state.in_file.is_empty() {
            (state.read_at, state.write_at) = (0, 0);
            self.0.file.set_len(0)?;
        }
        Ok(Popped::Piece(Bytes::from(piece)))
    }
}

enum Popped {
    Piece(Bytes),
    NotYet,
    End,
}

impl Drop for SpoolReader {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.shrunk.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_out_in_order_through_memory_and_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (writer, reader) = spool(dir.path(), 1 << 30).expect("a spool");
        let piece = |number: u8| Bytes::from(vec![number; 1 << 20]);
        for number in 0..64 {
            writer.push(piece(number)).await.expect("room");
        }
        for number in 0..40 {
            assert_eq!(reader.pop().await.expect("read"), Some(piece(number)));
        }
        for number in 64..80 {
            writer.push(piece(number)).await.expect("room");
        }
        drop(writer);
        for number in 40..80 {
            assert_eq!(reader.pop().await.expect("read"), Some(piece(number)));
        }
        assert_eq!(reader.pop().await.expect("read"), None);
    }

    #[tokio::test]
    async fn a_full_spool_makes_the_writer_wait_and_a_gone_reader_frees_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (writer, reader) = spool(dir.path(), 1 << 20).expect("a spool");
        let piece = Bytes::from(vec![1; 1 << 20]);
        for _ in 0..17 {
            writer.push(piece.clone()).await.expect("room");
        }
        let waiting = tokio::spawn(async move { writer.push(piece).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(reader);
        assert!(waiting.await.expect("no panic").is_err());
    }
}

//! The link between the hosts, as a road for each direction of connecting: it carries, swallows, or breaks what is on it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::time;

/// How often a road that swallows is looked at again.
const LOOK: Duration = Duration::from_millis(2);

/// What all roads are like.
#[derive(Default)]
pub(crate) struct Link {
    /// Nothing arrives, and nobody is told.
    pub(crate) swallows: AtomicBool,
    /// Whom nobody reaches who begins to speak; what that host asks itself is answered.
    pub(crate) unreachable: [AtomicBool; 2],
    /// How long what is sent is under way, milliseconds of simulated time.
    pub(crate) delay_ms: AtomicU64,
    /// Raised when all connections break.
    breaks: AtomicU64,
    /// Bytes after which the next connection breaks; 0: none does.
    breaks_after: AtomicU64,
}

impl Link {
    /// All connections break now.
    pub(crate) fn break_all(&self) {
        self.breaks.fetch_add(1, Ordering::SeqCst);
    }

    /// The connection that carries this many bytes from now on breaks.
    pub(crate) fn break_after(&self, bytes: u64) {
        self.breaks_after.store(bytes.max(1), Ordering::SeqCst);
    }

    fn swallows(&self, to: usize) -> bool {
        self.swallows.load(Ordering::SeqCst) || self.unreachable[to].load(Ordering::SeqCst)
    }

    /// Whether so many bytes more are too many; once.
    fn is_broken_by(&self, bytes: u64) -> bool {
        let left = self.breaks_after.load(Ordering::SeqCst);
        let now = left.saturating_sub(bytes);
        left > 0
            && self.breaks_after.compare_exchange(left, now, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            && now == 0
    }
}

/// A road to a host, of which this is the index and the port; gives the port at which it begins. It ends with the process.
pub(crate) fn road(link: &Arc<Link>, index: usize, to: &Arc<AtomicU16>) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (link, to) = (Arc::clone(link), Arc::clone(to));
    std::thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let (link, to) = (Arc::clone(&link), Arc::clone(&to));
            std::thread::spawn(move || drop(connect(&near, &link, index, &to)));
        }
    });
    Ok(port)
}

fn connect(near: &TcpStream, link: &Arc<Link>, index: usize, to: &AtomicU16) -> Result<()> {
    let begun = link.breaks.load(Ordering::SeqCst);
    while link.swallows(index) {
        std::thread::sleep(LOOK);
    }
    // A daemon that is not there refuses, as its host would.
    let far = TcpStream::connect(("127.0.0.1", to.load(Ordering::SeqCst)))?;
    let (near_again, far_again, other) = (near.try_clone()?, far.try_clone()?, Arc::clone(link));
    std::thread::spawn(move || carry(far_again, near_again, &other, index, begun));
    carry(near.try_clone()?, far, link, index, begun);
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream, link: &Link, index: usize, begun: u64) {
    let mut buffer = [0; 16 * 1024];
    let _ = from.set_read_timeout(Some(LOOK));
    let is_broken = || link.breaks.load(Ordering::SeqCst) != begun;
    while !is_broken() {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                time::pass(Duration::from_millis(link.delay_ms.load(Ordering::SeqCst)));
                while link.swallows(index) && !is_broken() {
                    std::thread::sleep(LOOK);
                }
                if link.is_broken_by(count as u64) || to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

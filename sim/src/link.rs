//! The link between the hosts, as a road for each direction of connecting: it carries, swallows, or breaks what is on it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::outside::Outside;

/// What does not arrive; nobody is told.
#[derive(Clone, Copy, Default)]
struct Swallows {
    everything: bool,
    /// What is on a road to this host, which begins at the other; what it asks itself is answered.
    to: [bool; 2],
}

/// What all roads are like.
pub(crate) struct Link {
    /// What does not arrive.
    swallows: watch::Sender<Swallows>,
    /// How long what is sent is under way, milliseconds.
    delay_ms: AtomicU64,
    /// Raised when all connections break.
    breaks: watch::Sender<u64>,
    /// Bytes after which the next connection breaks; 0: none does.
    breaks_after: AtomicU64,
    outside: Outside,
}

impl Link {
    pub(crate) fn new(outside: Outside) -> Link {
        let (swallows, breaks) = (watch::Sender::default(), watch::Sender::new(0));
        Link { swallows, delay_ms: AtomicU64::new(0), breaks, breaks_after: AtomicU64::new(0), outside }
    }

    /// From now on it swallows everything, or nothing.
    pub(crate) fn swallow(&self, everything: bool) {
        self.swallows.send_modify(|swallows| swallows.everything = everything);
    }

    /// From now on nobody reaches a host who begins to speak.
    #[cfg(test)]
    pub(crate) fn make_unreachable(&self, host: usize) {
        self.swallows.send_modify(|swallows| swallows.to[host] = true);
    }

    /// From now on what is sent is under way for so long.
    #[cfg(test)]
    pub(crate) fn delay(&self, ms: u64) {
        self.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// All connections break now.
    pub(crate) fn break_all(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// The connection that carries this many bytes from now on breaks.
    pub(crate) fn break_after(&self, bytes: u64) {
        self.breaks_after.store(bytes.max(1), Ordering::SeqCst);
    }

    async fn lets_pass(&self, to: usize) {
        drop(self.swallows.subscribe().wait_for(|it| !it.everything && !it.to[to]).await);
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

/// A road to a host, of which this is the index and the port at which it listens; gives the port at which it begins.
pub(crate) fn road(link: &Arc<Link>, index: usize, to: &Arc<AtomicU16>) -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    listener.set_nonblocking(true)?;
    let outside = &link.outside.handle;
    let _here = outside.enter();
    let listener = TcpListener::from_std(listener)?;
    let (road, to) = (Arc::clone(link), Arc::clone(to));
    outside.spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (link, to) = (Arc::clone(&road), Arc::clone(&to));
            tokio::spawn(async move { drop(connect(near, &link, index, &to).await) });
        }
    });
    Ok(port)
}

async fn connect(mut near: TcpStream, link: &Link, index: usize, to: &AtomicU16) -> Result<()> {
    link.outside.moved();
    let mut breaks = link.breaks.subscribe();
    link.lets_pass(index).await;
    // A daemon that is not there refuses, as its host would.
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, to.load(Ordering::SeqCst))).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_from, near_to), (far_from, far_to)) = (near.split(), far.split());
    // Whichever ends first ends all: both streams are closed.
    tokio::select! {
        done = carry(near_from, far_to, link, index) => done,
        done = carry(far_from, near_to, link, index) => done,
        _ = breaks.changed() => Ok(()),
    }
}

async fn carry(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    link: &Link,
    index: usize,
) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        link.outside.moved();
        if count == 0 {
            return Ok(());
        }
        let delay = link.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        link.lets_pass(index).await;
        if link.is_broken_by(count as u64) {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

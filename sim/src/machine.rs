//! The machine below a host: which host a thread works for, its wall clock, its disk tools. It outlives daemons.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::time::Duration;

use domain::Timestamp;
use tokio::runtime::Handle;

use crate::bitmaps::Bitmaps;
use crate::disk::Disk;
use crate::export::{Export, Server};
use crate::{image, tools};

/// The simulated world begins on a day of 2026.
const FIRST_MS: u64 = 1_780_000_000_000;

/// One of the two.
pub(crate) struct Machine {
    /// Where what is no daemon runs: link, guests, exports.
    pub(crate) world: Handle,
    /// Of all files of this host.
    pub(crate) bitmaps: Bitmaps,
    /// Where its replicas are.
    pub(crate) disk: Disk,
    /// Time of the world, ms since it began.
    reached_ms: AtomicU64,
    /// How wrong its wall clock is.
    wrong_by_ms: AtomicI64,
}

/// Threads that sync are not always those of a daemon.
static ALL: Mutex<Vec<Weak<Machine>>> = Mutex::new(Vec::new());

thread_local! {
    static HERE: RefCell<Option<Arc<Machine>>> = const { RefCell::new(None) };
}

impl Machine {
    /// A host whose replicas are in `storage`.
    pub(crate) fn new(world: Handle, storage: PathBuf, forgets: bool) -> Arc<Machine> {
        install();
        let (reached_ms, wrong_by_ms) = (AtomicU64::new(0), AtomicI64::new(0));
        let disk = Disk::new(storage, forgets);
        let machine = Arc::new(Machine { world, bitmaps: Bitmaps::default(), disk, reached_ms, wrong_by_ms });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|machine| machine.strong_count() > 0);
        all.push(Arc::downgrade(&machine));
        machine
    }

    /// This thread works for this host from now on.
    pub(crate) fn enter(self: &Arc<Self>) {
        HERE.set(Some(Arc::clone(self)));
    }

    /// This thread works for nobody any more.
    pub(crate) fn leave() {
        HERE.set(None);
    }

    /// The host that this thread works for.
    pub(crate) fn here() -> Option<Arc<Machine>> {
        HERE.with_borrow(Clone::clone)
    }

    /// The world's time is so far.
    pub(crate) fn reach(&self, since_begin: Duration) {
        self.reached_ms.store(u64::try_from(since_begin.as_millis()).unwrap_or(0), Ordering::SeqCst);
    }

    /// Its wall clock jumps.
    pub(crate) fn jump(&self, by_ms: i64) {
        self.wrong_by_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Its wall clock is right again.
    pub(crate) fn set_clock(&self) {
        self.wrong_by_ms.store(0, Ordering::SeqCst);
    }

    /// Its wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        let right = FIRST_MS + self.reached_ms.load(Ordering::SeqCst);
        Timestamp(right.saturating_add_signed(self.wrong_by_ms.load(Ordering::SeqCst)))
    }
}

/// The wall clock of the host that this thread works for.
pub(crate) fn now() -> Timestamp {
    Machine::here().map_or(Timestamp(FIRST_MS), |machine| machine.now())
}

/// Clock and tools of this process are simulated from now on; of a thread that works for no host, only the clock.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        engine::clock::simulate(now);
        layer::simulate_sync(|what| {
            let path = std::fs::read_link(format!("/proc/self/fd/{}", what.as_raw_fd()))?;
            let machines = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let whose = machines.iter().filter_map(Weak::upgrade).find(|it| it.disk.has(&path));
            whose.map_or(Ok(()), |machine| machine.disk.synced(&path, what))
        });
        layer::simulate_qemu_img(|verb, options, operands| {
            Machine::here().map(|machine| tools::qemu_img(&machine.bitmaps, verb, options, operands))
        });
        nbd::simulate_offline(|file, bitmaps, socket| {
            Machine::here().map(|machine| offline(&machine, file, bitmaps, socket))
        });
    });
}

/// What `qemu-nbd` would serve.
fn offline(
    machine: &Machine,
    file: &Path,
    bitmaps: &[String],
    socket: &Path,
) -> Result<Box<dyn Send + Sync>, String> {
    let mut dirty: Vec<(String, BTreeSet<usize>)> = Vec::new();
    for name in bitmaps {
        let marks = machine.bitmaps.of(file).into_iter().find(|bitmap| bitmap.name == *name);
        let marks = marks.ok_or_else(|| format!("Bitmap '{name}' is not found"))?.marks;
        dirty.push((nbd::dirty_context(name), marks));
    }
    let content = image::read(file).map_err(|error| format!("{error:#}"))?;
    let server = Server::start(&machine.world, socket, Export { content, dirty });
    Ok(Box::new(server.map_err(|error| error.to_string())?))
}

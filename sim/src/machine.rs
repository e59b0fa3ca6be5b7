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
use tokio::time::Instant;

use crate::bitmaps::Bitmaps;
use crate::disk::{Caller, Disk};
use crate::export::{Export, Server};
use crate::outside::Outside;
use crate::threads::{Known, Threads};
use crate::{image, tools};

/// The simulated world begins on a day of 2026.
const FIRST_MS: u64 = 1_780_000_000_000;

/// Longest wait for what a killed daemon has begun, of the machine's time: far longer than it takes on a busy one.
const DIES_WITHIN: Duration = Duration::from_secs(60);

/// One of the two.
pub(crate) struct Machine {
    pub(crate) outside: Outside,
    /// Of all files of this host.
    pub(crate) bitmaps: Bitmaps,
    /// Where its replicas are.
    pub(crate) disk: Disk,
    /// Time of the world since it began, and the same moment by the clock of the daemon that lives.
    reached: Mutex<(Duration, Option<Instant>)>,
    /// How wrong its wall clock is.
    wrong_by_ms: AtomicI64,
    /// How many daemons have lived before this one.
    life: AtomicU64,
    /// Of the daemon that lives, and of the one that was killed last.
    threads: Threads,
}

/// For whom a thread works.
struct Here {
    machine: Arc<Machine>,
    life: u64,
    caller: Caller,
    known: Option<Known>,
}

/// Threads that sync are not always those of a daemon.
static ALL: Mutex<Vec<Weak<Machine>>> = Mutex::new(Vec::new());

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

impl Machine {
    /// A host whose replicas are in `storage`.
    pub(crate) fn new(outside: Outside, storage: PathBuf, forgets: bool) -> Arc<Machine> {
        install();
        let machine = Arc::new(Machine {
            outside,
            bitmaps: Bitmaps::default(),
            disk: Disk::new(storage, forgets),
            reached: Mutex::default(),
            wrong_by_ms: AtomicI64::new(0),
            life: AtomicU64::new(0),
            threads: Threads::default(),
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|machine| machine.strong_count() > 0);
        all.push(Arc::downgrade(&machine));
        machine
    }

    /// The thread on which everything happens works for this host from now on.
    pub(crate) fn enter(self: &Arc<Self>) {
        let life = self.life.load(Ordering::SeqCst);
        HERE.with_borrow_mut(|here| {
            let known = here.take().and_then(|before| before.known).or_else(|| Some(Known::this()));
            *here = Some(Here { machine: Arc::clone(self), life, caller: Caller::Driver, known });
        });
    }

    /// A thread of its daemon begins, which waits for files and tools.
    pub(crate) fn begin_thread(self: &Arc<Self>) {
        let (life, known) = (self.life.load(Ordering::SeqCst), Known::this());
        // Without an account of it, it would be taken for one that waits.
        let known = self.threads.add(&known).is_ok().then_some(known);
        HERE.set(Some(Here { machine: Arc::clone(self), life, caller: Caller::Blocking, known }));
    }

    /// This thread ends, or works for nobody any more.
    pub(crate) fn leave() {
        let Some(here) = HERE.take() else { return };
        if let Some(known) = here.known.filter(|_| here.caller == Caller::Blocking) {
            here.machine.threads.remove(&known);
        }
    }

    /// Whether a thread works for its daemon. One that waits for the other host, or for time, does not.
    pub(crate) fn works(&self) -> bool {
        self.threads.work()
    }

    /// The daemon of this thread was killed: it does nothing any more.
    pub(crate) fn stand_still() {
        let Some(machine) = Machine::here() else { return };
        Machine::leave();
        machine.disk.wait_for_the_end();
    }

    /// A thread whose daemon was killed begins nothing new.
    pub(crate) fn expect_life() {
        let is_dead = HERE.with_borrow(|here| {
            here.as_ref().is_some_and(|it| {
                it.caller == Caller::Blocking && it.life != it.machine.life.load(Ordering::SeqCst)
            })
        });
        if is_dead {
            Machine::stand_still();
        }
    }

    /// Its daemon is killed.
    pub(crate) fn die(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
        self.disk.kill();
    }

    /// Waits until nothing of a killed daemon works any more.
    pub(crate) fn wait_for_threads(&self) {
        assert!(self.threads.have_ended_within(DIES_WITHIN), "a thread outlives its daemon");
    }

    /// The host that this thread works for.
    pub(crate) fn here() -> Option<Arc<Machine>> {
        HERE.with_borrow(|here| here.as_ref().map(|here| Arc::clone(&here.machine)))
    }

    /// The world's time is so far, and that of the daemon which lives.
    pub(crate) fn reach(&self, since_begin: Duration, daemon: Option<Instant>) {
        *self.reached.lock().unwrap_or_else(PoisonError::into_inner) = (since_begin, daemon);
        self.disk.reach(since_begin);
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
        let (reached, daemon) = *self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        // Within its daemon time is what that one's timers say.
        let since = daemon.filter(|_| Handle::try_current().is_ok());
        let reached = reached + since.map_or(Duration::ZERO, |since| since.elapsed());
        let right = FIRST_MS + u64::try_from(reached.as_millis()).unwrap_or(0);
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
            Machine::expect_life();
            let caller = HERE.with_borrow(|here| here.as_ref().map_or(Caller::Blocking, |here| here.caller));
            whose.map_or(Ok(()), |machine| machine.disk.synced(&path, what, caller))
        });
        layer::simulate_qemu_img(|verb, options, operands| {
            Machine::expect_life();
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
    let server = Server::start(&machine.outside, socket, Export { content, dirty });
    Ok(Box::new(server.map_err(|error| error.to_string())?))
}

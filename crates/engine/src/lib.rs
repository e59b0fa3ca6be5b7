//! The engine: one owner task per relationship that asks the pure crates what to do and does it.
//!
//! ```text
//!   command line ─▶ protect, handover ─┐                       ┌─▶ cycle ─▶ source, frames, spool ─▶ the other host
//!                                      ├─▶ store ─▶ owner ─────┤
//!   other host ──▶ listen, receive ────┘   (what is true)      └─▶ handover ─▶ replica (promote, demote, fold)
//! ```
//! State lives in the store; whoever changes it wakes the owner. The owner alone acts on the VM of a primary; on a replica,
//! whoever holds its lock acts on its files and on how libvirt shows it. After any crash the owner reads the store and goes on: there is no other recovery. What is *not* here: libvirt, XML, sockets.

mod attachments;
pub mod basis;
mod boot;
mod certificates;
mod chain;
pub mod clock;
mod comeback;
mod compare;
mod confirm;
mod copy;
mod cycle;
mod diverged;
mod ended;
mod error;
mod events;
mod export;
mod failover;
mod files;
mod frames;
mod guard;
mod guest_files;
mod handover;
mod hear;
mod hold;
mod home;
mod incoming;
mod intact;
mod let_go;
mod life;
mod listen;
mod notice;
mod operation;
mod owner;
mod peer;
mod pending;
mod plan;
mod points;
mod protect;
mod quiesce;
mod receive;
mod recovery;
mod redirect;
mod removal;
mod replica;
mod report;
mod room;
mod scratch;
mod seal;
mod seed;
mod seen;
mod show;
mod shrunk;
mod source;
mod spool;
mod stale;
mod standing;
mod survey;
mod test_failover;
mod transfer;
mod trust;
mod view;
mod visible;
mod wrap;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use choreography::{Entry, Mark};
use domain::{HostId, RelationshipId, VmId};
use hypervisor::{Happening, Hypervisor, HypervisorError, VmFacts};
use peer::Seen;
use store::{Record, Store};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use transport::{Identity, PeerClient, RateLimiter, TrustStore};

pub use certificates::CERTIFICATE_LOOK;
pub use compare::ComparisonProgress;
pub use compare::policy::ComparisonFacts;
pub use confirm::StartWord;
pub use diverged::DivergedDisk;
pub use error::{Code, Refusal, Result};
pub use failover::FailoverPlan;
pub use guest_files::{GuestFile, GuestFiles};
pub use home::Home;
pub use plan::Plan;
pub use points::{ChainFacts, PointFacts, WishedPoint};
pub use protect::{EnableRequest, ReverseRequest};
pub use quiesce::{DISMISSED, FROZEN_MAX};
pub use recovery::Recovery;
pub use report::{Report, Times, facts, words};
pub use show::{SHOWN_MAX, Views};
pub use survey::judge::obstacle_words;
pub use test_failover::{Finding, TestFacts, TestOptions, TestView};
pub use trust::Trust;
pub use view::Progress;
pub use wrap::DisksToMove;

/// Where things are on this host, and its limits.
#[derive(Clone, Debug)]
pub struct Config {
    /// This host's name, for people.
    pub host_name: String,
    /// Version of the daemon, for people.
    pub version: String,
    /// Where replicas are kept.
    pub storage: PathBuf,
    /// Where QEMU keeps what the guest overwrites during a backup, and where the spool overflows.
    pub scratch: PathBuf,
    /// Directory for QEMU's NBD sockets; QEMU's user must be able to write there.
    pub sockets: PathBuf,
    /// Where libvirt looks for our start guard.
    pub hook: PathBuf,
    /// Most bytes that one cycle's spool puts on disk.
    pub spool_bytes_max: u64,
    /// Where reports and pictures of test failovers are kept.
    pub reports: PathBuf,
    /// Where the evidence of differences is kept that a verification found.
    pub evidence: PathBuf,
    /// Most resynchronizations at a time.
    pub resynchronizations_max: usize,
    /// Directory of programs that send the users to the new place.
    pub redirect_hooks: PathBuf,
    /// The daemon's own program, which also is the watchdog of a freeze.
    pub program: PathBuf,
    /// Directory by which a test holds the daemon at chosen places; none but in a test.
    pub holds: Option<PathBuf>,
}

/// The engine of one host. A cheap handle.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    config: Config,
    host: HostId,
    store: Store,
    hypervisor: Arc<dyn Hypervisor>,
    trust: Arc<dyn TrustStore>,
    identity: Arc<Identity>,
    clients: Mutex<HashMap<HostId, Arc<PeerClient>>>,
    slots: Mutex<HashMap<RelationshipId, Arc<Slot>>>,
    limiter: RateLimiter,
    seen: Mutex<HashMap<HostId, Seen>>,
    resynchronizations: Arc<Semaphore>,
    views: OnceLock<Arc<dyn Views>>,
    /// Told whenever something happened to a VM of this host.
    vm_bell: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Whether libvirt asks the start guard.
    tried_guard: Mutex<guard::Tried>,
}

/// How long libvirt may take for a verb that makes QEMU open files: a guest's memory may have to be cleared first.
const VERB_MAX: Duration = Duration::from_secs(120);
/// The limit that was set at run time, in the store's settings.
const RATE_LIMIT: &str = "rate-limit-bytes-per-second";

/// What a relationship needs beside its row: a bell, a lock for whoever works on its replica, and progress.
struct Slot {
    wake: Notify,
    /// Held while settings are changed on both hosts.
    settings: tokio::sync::Mutex<()>,
    replica: tokio::sync::Mutex<()>,
    /// Held while recovery points are merged, and by whoever needs their files as they are.
    chain: Arc<chain::Chain>,
    /// A point that somebody asked for, until a cycle makes it.
    wish: Mutex<Option<points::Wish>>,
    /// Tells a transfer that holds the lock above to give way.
    superseded: Notify,
    /// The primary's delta that broke and can go on.
    unfinished: Mutex<Option<transfer::Transfer>>,
    /// The replica's head while it is compared.
    open_head: tokio::sync::Mutex<Option<compare::serve::OpenHead>>,
    /// How far the primary is with comparing.
    comparison: Mutex<Option<ComparisonProgress>>,
    /// What a resynchronization waits for.
    waiting: Mutex<Option<String>>,
    /// Why recovery points could not be merged.
    fold_failure: Mutex<Option<String>>,
    /// Why the replica could not follow the VM's disks.
    follow_failure: Mutex<Option<String>>,
    /// What the replica's host was told to be doubted.
    told_doubt: Mutex<Option<domain::Doubt>>,
    /// What is left of the time that a person has set for a failover.
    countdown: Mutex<Option<failover::timer::Countdown>>,
    /// The step of an operation that failed last, and when it may be tried again.
    retry: Mutex<Option<(choreography::Step, tokio::time::Instant)>>,
    /// The tries to do what was to become of a failover by itself.
    tries: Mutex<Option<failover::timer::Tries>>,
    /// When the VM moved to where it runs.
    moved: Mutex<Option<home::Moved>>,
    /// When a drill had to wait.
    drill_waits: Mutex<Option<Instant>>,
    /// When the other host did not answer in a hurry.
    silent: Mutex<Option<Instant>>,
    /// The statistics as they were summed up last.
    statistics: Mutex<Option<view::Summed>>,
    /// Whether the other host, as last heard, has ended the relationship.
    ended_there: AtomicBool,
    /// When the VM may have been started, until its agent answers.
    booted: Mutex<Option<Instant>>,
    /// Whether the open backup job was ended because the scratch directory filled up.
    scratch_ended: Arc<AtomicBool>,
    limiter: RateLimiter,
    /// Whether the files of a VM that is off are held, and the bell of somebody who wants to start it.
    files: Arc<let_go::Files>,
    done_bytes: AtomicU64,
    sent_before_bytes: AtomicU64,
    total_bytes: AtomicU64,
    begun_ms: AtomicU64,
    owned: AtomicBool,
}

impl Slot {
    fn fold_failure(&self) -> MutexGuard<'_, Option<String>> {
        self.fold_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn comparison(&self) -> MutexGuard<'_, Option<ComparisonProgress>> {
        self.comparison.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow_failure(&self) -> MutexGuard<'_, Option<String>> {
        self.follow_failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told_doubt(&self) -> MutexGuard<'_, Option<domain::Doubt>> {
        self.told_doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn countdown(&self) -> MutexGuard<'_, Option<failover::timer::Countdown>> {
        self.countdown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retry(&self) -> MutexGuard<'_, Option<(choreography::Step, tokio::time::Instant)>> {
        self.retry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tries(&self) -> MutexGuard<'_, Option<failover::timer::Tries>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drill_waits(&self) -> MutexGuard<'_, Option<Instant>> {
        self.drill_waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn silent(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn booted(&self) -> MutexGuard<'_, Option<Instant>> {
        self.booted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No transfer is under way any more.
    fn stop_progress(&self) {
        self.begun_ms.store(0, Ordering::Relaxed);
    }

    fn wish(&self) -> MutexGuard<'_, Option<points::Wish>> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, Option<transfer::Transfer>> {
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> Option<Progress> {
        let progress = Progress {
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            sent_before_bytes: self.sent_before_bytes.load(Ordering::Relaxed),
            begun_ms: self.begun_ms.load(Ordering::Relaxed),
        };
        (progress.begun_ms > 0).then_some(progress)
    }
}

impl Engine {
    /// The engine over its parts. Nothing happens before [`Engine::start`].
    #[must_use]
    pub fn new(
        config: Config,
        host: HostId,
        store: Store,
        hypervisor: Arc<dyn Hypervisor>,
        trust: Arc<dyn TrustStore>,
        identity: Arc<Identity>,
    ) -> Engine {
        let resynchronizations = Arc::new(Semaphore::new(config.resynchronizations_max.max(1)));
        Engine(Arc::new(Inner {
            config,
            host,
            store,
            hypervisor,
            trust,
            identity,
            clients: Mutex::default(),
            slots: Mutex::default(),
            limiter: RateLimiter::new(None),
            seen: Mutex::default(),
            resynchronizations,
            views: OnceLock::new(),
            vm_bell: OnceLock::new(),
            tried_guard: Mutex::default(),
        }))
    }

    /// Ends what a daemon that was killed has left running. Before [`Engine::start`].
    pub async fn end_orphans(&self) {
        source::end_orphans(self).await;
    }

    /// Resumes every relationship where it was.
    pub fn start(&self) -> Result<()> {
        self.trust_wrappers()?;
        for record in self.store().relationships().map_err(Refusal::failed)? {
            if let Err(error) = replica::catch_up(self, &record) {
                // Storage that is not mounted is reported by every cycle; the other relationships go on.
                tracing::warn!(vm = record.relationship.vm_name, %error, "the replica directory cannot be read");
            }
            owner::spawn(self, record.relationship.id);
        }
        tokio::spawn(quiesce::thaw_what_is_left(self.clone()));
        tokio::spawn(source::end_late_orphans(self.clone()));
        if let Err(error) = self.resume_tests() {
            tracing::warn!(%error, "test failovers cannot be looked after");
        }
        if let Err(error) = self.resume_imports() {
            tracing::warn!(%error, "imports cannot go on");
        }
        tokio::spawn(self.clone().listen_to_hypervisor());
        Ok(())
    }

    /// What happens to a VM wakes its owner at once. Owners look by themselves as well: an event that is lost costs seconds.
    async fn listen_to_hypervisor(self) {
        loop {
            let engine = self.clone();
            let notify = Box::new(move |happening| engine.happened(happening));
            match self.hypervisor(move |it| it.watch(notify)).await {
                Ok(()) => return,
                Err(_) => tokio::time::sleep(owner::LOOK).await,
            }
        }
    }

    /// Rings `bell` from now on whenever libvirt tells of a VM. Once: a second one is not rung.
    pub fn listen_to_vms(&self, bell: Box<dyn Fn() + Send + Sync>) {
        let _ = self.0.vm_bell.set(bell);
    }

    fn happened(&self, happening: Happening) {
        if let Some(bell) = self.0.vm_bell.get() {
            bell();
        }
        let concerned = match happening {
            Happening::Lifecycle(vm) | Happening::Definition(vm) => {
                self.store().relationship_by_vm(vm).map(|found| found.into_iter().collect())
            }
            Happening::Lost => Ok(Vec::new()), // whoever needs it finds out, and says so
            Happening::Reconnected => self.store().relationships(),
        };
        if happening == Happening::Reconnected {
            self.forget_tried_guard();
        }
        for record in concerned.unwrap_or_default() {
            if matches!(happening, Happening::Lifecycle(_)) {
                boot::begins(self, record.relationship.id);
            }
            self.wake(record.relationship.id);
        }
    }

    /// The state of this host.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// This host's id.
    #[must_use]
    pub fn host(&self) -> HostId {
        self.0.host
    }

    /// Where things are.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The limit of all replication traffic of this host.
    #[must_use]
    pub fn limiter(&self) -> &RateLimiter {
        &self.0.limiter
    }

    /// Limits all replication traffic of this host from now on, also after a restart.
    pub fn limit(&self, bytes_per_second: Option<u64>) -> Result<()> {
        let text = bytes_per_second.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        self.store().set_setting(RATE_LIMIT, &text).map_err(Refusal::failed)?;
        self.limiter().set(bytes_per_second);
        Ok(())
    }

    /// The limit as it was set at run time, or else as it is configured.
    pub fn restore_limit(&self, configured: Option<u64>) -> Result<()> {
        let set = self.store().setting(RATE_LIMIT).map_err(Refusal::failed)?;
        self.limiter().set(set.map_or(configured, |text| text.parse().ok()));
        Ok(())
    }

    /// Runs a blocking verb of the hypervisor on a thread of its own.
    pub async fn hypervisor<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&dyn Hypervisor) -> std::result::Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T> {
        let hypervisor = Arc::clone(&self.0.hypervisor);
        let done = tokio::task::spawn_blocking(move || verb(hypervisor.as_ref())).await;
        Ok(done.map_err(Refusal::failed)??)
    }

    /// The same with a verb that hangs where the storage does. After [`VERB_MAX`] it is said so, and it goes on behind our back: whoever
    /// tries again finds what came of it.
    pub(crate) async fn hypervisor_in_time<T: Send + 'static>(
        &self,
        what: &str,
        verb: impl FnOnce(&dyn Hypervisor) -> std::result::Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T> {
        let late = |_| {
            let found = format!("libvirt did not {what} within {} s", VERB_MAX.as_secs());
            let cure = "see whether a disk or a mount hangs (dmesg); where only libvirt does: systemctl restart libvirtd";
            Err(Refusal::unavailable(found, cure))
        };
        tokio::time::timeout(VERB_MAX, self.hypervisor(verb)).await.unwrap_or_else(late)
    }

    /// A VM of this host by its name or UUID; none: there is none.
    pub async fn vm_named(&self, named: &str) -> Result<Option<VmFacts>> {
        let (name, id) = (named.to_owned(), named.parse::<VmId>().ok());
        self.hypervisor(move |it| {
            let found = it.names()?.into_iter().find(|(other, called)| *called == name || Some(*other) == id);
            found.map_or(Ok(None), |(id, _)| it.vm(id))
        })
        .await
    }

    /// The record of a relationship.
    pub fn record(&self, id: RelationshipId) -> Result<Record> {
        let found = self.store().relationship(id).map_err(Refusal::failed)?;
        found.ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("no relationship {id} here"), "virt-replica list")
        })
    }

    /// The record that a person means: by the VM's name or UUID, or by the relationship's id.
    pub fn find(&self, named: &str) -> Result<Record> {
        let records = self.store().relationships().map_err(Refusal::failed)?;
        let means = |record: &&Record| {
            let relationship = &record.relationship;
            relationship.vm_name == named
                || relationship.id.to_string() == named
                || named.parse::<VmId>().is_ok_and(|vm| vm == relationship.vm)
        };
        records.iter().find(means).cloned().ok_or_else(|| {
            Refusal::new(Code::NotFound, format!("VM {named:?} is not replicated here"), "virt-replica list")
        })
    }

    /// Whether bytes are on their way somewhere, so that what is shown changes without anything being written.
    #[must_use]
    pub fn transfers(&self) -> bool {
        self.slots().values().any(|slot| slot.progress().is_some() || slot.comparison().is_some())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<RelationshipId, Arc<Slot>>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, id: RelationshipId) -> Arc<Slot> {
        let new = || {
            Arc::new(Slot {
                wake: Notify::new(),
                settings: tokio::sync::Mutex::default(),
                replica: tokio::sync::Mutex::default(),
                chain: Arc::default(),
                wish: Mutex::default(),
                superseded: Notify::new(),
                unfinished: Mutex::default(),
                open_head: tokio::sync::Mutex::default(),
                comparison: Mutex::default(),
                waiting: Mutex::default(),
                fold_failure: Mutex::default(),
                follow_failure: Mutex::default(),
                told_doubt: Mutex::default(),
                countdown: Mutex::default(),
                retry: Mutex::default(),
                tries: Mutex::default(),
                moved: Mutex::default(),
                drill_waits: Mutex::default(),
                silent: Mutex::default(),
                statistics: Mutex::default(),
                ended_there: AtomicBool::new(false),
                booted: Mutex::default(),
                scratch_ended: Arc::default(),
                limiter: RateLimiter::new(None),
                files: Arc::default(),
                done_bytes: AtomicU64::new(0),
                sent_before_bytes: AtomicU64::new(0),
                total_bytes: AtomicU64::new(0),
                begun_ms: AtomicU64::new(0),
                owned: AtomicBool::new(false),
            })
        };
        Arc::clone(self.slots().entry(id).or_insert_with(new))
    }

    /// Tells the owner of a relationship that its row changed.
    pub fn wake(&self, id: RelationshipId) {
        self.slot(id).wake.notify_one();
    }

    fn entry(&self, mark: Mark) -> Entry {
        Entry { at: clock::now(), host: self.0.host, mark }
    }
}

/// Runs blocking work (files, layers) on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(Refusal::failed)?
}

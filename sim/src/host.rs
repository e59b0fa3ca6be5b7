//! A host: its hypervisor, which lives as long as the simulation, and its daemon, which is killed and started again.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

use anyhow::Result;
use domain::{HostId, VmId};
use engine::{Engine, StartWord, Trust};
use layer::Storage;
use store::{Guard, GuardVerdict, Peer, Store};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::Instant;
use transport::{Identity, Introduction, PeerServer, ServerOptions, VersionRange};
use uuid::Uuid;

use crate::hypervisor::SimHypervisor;
use crate::machine::{self, Machine};
use crate::patience::Patience;

/// Longest wait of the start hook for the daemon.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Threads that a daemon has from its beginning, so that hardly any begins unseen.
const THREADS: usize = 4;
/// How long an idle thread is kept: longer than any simulation.
const KEPT: Duration = Duration::from_secs(3600);

/// Where a database is kept that is put back.
const BACKUP: &str = "backup";

/// One of the two.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) machine: Arc<Machine>,
    pub(crate) hypervisor: SimHypervisor,
    /// Where its daemon listens now.
    pub(crate) port: Arc<AtomicU16>,
    daemon: Option<Daemon>,
    /// What the daemon that is started next understands.
    versions: VersionRange,
}

/// A daemon has a runtime of its own, whose clock stands still but for [`Host::live_until`].
struct Daemon {
    engine: Engine,
    server: PeerServer,
    runtime: Runtime,
    /// When it began, by its clock and by the world's.
    begun: (Instant, Duration),
    patience: Patience,
}

impl Host {
    pub(crate) fn new(
        index: usize,
        root: &Path,
        machine: Arc<Machine>,
        hypervisor: SimHypervisor,
    ) -> Result<Host> {
        machine.enter();
        let name = Host::name(index);
        let dir = root.join(&name);
        for folder in ["storage", "scratch", "n", "reports", "evidence", "disks"] {
            std::fs::create_dir_all(dir.join(folder))?;
        }
        Storage::initialise(&dir.join("storage"))?;
        // Whoever looks whether it is there finds it; what it does is `may_start`.
        let hook = dir.join("hook");
        std::fs::write(&hook, "")?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
        let id = Store::open(&dir.join("state.db"))?.host_identity(HostId(Uuid::new_v4()))?;
        Ok(Host {
            id,
            name,
            dir,
            machine,
            hypervisor,
            port: Arc::default(),
            daemon: None,
            versions: VersionRange::OURS,
        })
    }

    /// How it is called.
    pub(crate) fn name(index: usize) -> String {
        format!("simhost{:02}", index + 1)
    }

    /// A file for a disk of its own.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.dir.join("disks").join(name)
    }

    /// The replica directories that it has.
    pub(crate) fn replicas(&self) -> Result<Vec<PathBuf>> {
        Ok(Storage::open(&self.dir.join("storage"))?.replicas()?)
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::open_or_create(&self.dir, &self.name, machine::now())?)
    }

    /// Pairs it with the other, which is reached by the road that begins at `port`.
    pub(crate) fn pair(&self, other: &Host, port: u16) -> Result<()> {
        let peer = Peer {
            host: other.id,
            name: other.name.clone(),
            address: "127.0.0.1".into(),
            port,
            certificate_der: other.identity()?.certificate_der(),
            next_certificate_der: None,
            paired_at: machine::now(),
        };
        Ok(Store::open(&self.dir.join("state.db"))?.add_peer(&peer)?)
    }

    /// Starts the daemon at this time of the world.
    pub(crate) fn start(&mut self, now: Duration) -> Result<()> {
        self.machine.enter();
        self.machine.reach(now, None);
        let machine = Arc::clone(&self.machine);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .thread_keep_alive(KEPT)
            .on_thread_start(move || machine.begin_thread())
            .on_thread_stop(Machine::leave)
            .build()?;
        begin_threads(&runtime);
        let identity = Arc::new(self.identity()?);
        let hypervisor = self.hypervisor.clone();
        let begun = runtime.block_on(async { Instant::now() });
        self.machine.reach(now, Some(begun));
        let made = daemon(&self.dir, (self.name.clone(), self.id, self.versions), hypervisor, identity);
        let (engine, server) = runtime.block_on(made)?;
        let patience = runtime.block_on(async { Patience::new() })?;
        self.port.store(server.local_address().port(), Ordering::SeqCst);
        let (asked, handle, state) = (engine.clone(), runtime.handle().clone(), self.dir.join("state.db"));
        self.hypervisor.set_hook(Arc::new(move |vm| may_start(&state, Some((&asked, &handle)), vm)));
        self.daemon = Some(Daemon { engine, server, runtime, begun: (begun, now), patience });
        Ok(())
    }

    /// Another daemon takes its place, of which this is known; it is killed and started like any.
    pub(crate) fn update(&mut self, versions: VersionRange) {
        self.versions = versions;
    }

    /// Kills the daemon: nothing that waits comes to its end.
    pub(crate) fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.hypervisor.forget_listeners();
            let state = self.dir.join("state.db");
            self.hypervisor.set_hook(Arc::new(move |vm| may_start(&state, None, vm)));
            // The road leads nowhere until it is started again.
            self.port.store(1, Ordering::SeqCst);
            self.machine.die();
            drop((daemon.engine, daemon.server));
            daemon.runtime.shutdown_background();
            self.machine.wait_for_threads();
            self.machine.disk.revive();
        }
    }

    /// The host has booted anew, while its daemon is dead: what both sides agreed on was in another boot.
    pub(crate) fn boot(&self) -> Result<()> {
        let store = Store::open(&self.dir.join("state.db"))?;
        for record in store.relationships()? {
            store.confirm_boot(record.relationship.id, "the boot before")?;
        }
        Ok(())
    }

    /// Keeps its database as it is.
    pub(crate) fn back_up_database(&self) -> Result<()> {
        self.copy_database(&self.dir, &self.dir.join(BACKUP))
    }

    /// Its database is as it was kept: what was committed since is gone.
    pub(crate) fn restore_database(&self) -> Result<()> {
        self.copy_database(&self.dir.join(BACKUP), &self.dir)
    }

    fn copy_database(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::create_dir_all(to)?;
        for name in ["state.db", "state.db-wal"] {
            match std::fs::copy(from.join(name), to.join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    drop(std::fs::remove_file(to.join(name)));
                }
                copied => drop(copied?),
            }
        }
        // The index of the log is of another log now.
        drop(std::fs::remove_file(to.join("state.db-shm")));
        Ok(())
    }

    /// The engine; none while the daemon is dead.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.daemon.as_ref().map(|daemon| &daemon.engine)
    }

    /// Where the daemon lives; none while it is dead.
    pub(crate) fn home(&self) -> Option<&Handle> {
        self.daemon.as_ref().map(|daemon| daemon.runtime.handle())
    }

    /// The daemon lives until this time of the world: all that it can do without the other host, in the order of its timers.
    pub(crate) fn live_until(&mut self, now: Duration) {
        let Some(daemon) = self.daemon.as_mut().filter(|_| !self.machine.disk.is_dead()) else {
            self.machine.reach(now, None);
            return;
        };
        self.machine.enter();
        let Daemon { runtime, patience, begun, .. } = daemon;
        let target = begun.0 + now.saturating_sub(begun.1);
        runtime.block_on(async {
            let waits = tokio::select! {
                () = tokio::time::sleep_until(target) => false,
                () = patience.ends(&self.machine) => true,
                () = self.machine.disk.death.notified() => return,
            };
            if waits {
                tokio::time::advance(target.saturating_duration_since(Instant::now())).await;
            }
            settle().await;
        });
        self.machine.reach(now, Some(target));
    }
}

/// Asks the daemon, from a thread that may wait; none: it is dead, or does not answer in time, which is what its own clock says.
fn ask<T: Send + 'static>(home: &Handle, question: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (done, is_done) = mpsc::channel();
    home.spawn(async move { drop(done.send(tokio::time::timeout(ANSWER_MAX, question).await.ok())) });
    is_done.recv().ok().flatten()
}

/// All at once, so that none serves twice.
fn begin_threads(runtime: &Runtime) {
    let all = Arc::new(Barrier::new(THREADS + 1));
    for _ in 0..THREADS {
        let all = Arc::clone(&all);
        drop(runtime.handle().spawn_blocking(move || {
            all.wait();
        }));
    }
    all.wait();
}

/// Lets what woke at the last moment run.
pub(crate) async fn settle() {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
}

async fn daemon(
    dir: &Path,
    (name, id, versions): (String, HostId, VersionRange),
    hypervisor: SimHypervisor,
    identity: Arc<Identity>,
) -> Result<(Engine, PeerServer)> {
    let store = Store::open(&dir.join("state.db"))?;
    let trust = Arc::new(Trust(store.clone()));
    let config = engine::Config {
        host_name: name.clone(),
        version: "simulated".into(),
        storage: dir.join("storage"),
        scratch: dir.join("scratch"),
        sockets: dir.join("n"),
        hook: dir.join("hook"),
        spool_bytes_max: 1 << 20,
        reports: dir.join("reports"),
        evidence: dir.join("evidence"),
        resynchronizations_max: 1,
        redirect_hooks: dir.join("redirect.d"),
        program: "/bin/true".into(),
        holds: None,
    };
    let engine = Engine::new(config, id, store, Arc::new(hypervisor), trust.clone(), identity.clone());
    engine.start()?;
    let own = Introduction { host: id, name, address: None, port: 0 };
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let options = ServerOptions { versions, ..ServerOptions::new(own) };
    let server = PeerServer::bind(any, identity, trust, Arc::new(engine.clone()), options).await?;
    Ok((engine, server))
}

/// The start hook: the guard's word, and the daemon's where it is asked (`virt-replica-hook`).
fn may_start(state: &Path, daemon: Option<(&Engine, &Handle)>, vm: VmId) -> Result<(), String> {
    let verdict = Guard::open(state).and_then(|guard| guard.map(|guard| guard.verdict(vm)).transpose());
    match verdict.map_err(|error| error.to_string())? {
        None | Some(GuardVerdict::NotProtected) => return Ok(()),
        Some(GuardVerdict::Refused(why)) => return Err(why),
        Some(GuardVerdict::Primary { .. }) => {}
    }
    let word = daemon.and_then(|(engine, home)| {
        let asked = engine.clone();
        ask(home, async move {
            let record = asked.store().relationship_by_vm(vm).ok()??;
            asked.about_to_start(&record).await.ok()
        })
    });
    match word.flatten() {
        Some(StartWord::Refused(why) | StartWord::PeerSilent(why)) => Err(why),
        Some(StartWord::Allowed) => Ok(()),
        // The guard allows it, and the daemon is gone.
        None => Ok(()),
    }
}

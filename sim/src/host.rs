//! A host: its hypervisor, which lives as long as the simulation, and its daemon, which is killed and started again.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context, Result};
use domain::{HostId, VmId};
use engine::{Engine, StartWord, Trust};
use layer::Storage;
use store::{Guard, GuardVerdict, Peer, Store};
use tokio::runtime::{Builder, Handle};
use transport::{Identity, Introduction, PeerServer, ServerOptions};
use uuid::Uuid;

use crate::hypervisor::SimHypervisor;
use crate::time;

/// Longest wait for a daemon's answer, of the machine's time.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// One of the two.
pub(crate) struct Host {
    pub(crate) id: HostId,
    pub(crate) name: String,
    dir: PathBuf,
    pub(crate) hypervisor: SimHypervisor,
    /// Where its daemon listens now.
    pub(crate) port: Arc<AtomicU16>,
    daemon: Option<Daemon>,
}

struct Daemon {
    engine: Engine,
    handle: Handle,
    end: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Host {
    pub(crate) fn new(index: usize, root: &Path, hypervisor: SimHypervisor) -> Result<Host> {
        let name = format!("simhost{:02}", index + 1);
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
        Ok(Host { id, name, dir, hypervisor, port: Arc::default(), daemon: None })
    }

    /// A file for a disk of its own.
    pub(crate) fn disk(&self, name: &str) -> PathBuf {
        self.dir.join("disks").join(name)
    }

    /// Where something of its daemon lies.
    #[cfg(test)]
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The replica directories that it has.
    pub(crate) fn replicas(&self) -> Result<Vec<PathBuf>> {
        Ok(Storage::open(&self.dir.join("storage"))?.replicas()?)
    }

    fn identity(&self) -> Result<Identity> {
        Ok(Identity::open_or_create(&self.dir, &self.name, time::now())?)
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
            paired_at: time::now(),
        };
        Ok(Store::open(&self.dir.join("state.db"))?.add_peer(&peer)?)
    }

    /// Starts the daemon on a thread of its own.
    pub(crate) fn start(&mut self) -> Result<()> {
        let (dir, name, id) = (self.dir.clone(), self.name.clone(), self.id);
        let (hypervisor, port) = (self.hypervisor.clone(), Arc::clone(&self.port));
        let identity = Arc::new(self.identity()?);
        let (ready, is_ready) = mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                tokio::spawn(time::run());
                match daemon(&dir, name, id, hypervisor, identity).await {
                    Ok((engine, server)) => {
                        port.store(server.local_address().port(), Ordering::SeqCst);
                        drop(ready.send(Ok((engine, Handle::current()))));
                        drop(ended.await);
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // As a kill does: nothing that waits comes to its end.
            runtime.shutdown_background();
        });
        let (engine, handle) = is_ready.recv_timeout(ANSWER_MAX).context("the daemon does not start")??;
        let (asked, runtime, state) = (engine.clone(), handle.clone(), self.dir.join("state.db"));
        self.hypervisor.set_hook(Arc::new(move |vm| may_start(&state, &asked, &runtime, vm)));
        self.daemon = Some(Daemon { engine, handle, end, thread });
        Ok(())
    }

    /// Kills the daemon.
    pub(crate) fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            self.hypervisor.forget_listeners();
            // The road leads nowhere until it is started again.
            self.port.store(1, Ordering::SeqCst);
            drop(daemon.end);
            drop(daemon.thread.join());
        }
    }

    /// The engine; none while the daemon is dead.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        self.daemon.as_ref().map(|daemon| &daemon.engine)
    }

    /// Asks the engine, within the daemon; none: no daemon, or no answer.
    pub(crate) fn ask<T, F>(&self, question: impl FnOnce(Engine) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let daemon = self.daemon.as_ref()?;
        within(&daemon.handle, question(daemon.engine.clone()))
    }
}

fn within<T: Send + 'static>(handle: &Handle, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (done, is_done) = mpsc::channel();
    handle.spawn(async move { drop(done.send(work.await)) });
    is_done.recv_timeout(ANSWER_MAX).ok()
}

async fn daemon(
    dir: &Path,
    name: String,
    id: HostId,
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
    let server =
        PeerServer::bind(any, identity, trust, Arc::new(engine.clone()), ServerOptions::new(own)).await?;
    Ok((engine, server))
}

/// The start hook: the guard's word, and the daemon's where it is asked (`virt-replica-hook`).
fn may_start(state: &Path, engine: &Engine, handle: &Handle, vm: VmId) -> Result<(), String> {
    let verdict = Guard::open(state).and_then(|guard| guard.map(|guard| guard.verdict(vm)).transpose());
    match verdict.map_err(|error| error.to_string())? {
        None | Some(GuardVerdict::NotProtected) => return Ok(()),
        Some(GuardVerdict::Refused(why)) => return Err(why),
        Some(GuardVerdict::Primary { .. }) => {}
    }
    let asked = engine.clone();
    let word = within(handle, async move {
        let record = asked.store().relationship_by_vm(vm).ok()??;
        asked.about_to_start(&record).await.ok()
    });
    match word.flatten() {
        Some(StartWord::Refused(why)) => Err(why),
        Some(StartWord::Allowed) => Ok(()),
        Some(StartWord::PeerSilent(why)) => Err(why),
        // The guard allows it, and the daemon is gone.
        None => Ok(()),
    }
}

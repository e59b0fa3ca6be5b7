//! One connection to libvirt, opened again when it broke, and the thread that runs libvirt's event loop.
//!
//! NOT a pool: libvirt carries concurrent calls over one connection.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use hypervisor::{Happening, HypervisorError, Result};
use virt::connect::Connect;

use crate::events::{self, Notify};
use crate::raw;

/// A silent libvirtd is given up after this many seconds …
const KEEPALIVE_INTERVAL_S: i32 = 5;
/// … times this many questions.
const KEEPALIVE_COUNT: u32 = 3;
/// How often a lost connection is opened again for the sake of events.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// A connection that comes back.
pub(crate) struct Connection {
    uri: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Connect>,
    /// It was open, and is not again since.
    lost: bool,
    /// Who listens; each is registered with every new connection.
    listeners: Vec<&'static raw::Listener>,
    /// Who is told that the connection is lost, and that it came back.
    watchers: Vec<Notify>,
}

impl Connection {
    /// Not yet connected.
    pub(crate) fn new(uri: &str) -> Arc<Connection> {
        start_event_loop();
        Arc::new(Connection { uri: uri.to_owned(), state: Mutex::default() })
    }

    /// The live connection; a dead one is replaced once.
    pub(crate) fn get(&self) -> Result<Connect> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = state.open.as_ref().filter(|open| open.is_alive().unwrap_or(false)) {
            return Ok(open.clone());
        }
        state.lost |= state.open.take().is_some();
        let opened = self.open(&state.listeners)?;
        state.open = Some(opened.clone());
        if std::mem::take(&mut state.lost) {
            drop(state); // a watcher may ask for the connection
            tracing::info!("libvirt is back");
            self.tell(Happening::Reconnected);
        }
        Ok(opened)
    }

    fn tell(&self, happening: Happening) {
        let watchers = self.state.lock().unwrap_or_else(PoisonError::into_inner).watchers.clone();
        watchers.iter().for_each(|notify| notify(happening));
    }

    fn open(&self, listeners: &[&'static raw::Listener]) -> Result<Connect> {
        let unreachable =
            |error: virt::error::Error| HypervisorError::Unreachable { detail: error.message().to_owned() };
        let opened = Connect::open(Some(&self.uri)).map_err(unreachable)?;
        opened.set_keep_alive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT).map_err(unreachable)?;
        for listener in listeners {
            raw::listen(&opened, listener).map_err(unreachable)?;
        }
        Ok(opened)
    }

    /// Tells `notify` of everything that happens from now on, also over later connections.
    pub(crate) fn watch(self: &Arc<Self>, notify: Notify) -> Result<()> {
        let connect = self.get()?;
        // libvirt may call at any time until the process ends; a daemon watches once.
        let listener: &'static raw::Listener = Box::leak(Box::new(events::listener(notify.clone())));
        let first = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            raw::listen(&connect, listener).map_err(|error| crate::error::of_host("watch", &error))?;
            state.listeners.push(listener);
            state.watchers.push(notify);
            state.watchers.len() == 1
        };
        if first {
            let connection = Arc::downgrade(self);
            thread::Builder::new()
                .name("libvirt-reopen".to_owned())
                .spawn(move || keep_open(&connection))
                .expect("a thread can be started while the daemon starts");
        }
        Ok(())
    }
}

/// Opens the connection again whenever it broke, until nobody holds it.
fn keep_open(connection: &Weak<Connection>) {
    let mut reachable = true;
    loop {
        thread::sleep(REOPEN_INTERVAL);
        let Some(connection) = connection.upgrade() else { return };
        match connection.get() {
            Ok(_) => reachable = true,
            Err(error) if reachable => {
                tracing::warn!(%error, "libvirt is lost");
                reachable = false;
                connection.tell(Happening::Lost);
            }
            Err(_) => {}
        }
    }
}

/// Starts libvirt's event loop; it must run before the first connection is opened. Once per process.
fn start_event_loop() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        // libvirt prints every error to stderr otherwise; ours are in the results.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl()
            .expect("libvirt's event loop registers in a fresh process");
        thread::Builder::new()
            .name("libvirt-events".to_owned())
            .spawn(|| {
                loop {
                    if let Err(error) = virt::event::event_run_default_impl() {
                        tracing::error!(%error, "libvirt's event loop failed");
                        thread::sleep(REOPEN_INTERVAL);
                    }
                }
            })
            .expect("a thread can be started while the daemon starts");
    });
}

//! The files of a VM that is off, which its owner holds while it reads them: QEMU's image lock keeps the VM from starting.
//!
//! Whoever starts the VM comes first: libvirt's start hook tells the daemon, and the cycle lets go. What it had not sent yet
//! travels with the next cycle.

use std::sync::Arc;
use std::time::Duration;

use domain::RelationshipId;
use tokio::sync::{Notify, watch};

use crate::Engine;

/// Longest wait for the files: the start hook has two seconds for everything.
const DEADLINE: Duration = Duration::from_millis(1_000);

/// Who holds the files, and who wants them.
#[derive(Debug, Default)]
pub(crate) struct Files {
    held: watch::Sender<bool>,
    wanted: Notify,
}

/// The files are held as long as this lives. It must be dropped after the programs that have them open.
#[derive(Debug)]
pub(crate) struct Held(Arc<Files>);

impl Files {
    /// Begins to hold them.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        self.held.send_replace(true);
        Held(Arc::clone(self))
    }

    /// Returns when somebody wants what is held; never while nothing is.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.send_replace(false);
    }
}

impl Engine {
    /// Lets go of the files of a VM that somebody starts, and waits until nobody has them open.
    pub(crate) async fn let_go(&self, id: RelationshipId) {
        let files = Arc::clone(&self.slot(id).files);
        let mut held = files.held.subscribe();
        if !*held.borrow_and_update() {
            return;
        }
        files.wanted.notify_waiters();
        let free = tokio::time::timeout(DEADLINE, held.wait_for(|held| !held)).await;
        if free.is_err() {
            tracing::warn!(relationship = %id, "a VM is started while its files are read, and they were not let go in time");
        }
    }
}

//! Who listens is told which lists have changed. What is shown comes from the store, so its bell is the one place to listen at;
//! beside it there are what libvirt tells of VMs, bytes on their way, and time, by which health turns.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::dto::What;
use engine::Engine;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};

/// What happens within this time is told once.
const TOGETHER: Duration = Duration::from_millis(300);
/// While bytes are on their way, somebody looks at a bar.
const PROGRESS: Duration = Duration::from_secs(1);
/// Ages grow without anything being written.
const AGES: Duration = Duration::from_secs(30);
/// A listener that is behind by so many is told that everything has changed.
const BEHIND_MAX: usize = 64;

const EVERYTHING: [What; 8] = [
    What::Relationships,
    What::Operations,
    What::Events,
    What::TestFailovers,
    What::Points,
    What::Peers,
    What::Host,
    What::Vms,
];

/// The bell of the API's listeners. A cheap handle.
#[derive(Clone)]
pub(crate) struct Changes {
    told: broadcast::Sender<What>,
    waiting: Arc<Mutex<BTreeSet<What>>>,
    bell: Arc<Notify>,
}

impl Changes {
    /// Listens to the engine from now on.
    pub(crate) fn of(engine: &Engine) -> Changes {
        let changes = Changes {
            told: broadcast::channel(BEHIND_MAX).0,
            waiting: Arc::default(),
            bell: Arc::new(Notify::new()),
        };
        let of_store = changes.clone();
        engine.store().listen(Box::new(move |tables| {
            of_store.ring(tables.iter().flat_map(|table| shown_from(table)).copied());
        }));
        let of_vms = changes.clone();
        engine.listen_to_vms(Box::new(move || of_vms.ring([What::Vms])));
        tokio::spawn(changes.clone().tell(engine.clone()));
        changes
    }

    /// What changes from now on.
    pub(crate) fn listen(&self) -> BoxStream<'static, What> {
        let subscribed = self.told.subscribe();
        // Nobody was told anything while nobody listened.
        self.bell.notify_one();
        let told = stream::unfold(subscribed, async |mut told| {
            let changed = match told.recv().await {
                Ok(what) => vec![what],
                Err(RecvError::Lagged(_)) => EVERYTHING.to_vec(),
                Err(RecvError::Closed) => return None,
            };
            Some((stream::iter(changed), told))
        });
        told.flatten().boxed()
    }

    fn ring(&self, changed: impl IntoIterator<Item = What>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let before = waiting.len();
        waiting.extend(changed);
        if waiting.len() > before {
            self.bell.notify_one();
        }
    }

    async fn tell(self, engine: Engine) {
        let mut aged = Instant::now();
        loop {
            let bell = self.bell.notified();
            match self.told.receiver_count() {
                0 => bell.await,
                // Either way there may be something to tell.
                _ => tokio::time::timeout(PROGRESS, bell).await.unwrap_or_default(),
            }
            tokio::time::sleep(TOGETHER).await;
            let mut changed =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if self.told.receiver_count() == 0 {
                continue;
            }
            if engine.transfers() {
                changed.extend([What::Relationships, What::Operations]);
            }
            if aged.elapsed() >= AGES {
                aged = Instant::now();
                changed.insert(What::Relationships);
            }
            for what in changed {
                let _ = self.told.send(what); // the last listener may just have gone
            }
        }
    }
}

/// What is shown from a table of the store.
fn shown_from(table: &str) -> &'static [What] {
    match table {
        "relationship" | "cycle" | "comparison" | "divergence" | "pending" => &[What::Relationships],
        "point" => &[What::Points],
        "operation" => &[What::Operations, What::Relationships],
        "entry" => &[What::Operations],
        "test_failover" => &[What::TestFailovers],
        "event" => &[What::Events],
        "peer" => &[What::Peers],
        "setting" => &[What::Host, What::Peers],
        "wrapper" => &[What::Vms],
        _ => &[],
    }
}

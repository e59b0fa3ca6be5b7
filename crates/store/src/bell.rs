//! Who wants to know that something was written: told after each transaction which tables it touched. Not what was written, and
//! nothing of a transaction that was taken back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::Connection;

use crate::Store;

/// Called with the names of the tables; must be quick, for it holds up whoever wrote.
pub type Listener = Box<dyn Fn(&BTreeSet<String>) + Send + Sync>;

/// The bell of one store.
#[derive(Clone, Default)]
pub(crate) struct Bell {
    touched: Arc<Mutex<BTreeSet<String>>>,
    listener: Arc<OnceLock<Listener>>,
}

impl Bell {
    /// SQLite tells which tables a statement touches.
    pub(crate) fn hang_on(&self, connection: &Connection) {
        let touched = Arc::clone(&self.touched);
        connection.update_hook(Some(move |_, _: &str, table: &str, _| {
            let mut touched = touched.lock().unwrap_or_else(PoisonError::into_inner);
            if !touched.contains(table) {
                touched.insert(table.to_owned());
            }
        }));
    }

    /// A transaction begins: what one before it touched, and took back, is nobody's business.
    pub(crate) fn clear(&self) {
        self.touched().clear();
    }

    /// A transaction is on disk.
    pub(crate) fn ring(&self) {
        let touched = std::mem::take(&mut *self.touched());
        if let Some(listener) = self.listener.get().filter(|_| !touched.is_empty()) {
            listener(&touched);
        }
    }

    fn touched(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Tells `listener` of every transaction from now on. There is one listener; a second one is not heard.
    pub fn listen(&self, listener: Listener) {
        let _ = self.bell.listener.set(listener);
    }
}

//! Where everything runs that is no daemon: link, guests, exports; and whether bytes moved there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;

/// A cheap handle.
#[derive(Clone)]
pub(crate) struct Outside {
    pub(crate) handle: Handle,
    moved: Arc<AtomicBool>,
}

impl Outside {
    pub(crate) fn new(handle: Handle) -> Outside {
        Outside { handle, moved: Arc::default() }
    }

    /// Bytes moved.
    pub(crate) fn moved(&self) {
        self.moved.store(true, Ordering::SeqCst);
    }

    /// Whether any did since the last question.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.swap(false, Ordering::SeqCst)
    }
}

//! Which ways back the daemons of this process took (`engine::Recovery`): a listener to their log that hears nothing else.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber, span};

const FIELD: &str = "recovery";

static TAKEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// From now on they are counted, in all of this process.
pub(crate) fn count() {
    let _ = tracing::subscriber::set_global_default(Listener);
}

/// How often each was taken so far.
pub(crate) fn taken() -> BTreeMap<String, u64> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.fields().field(FIELD).is_some()
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Name);
    }

    // There are no spans: none is enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Name;

impl Visit for Name {
    fn record_str(&mut self, field: &Field, name: &str) {
        if field.name() == FIELD {
            let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
            *taken.entry(name.to_owned()).or_default() += 1;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

//! What libvirt reports, in our words.

use std::sync::Arc;

use domain::VmId;
use hypervisor::Happening;

use crate::raw::{Event, Listener};

/// Who is told.
pub(crate) type Notify = Arc<dyn Fn(Happening) + Send + Sync>;

/// Translates for one watcher.
pub(crate) fn listener(notify: Notify) -> Listener {
    Box::new(move |id, event| {
        if let Some(happening) = happening(VmId(id), event) {
            notify(happening);
        }
    })
}

fn happening(id: VmId, event: Event) -> Option<Happening> {
    match event {
        Event::Lifecycle(kind) => {
            let defined = [virt_sys::VIR_DOMAIN_EVENT_DEFINED, virt_sys::VIR_DOMAIN_EVENT_UNDEFINED];
            let definition = defined.iter().any(|known| i64::from(*known) == i64::from(kind));
            Some(if definition { Happening::Definition(id) } else { Happening::Lifecycle(id) })
        }
        Event::Device => Some(Happening::Definition(id)),
        // Our own cycles are backup jobs; other jobs change what the disks stand on.
        Event::BlockJob(kind) => {
            let backup = i64::from(kind) == i64::from(virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP);
            (!backup).then_some(Happening::Definition(id))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_backups_are_not_news_and_an_edit_is() {
        let id = VmId(uuid::Uuid::nil());
        let kind = |number: u32| i32::try_from(number).unwrap();
        let backup = Event::BlockJob(kind(virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP));
        let commit = Event::BlockJob(kind(virt_sys::VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT));
        assert_eq!(happening(id, backup), None);
        assert_eq!(happening(id, commit), Some(Happening::Definition(id)));
        let defined = Event::Lifecycle(kind(virt_sys::VIR_DOMAIN_EVENT_DEFINED));
        let stopped = Event::Lifecycle(kind(virt_sys::VIR_DOMAIN_EVENT_STOPPED));
        assert_eq!(happening(id, defined), Some(Happening::Definition(id)));
        assert_eq!(happening(id, stopped), Some(Happening::Lifecycle(id)));
    }
}

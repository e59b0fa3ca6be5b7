//! Who works on the checkpoints of a VM, one at a time.
//!
//! libvirt 11.3 lets go of the VM while it asks QEMU how much has changed since a checkpoint, and does not notice when that
//! checkpoint, or the VM's definition, goes meanwhile: the daemon dies of it (a segmentation fault).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::VmId;

/// A turn for each VM that was ever worked on.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<VmId, Arc<Mutex<()>>>>);

impl Turns {
    fn of(&self, vm: VmId) -> Arc<Mutex<()>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(vm).or_default())
    }

    /// Does what may take a checkpoint away, or bring one, when nobody else works on them.
    pub(crate) fn change<T>(&self, vm: VmId, work: impl FnOnce() -> T) -> T {
        let turn = self.of(vm);
        let _mine = turn.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Looks at a checkpoint, unless somebody works on them: then what is seen would not hold anyway.
    pub(crate) fn look<T>(&self, vm: VmId, work: impl FnOnce() -> T) -> Option<T> {
        let turn = self.of(vm);
        let _mine = turn.try_lock().ok()?;
        Some(work())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_while_somebody_changes_and_vms_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let [one, other] = [1_u128, 2].map(|id| VmId(uuid::Uuid::from_u128(id)));
        turns.change(one, || {
            assert_eq!(turns.look(one, || ()), None);
            assert_eq!(turns.look(other, || ()), Some(()));
        });
        assert_eq!(turns.look(one, || ()), Some(()));
    }
}

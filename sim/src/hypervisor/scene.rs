//! What a scene makes of a hypervisor. NOT for seeds: nothing of this happens by chance.

use std::sync::atomic::Ordering;

use hypervisor::VmState;

use super::{SimHypervisor, locked};

impl SimHypervisor {
    /// From now on no merge below a running VM comes to its end.
    pub(crate) fn let_merges_fail(&self) {
        self.0.cannot_merge.store(true, Ordering::SeqCst);
    }

    /// From now on merges stand still until they are ended, or end at once.
    pub(crate) fn stall_merges(&self, stall: bool) {
        self.0.merges_stall.store(stall, Ordering::SeqCst);
    }

    /// From now on starts hang until they do not any more.
    pub(crate) fn hang_starts(&self, hang: bool) {
        self.0.starts_hang.store(hang, Ordering::SeqCst);
    }

    /// From now on starts fail until they do not any more.
    pub(crate) fn fail_starts(&self, fail: bool) {
        self.0.starts_fail.store(fail, Ordering::SeqCst);
    }

    /// Whether a merge is under way.
    pub(crate) fn merges(&self) -> bool {
        locked(&self.0.vms).values().any(|vm| vm.merges)
    }

    /// The guest trims a cluster, if it runs.
    pub(crate) fn guest_trims(&self, cluster: usize) {
        for vm in locked(&self.0.vms).values_mut().filter(|vm| vm.state == VmState::Running) {
            vm.content[cluster] = 0;
            vm.touched.insert(cluster);
            vm.checkpoints.iter_mut().last().map(|newest| newest.marks.insert(cluster));
        }
    }
}

//! Room for what QEMU copies aside while a backup job is open, so that the job sees the disks as they were when it began.
//!
//! When that room is used up QEMU fails the *guest's* write, since the default of its copy-before-write filter is
//! `on-cbw-error=break-guest-write` and libvirt (11.3) offers no other. A guest that loses a write because it is backed up is
//! worse than a cycle that is missed: so none is begun with little room, and one that eats it up is ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::{RelationshipId, VmId};
use tokio::task::JoinHandle;

use crate::{Code, Engine, Refusal, Result};

/// What is kept free: more than guests write in some looks.
const RESERVE_BYTES: u64 = 512 << 20;
/// Of a small file system no more than this part is kept free.
const RESERVE_PART: u64 = 4;
/// Pause between two looks; each is one system call.
const LOOK: Duration = Duration::from_millis(50);

/// What a file system has, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Room {
    free: u64,
    total: u64,
}

impl Room {
    fn of(directory: &Path) -> Result<Room> {
        let status = rustix::fs::statvfs(directory).map_err(Refusal::failed)?;
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Room { free: bytes(status.f_bavail), total: bytes(status.f_blocks) })
    }

    fn reserve(self) -> u64 {
        RESERVE_BYTES.min(self.total / RESERVE_PART)
    }

    fn is_little(self) -> bool {
        self.free < self.reserve()
    }

    /// What the spool of a delta may take of it.
    fn spare(self) -> u64 {
        self.free.saturating_sub(2 * self.reserve())
    }
}

/// Refuses to begin with too little room.
pub(crate) fn expect_room(engine: &Engine) -> Result<()> {
    let room = Room::of(&engine.config().scratch)?;
    // One that begins just above the reserve would end at once.
    match room.free < room.reserve() + room.reserve() / 2 {
        true => Err(too_little(engine, "no cycle is begun")),
        false => Ok(()),
    }
}

/// The most that a spool may put there.
pub(crate) fn spool_bytes_max(engine: &Engine) -> u64 {
    let spare = Room::of(&engine.config().scratch).map_or(0, Room::spare);
    engine.config().spool_bytes_max.min(spare)
}

/// Looks after the room while a job is open, as long as it lives.
pub(crate) struct Watch {
    looks: JoinHandle<()>,
    ended: Arc<AtomicBool>,
}

/// Why the open job of a relationship was ended, if it was ended for want of room.
pub(crate) fn reason(engine: &Engine, id: RelationshipId) -> Option<Refusal> {
    let ended = engine.slot(id).scratch_ended.load(Ordering::SeqCst);
    ended.then(|| too_little(engine, "the cycle was ended for the guest's sake"))
}

impl Watch {
    /// Ends the job of this VM when there is little room left.
    pub(crate) fn over(engine: &Engine, id: RelationshipId, vm: VmId) -> Watch {
        let (ended, engine) = (Arc::clone(&engine.slot(id).scratch_ended), engine.clone());
        ended.store(false, Ordering::SeqCst);
        let flag = Arc::clone(&ended);
        let looks = tokio::spawn(async move {
            let directory = engine.config().scratch.clone();
            while !Room::of(&directory).is_ok_and(Room::is_little) {
                tokio::time::sleep(LOOK).await;
            }
            flag.store(true, Ordering::SeqCst);
            tracing::warn!(%vm, "the scratch directory fills up: the cycle ends");
            if let Err(error) = engine.hypervisor(move |it| it.end_backup(vm)).await {
                tracing::error!(%vm, %error, "the backup job could not be ended");
            }
        });
        Watch { looks, ended }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A job that is being ended is ended.
        if !self.ended.load(Ordering::SeqCst) {
            self.looks.abort();
        }
    }
}

fn too_little(engine: &Engine, what: &str) -> Refusal {
    let directory = engine.config().scratch.display();
    let found =
        format!("{directory} has too little room for what the guest overwrites while it is copied: {what}");
    let cure = format!(
        "make room there (df -h {directory}), or name a larger directory: scratch in /etc/virt-replica/virtreplicad.toml"
    );
    Refusal::new(Code::Refused, found, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_a_part_of_a_small_file_system_and_no_spool_takes_it() {
        let room = |free: u64, total: u64| Room { free: free << 20, total: total << 20 };
        assert_eq!(room(10_000, 100_000).reserve(), 512 << 20);
        assert_eq!(room(10, 100).reserve(), 25 << 20);
        assert!(room(511, 100_000).is_little() && !room(512, 100_000).is_little());
        assert_eq!(room(2000, 100_000).spare(), 976 << 20);
        assert_eq!(room(1000, 100_000).spare(), 0);
    }
}

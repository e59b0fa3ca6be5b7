//! Disks that became smaller. Two things follow: nothing is sent while a disk is smaller than its replica, and both sides are
//! compared when it has grown back. QEMU cuts its bitmaps off together with the disk; what is zero after it grew again is in
//! none of them, and the replica would keep the old bytes for ever.
//!
//! A disk that shrinks and grows back between two looks, or while the daemon is away, leaves no trace anywhere (QEMU and
//! libvirt have no event for it). That is not known here; a verification finds it.

use domain::{Settings, vm_argument};
use store::Record;

use crate::seen::{Seen, SeenDisk};
use crate::{Code, Engine, Refusal, Result};

/// What is known of the sizes outlives looks at which a file could not be read, and disks that shrank.
pub(crate) fn keep_sizes(before: &Seen, now: &mut Seen) {
    for disk in &mut now.disks {
        let Some(old) = before.disks.iter().find(|old| old.target == disk.target) else { continue };
        disk.size_bytes = disk.size_bytes.or(old.size_bytes);
        disk.largest_bytes = disk.size_bytes.max(old.largest_bytes).max(old.size_bytes);
    }
}

/// Why both sides must be compared since the last look: a replicated disk became smaller.
pub(crate) fn cause(before: &Seen, now: &Seen, settings: &Settings) -> Option<String> {
    let shrank = |disk: &&SeenDisk| {
        let old = before.disks.iter().find(|old| old.target == disk.target);
        old.is_some_and(|old| disk.size_bytes.is_some() && disk.size_bytes < old.size_bytes)
    };
    let mut replicated =
        now.disks.iter().filter(|disk| settings.replicated_disks().any(|it| it.as_str() == disk.target));
    replicated.find(shrank).map(|disk| words(&disk.target))
}

fn words(target: &str) -> String {
    format!("disk {target} shrank, and what was cut off is in no bitmap when it grows back")
}

/// Nothing moves while a disk is smaller than the replica has it; what it loses by that is written down.
pub(crate) fn expect_none(engine: &Engine, record: &Record, now: &Seen) -> Result<()> {
    let Some(before) = Seen::before(record) else { return Ok(()) };
    let (id, vm) = (record.relationship.id, vm_argument(&record.relationship.vm_name));
    for target in record.relationship.settings.replicated_disks().map(domain::DiskTarget::as_str) {
        let size = now.disks.iter().find(|disk| disk.target == target).and_then(|disk| disk.size_bytes);
        let old = before.disks.iter().find(|old| old.target == target);
        let Some((now, old)) = size.zip(old) else { continue };
        let Some(was) = old.largest_bytes.max(old.size_bytes).filter(|was| *was > now) else { continue };
        // It may have grown back at the next look.
        engine.store().want_resynchronization(id, &words(target)).map_err(Refusal::failed)?;
        let found = format!(
            "disk {target} shrank from {was} to {now} bytes, and the layers of its replica still hold what was cut off"
        );
        let cure = format!(
            "virsh blockresize {vm} {target} {was}B (both sides are compared then); or virt-replica remove {vm}, then \
             virt-replica enable {vm}"
        );
        return Err(Refusal::new(Code::Refused, found, cure));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use domain::{DiskChoice, DiskTarget};

    use super::*;

    fn seen(size_bytes: Option<u64>) -> Seen {
        let disk = SeenDisk {
            target: "vda".into(),
            file: "/one".into(),
            size_bytes,
            largest_bytes: None,
            bus: None,
        };
        Seen { disks: vec![disk], ..Seen::default() }
    }

    /// Looks one after the other, each with a size: at which of them a comparison is wanted, and the largest size at the end.
    fn looks(sizes: &[Option<u64>], choice: DiskChoice) -> (Vec<usize>, Option<u64>) {
        let settings = Settings::of(vec![(DiskTarget::new("vda").expect("a target"), choice)]);
        let (mut before, mut wanted) = (seen(sizes[0]), Vec::new());
        for (index, size) in sizes.iter().enumerate().skip(1) {
            let mut now = seen(*size);
            keep_sizes(&before, &mut now);
            wanted.extend(cause(&before, &now, &settings).map(|_| index));
            before = now;
        }
        (wanted, before.disks[0].largest_bytes)
    }

    #[test]
    fn a_disk_that_shrank_is_compared_however_it_grows_back() {
        let replicated = |sizes: &[Option<u64>]| looks(sizes, DiskChoice::Replicated);
        assert_eq!(replicated(&[Some(4), Some(2), Some(4)]), (vec![1], Some(4)));
        assert_eq!(replicated(&[Some(4), Some(2), Some(3), Some(4)]), (vec![1], Some(4)));
        assert_eq!(replicated(&[Some(4), None, Some(2), Some(4)]), (vec![2], Some(4)), "it was not readable");
        assert_eq!(replicated(&[Some(4), Some(8), Some(8)]), (vec![], Some(8)));
        assert_eq!(looks(&[Some(4), Some(2)], DiskChoice::Excluded), (vec![], Some(4)));
    }
}

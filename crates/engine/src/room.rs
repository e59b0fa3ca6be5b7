//! Room for the recovery points of a replica: told before it is used up. What a full storage does to a delta is `receive`'s business,
//! and room on the primary that of `scratch`.

use std::path::Path;
use std::time::Duration;

use domain::{Health, Notice, RecoveryPoint, Timestamp, shell_word, vm_argument};
use store::Record;

use crate::{Engine, Refusal, Result, clock};

/// What came in this time is what will come in the next one.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a replica needs: as much as its points of the last day brought, and the largest of its points once more while it arrives. The
/// first copy does not come again.
fn needed(points: &[RecoveryPoint], now: Timestamp) -> u64 {
    let later = || points.iter().filter(|point| point.parent.is_some());
    let of_the_day = later().filter(|point| now.since(point.instant) <= DAY);
    let day: u64 = of_the_day.map(|point| point.delta_bytes).sum();
    day.saturating_add(later().map(|point| point.delta_bytes).max().unwrap_or(0))
}

fn free(directory: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(directory).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// A Warning while the storage of a replica has less room than that. Storage that cannot be looked at is told by every cycle.
pub(crate) fn notice(engine: &Engine, record: &Record) -> Result<Option<Notice>> {
    let Some(directory) = &record.directory else { return Ok(None) };
    let points = engine.store().points(record.relationship.id).map_err(Refusal::failed)?;
    let little = free(directory).is_some_and(|free| free < needed(&points, clock::now()));
    Ok(little.then(|| {
        let (vm, path) = (vm_argument(&record.relationship.vm_name), shell_word(&directory.to_string_lossy()));
        Notice {
            severity: Health::Warning,
            // No numbers: a notice that changes with every look would be an event each time.
            what: "the storage of the replica has less room left than the recovery points of a day take".to_owned(),
            cure: format!(
                "make room: df -h {path}; or let fewer points stay: on the primary server virt-replica set {vm} --recovery-points N"
            ),
        }
    }))
}

#[cfg(test)]
mod tests {
    use domain::fixture;

    use super::*;

    #[test]
    fn a_day_and_the_largest_point_once_more_are_needed() {
        let now = Timestamp(100 * 3_600_000);
        let point = |hours: u64, delta_bytes: u64| RecoveryPoint {
            instant: Timestamp((100 - hours) * 3_600_000),
            delta_bytes,
            parent: Some(fixture::point(0).id),
            ..fixture::point(100 - hours)
        };
        assert_eq!(needed(&[], now), 0);
        assert_eq!(needed(&[point(3, 5), point(2, 7), point(1, 6)], now), 18 + 7);
        let first = RecoveryPoint { parent: None, ..point(4, 1000) };
        assert_eq!(needed(&[first, point(1, 6)], now), 6 + 6, "the first copy comes once");
        assert_eq!(needed(&[point(30, 50), point(1, 6)], now), 6 + 50, "the largest may come again");
    }
}

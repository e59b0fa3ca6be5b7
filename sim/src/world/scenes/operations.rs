//! Operations that meet an error, a wait or a person in their middle.

use anyhow::{Context, Result, ensure};
use choreography::{Outcome, Step, StepState, fold};
use domain::{Phase, PointId};
use layer::ReplicaDirectory;

use super::{AWAY, SEED};
use crate::world::{World, record};

impl World {
    /// The replica's directory of a host.
    fn directory(&self, host: usize) -> Result<std::path::PathBuf> {
        record(&self.hosts[host]).and_then(|it| it.directory).context("a directory")
    }

    /// The recovery points that a replica's files hold, the oldest first.
    fn points(&self, host: usize) -> Result<Vec<PointId>> {
        let files = ReplicaDirectory::open(&self.directory(host)?)?;
        Ok(files.manifest().points.iter().map(|listed| listed.point.id).collect())
    }
}

/// The manifest cannot be written, as on a full disk, when a failover becomes final. It is final all the same: the operation says so,
/// and goes on when there is room.
#[test]
fn an_error_behind_the_point_of_no_return_of_a_completion_does_not_undo_it() -> Result<()> {
    let world = World::new(SEED)?;
    world.until("two points", |it| it.points(AWAY).is_ok_and(|points| points.len() > 1))?;
    let oldest = *world.points(AWAY)?.first().context("a point")?;
    world.fail_over(AWAY, oldest)?;
    ensure!(world.points(AWAY)?.len() > 1, "nothing is given up yet");
    let in_the_way = world.directory(AWAY)?.join("manifest.json.tmp");
    std::fs::create_dir(&in_the_way)?;
    let id = world.complete(AWAY)?;
    let failed = |it: &World| fold(&it.journal(AWAY, id)).steps.get(&Step::Merge).cloned();
    world.until("a merge that failed", |it| matches!(failed(it), Some(StepState::Failed { .. })))?;
    let progress = fold(&world.journal(AWAY, id));
    assert!(progress.handed_over() && progress.cancelled.is_none(), "{progress:?}");
    assert!(matches!(world.phase(AWAY), Some(Phase::Unprotected { .. })), "it is final");
    assert_eq!(progress.outcome, None, "and it goes on");
    std::fs::remove_dir(&in_the_way)?;
    world.until("the end of the operation", |it| it.is_idle(AWAY))?;
    assert_eq!(fold(&world.journal(AWAY, id)).outcome, Some(Outcome::Completed));
    assert_eq!(world.points(AWAY)?, [oldest]);
    world.reverse(AWAY)
}

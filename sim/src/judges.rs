//! What must be true when both hosts have come to rest. They look at files and rows; what happened meanwhile the witness saw.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use domain::{DiskTarget, Role};
use layer::ReplicaDirectory;

use crate::host::Host;
use crate::hypervisor::checkpoint_of;
use crate::image;
use crate::witness::{Seen, Witness};
use crate::world::record;

/// What is in the planted files.
const FOREIGN: &[u8] = b"not the product's";

/// Puts files of others where the product works; they must stay.
pub(crate) fn plant(hosts: &[Host; 2]) -> Result<()> {
    planted(hosts).iter().try_for_each(|path| std::fs::write(path, FOREIGN))?;
    hosts.iter().try_for_each(|host| Ok(host.machine.disk.flush_all()?))
}

fn planted(hosts: &[Host; 2]) -> Vec<PathBuf> {
    let folders = ["storage", "scratch", "n", "disks"];
    let of = |host: &Host| folders.map(|folder| host.dir.join(folder).join("foreign.qcow2"));
    hosts.iter().flat_map(of).collect()
}

/// Everything but what needs time to be true.
pub(crate) fn judge(hosts: &[Host; 2], witness: &Witness) -> Result<()> {
    for path in planted(hosts) {
        let found = std::fs::read(&path).with_context(|| format!("{} is not ours", path.display()))?;
        ensure!(found == FOREIGN, "{} is not ours, and was changed", path.display());
    }
    let replica = |host: &&Host| record(host).is_some_and(|it| it.relationship.role() == Role::Replica);
    for host in hosts.iter().filter(replica) {
        for path in host.replicas()? {
            judge_replica(&path, &witness.seen()).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// Every recovery point reads as the disk was when it was made, and none that was acknowledged is missing at the end.
fn judge_replica(path: &Path, seen: &Seen) -> Result<()> {
    let directory = ReplicaDirectory::open(path)?;
    let points = &directory.manifest().points;
    let newest = points.last().context("no recovery point")?.point.ordinal;
    ensure!(
        newest >= seen.acknowledged,
        "point {} was acknowledged, the newest is {newest}",
        seen.acknowledged
    );
    for point in points {
        let file = point.files.values().next().context("a point has a file")?;
        let found = image::read(&directory.disk_folder(&DiskTarget::new("vda")?).join(file));
        // Merged meanwhile: by a thread, which needs no time.
        if ReplicaDirectory::open(path)?.manifest().points != *points {
            return judge_replica(path, seen);
        }
        let (found, ordinal) = (found?, point.point.ordinal);
        match seen.moments.get(&checkpoint_of(point.point.id)) {
            Some(expected) if found != *expected => {
                bail!("point {ordinal} reads {found:?}, and the disk was {expected:?}")
            }
            None if !seen.stops.contains(&found) => {
                bail!("point {ordinal} was made of no moment, and the VM never stopped with {found:?}")
            }
            _ => {}
        }
    }
    Ok(())
}

/// What is left over, which may still be at work; none: nothing.
pub(crate) fn leftovers(hosts: &[Host; 2]) -> Result<Option<PathBuf>> {
    let planted = planted(hosts);
    for host in hosts {
        for folder in ["scratch", "n"] {
            for entry in std::fs::read_dir(host.dir.join(folder))? {
                let path = entry?.path();
                if !planted.contains(&path) {
                    return Ok(Some(path));
                }
            }
        }
        if record(host).is_some_and(|it| it.relationship.role() == Role::Replica) {
            for path in host.replicas()? {
                let left = ReplicaDirectory::open(&path)?.leftovers()?;
                if let Some(path) = left.into_iter().find(|path| !is_set_aside(path)) {
                    return Ok(Some(path));
                }
            }
        }
    }
    Ok(None)
}

/// What an old primary wrote is a person's to remove.
fn is_set_aside(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("diverged-"))
}

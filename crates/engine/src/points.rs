//! Recovery points as people see them: the list, one made on demand, one dropped by name.
//!
//! The replica holds the points, the primary makes them; either host answers for both. What is *not* here: which points stay by
//! themselves (`domain::retention`), and their files (`chain`).

mod wish;

use std::collections::HashMap;

use domain::{Consistency, DiskTarget, PointId, RecoveryPoint, Role, vm_argument};
use layer::{ManifestPoint, ReplicaDirectory};
use serde::{Deserialize, Serialize};
use store::Record;
use wire::message::form::{consistency_from_name, consistency_name};
use wire::message::{Answer, Request};

use crate::events::Number;
use crate::{Code, Engine, Refusal, Result, blocking, chain, replica};

pub use wish::WishedPoint;
pub(crate) use wish::{Wish, conclude, is_wished, wanted};

/// Looks at files that are merged meanwhile, until what they take is told as unknown.
const LOOKS_MAX: u32 = 5;

/// A recovery point with what its files tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PointFacts {
    /// Its id.
    pub id: String,
    /// Its place in the order of points.
    pub ordinal: u64,
    /// When the primary froze it, milliseconds since 1970.
    pub instant_ms: u64,
    /// What consistency was really reached: `crash`, `file-system`, `application` or `powered-off`.
    pub consistency: String,
    /// The disks that it holds.
    pub disks: Vec<String>,
    /// Bytes on the replica's disk of the files on which it stands; none: not known.
    pub bytes: Option<u64>,
    /// What a person called it.
    pub tag: Option<String>,
    /// The test failovers that read it.
    pub pinned_by: Vec<String>,
}

/// The recovery points of a replica, oldest first, and their files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChainFacts {
    /// The points.
    pub points: Vec<PointFacts>,
    /// Layers of the disk that has the most.
    pub layers: usize,
    /// Bytes that all files take on the replica's disk; none: not known.
    pub bytes: Option<u64>,
    /// The VM's own disk is at the bottom: the points are merged into it when the VM comes home.
    pub at_home: bool,
}

impl Engine {
    /// The recovery points that can be started from, on the replica server.
    pub async fn points(&self, record: &Record) -> Result<ChainFacts> {
        let relationship = &record.relationship;
        if relationship.role() == Role::Replica {
            return self.points_here(record).await;
        }
        let (id, epoch) = (relationship.id.0, relationship.epoch.number());
        match self.ask(relationship.peer, &Request::Points { relationship: id, epoch }).await? {
            Answer::Relayed { json } => serde_json::from_str(&json).map_err(Refusal::failed),
            _ => Err(Refusal::failed("the other host answered something else")),
        }
    }

    /// Drops a recovery point, on the replica server. Refused for the newest, and for one that somebody reads.
    pub async fn remove_point(&self, record: &Record, point: PointId, dry_run: bool) -> Result<()> {
        let relationship = &record.relationship;
        if relationship.role() == Role::Replica {
            return self.remove_point_here(record, point, dry_run).await;
        }
        let (id, epoch) = (relationship.id.0, relationship.epoch.number());
        let request = Request::RemovePoint { relationship: id, epoch, point: point.0, dry_run };
        self.ask(relationship.peer, &request).await.map(drop)
    }

    pub(crate) async fn points_here(&self, record: &Record) -> Result<ChainFacts> {
        let tests = self.store().tests_of(record.relationship.id).map_err(Refusal::failed)?;
        let mut pins: HashMap<PointId, Vec<String>> = HashMap::new();
        for test in tests.into_iter().filter(|test| test.state != store::TestState::Ended) {
            pins.entry(test.point).or_default().push(test.id.to_string());
        }
        let replicated: Vec<String> =
            record.relationship.settings.replicated_disks().map(ToString::to_string).collect();
        let record = record.clone();
        blocking(move || {
            let look = || Ok::<_, Refusal>(facts(&replica::directory(&record)?, &replicated, &pins));
            let mut facts = look()?;
            // A file that was merged between two looks is in another one now.
            for _ in 1..LOOKS_MAX {
                if facts.bytes.is_some() {
                    break;
                }
                facts = look()?;
            }
            Ok(ChainFacts { at_home: record.home_definition.is_some(), ..facts })
        })
        .await
    }

    pub(crate) async fn remove_point_here(
        &self,
        record: &Record,
        point: PointId,
        dry_run: bool,
    ) -> Result<()> {
        self.must_be_idle(record)?;
        let relationship = &record.relationship;
        let (id, vm) = (relationship.id, vm_argument(&relationship.vm_name));
        let slot = self.slot(id);
        let _alone = crate::receive::alone(&slot).await?;
        let _files = slot.chain.hold().await;
        // An operation may have begun meanwhile, from this very point.
        self.must_be_idle(record)?;
        let refused = |found: String, cure: String| Err(Refusal::new(Code::Refused, found, cure));
        if self.store().divergence(id).map_err(Refusal::failed)?.is_some() {
            return refused(
                "what this host wrote as the old primary lies below a recovery point, and is not set aside yet".to_owned(),
                format!("wait until it is, then again; what keeps it from that: virt-replica show {vm}"),
            );
        }
        let mut directory = replica::directory(record)?;
        let points = &directory.manifest().points;
        let Some(listed) = points.iter().find(|listed| listed.point.id == point) else {
            let found = format!("VM {:?} has no recovery point {point}", relationship.vm_name);
            return Err(Refusal::new(Code::NotFound, found, format!("virt-replica point list {vm}")));
        };
        if points.last().is_some_and(|newest| newest.point.id == point) {
            return refused(
                "it is the newest recovery point: the next delta stands on it".to_owned(),
                format!("wait for the next cycle, or end the replication: virt-replica remove {vm}"),
            );
        }
        if self.store().pins(id).map_err(Refusal::failed)?.contains(&point) {
            return refused(
                "a test failover stands on this recovery point".to_owned(),
                format!("virt-replica stop-test-failover {vm}"),
            );
        }
        if dry_run {
            return Ok(());
        }
        let text = format!("recovery point {point} of {} was removed", instant(&listed.point));
        let directory = blocking(move || {
            directory.forget_points(|known| known != point).map_err(Refusal::failed)?;
            Ok(directory)
        })
        .await?;
        chain::know_points(self, id, &directory)?;
        self.event(Number::PointRemoved, &relationship.vm_name, text);
        self.wake(id);
        Ok(())
    }
}

fn facts(
    directory: &ReplicaDirectory,
    replicated: &[String],
    pins: &HashMap<PointId, Vec<String>>,
) -> ChainFacts {
    let manifest = directory.manifest();
    let bytes = |target: &DiskTarget, file: &str| chain::file_bytes(&directory.disk_folder(target), file);
    let point = |listed: &ManifestPoint| {
        let is_replicated = |target: &DiskTarget| replicated.iter().any(|it| it == target.as_str());
        let files = listed.files.iter().filter(|(target, _)| is_replicated(target));
        PointFacts {
            bytes: files.clone().map(|(target, file)| bytes(target, file)).sum(),
            disks: files.map(|(target, _)| target.to_string()).collect(),
            pinned_by: pins.get(&listed.point.id).cloned().unwrap_or_default(),
            ..PointFacts::of(&listed.point)
        }
    };
    let files = manifest.disks.iter().flat_map(|disk| {
        let layers = disk.layers.iter().map(|layer| layer.as_str()).chain([disk.base.file()]);
        let layers = layers.map(|file| bytes(&disk.target, file));
        // One that is about to be deleted may be gone already.
        let folded = disk.folded.iter().map(|layer| bytes(&disk.target, layer.as_str()).or(Some(0)));
        layers.chain(folded).collect::<Vec<_>>()
    });
    ChainFacts {
        points: manifest.points.iter().map(point).collect(),
        layers: manifest.disks.iter().map(|disk| disk.layers.len()).max().unwrap_or(0),
        bytes: files.sum(),
        at_home: false,
    }
}

impl PointFacts {
    /// What the point itself tells.
    #[must_use]
    pub fn of(point: &RecoveryPoint) -> PointFacts {
        PointFacts {
            id: point.id.to_string(),
            ordinal: point.ordinal,
            instant_ms: point.instant.millis(),
            consistency: consistency_name(point.consistency).to_owned(),
            disks: Vec::new(),
            bytes: None,
            tag: point.tag.clone(),
            pinned_by: Vec::new(),
        }
    }

    /// What consistency was really reached; none: the other host said something that is not known here.
    #[must_use]
    pub fn reached(&self) -> Option<Consistency> {
        consistency_from_name(&self.consistency).ok()
    }
}

fn instant(point: &RecoveryPoint) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(point.instant.millis()).unwrap_or_default());
    at.map(|at| at.to_string()).unwrap_or_default()
}

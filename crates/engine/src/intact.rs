//! Whether the files of a recovery point are what they should be, before anything starts from it; and what a person does when they
//! are not, which depends on who is left: the primary server makes a new replica, and without it an older point is the next best.
//!
//! *Not* here: what the files hold (a verification compares that), and what is held against a point (`doubt`).

use domain::{PointId, shell_word, vm_argument};
use hypervisor::VmFacts;
use layer::ReplicaDirectory;
use store::Record;

use crate::hear::{Heard, PATIENCE};
use crate::{Code, Engine, Refusal, Result, blocking, clock, replica};

/// What is about to start from a recovery point.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Failover,
    TestFailover,
    PlannedFailover,
}

impl Start {
    /// The command that does it from another point; none: it takes the newest or nothing.
    fn verb_of_a_point(self) -> Option<&'static str> {
        match self {
            Start::Failover => Some("failover"),
            Start::TestFailover => Some("test-failover"),
            Start::PlannedFailover => None,
        }
    }
}

/// Makes sure that every file below a recovery point is what the manifest says; files above it do not count.
pub(crate) async fn expect_trusted(
    engine: &Engine,
    record: &Record,
    point: PointId,
    start: Start,
) -> Result<()> {
    replica::expect_untouched(record)?;
    let slot = engine.slot(record.relationship.id);
    // A layer that is merged between two looks, at the manifest and at the files, is no sign of tampering.
    let files = slot.chain.hold().await;
    let directory = replica::directory(record)?;
    let looked = blocking(move || {
        let Err(error) = directory.check_point(point) else { return Ok(None) };
        Ok(Some((error.to_string(), directory.newest_whole().cloned())))
    })
    .await?;
    drop(files);
    let Some((error, whole)) = looked else { return Ok(()) };
    let vm = vm_argument(&record.relationship.vm_name);
    let found = format!("recovery point {point} is not to be trusted: {error}");
    let older = whole.zip(start.verb_of_a_point()).map(|(whole, verb)| {
        let age = domain::words::duration(clock::now().since(whole.instant));
        format!(
            "start from the newest one that is whole, {age} old: virt-replica {verb} --point {} {vm}",
            whole.id
        )
    });
    let cure = match older {
        Some(older) => older,
        None if answers(engine, record).await => {
            format!("virt-replica remove {vm}, then virt-replica enable {vm} on the primary server")
        }
        None => {
            let folder = record.directory.as_ref().map(|path| path.to_string_lossy().into_owned());
            let folder = shell_word(&folder.unwrap_or_default());
            format!(
                "no recovery point is whole, and {} does not answer: put the file back from a copy of {folder}, then again; the last \
                 way is by hand, as manifest.json there says",
                engine.peer_name(record)
            )
        }
    };
    Err(Refusal::new(Code::Refused, found, cure))
}

/// The definition that came with a recovery point, as it reads.
pub(crate) async fn definition(
    engine: &Engine,
    directory: &ReplicaDirectory,
    point: PointId,
) -> Result<VmFacts> {
    let folder = directory.kept_in(Some(point));
    let refused = |error: &str| {
        let found = format!("the definition that came with recovery point {point} cannot be read: {error}");
        let file = shell_word(&folder.join("primary.xml").to_string_lossy());
        let cure = format!("put {file} back from a copy of the storage, or start from another point");
        Refusal::new(Code::Refused, found, cure)
    };
    let definition =
        directory.primary_definition(Some(point)).map_err(|error| refused(&error.to_string()))?;
    let read = engine.hypervisor(move |it| it.read_definition(&definition)).await;
    read.map_err(|error| if error.code == Code::Unavailable { error } else { refused(&error.detail) })
}

async fn answers(engine: &Engine, record: &Record) -> bool {
    !matches!(engine.hear(record, PATIENCE).await, Heard::Silent(_))
}

//! The proof that a recovery point is what the primary's frozen disks held: every block of both, compared by digests.
//!
//! It follows a cycle whose source stays open. A difference is Critical, is kept as evidence, and a resynchronization repairs
//! the newest point; what older points hold is not known to be right. A replica that cannot be read is not known to be right either: a
//! Warning, until a verification has been made.

use std::fs;
use std::path::PathBuf;

use domain::{Doubt, RecoveryPoint};
use serde::Serialize;
use store::Record;
use wire::digests::BLOCK_BYTES;

use super::Comparison;
use crate::events::Number;
use crate::source::Source;
use crate::{Code, Engine, Refusal, Result, clock};

/// The evidence of a difference.
#[derive(Serialize)]
struct Evidence<'a> {
    vm: &'a str,
    relationship: String,
    replica_server: String,
    recovery_point: String,
    found_at_ms: u64,
    block_bytes: u64,
    disks: Vec<DiskEvidence<'a>>,
}

#[derive(Serialize)]
struct DiskEvidence<'a> {
    target: &'a str,
    differing_bytes: u64,
    /// (offset, length).
    extents: Vec<(u64, u64)>,
    /// The first blocks with both digests.
    blocks: Vec<BlockEvidence>,
}

#[derive(Serialize)]
struct BlockEvidence {
    offset: u64,
    primary: String,
    replica: String,
}

/// Compares the source that the head was made from with the head. The source is closed, whatever comes of it.
pub(crate) async fn verify(
    engine: &Engine,
    record: &Record,
    head: &RecoveryPoint,
    source: Source,
) -> Result<()> {
    let mut comparison = Comparison::default();
    let compared = comparison.run(engine, record, Some(head.id), &source).await;
    *engine.slot(record.relationship.id).comparison() = None;
    let found = match compared {
        Ok(()) => judge(engine, record, head, &source, &comparison),
        Err(error) => Err(error),
    };
    source.close(engine).await;
    engine.tell_doubt(record).await;
    match found {
        Err(error) if !matches!(error.code, Code::Unavailable | Code::Busy) => {
            let (id, why) = (record.relationship.id, error.to_string());
            let replicas = comparison.replica_failed.then_some(why.as_str());
            engine.store().unverified(id, clock::now(), replicas).map_err(Refusal::failed)?;
            let text = format!("the replica could not be verified: {why}");
            engine.event(Number::NotVerified, &record.relationship.vm_name, text);
            Ok(())
        }
        // Tried again with a later cycle.
        found => found,
    }
}

fn judge(
    engine: &Engine,
    record: &Record,
    head: &RecoveryPoint,
    source: &Source,
    comparison: &Comparison,
) -> Result<()> {
    let (id, name) = (record.relationship.id, &record.relationship.vm_name);
    let total = crate::operation::mib(source.disks.iter().map(|disk| disk.client.size()).sum());
    let differing: u64 = comparison.differing().map(extent::ExtentSet::total).sum();
    if differing == 0 {
        engine.store().verified(id, clock::now()).map_err(Refusal::failed)?;
        let text = format!("recovery point {} is equal to the VM's disks, {total} in all", head.id);
        engine.event(Number::Verified, name, text);
        return Ok(());
    }
    let targets: Vec<&str> = source.disks.iter().map(|disk| disk.target.as_str()).collect();
    // What was found counts, whether or not there is room to write down where.
    let evidence = match keep(engine, record, head, &targets, comparison) {
        Ok(path) => format!("evidence: {}", path.display()),
        Err(error) => format!("the evidence could not be kept: {error}"),
    };
    let what = format!(
        "the replica differs from the VM's disks in {} of {total} (recovery point {}; {evidence})",
        crate::operation::mib(differing),
        head.id,
    );
    let doubt = Doubt { epoch: record.relationship.epoch, ordinal: head.ordinal, what: what.clone() };
    engine.store().set_doubt(id, &doubt).map_err(Refusal::failed)?;
    engine.store().mismatched(id, &what).map_err(Refusal::failed)?;
    engine.event(Number::MismatchFound, name, what);
    Ok(())
}

fn keep(
    engine: &Engine,
    record: &Record,
    head: &RecoveryPoint,
    targets: &[&str],
    comparison: &Comparison,
) -> Result<PathBuf> {
    let now = clock::now().millis();
    let word = |digest: Option<[u8; 32]>| match digest {
        Some(digest) => blake3::Hash::from_bytes(digest).to_hex().to_string(),
        None => "zeroes".to_owned(),
    };
    let disks = targets.iter().zip(&comparison.disks).filter(|(_, disk)| !disk.differs.is_empty());
    let disks = disks.map(|(target, disk)| DiskEvidence {
        target,
        differing_bytes: disk.differs.total(),
        extents: disk.differs.iter().map(|extent| (extent.offset(), extent.length())).collect(),
        blocks: disk
            .evidence
            .iter()
            .map(|it| BlockEvidence {
                offset: it.block.offset(),
                primary: word(it.ours),
                replica: word(it.theirs),
            })
            .collect(),
    });
    let evidence = Evidence {
        vm: &record.relationship.vm_name,
        relationship: record.relationship.id.to_string(),
        replica_server: engine.peer_name(record),
        recovery_point: head.id.to_string(),
        found_at_ms: now,
        block_bytes: BLOCK_BYTES,
        disks: disks.collect(),
    };
    let folder = &engine.config().evidence;
    let path = folder.join(format!("{}-{now}.json", record.relationship.id));
    let json = serde_json::to_vec_pretty(&evidence).map_err(Refusal::failed)?;
    let failed = |error| Refusal::failed(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).and_then(|()| fs::write(&path, json)).map_err(failed)?;
    Ok(path)
}

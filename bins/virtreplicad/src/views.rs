//! From the engine's records to what is shown.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use api::dto;
use domain::{DiskChoice, OperationId, Phase, Resynchronize, Role};
use engine::{ComparisonFacts, Engine, Refusal};
use store::Record;

/// The name of a host that may be this one.
pub(crate) fn host_name(engine: &Engine, host: domain::HostId) -> String {
    if host == engine.host() {
        return engine.config().host_name.clone();
    }
    let peers = engine.store().peers().unwrap_or_default();
    peers.into_iter().find(|peer| peer.host == host).map_or_else(|| host.to_string(), |peer| peer.name)
}

/// One line of `list`.
pub(crate) fn summary(engine: &Engine, record: &Record) -> Result<dto::RelationshipSummary, Refusal> {
    let relationship = &record.relationship;
    let (own, peer) = (engine.config().host_name.clone(), host_name(engine, relationship.peer));
    let (primary_server, replica_server) = match relationship.role() {
        Role::Primary => (own, peer),
        Role::Replica => (peer, own),
    };
    let open = engine.store().open_operation(relationship.id).map_err(Refusal::failed)?;
    let home = engine.home(record)?;
    Ok(dto::RelationshipSummary {
        home_server: Some(host_name(engine, home.host)),
        away_since_ms: home.away_since.map(domain::Timestamp::millis),
        id: relationship.id.to_string(),
        vm: relationship.vm_name.clone(),
        vm_uuid: relationship.vm.to_string(),
        mode: relationship.role().into(),
        state: relationship.phase.words().to_owned(),
        health: engine.health(record)?.health.into(),
        primary_server,
        replica_server,
        frequency_seconds: relationship.settings.frequency.seconds(),
        last_synchronized_at_ms: record.last_synchronized.map(domain::Timestamp::millis),
        paused: relationship.paused_since.is_some(),
        revision: revision(record, open.as_ref().map(|(operation, _)| operation.id)),
        operation: open.map(|(operation, _)| operation.id.to_string()),
    })
}

/// Another one whenever that has changed by which a person decides; the course of cycles is none of it. Compared, never read.
pub(crate) fn revision(record: &Record, open: Option<OperationId>) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{:?} {open:?}", record.relationship).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// View Replication Health.
pub(crate) fn detail(
    engine: &Engine,
    record: &Record,
    sizes: &HashMap<domain::DiskTarget, u64>,
) -> Result<dto::RelationshipDetail, Refusal> {
    let relationship = &record.relationship;
    let settings = &relationship.settings;
    let report = engine.health(record)?;
    let compared = engine.comparison(record)?;
    let unprotected_since_ms = match &relationship.phase {
        Phase::Unprotected { since } | Phase::Stopped { since } | Phase::FailedOver { since, .. } => {
            Some(since.millis())
        }
        _ => None,
    };
    let due = relationship.phase.sends() && relationship.paused_since.is_none();
    let next_due = match &relationship.phase {
        Phase::InitialPending { start } => Some(start.millis()),
        _ => {
            record.last_synchronized.filter(|_| due).map(|at| at.plus(settings.frequency.duration()).millis())
        }
    };
    let copying = !matches!(relationship.phase, Phase::Replicating);
    let initial_copy = engine.progress(record).filter(|_| copying).map(|progress| {
        let elapsed_ms = engine::clock::now().millis().saturating_sub(progress.begun_ms).max(1);
        dto::InitialCopy {
            bytes_done: progress.done_bytes,
            bytes_total: Some(progress.total_bytes),
            bytes_per_second: Some(
                progress.done_bytes.saturating_sub(progress.sent_before_bytes).saturating_mul(1000)
                    / elapsed_ms,
            ),
        }
    });
    let carried = engine.carried_copy(record)?;
    let head = engine.store().points(relationship.id).map_err(Refusal::failed)?.pop();
    let disk = |(target, choice): &(domain::DiskTarget, DiskChoice)| dto::DiskView {
        target: target.to_string(),
        replicated: *choice == DiskChoice::Replicated,
        size_bytes: sizes.get(target).copied(),
    };
    Ok(dto::RelationshipDetail {
        summary: summary(engine, record)?,
        epoch: relationship.epoch.number(),
        reasons: report.reasons.iter().map(|reason| dto::Reason::of(reason, &relationship.vm_name)).collect(),
        unprotected_since_ms,
        statistics: (&engine.statistics(record)?).into(),
        pending_bytes: None,
        next_due_at_ms: next_due,
        initial_copy,
        carried: carried.map(|(directory, is_whole)| dto::CarriedCopy {
            directory: directory.display().to_string(),
            is_whole,
        }),
        disks: settings.disks.iter().map(disk).collect(),
        compression: settings.compression.into(),
        rate_limit_bytes_per_second: settings.rate_limit_bytes_per_second,
        networks: settings.network_map.clone(),
        thresholds: (&settings.thresholds).into(),
        drill_every_seconds: settings.drill_every.map(|every| every.as_secs()),
        recovery_points: settings.retention.to_string(),
        application_consistent_every_seconds: settings.application_consistent_every.map(|it| it.as_secs()),
        new_disks: settings.new_disks.into(),
        chain: None,
        head: head.as_ref().map(Into::into),
        directory: record.directory.as_ref().map(|path| path.display().to_string()),
        comparison: comparison(&compared),
        resynchronize: (settings.comparing.resynchronize != Resynchronize::Automatic)
            .then(|| settings.comparing.resynchronize.to_string()),
        verify_every_seconds: settings.comparing.verify_every.map(|every| every.as_secs()),
        verified_at_ms: compared.verified.map(domain::Timestamp::millis),
    })
}

fn comparison(facts: &ComparisonFacts) -> Option<dto::ComparisonView> {
    if facts.waiting.is_none() && facts.progress.is_none() {
        return None;
    }
    let progress = facts.progress.unwrap_or_default();
    Some(dto::ComparisonView {
        cause: facts.cause.clone(),
        waiting: facts.waiting.clone(),
        compared_bytes: progress.compared_bytes,
        total_bytes: facts.progress.map(|progress| progress.total_bytes),
        differing_bytes: progress.differing_bytes,
    })
}

//! The audit: kept in the store, and told to the journal, where it outlives what the store forgets.

use api::{Asked, Code, Problem, Role, dto};
use store::{AuditResult, Audited};

use crate::problems::failed;
use crate::service::Daemon;

impl Daemon {
    /// Refused when it cannot be kept: what leaves no trace is not done.
    pub(crate) fn keep_asked(&self, asked: &Asked) -> Result<u64, Problem> {
        let record = Audited {
            sequence: 0,
            at: engine::clock::now(),
            who: asked.who.to_string(),
            from: asked.who.from.map(|address| address.to_string()),
            role: Some(asked.who.role.words().to_owned()),
            verb: asked.verb.to_owned(),
            target: asked.target.clone(),
            with: asked.with.clone(),
            result: None,
            detail: String::new(),
        };
        self.engine.store().audit(&record).map_err(|error| {
            Problem::new(Code::Failed, "The change cannot be recorded", format!("nothing was changed: {error}"))
                .with_cure("see whether the file system of the daemon's state is full or read-only: virt-replica host check")
        })
    }

    pub(crate) fn keep_result(
        &self,
        record: u64,
        result: dto::AuditResult,
        detail: &str,
    ) -> Result<(), Problem> {
        let kept = match result {
            dto::AuditResult::Accepted => AuditResult::Accepted,
            dto::AuditResult::Refused => AuditResult::Refused,
            dto::AuditResult::Failed => AuditResult::Failed,
            dto::AuditResult::Unknown => return Ok(()),
        };
        let store = self.engine.store();
        store.audit_result(record, kept, detail).map_err(failed)?;
        if let Some(Audited { who, from, verb, target, with, .. }) =
            store.audited(record.saturating_add(1), 1).map_err(failed)?.pop()
        {
            let (from, of) =
                (from.as_deref().unwrap_or("this host"), target.as_deref().unwrap_or("this host"));
            tracing::info!(
                who,
                from,
                verb,
                of,
                with,
                result = result.words(),
                detail,
                "a change was asked for"
            );
        }
        Ok(())
    }
}

/// A record as it is shown.
pub(crate) fn shown(record: Audited) -> dto::AuditRecord {
    let roles = [Role::Viewer, Role::Operator, Role::Administrator];
    dto::AuditRecord {
        sequence: record.sequence,
        at_ms: record.at.millis(),
        who: record.who,
        from: record.from,
        role: record.role.and_then(|word| roles.into_iter().find(|role| role.words() == word)),
        verb: record.verb,
        target: record.target,
        with: record.with,
        result: match record.result {
            Some(AuditResult::Accepted) => dto::AuditResult::Accepted,
            Some(AuditResult::Refused) => dto::AuditResult::Refused,
            Some(AuditResult::Failed) => dto::AuditResult::Failed,
            None => dto::AuditResult::Unknown,
        },
        detail: record.detail,
    }
}

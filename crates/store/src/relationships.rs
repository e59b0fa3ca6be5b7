//! Relationships, their points, cycles and events.

use std::path::PathBuf;
use std::time::Duration;

use domain::{
    CycleOutcome, CycleRecord, Epoch, HostId, Phase, RecoveryPoint, Relationship, RelationshipId, Settings,
    Timestamp, VmId,
};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::message::form::{PointForm, SettingsForm};

use crate::error::row;
use crate::{Result, Store};

/// One side's whole record of a relationship.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The relationship itself.
    pub relationship: Relationship,
    /// Cycles are held on the other side, as last heard.
    pub paused_on_peer: bool,
    /// This host's own definition of the VM, kept while it is replica; set only where the VM was at home first.
    pub home_definition: Option<String>,
    /// The replica directory on this host, once there is one.
    pub directory: Option<PathBuf>,
    /// Why the last cycle failed.
    pub last_failure: Option<String>,
    /// Bytes that the last look found to be waiting.
    pub pending_bytes: Option<u64>,
    /// Identities of the disk files at the last delta of a VM that was off, as JSON of the engine.
    pub offline_seal: Option<String>,
    /// When the last point was acknowledged or sealed, or nothing had changed.
    pub last_synchronized: Option<Timestamp>,
    /// What was noticed on this host, as (what, cure).
    pub notices: Vec<(String, String)>,
}

/// How much an event matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventSeverity {
    /// Good to know.
    Info,
    /// Protection became weaker.
    Warning,
    /// Protection stopped, or data is in danger.
    Critical,
}

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Rises with each event of this host; zero before it is stored.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// Its number in the catalogue (`docs/events.md`).
    pub number: u32,
    /// How much it matters.
    pub severity: EventSeverity,
    /// The VM that it is about.
    pub vm_name: Option<String>,
    /// What happened.
    pub text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
enum PhaseForm {
    InitialPending { start_ms: u64 },
    InitialReplication,
    Replicating,
    Resynchronizing { cause: String },
    Yielding,
    Unprotected { since_ms: u64 },
    Receiving,
    Stopped { since_ms: u64 },
}

pub(crate) fn phase_to_text(phase: &Phase) -> String {
    let form = match phase {
        Phase::InitialPending { start } => PhaseForm::InitialPending { start_ms: start.millis() },
        Phase::InitialReplication => PhaseForm::InitialReplication,
        Phase::Replicating => PhaseForm::Replicating,
        Phase::Resynchronizing { cause } => PhaseForm::Resynchronizing { cause: cause.clone() },
        Phase::Yielding => PhaseForm::Yielding,
        Phase::Unprotected { since } => PhaseForm::Unprotected { since_ms: since.millis() },
        Phase::Receiving => PhaseForm::Receiving,
        Phase::Stopped { since } => PhaseForm::Stopped { since_ms: since.millis() },
    };
    to_json(&form)
}

pub(crate) fn phase_from_text(text: &str) -> Result<Phase> {
    Ok(match serde_json::from_str(text).map_err(row)? {
        PhaseForm::InitialPending { start_ms } => Phase::InitialPending { start: Timestamp(start_ms) },
        PhaseForm::InitialReplication => Phase::InitialReplication,
        PhaseForm::Replicating => Phase::Replicating,
        PhaseForm::Resynchronizing { cause } => Phase::Resynchronizing { cause },
        PhaseForm::Yielding => Phase::Yielding,
        PhaseForm::Unprotected { since_ms } => Phase::Unprotected { since: Timestamp(since_ms) },
        PhaseForm::Receiving => Phase::Receiving,
        PhaseForm::Stopped { since_ms } => Phase::Stopped { since: Timestamp(since_ms) },
    })
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

pub(crate) fn set_phase(transaction: &Transaction<'_>, id: RelationshipId, phase: &Phase) -> Result<()> {
    let update = "UPDATE relationship SET phase = ?2, may_run = ?3 WHERE id = ?1";
    transaction.execute(update, params![id.to_string(), phase_to_text(phase), phase.may_run()])?;
    Ok(())
}

impl Store {
    /// A new relationship; refused when the VM has one.
    pub fn insert_relationship(&self, new: &Relationship, directory: Option<&PathBuf>) -> Result<()> {
        self.write(|transaction| {
            let insert =
                "INSERT INTO relationship (id, vm, vm_name, peer, epoch, phase, may_run, settings, directory)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            transaction.execute(
                insert,
                params![
                    new.id.to_string(),
                    new.vm.to_string(),
                    new.vm_name,
                    new.peer.to_string(),
                    new.epoch.number(),
                    phase_to_text(&new.phase),
                    new.phase.may_run(),
                    to_json(&SettingsForm::from(&new.settings)),
                    directory.map(|path| path.display().to_string())
                ],
            )?;
            Ok(())
        })
    }

    /// All relationships, by the VM's name.
    pub fn relationships(&self) -> Result<Vec<Record>> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT * FROM relationship ORDER BY vm_name, id")?;
        let records = statement.query_map([], |columns| Ok(record_of(columns)))?;
        records.map(|record| record?).collect()
    }

    /// One relationship.
    pub fn relationship(&self, id: RelationshipId) -> Result<Option<Record>> {
        let connection = self.connection();
        let mut statement = connection.prepare("SELECT * FROM relationship WHERE id = ?1")?;
        statement.query_row([id.to_string()], |columns| Ok(record_of(columns))).optional()?.transpose()
    }

    /// Forgets a relationship with its points and cycles.
    pub fn remove_relationship(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM relationship WHERE id = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Where this side stands from now on.
    pub fn set_phase(&self, id: RelationshipId, phase: &Phase) -> Result<()> {
        self.write(|transaction| set_phase(transaction, id, phase))
    }

    /// The operator's choices from now on.
    pub fn set_settings(&self, id: RelationshipId, settings: &Settings) -> Result<()> {
        self.update(id, "settings", to_json(&SettingsForm::from(settings)))
    }

    /// Cycles are held on this side since then, or not.
    pub fn set_paused(&self, id: RelationshipId, since: Option<Timestamp>) -> Result<()> {
        self.update(id, "paused_since_ms", since.map(Timestamp::millis))
    }

    /// Cycles are held on the other side, or not.
    pub fn set_paused_on_peer(&self, id: RelationshipId, paused: bool) -> Result<()> {
        self.update(id, "paused_on_peer", paused)
    }

    /// The VM was renamed.
    pub fn set_vm_name(&self, id: RelationshipId, name: &str) -> Result<()> {
        self.update(id, "vm_name", name)
    }

    /// This host's own definition of the VM.
    pub fn set_home_definition(&self, id: RelationshipId, definition: &str) -> Result<()> {
        self.update(id, "home_definition", definition)
    }

    /// The replica directory on this host.
    pub fn set_directory(&self, id: RelationshipId, directory: &std::path::Path) -> Result<()> {
        self.update(id, "directory", directory.display().to_string())
    }

    /// Why the last cycle failed; none: it did not.
    pub fn set_failure(&self, id: RelationshipId, failure: Option<&str>) -> Result<()> {
        self.update(id, "last_failure", failure)
    }

    /// Bytes that are known to be waiting.
    pub fn set_pending(&self, id: RelationshipId, bytes: Option<u64>) -> Result<()> {
        self.update(id, "pending_bytes", bytes)
    }

    /// The disk files as they were at the last delta of a VM that was off.
    pub fn set_offline_seal(&self, id: RelationshipId, seal: Option<&str>) -> Result<()> {
        self.update(id, "offline_seal", seal)
    }

    /// Both sides were the same at this moment.
    pub fn set_synchronized(&self, id: RelationshipId, at: Timestamp) -> Result<()> {
        self.update(id, "last_synchronized_ms", at.millis())
    }

    /// What was noticed, all of it, as (what, cure).
    pub fn set_notices(&self, id: RelationshipId, notices: &[(String, String)]) -> Result<()> {
        self.update(id, "notices", to_json(&notices))
    }

    fn update(&self, id: RelationshipId, column: &'static str, value: impl rusqlite::ToSql) -> Result<()> {
        self.write(|transaction| {
            let update = format!("UPDATE relationship SET {column} = ?2 WHERE id = ?1");
            transaction.execute(&update, params![id.to_string(), value])?;
            Ok(())
        })
    }

    /// A new point: the head moves. Repeating is fine.
    pub fn add_point(&self, id: RelationshipId, point: &RecoveryPoint, now: Timestamp) -> Result<()> {
        self.write(|transaction| {
            let insert =
                "INSERT OR IGNORE INTO point (relationship, id, ordinal, form) VALUES (?1, ?2, ?3, ?4)";
            let form = to_json(&PointForm::from(point));
            transaction
                .execute(insert, params![id.to_string(), point.id.to_string(), point.ordinal, form])?;
            let update =
                "UPDATE relationship SET last_synchronized_ms = ?2, last_failure = NULL WHERE id = ?1";
            transaction.execute(update, params![id.to_string(), now.millis()])?;
            // The primary needs a few ancestors to recognise a replica that lags; the replica its head.
            let forget = "DELETE FROM point WHERE relationship = ?1 AND ordinal < ?2";
            transaction
                .execute(forget, params![id.to_string(), point.ordinal.saturating_sub(HISTORY_POINTS)])?;
            Ok(())
        })
    }

    /// The points that are known, oldest first; the last is the head.
    pub fn points(&self, id: RelationshipId) -> Result<Vec<RecoveryPoint>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare("SELECT form FROM point WHERE relationship = ?1 ORDER BY ordinal")?;
        let forms = statement.query_map([id.to_string()], |columns| columns.get::<_, String>(0))?;
        forms.map(|form| point_of(&form?)).collect()
    }

    /// One cycle, for statistics. Those before `forget_before` go.
    pub fn add_cycle(&self, id: RelationshipId, cycle: &CycleRecord, forget_before: Timestamp) -> Result<()> {
        let outcome = match cycle.outcome {
            CycleOutcome::Acknowledged => "acknowledged",
            CycleOutcome::Failed => "failed",
            CycleOutcome::Missed => "missed",
        };
        let latency_ms = u64::try_from(cycle.latency.as_millis()).unwrap_or(u64::MAX >> 1);
        self.write(|transaction| {
            let insert = "INSERT INTO cycle VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![id.to_string(), cycle.begun.millis(), latency_ms, cycle.bytes, outcome];
            transaction.execute(insert, values)?;
            let forget = "DELETE FROM cycle WHERE relationship = ?1 AND begun_ms < ?2";
            transaction.execute(forget, params![id.to_string(), forget_before.millis()])?;
            Ok(())
        })
    }

    /// The cycles since then.
    pub fn cycles_since(&self, id: RelationshipId, since: Timestamp) -> Result<Vec<CycleRecord>> {
        let connection = self.connection();
        let query = "SELECT begun_ms, latency_ms, bytes, outcome FROM cycle WHERE relationship = ?1 AND begun_ms >= ?2";
        let mut statement = connection.prepare(query)?;
        let cycles = statement.query_map(params![id.to_string(), since.millis()], |columns| {
            Ok(CycleRecord {
                begun: Timestamp(columns.get(0)?),
                latency: Duration::from_millis(columns.get(1)?),
                bytes: columns.get(2)?,
                outcome: match columns.get::<_, String>(3)?.as_str() {
                    "acknowledged" => CycleOutcome::Acknowledged,
                    "missed" => CycleOutcome::Missed,
                    _ => CycleOutcome::Failed,
                },
            })
        })?;
        Ok(cycles.collect::<std::result::Result<_, _>>()?)
    }

    /// Statistics begin anew.
    pub fn reset_statistics(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute("DELETE FROM cycle WHERE relationship = ?1", [id.to_string()])?;
            Ok(())
        })
    }

    /// Keeps an event; its sequence number is made here.
    pub fn add_event(&self, event: &Event) -> Result<()> {
        let severity = match event.severity {
            EventSeverity::Info => "info",
            EventSeverity::Warning => "warning",
            EventSeverity::Critical => "critical",
        };
        self.write(|transaction| {
            let insert =
                "INSERT INTO event (at_ms, number, severity, vm_name, text) VALUES (?1, ?2, ?3, ?4, ?5)";
            let values = params![event.at.millis(), event.number, severity, event.vm_name, event.text];
            transaction.execute(insert, values)?;
            let forget = "DELETE FROM event WHERE sequence <= (SELECT max(sequence) FROM event) - ?1";
            transaction.execute(forget, [EVENTS_MAX])?;
            Ok(())
        })
    }

    /// The newest `limit` events after `since`, oldest first.
    pub fn events(&self, vm_name: Option<&str>, since: u64, limit: u32) -> Result<Vec<Event>> {
        let connection = self.connection();
        let query = "SELECT sequence, at_ms, number, severity, vm_name, text FROM event
                     WHERE sequence > ?1 AND (?2 IS NULL OR vm_name = ?2) ORDER BY sequence DESC LIMIT ?3";
        let mut statement = connection.prepare(query)?;
        let events = statement.query_map(params![since, vm_name, limit], |columns| {
            Ok(Event {
                sequence: columns.get(0)?,
                at: Timestamp(columns.get(1)?),
                number: columns.get(2)?,
                severity: match columns.get::<_, String>(3)?.as_str() {
                    "info" => EventSeverity::Info,
                    "warning" => EventSeverity::Warning,
                    _ => EventSeverity::Critical,
                },
                vm_name: columns.get(4)?,
                text: columns.get(5)?,
            })
        })?;
        let mut events: Vec<Event> = events.collect::<std::result::Result<_, _>>()?;
        events.reverse();
        Ok(events)
    }
}

/// Points that are remembered behind the head.
const HISTORY_POINTS: u64 = 64;
/// Events that are kept.
const EVENTS_MAX: u64 = 20_000;

fn point_of(form: &str) -> Result<RecoveryPoint> {
    let form: PointForm = serde_json::from_str(form).map_err(row)?;
    RecoveryPoint::try_from(form).map_err(row)
}

fn record_of(columns: &Row<'_>) -> Result<Record> {
    let id = |name: &str| -> Result<Uuid> { Uuid::parse_str(&columns.get::<_, String>(name)?).map_err(row) };
    let text = |name: &str| -> Result<String> { Ok(columns.get(name)?) };
    let settings: SettingsForm = serde_json::from_str(&text("settings")?).map_err(row)?;
    let relationship = Relationship {
        id: RelationshipId(id("id")?),
        vm: VmId(id("vm")?),
        vm_name: text("vm_name")?,
        peer: HostId(id("peer")?),
        epoch: Epoch::new(columns.get("epoch")?).ok_or_else(|| row("epoch 0"))?,
        phase: phase_from_text(&text("phase")?)?,
        paused_since: columns.get::<_, Option<u64>>("paused_since_ms")?.map(Timestamp),
        settings: Settings::try_from(settings).map_err(row)?,
    };
    Ok(Record {
        relationship,
        paused_on_peer: columns.get("paused_on_peer")?,
        home_definition: columns.get("home_definition")?,
        directory: columns.get::<_, Option<String>>("directory")?.map(PathBuf::from),
        last_failure: columns.get("last_failure")?,
        pending_bytes: columns.get("pending_bytes")?,
        offline_seal: columns.get("offline_seal")?,
        last_synchronized: columns.get::<_, Option<u64>>("last_synchronized_ms")?.map(Timestamp),
        notices: serde_json::from_str(&text("notices")?).map_err(row)?,
    })
}

//! Events of this host, the newest kept.

use domain::{RelationshipId, Timestamp};
use rusqlite::params;

use crate::cached::Cached;
use crate::forms::to_json;
use crate::{Result, Store, number};

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

/// Which events are meant.
#[derive(Clone, Copy, Debug)]
pub enum EventsOf<'a> {
    /// All, the host's own too.
    All,
    /// Those of a VM of this name, whichever it was.
    Vm(&'a str),
    /// Those of these relationships, since they began.
    Relationships(&'a [RelationshipId]),
}

/// Events that are kept.
const EVENTS_MAX: u64 = 20_000;

impl Store {
    /// Keeps an event; its sequence number is made here, and it is one of the relationship that the VM has now. A name that two VMs
    /// have tells of none.
    pub fn add_event(&self, event: &Event) -> Result<()> {
        let severity = match event.severity {
            EventSeverity::Info => "info",
            EventSeverity::Warning => "warning",
            EventSeverity::Critical => "critical",
        };
        self.write(|transaction| {
            let insert =
                "INSERT INTO event (at_ms, number, severity, vm_name, text, relationship) VALUES (?1, ?2, ?3, ?4, ?5,
                 (SELECT CASE count(*) WHEN 1 THEN min(id) END FROM relationship WHERE vm_name = ?4))";
            let values = params![event.at.millis(), event.number, severity, event.vm_name, event.text];
            transaction.execute_cached(insert, values)?;
            let forget = "DELETE FROM event WHERE sequence <= (SELECT max(sequence) FROM event) - ?1";
            transaction.execute_cached(forget, [EVENTS_MAX])?;
            Ok(())
        })
    }

    /// The newest `limit` events after `since` and before `before`, oldest first.
    pub fn events(&self, of: EventsOf<'_>, (since, before): (u64, u64), limit: u32) -> Result<Vec<Event>> {
        let connection = self.connection();
        let query = "SELECT sequence, at_ms, number, severity, vm_name, text FROM event
                     WHERE sequence > ?1 AND sequence < ?2
                       AND (?3 IS NULL OR vm_name = ?3)
                       AND (?4 IS NULL OR relationship IN (SELECT value FROM json_each(?4)))
                     ORDER BY sequence DESC LIMIT ?5";
        let mut statement = connection.prepare_cached(query)?;
        let (name, ids) = match of {
            EventsOf::All => (None, None),
            EventsOf::Vm(name) => (Some(name), None),
            EventsOf::Relationships(ids) => {
                (None, Some(to_json(&ids.iter().map(ToString::to_string).collect::<Vec<_>>())))
            }
        };
        let events =
            statement.query_map(params![number(since), number(before), name, ids, limit], |columns| {
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

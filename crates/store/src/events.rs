//! Events of this host, the newest kept.

use domain::Timestamp;
use rusqlite::params;

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

/// Events that are kept.
const EVENTS_MAX: u64 = 20_000;

impl Store {
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

    /// The newest `limit` events after `since` and before `before`, oldest first; of all VMs and the host, or of those named.
    pub fn events(
        &self,
        vm_names: Option<&[&str]>,
        (since, before): (u64, u64),
        limit: u32,
    ) -> Result<Vec<Event>> {
        let connection = self.connection();
        let query = "SELECT sequence, at_ms, number, severity, vm_name, text FROM event
                     WHERE sequence > ?1 AND sequence < ?2
                       AND (?3 IS NULL OR vm_name IN (SELECT value FROM json_each(?3)))
                     ORDER BY sequence DESC LIMIT ?4";
        let mut statement = connection.prepare(query)?;
        let names = vm_names.map(to_json);
        let events =
            statement.query_map(params![number(since), number(before), names, limit], |columns| {
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

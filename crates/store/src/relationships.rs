//! Relationships: one row each, and the rule that authority does not change by the way.
//!
//! Here a phase changes within its role. A role changes hands only in `authority.rs`, together with epoch and journal.

use std::path::{Path, PathBuf};

use choreography::authority::Denied;
use domain::{Epoch, HostId, Notice, Relationship, RelationshipId, Settings, Timestamp, VmId};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use uuid::Uuid;
use wire::message::form::SettingsForm;

use crate::boot::boot_id;
use crate::cached::Cached;
use crate::error::{StoreError, row};
use crate::forms::{notices_from_text, notices_to_text, phase_from_text, phase_to_text, to_json};
use crate::operations::open_operation_id;
use crate::stale_copies::free;
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
    /// Identities of the disk files at the last delta of a VM that was off, as JSON of the engine.
    pub offline_seal: Option<String>,
    /// When the last point was acknowledged or sealed, or nothing had changed.
    pub last_synchronized: Option<Timestamp>,
    /// What was noticed on this host.
    pub notices: Vec<Notice>,
    /// The VM as it was seen last, as JSON of the engine.
    pub seen: Option<String>,
    /// The boot of this host in which the other side last said that no higher epoch exists.
    pub confirmed_boot: Option<String>,
    /// The other side's epoch, when it was found to be higher: this side's copy is stale.
    pub superseded_by: Option<Epoch>,
}

impl Record {
    /// Whether the VM was protected first on this host. A host that was the replica server first has had a directory ever since.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.home_definition.is_some() || self.directory.is_none()
    }

    /// The record of a relationship that has just begun.
    #[must_use]
    pub fn new(relationship: Relationship) -> Record {
        Record {
            relationship,
            paused_on_peer: false,
            home_definition: None,
            directory: None,
            last_failure: None,
            offline_seal: None,
            last_synchronized: None,
            notices: Vec::new(),
            seen: None,
            confirmed_boot: None,
            superseded_by: None,
        }
    }
}

/// An intent about a relationship that is not there was not kept, and must not look as if it were.
fn changed_one(rows: usize, id: RelationshipId) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(StoreError::NoRelationship(id)) }
}

/// With the row go its points and cycles; operations and events stay as history.
pub(crate) fn delete(transaction: &Transaction<'_>, id: RelationshipId) -> Result<()> {
    transaction.execute_cached("DELETE FROM relationship WHERE id = ?1", [id.to_string()])?;
    Ok(())
}

impl Store {
    /// A new relationship; refused when the VM has one.
    pub fn insert_relationship(&self, new: &Relationship, directory: Option<&PathBuf>) -> Result<()> {
        self.write(|transaction| {
            let insert =
                "INSERT INTO relationship (id, vm, vm_name, peer, epoch, phase, may_run, settings, directory,
                          confirmed_boot) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
            let inserted = transaction.execute_cached(
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
                    directory.map(|path| path.display().to_string()),
                    boot_id()
                ],
            );
            inserted.map_err(StoreError::duplicate)?;
            free(transaction, new.vm)
        })
    }

    /// All relationships, by the VM's name.
    pub fn relationships(&self) -> Result<Vec<Record>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM relationship ORDER BY vm_name, id")?;
        let records = statement.query_map([], |columns| Ok(record_of(columns)))?;
        records.map(|record| record?).collect()
    }

    /// One relationship.
    pub fn relationship(&self, id: RelationshipId) -> Result<Option<Record>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM relationship WHERE id = ?1")?;
        statement.query_row([id.to_string()], |columns| Ok(record_of(columns))).optional()?.transpose()
    }

    /// The relationship of a VM.
    pub fn relationship_by_vm(&self, vm: VmId) -> Result<Option<Record>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM relationship WHERE vm = ?1")?;
        statement.query_row([vm.to_string()], |columns| Ok(record_of(columns))).optional()?.transpose()
    }

    /// Takes away a relationship that never came to be, with all its rows; one that ends is forgotten
    /// ([`Store::forget_relationship`]). Refused while an operation is open. Repeating is fine.
    pub fn remove_relationship(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            if let Some(open) = open_operation_id(transaction, id)? {
                return Err(Denied::Busy(open.parse().map_err(row)?).into());
            }
            delete(transaction, id)
        })
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
    pub fn set_directory(&self, id: RelationshipId, directory: &Path) -> Result<()> {
        self.update(id, "directory", directory.display().to_string())
    }

    /// Why the last cycle failed; none: it did not.
    pub fn set_failure(&self, id: RelationshipId, failure: Option<&str>) -> Result<()> {
        self.update(id, "last_failure", failure)
    }

    /// The disk files as they were at the last delta of a VM that was off.
    pub fn set_offline_seal(&self, id: RelationshipId, seal: Option<&str>) -> Result<()> {
        self.update(id, "offline_seal", seal)
    }

    /// Both sides were the same at this moment.
    pub fn set_synchronized(&self, id: RelationshipId, at: Timestamp) -> Result<()> {
        self.update(id, "last_synchronized_ms", at.millis())
    }

    /// What was noticed, all of it.
    pub fn set_notices(&self, id: RelationshipId, notices: &[Notice]) -> Result<()> {
        self.update(id, "notices", notices_to_text(notices))
    }

    /// The VM as it was seen just now.
    pub fn set_seen(&self, id: RelationshipId, seen: &str) -> Result<()> {
        self.update(id, "seen", seen)
    }

    /// The other side said, in this boot of the host, that it knows no higher epoch.
    pub fn confirm_boot(&self, id: RelationshipId, boot: &str) -> Result<()> {
        self.update(id, "confirmed_boot", boot)
    }

    fn update(&self, id: RelationshipId, column: &'static str, value: impl rusqlite::ToSql) -> Result<()> {
        self.write(|transaction| {
            let update = format!("UPDATE relationship SET {column} = ?2 WHERE id = ?1");
            changed_one(transaction.execute_cached(&update, params![id.to_string(), value])?, id)
        })
    }
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
        offline_seal: columns.get("offline_seal")?,
        last_synchronized: columns.get::<_, Option<u64>>("last_synchronized_ms")?.map(Timestamp),
        notices: notices_from_text(&text("notices")?)?,
        seen: columns.get("seen")?,
        confirmed_boot: columns.get("confirmed_boot")?,
        superseded_by: columns.get::<_, Option<u64>>("superseded_by")?.and_then(Epoch::new),
    })
}

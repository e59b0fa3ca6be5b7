//! What was asked for and what was found when both sides are compared.

use domain::{Doubt, Epoch, RelationshipId, Timestamp};
use rusqlite::{OptionalExtension, params};

use crate::cached::Cached;
use crate::error::row;
use crate::{Result, Store};

/// What a relationship remembers of its comparisons.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparisons {
    /// A resynchronization is wanted, also where nothing seems wrong or a person has to begin it: why.
    pub resynchronize: Option<String>,
    /// A verification is wanted since then.
    pub verify_since: Option<Timestamp>,
    /// When the replica was last proven to be equal.
    pub verified: Option<Timestamp>,
    /// A verification found what nobody has repaired yet, in words.
    pub mismatch: Option<String>,
    /// The last verification could not be made: when, and what is the matter with the replica, if that was why.
    pub unverified: Option<(Timestamp, Option<String>)>,
}

const ROW: &str = "INSERT INTO comparison (relationship) VALUES (?1) ON CONFLICT DO NOTHING";

impl Store {
    /// All of it; nothing of a relationship that was never compared.
    pub fn comparisons(&self, id: RelationshipId) -> Result<Comparisons> {
        let query = "SELECT resynchronize, verify_since_ms, verified_ms, mismatch, unverified_ms, unverified
                     FROM comparison WHERE relationship = ?1";
        let columns = |row: &rusqlite::Row<'_>| {
            Ok(Comparisons {
                resynchronize: row.get(0)?,
                verify_since: row.get::<_, Option<u64>>(1)?.map(Timestamp),
                verified: row.get::<_, Option<u64>>(2)?.map(Timestamp),
                mismatch: row.get(3)?,
                unverified: row.get::<_, Option<u64>>(4)?.map(Timestamp).zip(Some(row.get(5)?)),
            })
        };
        let found = self.connection().query_row_cached(query, [id.to_string()], columns).optional()?;
        Ok(found.unwrap_or_default())
    }

    /// A resynchronization is wanted.
    pub fn want_resynchronization(&self, id: RelationshipId, why: &str) -> Result<()> {
        let update = "UPDATE comparison SET resynchronize = ?2, wishes = wishes + 1 WHERE relationship = ?1";
        self.compared(id, update, why)
    }

    /// The disks are about to be frozen for a resynchronization: what is wanted by now will be done by it, what comes later is not
    /// known to be in what it reads.
    pub fn begin_resynchronization(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached(ROW, [id.to_string()])?;
            let update = "UPDATE comparison SET wishes_frozen = wishes WHERE relationship = ?1";
            transaction.execute_cached(update, [id.to_string()])?;
            Ok(())
        })
    }

    /// A resynchronization was completed: what was wanted when it began is done, and what was found is repaired. What was wanted
    /// since stays wanted.
    pub fn resynchronized(&self, id: RelationshipId) -> Result<()> {
        self.write(|transaction| {
            let update = "UPDATE comparison SET resynchronize = NULL, mismatch = NULL, unverified = NULL, unverified_ms = NULL
                          WHERE relationship = ?1 AND wishes = wishes_frozen";
            transaction.execute_cached(update, [id.to_string()])?;
            Ok(())
        })
    }

    /// A verification is wanted.
    pub fn want_verification(&self, id: RelationshipId, since: Timestamp) -> Result<()> {
        let update = "UPDATE comparison SET verify_since_ms = ?2 WHERE relationship = ?1";
        self.compared(id, update, since.millis())
    }

    /// A verification found both sides equal at that time.
    pub fn verified(&self, id: RelationshipId, at: Timestamp) -> Result<()> {
        let update = "UPDATE comparison SET verify_since_ms = NULL, verified_ms = ?2, mismatch = NULL, unverified = NULL, unverified_ms = NULL
                      WHERE relationship = ?1";
        self.compared(id, update, at.millis())
    }

    /// A verification could not be made: it is not wanted any more. What is the matter with the replica, if anything, is remembered until
    /// one is made, a resynchronization is, or the epoch ends.
    pub fn unverified(&self, id: RelationshipId, at: Timestamp, why: Option<&str>) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached(ROW, [id.to_string()])?;
            let update = "UPDATE comparison SET verify_since_ms = NULL, unverified_ms = ?2, unverified = ?3
                          WHERE relationship = ?1";
            transaction.execute_cached(update, params![id.to_string(), at.millis(), why])?;
            Ok(())
        })
    }

    /// A verification found what differs.
    pub fn mismatched(&self, id: RelationshipId, what: &str) -> Result<()> {
        let update = "UPDATE comparison SET verify_since_ms = NULL, mismatch = ?2, unverified = NULL, unverified_ms = NULL, wishes = wishes + 1
                      WHERE relationship = ?1";
        self.compared(id, update, what)
    }

    /// The points up to one are not known to be right: on the primary what it found, on the replica what it was told. A newer word
    /// takes the place of an older one, which it includes.
    pub fn set_doubt(&self, id: RelationshipId, doubt: &Doubt) -> Result<()> {
        self.write(|transaction| {
            let insert = "INSERT INTO doubt (relationship, epoch, ordinal, what) VALUES (?1, ?2, ?3, ?4)
                          ON CONFLICT (relationship) DO UPDATE SET epoch = ?2, ordinal = ?3, what = ?4";
            let values = params![id.to_string(), doubt.epoch.number(), doubt.ordinal, doubt.what];
            transaction.execute_cached(insert, values)?;
            Ok(())
        })
    }

    /// Which points are not known to be right; none: nothing was found.
    pub fn doubt(&self, id: RelationshipId) -> Result<Option<Doubt>> {
        let query = "SELECT epoch, ordinal, what FROM doubt WHERE relationship = ?1";
        let columns =
            |row: &rusqlite::Row<'_>| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?, row.get(2)?));
        let found = self.connection().query_row_cached(query, [id.to_string()], columns).optional()?;
        let Some((epoch, ordinal, what)) = found else { return Ok(None) };
        Ok(Some(Doubt { epoch: Epoch::new(epoch).ok_or_else(|| row("epoch 0"))?, ordinal, what }))
    }

    /// The first copy is carried by hand: how far that is, as JSON of the engine.
    pub fn set_export(&self, id: RelationshipId, form: &str) -> Result<()> {
        self.compared(id, "UPDATE comparison SET export = ?2 WHERE relationship = ?1", form)
    }

    /// Whether the first copy is carried by hand.
    pub fn export(&self, id: RelationshipId) -> Result<Option<String>> {
        let query = "SELECT export FROM comparison WHERE relationship = ?1";
        let found =
            self.connection().query_row_cached(query, [id.to_string()], |row| row.get(0)).optional()?;
        Ok(found.flatten())
    }

    fn compared(&self, id: RelationshipId, update: &str, value: impl rusqlite::ToSql) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached(ROW, [id.to_string()])?;
            transaction.execute_cached(update, params![id.to_string(), value])?;
            Ok(())
        })
    }
}

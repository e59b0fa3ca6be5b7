//! Who asked for which change, and what came of it: a record is there before the change begins. The newest are kept, and no text
//! is longer than a line, so that nobody who asks often or at length fills the disk.

use domain::Timestamp;
use rusqlite::params;

use crate::{Result, Store};

/// What came of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuditResult {
    /// It was made.
    Accepted,
    /// Nothing was changed.
    Refused,
    /// It was tried and failed.
    Failed,
}

const WORDS: [(AuditResult, &str); 3] =
    [(AuditResult::Accepted, "accepted"), (AuditResult::Refused, "refused"), (AuditResult::Failed, "failed")];

/// One change that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audited {
    /// Rises with each record of this host; zero before it is stored.
    pub sequence: u64,
    /// When it was asked for.
    pub at: Timestamp,
    /// Who asked.
    pub who: String,
    /// From which address; none: this host.
    pub from: Option<String>,
    /// In which role; none: nobody's.
    pub role: Option<String>,
    /// What was asked for.
    pub verb: String,
    /// Of what; none: of this host.
    pub target: Option<String>,
    /// What came of it; none: no word of it.
    pub result: Option<AuditResult>,
    /// Why it was refused or failed.
    pub detail: String,
}

/// Records that are kept.
const RECORDS_MAX: u64 = 50_000;
/// Longest text of a record, in characters.
const TEXT_CHARS_MAX: usize = 500;

fn bounded(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Store {
    /// Keeps that a change was asked for, and answers with the record's number.
    pub fn audit(&self, asked: &Audited) -> Result<u64> {
        self.write(|transaction| {
            let insert = "INSERT INTO audit (at_ms, who, address, role, verb, target, detail)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6, '')";
            let target = asked.target.as_deref().map(bounded);
            let Audited { at, who, from, role, verb, .. } = asked;
            transaction.execute(insert, params![at.millis(), bounded(who), from, role, verb, target])?;
            let sequence = transaction.last_insert_rowid();
            transaction
                .execute("DELETE FROM audit WHERE sequence <= ?1 - ?2", params![sequence, RECORDS_MAX])?;
            Ok(sequence.unsigned_abs())
        })
    }

    /// Keeps what came of it.
    pub fn audit_result(&self, sequence: u64, result: AuditResult, detail: &str) -> Result<()> {
        let word = WORDS.iter().find(|(known, _)| *known == result).map(|(_, word)| *word);
        self.write(|transaction| {
            let update = "UPDATE audit SET result = ?2, detail = ?3 WHERE sequence = ?1";
            transaction.execute(update, params![sequence, word, bounded(detail)])?;
            Ok(())
        })
    }

    /// Of what was refused, only the newest so many of a verb are kept. For what strangers ask: else who asks often makes this host
    /// forget what the others asked.
    pub fn audit_forget_refused(&self, verb: &str, kept: u32) -> Result<()> {
        self.write(|transaction| {
            let delete = "DELETE FROM audit WHERE verb = ?1 AND result = 'refused' AND sequence <= (
                SELECT sequence FROM audit WHERE verb = ?1 AND result = 'refused'
                ORDER BY sequence DESC LIMIT 1 OFFSET ?2)";
            transaction.execute(delete, params![verb, kept])?;
            Ok(())
        })
    }

    /// The newest `limit` records before `before`, the newest first.
    pub fn audited(&self, before: u64, limit: u32) -> Result<Vec<Audited>> {
        let connection = self.connection();
        let query = "SELECT sequence, at_ms, who, address, role, verb, target, result, detail FROM audit
                     WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2";
        let mut statement = connection.prepare(query)?;
        let records = statement.query_map(params![crate::number(before), limit], |columns| {
            let result: Option<String> = columns.get(7)?;
            let known =
                |word: String| WORDS.iter().find(|(_, known)| *known == word).map(|(result, _)| *result);
            Ok(Audited {
                sequence: columns.get(0)?,
                at: Timestamp(columns.get(1)?),
                who: columns.get(2)?,
                from: columns.get(3)?,
                role: columns.get(4)?,
                verb: columns.get(5)?,
                target: columns.get(6)?,
                result: result.and_then(known),
                detail: columns.get(8)?,
            })
        })?;
        Ok(records.collect::<std::result::Result<_, _>>()?)
    }
}

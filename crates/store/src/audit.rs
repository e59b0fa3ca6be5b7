//! Who asked for which change, and what came of it: a record is there before the change begins. The newest are kept, and no text
//! is longer than a line, so that nobody who asks often or at length fills the disk. What is refused is kept apart from what is
//! made, by verb: else who asks often for what is not allowed makes this host forget what others did.

use domain::Timestamp;
use rusqlite::{Transaction, params};

use crate::cached::Cached;
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
    /// With what.
    pub with: String,
    /// What came of it; none: no word of it.
    pub result: Option<AuditResult>,
    /// Why it was refused or failed.
    pub detail: String,
}

/// Records that are kept of what was made, failed or is under way.
const RECORDS_MAX: u64 = 50_000;
/// Records that are kept of one verb, of what was refused.
const REFUSED_MAX: u64 = 2_000;
/// The rest is forgotten whenever so many have come: to look for it reads them all.
const FORGET_EVERY: u64 = 100;
/// Longest text of a record, in characters.
const TEXT_CHARS_MAX: usize = 500;

fn bounded(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

impl Store {
    /// Keeps that a change was asked for, and answers with the record's number.
    pub fn audit(&self, asked: &Audited) -> Result<u64> {
        self.write(|transaction| {
            let insert = "INSERT INTO audit (at_ms, who, address, role, verb, target, asked_with, detail)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, '')";
            let target = asked.target.as_deref().map(bounded);
            let Audited { at, who, from, role, verb, with, .. } = asked;
            let values = params![at.millis(), bounded(who), from, role, verb, target, bounded(with)];
            transaction.execute_cached(insert, values)?;
            let sequence = transaction.last_insert_rowid().unsigned_abs();
            if sequence.is_multiple_of(FORGET_EVERY) {
                forget(transaction, RECORDS_MAX, REFUSED_MAX)?;
            }
            Ok(sequence)
        })
    }

    /// Keeps what came of it.
    pub fn audit_result(&self, sequence: u64, result: AuditResult, detail: &str) -> Result<()> {
        let word = WORDS.iter().find(|(known, _)| *known == result).map(|(_, word)| *word);
        self.write(|transaction| {
            let update = "UPDATE audit SET result = ?2, detail = ?3 WHERE sequence = ?1";
            transaction.execute_cached(update, params![sequence, word, bounded(detail)])?;
            Ok(())
        })
    }

    /// The newest `limit` records before `before`, the newest first.
    pub fn audited(&self, before: u64, limit: u32) -> Result<Vec<Audited>> {
        let connection = self.connection();
        let query =
            "SELECT sequence, at_ms, who, address, role, verb, target, result, detail, asked_with FROM audit
                     WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2";
        let mut statement = connection.prepare_cached(query)?;
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
                with: columns.get(9)?,
                result: result.and_then(known),
                detail: columns.get(8)?,
            })
        })?;
        Ok(records.collect::<std::result::Result<_, _>>()?)
    }
}

/// All but the newest go: so many of what was refused of each verb, so many of everything else.
pub(crate) fn forget(transaction: &Transaction<'_>, kept: u64, refused_kept: u64) -> Result<()> {
    let others = "DELETE FROM audit WHERE result IS NOT 'refused' AND sequence <= (
        SELECT sequence FROM audit WHERE result IS NOT 'refused' ORDER BY sequence DESC LIMIT 1 OFFSET ?1)";
    transaction.execute_cached(others, [kept])?;
    let refused = "DELETE FROM audit WHERE sequence IN (SELECT sequence FROM (
        SELECT sequence, row_number() OVER (PARTITION BY verb ORDER BY sequence DESC) AS place
        FROM audit WHERE result = 'refused') WHERE place > ?1)";
    transaction.execute_cached(refused, [refused_kept])?;
    Ok(())
}

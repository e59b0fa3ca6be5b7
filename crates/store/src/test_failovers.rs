//! Test failovers: each is written here before anything of it is made, so that whatever a crash leaves has a name and an
//! owner. The recovery points on which they stand are pinned: a file that a copy reads must not change.

use choreography::authority::Denied;
use domain::{PointId, RelationshipId, TestId, Timestamp, VmId};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::cached::Cached;
use crate::error::row;
use crate::operations::open_operation_id;
use crate::{Result, Store};

/// Where a test failover stands. It only ever goes on to the next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TestState {
    /// Parts of it may exist.
    Making,
    /// It is complete.
    Standing,
    /// Parts of it may be gone.
    Removing,
    /// Nothing of it is left but its report.
    Ended,
}

const WORDS: [(TestState, &str); 4] = [
    (TestState::Making, "making"),
    (TestState::Standing, "standing"),
    (TestState::Removing, "removing"),
    (TestState::Ended, "ended"),
];

impl TestState {
    fn text(self) -> &'static str {
        WORDS.iter().find(|(state, _)| *state == self).map_or("ended", |(_, text)| text)
    }
}

/// One test failover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestFailover {
    /// Its id.
    pub id: TestId,
    /// Of which relationship.
    pub relationship: RelationshipId,
    /// The copy's own UUID.
    pub vm: VmId,
    /// On which recovery point it stands.
    pub point: PointId,
    /// How far it is.
    pub state: TestState,
    /// When it began.
    pub begun: Timestamp,
    /// Everything else, as JSON of the engine.
    pub form: String,
}

impl Store {
    /// A new test failover. Refused while an operation of the relationship is open.
    pub fn begin_test(&self, test: &TestFailover) -> Result<()> {
        self.write(|transaction| {
            if let Some(open) = open_operation_id(transaction, test.relationship)? {
                return Err(Denied::Busy(open.parse().map_err(row)?).into());
            }
            let insert = "INSERT INTO test_failover (id, relationship, vm, point, state, begun_ms, form)
                          VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
            transaction.execute_cached(
                insert,
                params![
                    test.id.to_string(),
                    test.relationship.to_string(),
                    test.vm.to_string(),
                    test.point.to_string(),
                    test.state.text(),
                    test.begun.millis(),
                    test.form
                ],
            )?;
            Ok(())
        })
    }

    /// Goes on from one state to another; false when it was in another one already.
    pub fn move_test(&self, id: TestId, from: TestState, to: TestState) -> Result<bool> {
        self.write(|transaction| {
            let update = "UPDATE test_failover SET state = ?3 WHERE id = ?1 AND state = ?2";
            Ok(transaction.execute_cached(update, [&id.to_string(), from.text(), to.text()])? == 1)
        })
    }

    /// What is known of it from now on.
    pub fn set_test_form(&self, id: TestId, form: &str) -> Result<()> {
        self.write(|transaction| {
            transaction.execute_cached(
                "UPDATE test_failover SET form = ?2 WHERE id = ?1",
                [&id.to_string(), form],
            )?;
            Ok(())
        })
    }

    /// One test failover.
    pub fn test(&self, id: TestId) -> Result<Option<TestFailover>> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached("SELECT * FROM test_failover WHERE id = ?1")?;
        statement.query_row([id.to_string()], |columns| Ok(test_of(columns))).optional()?.transpose()
    }

    /// All test failovers that are remembered, the newest first.
    pub fn tests(&self) -> Result<Vec<TestFailover>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT * FROM test_failover ORDER BY begun_ms DESC, id DESC")?;
        let tests = statement.query_map([], |columns| Ok(test_of(columns)))?;
        tests.map(|test| test?).collect()
    }

    /// Those of a relationship, the newest first.
    pub fn tests_of(&self, relationship: RelationshipId) -> Result<Vec<TestFailover>> {
        let mut tests = self.tests()?;
        tests.retain(|test| test.relationship == relationship);
        Ok(tests)
    }

    /// Recovery points whose files, and all below, must not change: something reads them.
    pub fn pins(&self, relationship: RelationshipId) -> Result<Vec<PointId>> {
        let connection = self.connection();
        let query = "SELECT DISTINCT point FROM test_failover WHERE relationship = ?1 AND state <> 'ended'";
        let mut statement = connection.prepare_cached(query)?;
        let points = statement.query_map([relationship.to_string()], |row| row.get::<_, String>(0))?;
        points.map(|point| point?.parse().map_err(row)).collect()
    }

    /// Forgets one that has ended.
    pub fn forget_test(&self, id: TestId) -> Result<()> {
        self.write(|transaction| {
            let delete = "DELETE FROM test_failover WHERE id = ?1 AND state = 'ended'";
            transaction.execute_cached(delete, [id.to_string()])?;
            Ok(())
        })
    }
}

/// Whether a copy stands on the replica's files.
pub(crate) fn is_tested(transaction: &Transaction<'_>, relationship: RelationshipId) -> Result<bool> {
    let query = "SELECT EXISTS (SELECT 1 FROM test_failover WHERE relationship = ?1 AND state <> 'ended')";
    Ok(transaction.query_row_cached(query, [relationship.to_string()], |row| row.get(0))?)
}

fn test_of(columns: &Row<'_>) -> Result<TestFailover> {
    let text = |name: &str| -> Result<String> { Ok(columns.get(name)?) };
    let state = text("state")?;
    let known = WORDS.iter().find(|(_, word)| *word == state).map(|(state, _)| *state);
    Ok(TestFailover {
        id: text("id")?.parse().map_err(row)?,
        relationship: text("relationship")?.parse().map_err(row)?,
        vm: text("vm")?.parse().map_err(row)?,
        point: text("point")?.parse().map_err(row)?,
        state: known.ok_or_else(|| row(format!("the state {state:?}")))?,
        begun: Timestamp(columns.get("begun_ms")?),
        form: text("form")?,
    })
}

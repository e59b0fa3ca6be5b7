//! Statements are parsed once for each connection: reading one row takes a fraction of what parsing its query does.

use rusqlite::{Connection, Params, Result, Row};

/// Statements that are kept: more than this crate has.
pub(crate) const KEPT: usize = 256;

/// As the methods of a connection without `cached` in their names.
pub(crate) trait Cached {
    fn execute_cached(&self, statement: &str, values: impl Params) -> Result<usize>;

    fn query_row_cached<T>(
        &self,
        query: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T>;
}

impl Cached for Connection {
    fn execute_cached(&self, statement: &str, values: impl Params) -> Result<usize> {
        self.prepare_cached(statement)?.execute(values)
    }

    fn query_row_cached<T>(
        &self,
        query: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T>,
    ) -> Result<T> {
        self.prepare_cached(query)?.query_row(values, read)
    }
}

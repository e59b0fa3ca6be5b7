//! `cargo xtask tidy`: rules of the house that no compiler knows.
//!
//! NOT a style checker: rustfmt and clippy are.

mod edges;
mod files;
mod licences;
mod marks;
mod tests_named;

use anyhow::{Result, ensure};

use crate::program::repository;

/// Fails with all complaints at once.
pub(crate) fn check() -> Result<()> {
    let repository = repository();
    let mut complaints = edges::check(&repository)?;
    complaints.extend(files::check(&repository)?);
    complaints.extend(licences::check(&repository)?);
    complaints.extend(marks::check(&repository)?);
    complaints.extend(tests_named::check(&repository)?);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    ensure!(complaints.is_empty(), "{} complaints", complaints.len());
    Ok(())
}

//! A test that a document names must exist: a proof that was renamed away is none.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::output;

/// Documents in which `file::function` between backticks is a test.
const DOCUMENTS: [&str; 2] = ["docs/faults.md", "docs/threat-model.md"];

/// Complaints about tests that are not there.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let top = repository.to_str().context("path of the repository")?;
    let listing =
        output(&["git", "-C", top, "ls-files", "--cached", "--others", "--exclude-standard", "*.rs"])?;
    let mut known = BTreeSet::new();
    for path in listing.lines() {
        let Ok(text) = fs::read_to_string(repository.join(path)) else { continue };
        let file = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        known.extend(tests_of(&text).map(|test| format!("{file}::{test}")));
    }
    let mut complaints = Vec::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(repository.join(document)).context(document)?;
        let missing = named(&text).filter(|name| !known.contains(*name));
        complaints.extend(missing.map(|name| format!("{document}: there is no test {name}")));
    }
    Ok(complaints)
}

/// The functions with an attribute that ends in `test]`.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if line.starts_with("#[") || line.starts_with("//") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            return None;
        }
        let name = line.split_once("fn ").filter(|_| is_test).and_then(|(_, rest)| rest.split('(').next());
        is_test = false;
        name
    })
}

/// What stands between backticks and has a `::` in it.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::"))
}

#[cfg(test)]
mod tests {
    use super::{named, tests_of};

    #[test]
    fn tests_are_told_from_other_functions_and_names_from_other_words() {
        let text = "#[test]\n#[ignore = \"long\"]\nfn one() {\n}\nfn helper() {}\n    #[tokio::test]\n    async fn two() {}\n";
        assert_eq!(tests_of(text).collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(
            named("a `file::test`, `cargo test` and `other::one`").collect::<Vec<_>>(),
            ["file::test", "other::one"]
        );
    }
}

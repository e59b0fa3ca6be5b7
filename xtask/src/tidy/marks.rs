//! A mark (`cov_mark::hit!`) stands in a branch whose outcome does not tell that it was taken; a test must wait for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::output;

/// Complaints about marks that no test waits for, and about tests that wait for no mark.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let top = repository.to_str().context("path of the repository")?;
    let words =
        ["git", "-C", top, "ls-files", "--cached", "--others", "--exclude-standard", "crates", "bins"];
    let mut text = String::new();
    for path in output(&words)?.lines().filter(|path| path.ends_with(".rs")) {
        text.push_str(&fs::read_to_string(repository.join(path)).unwrap_or_default());
    }
    Ok(judge(&text))
}

fn judge(text: &str) -> Vec<String> {
    let mut marks: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    for name in named(text, "hit!(") {
        marks.entry(name).or_default().0 = true;
    }
    for name in named(text, "check!(").chain(named(text, "check_count!(")) {
        marks.entry(name).or_default().1 = true;
    }
    let complaint = |(name, found): (&str, (bool, bool))| match found {
        (true, false) => Some(format!("mark {name}: no test waits for it")),
        (false, _) => Some(format!("mark {name}: a test waits for it, and it stands nowhere")),
        (true, true) => None,
    };
    marks.into_iter().filter_map(complaint).collect()
}

fn named<'a>(text: &'a str, verb: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("cov_mark::").skip(1).filter_map(move |rest| rest.strip_prefix(verb)?.split([',', ')']).next())
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_mark_without_a_test_and_a_test_without_a_mark_are_told() {
        let text = |hit: &str, check: &str| {
            format!(
                "cov_mark::hit!({hit}); x(); cov_mark::check!({check}); cov_mark::check_count!({check}, 2);"
            )
        };
        assert_eq!(judge(&text("one", "one")), [""; 0]);
        assert_eq!(
            judge(&text("one", "two")),
            ["mark one: no test waits for it", "mark two: a test waits for it, and it stands nowhere"]
        );
    }
}

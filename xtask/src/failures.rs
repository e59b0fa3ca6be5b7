//! The words with which each failed test ended, once more and in short: what is read first, also where only the end of the output is kept.

use std::path::PathBuf;

use anyhow::Result;
use roxmltree::{Document, Node};

use crate::program::repository;

/// Of the words of each: enough for the reason, and not for the logs behind it.
const CHARS_MAX: usize = 1500;

/// Where nextest writes what came of each test (`junit.path` in `.config/nextest.toml`).
fn report() -> PathBuf {
    repository().join("target/nextest/everything/junit.xml")
}

/// What an earlier run has left is no news.
pub(crate) fn forget() {
    let _ = std::fs::remove_file(report());
}

/// Prints them; what kept the tests from running at all was told by whoever ran them.
pub(crate) fn tell() {
    let Ok(text) = std::fs::read_to_string(report()) else { return };
    match failures(&text) {
        Ok(failed) => {
            eprintln!("── {} failed", failed.len());
            failed
                .iter()
                .for_each(|(name, words)| eprintln!("{name}\n    {}", words.replace('\n', "\n    ")));
        }
        Err(error) => eprintln!("{} cannot be read: {error:#}", report().display()),
    }
}

/// Name of each failed test, and its words.
fn failures(report: &str) -> Result<Vec<(String, String)>> {
    let document = Document::parse(report)?;
    let failed = document.descendants().filter(|node| node.has_tag_name("failure"));
    Ok(failed.map(|failure| (name(failure), words(failure))).collect())
}

fn name(failure: Node<'_, '_>) -> String {
    let case = failure.parent();
    let attribute = |name| case.and_then(|case| case.attribute(name)).unwrap_or_default();
    format!("{} {}", attribute("classname"), attribute("name"))
}

fn words(failure: Node<'_, '_>) -> String {
    let told = [failure.attribute("message"), failure.text()];
    told.into_iter().flatten().collect::<Vec<_>>().join("\n").chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failed_are_named_with_their_words() {
        let report = r#"<testsuites><testsuite name="lab::interrupted">
            <testcase name="it_holds" classname="lab::interrupted"/>
            <testcase name="it_does_not" classname="lab::interrupted"><failure message="panicked">because &lt;that&gt;</failure></testcase>
            </testsuite></testsuites>"#;
        let one = ("lab::interrupted it_does_not".to_owned(), "panicked\nbecause <that>".to_owned());
        assert_eq!(failures(report).expect("a report"), [one]);
    }
}

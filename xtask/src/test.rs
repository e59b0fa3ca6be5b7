//! `cargo xtask test`: what continuous integration runs, in the order in which it fails soonest.

use anyhow::Result;

use crate::program::run;
use crate::{install, tidy};

/// Which of the cases with two real hosts are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabCases {
    None,
    /// Those that fit into continuous integration.
    Usual,
    /// Also those that take half an hour each, and of the other tests those that take minutes.
    All,
}

/// Format, tidiness, lints, tests of all crates, and the lab cases that are wanted.
pub(crate) fn everything(cases: LabCases) -> Result<()> {
    install::packages()?;
    let nextest = install::nextest()?;
    step("format", || run(&["cargo", "fmt", "--all", "--check"]))?;
    step("tidy", tidy::check)?;
    step("lints", || {
        run(&["cargo", "clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("tests", || tests(nextest, cases))?;
    if cases != LabCases::None {
        install::for_lab()?;
        // With all targets, for then the crates that the tests were built with serve here too: nothing is built twice.
        step("programs for the lab", || run(&["cargo", "build", "--quiet", "--workspace", "--all-targets"]))?;
        step("lab cases", || lab_cases(nextest, cases))?;
    }
    Ok(())
}

fn tests(nextest: bool, cases: LabCases) -> Result<()> {
    let with = |words: &[&'static str], long: &[&'static str]| {
        let long = if cases == LabCases::All { long } else { &[] };
        run(&[words, long].concat())
    };
    if nextest {
        with(&["cargo", "nextest", "run", "--workspace"], &["--run-ignored", "all"])?;
    } else {
        run(&["cargo", "test", "--quiet", "--workspace", "--lib", "--bins"])?;
        let words = ["cargo", "test", "--quiet", "--workspace", "--exclude", "lab", "--tests"];
        with(&words, &["--", "--include-ignored"])?;
    }
    run(&["cargo", "test", "--quiet", "--workspace", "--doc"])
}

fn lab_cases(nextest: bool, cases: LabCases) -> Result<()> {
    let (mut words, long): (Vec<&str>, &[&str]) = if nextest {
        (vec!["cargo", "nextest", "run", "--workspace", "--profile", "lab"], &["--run-ignored", "all"])
    } else {
        (vec!["cargo", "test", "-p", "lab", "--tests", "--", "--test-threads", "1"], &["--include-ignored"])
    };
    if cases == LabCases::All {
        words.extend(long);
    }
    run(&words)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("── {name}");
    work()
}

//! `cargo xtask test`: what continuous integration runs, in the order in which it fails soonest.

use anyhow::Result;

use crate::program::run;
use crate::{failures, install, tidy};

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
    if cases != LabCases::None {
        install::for_lab()?;
    }
    // With all targets, for then all crates are built with the same features: nothing is built twice.
    step("programs and tests", || run(&["cargo", "build", "--quiet", "--workspace", "--all-targets"]))?;
    step("tests", || if nextest { tests(cases) } else { tests_one_by_one(cases) })
}

/// All side by side: the lab's cases leave some of the processors' time.
fn tests(cases: LabCases) -> Result<()> {
    let mut words = vec!["cargo", "nextest", "run", "--workspace"];
    match cases {
        LabCases::None => {}
        LabCases::Usual => words.extend(["--profile", "everything"]),
        LabCases::All => words.extend(["--profile", "everything", "--run-ignored", "all"]),
    }
    run(&["cargo", "test", "--quiet", "--workspace", "--doc"])?;
    failures::forget();
    let outcome = run(&words);
    if outcome.is_err() && cases != LabCases::None {
        failures::tell();
    }
    outcome
}

/// What a machine without nextest does: one test program after the other.
fn tests_one_by_one(cases: LabCases) -> Result<()> {
    let long: &[&str] = if cases == LabCases::All { &["--include-ignored"] } else { &[] };
    let test = ["cargo", "test", "--quiet"];
    let with = |words: &[&str]| run(&[&test, words, &["--"], long].concat());
    with(&["--workspace", "--lib", "--bins"])?;
    with(&["--workspace", "--exclude", "lab", "--tests"])?;
    run(&[&test, ["--workspace", "--doc"].as_slice()].concat())?;
    if cases == LabCases::None {
        return Ok(());
    }
    run(&[&test, ["-p", "lab", "--tests", "--", "--test-threads", "1"].as_slice(), long].concat())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("── {name}");
    work()
}

//! `cargo xtask test`: what continuous integration runs, in the order in which it fails soonest.

use anyhow::Result;

use crate::program::run;
use crate::{install, tidy};

/// Format, tidiness, lints, tests of all crates, and the lab cases if wanted.
pub(crate) fn everything(with_lab: bool) -> Result<()> {
    install::packages()?;
    let nextest = install::nextest()?;
    step("format", || run(&["cargo", "fmt", "--all", "--check"]))?;
    step("tidy", tidy::check)?;
    step("lints", || {
        run(&["cargo", "clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    step("tests", || tests(nextest))?;
    if with_lab {
        step("programs for the lab", || run(&["cargo", "build", "--quiet", "--workspace", "--bins"]))?;
        step("lab cases", || lab_cases(nextest))?;
    }
    Ok(())
}

fn tests(nextest: bool) -> Result<()> {
    if nextest {
        run(&["cargo", "nextest", "run", "--workspace"])?;
    } else {
        run(&["cargo", "test", "--quiet", "--workspace", "--lib", "--bins"])?;
        run(&["cargo", "test", "--quiet", "--workspace", "--exclude", "lab", "--tests"])?;
    }
    run(&["cargo", "test", "--quiet", "--workspace", "--doc"])
}

fn lab_cases(nextest: bool) -> Result<()> {
    if nextest {
        run(&["cargo", "nextest", "run", "-p", "lab", "--profile", "lab"])
    } else {
        run(&["cargo", "test", "-p", "lab", "--tests", "--", "--test-threads", "1"])
    }
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("── {name}");
    work()
}

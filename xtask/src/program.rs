//! Runs other programs from the top of the repository, and insists that they succeed.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Top folder of the repository.
pub(crate) fn repository() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("xtask lies in the repository").to_owned()
}

/// A command that will run in the top folder.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(repository());
    command
}

/// Runs a program that must succeed; what it says goes to the terminal.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let status = command(words).status().with_context(|| format!("cannot run {}", words[0]))?;
    ensure!(status.success(), "`{}` ended with {status}", words.join(" "));
    Ok(())
}

/// Runs a program that must succeed; gives its standard output.
pub(crate) fn output(words: &[&str]) -> Result<String> {
    let output = command(words).output().with_context(|| format!("cannot run {}", words[0]))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{}` ended with {}: {}", words.join(" "), output.status, error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// True if a program runs and succeeds.
pub(crate) fn succeeds(words: &[&str]) -> bool {
    command(words).output().is_ok_and(|output| output.status.success())
}

/// Builds the programs that the lab runs: of the whole workspace, for with the features of a part of it all dependencies would be built
/// once more.
pub(crate) fn build_programs() -> Result<()> {
    run(&["cargo", "build", "--quiet", "--workspace", "--bins"])
}

//! Runs a program to its end and insists that it succeeded.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail};

/// Standard output of a program that must succeed; otherwise an error with all its words.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    succeeded(command, &output)
}

/// The same for a program that has already run.
pub(crate) fn succeeded(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        let (said, told) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        bail!("{} ended with {}: {}\n{}", shown(command), output.status, said.trim(), told.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

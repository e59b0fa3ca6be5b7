//! schemathesis, which holds the REST API against its document (`lab/tests/api.rs`): in a folder of its own below `target`, so
//! that nothing of the system's Python changes.

use anyhow::Result;

use crate::program::{output, repository, run};

/// Another version may find more: then that is a change of its own.
const VERSION: &str = "4.32.5";

/// Installs it, unless it is there in this version.
pub(crate) fn install() -> Result<()> {
    let folder = repository().join("target/schemathesis");
    let at = |program: &str| folder.join("bin").join(program).display().to_string();
    let there = output(&[&at("schemathesis"), "--version"]);
    if there.is_ok_and(|version| version.trim().ends_with(VERSION)) {
        return Ok(());
    }
    eprintln!("installing schemathesis {VERSION}: holds the REST API against its document");
    run(&["python3", "-m", "venv", &folder.display().to_string()])?;
    run(&[
        &at("pip"),
        "install",
        "--quiet",
        "--disable-pip-version-check",
        &format!("schemathesis=={VERSION}"),
    ])
}

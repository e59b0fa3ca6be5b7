//! `cargo xtask deny`: all that `deny.toml` says of the dependencies, by cargo-deny. The licences alone are checked by `tidy` in
//! every run, without another tool.

use anyhow::{Result, ensure};

use crate::program::{run as run_program, succeeds};

pub(crate) fn run() -> Result<()> {
    if !succeeds(&["cargo", "deny", "--version"]) {
        eprintln!("installing cargo-deny: checks what is built in");
        run_program(&["cargo", "install", "cargo-deny", "--locked"])?;
    }
    run_program(&["cargo", "deny", "check", "bans", "licenses", "sources"])?;
    ensure!(
        succeeds(&["cargo", "deny", "fetch", "db"]),
        "known vulnerabilities were not checked: their list cannot be fetched from here; all else is as it should be. \
         See why: cargo deny fetch db"
    );
    run_program(&["cargo", "deny", "check", "advisories"])
}

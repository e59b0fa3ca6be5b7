//! Completion scripts and man pages, made from the arguments themselves.

use std::path::PathBuf;

use api::{Code, Problem};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::session::Ending;

/// `completion`
#[derive(Args)]
pub struct Completion {
    /// For which shell
    shell: Shell,
}

/// Prints the script.
pub fn completion(args: Completion) -> Ending {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "virt-replica", &mut script);
    crate::session::print_text(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}

/// `man`
#[derive(Args)]
pub struct Man {
    /// Where the pages are written
    directory: PathBuf,
}

/// Writes one page for each verb.
pub fn man(args: Man) -> Ending {
    let written = std::fs::create_dir_all(&args.directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.directory));
    match written {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(Problem::new(
            Code::Failed,
            "The man pages cannot be written",
            format!("{}: {error}", args.directory.display()),
        )),
    }
}

//! `virt-replica`: the operator's command. Reads arguments, asks the daemon, shows the answer; decides nothing about
//! replication itself.

mod change;
mod cli;
mod compare;
mod console;
mod exit;
mod failover;
mod follow;
mod generate;
mod host;
mod observe;
mod operation;
mod parse;
mod peer;
mod point;
mod protect;
mod render;
mod screen;
mod session;
mod test_failover;
mod unplanned;

use clap::Parser;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::run(cli)).into(),
        Err(error) => {
            eprintln!("virt-replica: the system has no room for another program: {error}");
            exit::Exit::Failed.into()
        }
    }
}

//! `cargo xtask`: everything a person or a machine does with this repository besides building it.
//!
//! NOT part of the product. Each command installs what it needs first (see `install`), so a bare Debian machine will do.

mod bench;
mod console;
mod demo;
mod deny;
mod failures;
mod fuzz;
mod install;
mod lab_commands;
mod model;
mod mutants;
mod program;
mod sim;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Works on the virt-replica repository")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs the Debian packages and cargo tools that the other commands need
    Install,
    /// The whole story on two hosts: protect a running VM, hand it over, bring it home
    Demo {
        /// Leave the lab up afterwards and print how to use it
        #[arg(long)]
        keep: bool,
    },
    /// Measures the release build on two hosts, beside another tool; table and target/bench/report.json
    Bench {
        /// A smaller disk and fewer rounds, to see that it works
        #[arg(long)]
        quick: bool,
        /// Only this part, after the initial copy that it needs, for work on its speed
        #[arg(long, value_name = "PART")]
        only: Option<lab::BenchmarkPart>,
    },
    /// Measures how long the console takes to show a thousand VMs in Chromium; target/console/first-paint.json
    Console {
        /// With the programs that the tests use, which are there already and slower
        #[arg(long)]
        debug: bool,
    },
    /// Two libvirt hosts on this machine, to play with
    #[command(subcommand)]
    Lab(lab_commands::Command),
    /// Checks all dependencies: licences, sources, bans, and known vulnerabilities where their list can be fetched
    Deny,
    /// Checks every history of two hosts, a link and a person in a hurry, within small budgets
    Model {
        /// Also a large budget: some minutes, and eight GB of memory
        #[arg(long)]
        long: bool,
    },
    /// Changes the pure crates in hundreds of small ways, one at a time: each time a test must fail
    Mutants {
        /// Only this crate
        #[arg(long = "crate", value_name = "CRATE")]
        only: Option<String>,
    },
    /// Feeds damaged bytes to every decoder of outside bytes
    Fuzz(fuzz::Options),
    /// Two real engines over a simulated hypervisor, disk, link and clock
    Sim {
        /// How many seeds
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1)]
        first: u64,
    },
    /// Two hosts and two VMs, faults at random instants, and judges at the end
    Soak {
        /// How long faults come
        #[arg(long, default_value_t = 20)]
        minutes: u64,
        /// Chooses what happens; otherwise chance does, and it is printed
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Everything that continuous integration checks: format, lints, tidiness, tests, lab cases
    Test {
        /// Leave the lab cases out (they need root)
        #[arg(long)]
        no_lab: bool,
        /// Also the lab cases that take long: every fault at every place
        #[arg(long, conflicts_with = "no_lab")]
        long: bool,
    },
    /// Checks the edges between crates, the length of files, and what must not be in them
    Tidy,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Install => install::everything()?,
        Command::Console { debug } => console::measure(debug)?,
        Command::Bench { quick, only } => bench::run(quick, only)?,
        Command::Demo { keep } => demo::run(keep)?,
        Command::Deny => deny::run()?,
        Command::Fuzz(options) => fuzz::run(&options)?,
        Command::Model { long } => model::run(long)?,
        Command::Mutants { only } => mutants::run(only.as_deref())?,
        Command::Sim { seeds, first } => sim::run(seeds, first)?,
        Command::Soak { minutes, seed } => soak::run(minutes, seed)?,
        Command::Lab(command) => return lab_commands::run(command),
        Command::Test { no_lab: true, .. } => test::everything(test::LabCases::None)?,
        Command::Test { long: true, .. } => test::everything(test::LabCases::All)?,
        Command::Test { .. } => test::everything(test::LabCases::Usual)?,
        Command::Tidy => tidy::check()?,
    }
    Ok(ExitCode::SUCCESS)
}

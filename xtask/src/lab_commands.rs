//! `cargo xtask lab ...`: the lab for a person, who keeps it until `down`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{GuestOptions, Lab, LabOptions};

use crate::install;

/// Name of the lab that people use.
const DEFAULT_NAME: &str = "vr";
/// An emulated guest boots in some five seconds on an idle machine.
const GUEST_LIMIT: Duration = Duration::from_secs(120);

/// What can be done with a lab.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Brings two libvirt hosts up, hvhost01 and hvhost02; an older lab of the name goes first
    Up {
        /// Also make and start the guest testVM01 on hvhost01
        #[arg(long)]
        guest: bool,
        /// Name of the lab
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
    },
    /// Ends the lab and removes its files
    Down {
        /// Name of the lab
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
    },
    /// Shows which labs run, with their guests
    Status,
    /// Runs a command on a host, such as `exec hvhost01 -- virsh list`
    Exec {
        /// hvhost01 or hvhost02
        host: String,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
        /// Name of the lab
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { guest, name } => up(&name, guest)?,
        Command::Down { name } => down(&name)?,
        Command::Status => status()?,
        Command::Exec { host, command, name } => return exec(&name, &host, &command),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: &str, guest: bool) -> Result<()> {
    install::packages()?;
    let start = Instant::now();
    let mut lab = Lab::up(LabOptions::named(name))?;
    println!("lab {name} is up after {:.1} s", start.elapsed().as_secs_f64());
    if guest {
        let guest = lab.define_guest("hvhost01", &GuestOptions::default())?;
        lab.host("hvhost01").virsh(["start", &guest.name])?;
        let boot = guest.wait_workload(&lab, GUEST_LIMIT)?;
        println!("{} answers on hvhost01 after {:.1} s", guest.name, boot.as_secs_f64());
    }
    lab.keep()?;
    println!("next: cargo xtask lab exec hvhost01 -- virsh list --all");
    println!("end:  cargo xtask lab down");
    Ok(())
}

fn down(name: &str) -> Result<()> {
    lab::sweep(&LabOptions::named(name))?;
    println!("lab {name} is down");
    Ok(())
}

fn status() -> Result<()> {
    let names = lab::running();
    if names.is_empty() {
        println!("no lab runs; `cargo xtask lab up` starts one");
    }
    for name in names {
        let Ok(Some(lab)) = Lab::attach(LabOptions::named(&name)) else {
            println!("lab {name}: there in part only; `cargo xtask lab down --name {name}` removes it");
            continue;
        };
        println!("lab {name}");
        for host in lab.hosts() {
            println!("  {} {}", host.name(), host.address());
            let guests = host.virsh(["list", "--all", "--name"])?;
            for guest in guests.lines().filter(|guest| !guest.is_empty()) {
                println!("    {guest}: {}", host.guest_state(guest)?);
            }
        }
    }
    Ok(())
}

fn exec(name: &str, host: &str, words: &[String]) -> Result<ExitCode> {
    let lab = Lab::attach(LabOptions::named(name))?;
    let lab = lab.with_context(|| format!("lab {name} is not up: run `cargo xtask lab up`"))?;
    let host = lab.hosts().iter().find(|known| known.name() == host);
    let host = host.context("the hosts are hvhost01 and hvhost02")?;
    let (program, arguments) = words.split_first().context("no command given")?;
    let mut command = host.command(program)?;
    let status = command.args(arguments).stdin(std::process::Stdio::inherit()).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

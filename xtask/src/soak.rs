//! `cargo xtask soak`: faults at random instants on two hosts with some VMs; one line of result, or what went wrong with both
//! hosts' logs in `target/soak`.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{HOSTS, Lab, Soak, binaries};

use crate::install;
use crate::program::{build_programs, repository};

/// VMs of a soak: enough that their work overlaps, few enough for two processors.
const VMS: usize = 2;

pub(crate) fn run(minutes: u64, seed: Option<u64>) -> Result<()> {
    install::packages()?;
    build_programs()?;
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let soak = Soak { time: Duration::from_secs(60 * minutes), seed, vms: VMS };
    let soaked =
        lab::soak(soak, binaries()?, |step| eprintln!("── {step}"), keep_logs).with_context(|| {
            format!("to do the same again: cargo xtask soak --minutes {minutes} --seed {seed}")
        })?;
    println!("soak: {minutes} min from seed {seed}: {soaked}");
    Ok(())
}

fn keep_logs(lab: &Lab) {
    let folder = repository().join("target/soak");
    for host in HOSTS {
        for program in ["virtreplicad", "libvirtd"] {
            let Ok(log) = lab.host(host).log(program) else { continue };
            let path = folder.join(format!("{host}-{program}.log"));
            match std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, log)) {
                Ok(()) => eprintln!("its log: {}", path.display()),
                Err(error) => eprintln!("{}: {error}", path.display()),
            }
        }
    }
}

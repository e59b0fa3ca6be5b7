//! `cargo xtask demo`: the main job, told while it happens, with a client outside the guest as the judge.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::{GuestOptions, HOSTS, Handover, Lab, LabOptions, Product, is_normal};

use crate::install;
use crate::program::{build_programs, repository};

const VM: &str = "testVM01";

pub(crate) fn run(keep: bool) -> Result<()> {
    install::packages()?;
    build_programs()?;
    let mut lab = Lab::up(LabOptions::named("demo"))?;
    say("Two libvirt hosts are up: hvhost01 and hvhost02.");
    let told = story(&mut lab);
    if keep && told.is_ok() {
        lab.keep()?;
        println!("\nThe lab stays up. For example:");
        println!("  cargo xtask lab exec hvhost01 --name demo -- {}", command_line()?);
        println!("  cargo xtask lab down --name demo");
        consoles(&lab)?;
        return told;
    }
    lab.down()?;
    told
}

/// Where a person clicks through the story: each link opens a console once, as administrator; afterwards one signs in.
fn consoles(lab: &Lab) -> Result<()> {
    lab.open_to_machine()?;
    lab::let_people_in(lab)?;
    let program = lab::binaries()?.virt_replica;
    println!("\nThe consoles, for a browser on this machine (each link works once, within ten minutes):");
    for host in lab.hosts() {
        let words = ["console", "link", "--yes", "--json"].map(std::ffi::OsStr::new);
        let made = host.exec([program.as_os_str()].into_iter().chain(words))?;
        let made: serde_json::Value = serde_json::from_str(&made)?;
        let made = made.get("done").unwrap_or(&made);
        let said = |name: &str| made[name].as_str().with_context(|| format!("{name} of a link"));
        println!("  {}: {}", host.name(), said("url")?);
        println!("    its certificate, of which the browser warns: SHA-256 {}", said("fingerprint")?);
    }
    println!(
        "Or sign in there as alice (administrator), otto (operator) or vera (viewer), password: {}",
        lab::PASSWORD
    );
    Ok(())
}

fn command_line() -> Result<String> {
    Ok(format!("{} show {VM}", lab::binaries()?.virt_replica.display()))
}

fn say(line: &str) {
    println!("\n━━ {line}");
}

fn story(lab: &mut Lab) -> Result<()> {
    let product = Product::up(lab)?;
    say("A daemon runs on each, and they are paired by a one-time token.");
    print!("{}", product.run(lab, HOSTS[0], &["peer", "test", HOSTS[1]])?);

    let guest = lab.define_guest(HOSTS[0], &GuestOptions { name: VM.into(), ..GuestOptions::default() })?;
    lab.host(HOSTS[0]).virsh(["start", VM])?;
    guest.wait_workload(lab, Duration::from_secs(120))?;
    say("testVM01 runs on hvhost01; a client outside writes numbered records into it.");

    print!(
        "{}",
        product.run(lab, HOSTS[0], &["enable", VM, "--peer", HOSTS[1], "--frequency", "5s", "--yes"])?
    );
    print!("{}", product.run(lab, HOSTS[0], &["wait", VM])?);
    cycles(&product, lab, HOSTS[0])?;

    say("Planned failover: hvhost01 → hvhost02, with reverse and start.");
    let first = product.hand_over(lab, &guest, HOSTS[0], 1_000_000, &[])?;
    told(&first);
    cycles(&product, lab, HOSTS[1])?;

    say("Failback: the same verb the other way.");
    let second = product.hand_over(lab, &guest, HOSTS[1], 2_000_000, &[])?;
    told(&second);
    cycles(&product, lab, HOSTS[0])?;
    say("The VM is home, on the disk file that it started from:");
    print!("{}", lab.host(HOSTS[0]).virsh(["domblklist", VM])?);

    let handovers = [first, second];
    write_report(&handovers)?;
    let good = handovers
        .iter()
        .all(|it| (it.lost_writes, it.doubled_writes, it.digests_equal) == (0, 0, Some(true)));
    if !good {
        bail!("a handover lost or doubled a write, or its digests differ: see target/demo/report.json");
    }
    say("No write was lost, none was doubled, the digests agreed on both handovers.");
    Ok(())
}

/// Some cycles in the present direction, then the health page.
fn cycles(product: &Product, lab: &Lab, primary: &str) -> Result<()> {
    product.wait_show(lab, primary, VM, Duration::from_secs(60), |shown| is_normal(shown, 3))?;
    print!("\n{}", product.run(lab, primary, &["show", VM])?);
    Ok(())
}

fn told(handover: &Handover) {
    println!(
        "\nSeen from outside: {} writes acknowledged, {} lost, {} doubled, {:.1} s without an answer.",
        handover.acknowledged_writes,
        handover.lost_writes,
        handover.doubled_writes,
        handover.downtime_seconds
    );
}

fn write_report(handovers: &[Handover]) -> Result<()> {
    let folder = repository().join("target/demo");
    std::fs::create_dir_all(&folder).context("target/demo")?;
    let report = serde_json::json!({ "handovers": handovers });
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&report)?).context("report.json")
}

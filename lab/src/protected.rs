//! Where most cases begin: two paired hosts and a running VM that the first protects.

use std::time::Duration;

use anyhow::Result;

use crate::guest::{Guest, GuestOptions};
use crate::lab::Lab;
use crate::options::LabOptions;
use crate::product::{HOSTS, Product, is_normal};

/// Longest wait for the guest to boot, and for the first cycles.
const LIMIT: Duration = Duration::from_secs(120);

/// Two paired hosts and the VM.
pub struct Protected {
    /// The hosts.
    pub lab: Lab,
    /// Their daemons.
    pub product: Product,
    /// The VM `testVM01`, which runs on the first host.
    pub guest: Guest,
}

/// Brings all of it up and waits until replication is Normal. Cycles come every 5 s, the shortest; on a busy machine
/// some are missed, so that health does not hang on their share here.
pub fn protected(name: &str) -> Result<Protected> {
    let mut lab = Lab::up(LabOptions::named(name))?;
    let product = Product::up(&mut lab)?;
    let guest =
        lab.define_guest(HOSTS[0], &GuestOptions { name: "testVM01".into(), ..GuestOptions::default() })?;
    lab.host(HOSTS[0]).virsh(["start", &guest.name])?;
    guest.wait_workload(&lab, LIMIT)?;
    // libvirt may lose an agent that connects while a backup job is open.
    lab.host(HOSTS[0]).wait_agent(&guest.name, LIMIT)?;
    product.run(
        &lab,
        HOSTS[0],
        &["enable", &guest.name, "--peer", HOSTS[1], "--frequency", "5s", "--yes"],
    )?;
    product.run(&lab, HOSTS[0], &["set", &guest.name, "--missed-cycles-max", "100", "--yes"])?;
    product.wait_show(&lab, HOSTS[0], &guest.name, LIMIT, |shown| is_normal(shown, 2))?;
    Ok(Protected { lab, product, guest })
}

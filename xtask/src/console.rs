//! `cargo xtask console`: how long a person waits for the list of a thousand VMs. A measurement, not a test: nothing fails by the clock.

use anyhow::Result;
use lab::{
    Binaries, GuestOptions, HOSTS, Lab, LabOptions, Product, define_crowd, let_people_in,
    multiply_relationships, play, remember_cycles,
};

use crate::install;
use crate::program::{repository, run};

const VMS: usize = 1000;
/// Cycles of each replica: a day, one every five minutes.
const CYCLES: usize = 288;
const VM: &str = "testVM01";

/// The first host runs a thousand VMs that nobody protects; the second is the replica server of a thousand.
pub(crate) fn measure(debug: bool) -> Result<()> {
    install::packages()?;
    install::browser()?;
    let programs = if debug { lab::binaries()? } else { released()? };
    let mut lab = Lab::up(LabOptions::named("paint"))?;
    let mut product = Product::up_with(&mut lab, programs)?;
    let_people_in(&lab)?;
    lab.define_guest(HOSTS[0], &GuestOptions { name: VM.into(), ..GuestOptions::default() })?;
    product.run(&lab, HOSTS[0], &["enable", VM, "--peer", HOSTS[1], "--yes"])?;
    product.run(&lab, HOSTS[0], &["wait", VM])?;
    for host in lab.hosts() {
        define_crowd(host, VMS - 1)?;
    }
    product.kill(HOSTS[1])?;
    multiply_relationships(lab.host(HOSTS[1]), VMS)?;
    remember_cycles(lab.host(HOSTS[1]), CYCLES)?;
    product.start(lab.host(HOSTS[1]))?;
    play(&mut lab, "paint.mjs", |_, asked| format!("no such request: {asked:?}"))?;
    lab.down()
}

/// The release build: what people wait for.
fn released() -> Result<Binaries> {
    let programs = ["-p", "virtreplicad", "-p", "virt-replica", "-p", "virt-replica-hook"];
    run(&[["cargo", "build", "--release", "--quiet"].as_slice(), &programs].concat())?;
    lab::binaries_in(&repository().join("target/release"))
}

//! Where most cases begin: two paired hosts and a running VM that the first protects.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::LIMIT;
use crate::guest::{Guest, GuestOptions};
use crate::lab::Lab;
use crate::options::LabOptions;
use crate::product::{HOSTS, Product, is_normal};

/// As long without a new recovery point, and a cycle that was under way at a pause has ended.
const SETTLED: Duration = Duration::from_secs(3);

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

/// What cases do and look at. Each panics with what was said when it is not as it should be: these are the case's own assertions.
#[allow(clippy::missing_panics_doc)]
impl Protected {
    /// `show` on a host.
    #[must_use]
    pub fn show(&self, host: &str) -> Value {
        self.product.json(&self.lab, host, &["show", &self.guest.name]).unwrap()
    }

    /// `show` on a host, once it satisfies `good`.
    pub fn wait(&self, host: &str, good: impl Fn(&Value) -> bool) -> Value {
        self.product.wait_show(&self.lab, host, &self.guest.name, LIMIT, good).unwrap()
    }

    /// A command; gives its exit code and what it said.
    #[must_use]
    pub fn attempt(&self, host: &str, words: &[&str]) -> (Option<i32>, String) {
        let (code, said) = self.product.attempt(&self.lab, host, words).unwrap();
        println!("{host}# virt-replica {}\n{said}", words.join(" "));
        (code, said)
    }

    /// A command that succeeds; gives what it said.
    pub fn say(&self, host: &str, words: &[&str]) -> String {
        let (code, said) = self.attempt(host, words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    /// A command that is refused with code 3, names all `parts` (what and the cure), and changes nothing.
    pub fn refused(&self, host: &str, words: &[&str], parts: &[&str]) {
        let before = HOSTS.map(|host| self.show(host)["state"].clone());
        let (code, said) = self.attempt(host, words);
        assert_eq!(code, Some(3), "{words:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{words:?} does not say {part:?}: {said}");
        }
        assert_eq!(HOSTS.map(|host| self.show(host)["state"].clone()), before, "{words:?}");
    }

    /// Waits until so many more cycles were acknowledged.
    pub fn more_cycles(&self, host: &str, count: u64) {
        let done = |shown: &Value| shown["statistics"]["cycles_acknowledged"].as_u64().unwrap_or(0);
        let before = done(&self.show(host));
        self.wait(host, |shown| is_normal(shown, before + count));
    }

    /// Waits until the guest's agent answers on a host.
    pub fn wait_agent(&self, host: &str) {
        self.lab.host(host).wait_agent(&self.guest.name, LIMIT).unwrap();
    }

    /// A file in the guest, on its disk before this returns.
    pub fn mark(&self, host: &str, name: &str) {
        let command = format!("echo {name} > /data/mark-{name}; sync");
        self.lab.host(host).guest_sh(&self.guest.name, &command).unwrap();
    }

    /// The names of the files that were made by [`Protected::mark`].
    #[must_use]
    pub fn marks(&self, host: &str) -> Vec<String> {
        let command = "cd /data && ls | sed -n 's/^mark-//p'";
        let listed = self.lab.host(host).guest_sh(&self.guest.name, command).unwrap();
        listed.lines().map(str::to_owned).collect()
    }

    /// Shuts the guest down, and waits until it is off.
    pub fn shut_down(&self, host: &str) {
        self.lab.host(host).virsh(["shutdown", &self.guest.name]).unwrap();
        self.lab.host(host).wait_guest_state(&self.guest.name, "shut off", LIMIT).unwrap();
    }

    /// The ids of the recovery points that the manifest on a host offers, oldest first.
    #[must_use]
    pub fn points(&self, host: &str) -> Vec<String> {
        let directory = self.show(host)["directory"].as_str().unwrap().to_owned();
        let manifest = self.lab.host(host).path(format!("{directory}/manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        let points = manifest["points"].as_array().unwrap();
        points.iter().map(|point| point["id"].as_str().unwrap().to_owned()).collect()
    }

    /// The same, when a cycle that was under way before a pause has ended.
    #[must_use]
    pub fn settled_points(&self, host: &str) -> Vec<String> {
        let mut before = self.points(host);
        loop {
            std::thread::sleep(SETTLED);
            let now = self.points(host);
            if now == before {
                return now;
            }
            before = now;
        }
    }
}

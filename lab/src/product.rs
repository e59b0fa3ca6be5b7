//! The product in the lab: both daemons up, paired, and its own command line as the only way to speak to it.
//!
//! Nothing here knows what the product does inside: the answers are the JSON that a person gets with `--json`.

use std::ffi::OsStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::LIMIT;
use crate::binaries::{Binaries, binaries};
use crate::hold::HOLDS;
use crate::host::{Daemon, Host};
use crate::lab::Lab;

/// Both hosts' daemons.
pub struct Product {
    binaries: Binaries,
    daemons: Vec<Option<Daemon>>,
}

/// Names of the two hosts in the order of [`Lab::hosts`].
pub const HOSTS: [&str; 2] = ["hvhost01", "hvhost02"];

fn index(host: &str) -> usize {
    usize::from(host != HOSTS[0])
}

impl Product {
    /// Starts a daemon on each host, lets libvirt learn of the start guard, and pairs the hosts.
    pub fn up(lab: &mut Lab) -> Result<Product> {
        Self::up_with(lab, binaries()?)
    }

    /// The same with programs of another build.
    pub fn up_with(lab: &mut Lab, binaries: Binaries) -> Result<Product> {
        let mut product = Product { binaries, daemons: vec![None, None] };
        for host in HOSTS {
            let machine = lab.host(host);
            let config = format!("advertise = [\"{}\"]\n", machine.address());
            std::fs::create_dir_all(machine.path("/etc/virt-replica")?)?;
            std::fs::write(machine.path("/etc/virt-replica/virtreplicad.toml")?, config)?;
            product.start(machine)?;
        }
        // libvirt looks for hooks when it starts.
        for host in HOSTS {
            lab.host_mut(host).restart_libvirtd()?;
        }
        let invitation = product.json(lab, HOSTS[1], &["peer", "invite", "--yes"])?;
        let token = invitation.pointer("/done/token").or(invitation.get("token"));
        let token = token.and_then(Value::as_str).with_context(|| format!("a token in {invitation}"))?;
        product.run(lab, HOSTS[0], &["peer", "join", "--yes", token])?;
        Ok(product)
    }

    /// Starts the daemon of a host and waits until it answers.
    pub fn start(&mut self, host: &Host) -> Result<()> {
        self.start_with(host, &[])
    }

    /// The same with more in its environment, each as `NAME=VALUE`.
    pub fn start_with(&mut self, host: &Host, environment: &[&str]) -> Result<()> {
        let holds = format!("VIRT_REPLICA_HOLDS={HOLDS}");
        let environment = environment.iter().map(OsStr::new).chain([OsStr::new(&holds)]);
        let words = [OsStr::new("env")].into_iter().chain(environment);
        let words = words.chain([self.binaries.virtreplicad.as_os_str()]);
        let daemon = host.spawn("virtreplicad", words)?;
        self.daemons[index(host.name())] = Some(daemon);
        let begun = Instant::now();
        while host
            .exec_raw([self.binaries.virt_replica.as_os_str(), "host".as_ref(), "show".as_ref()])?
            .status
            .code()
            != Some(0)
        {
            if begun.elapsed() > LIMIT {
                bail!("virtreplicad does not answer on {}: {}", host.name(), host.log("virtreplicad")?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The daemon of a host, while it runs.
    pub fn daemon(&self, host: &str) -> Option<&Daemon> {
        self.daemons[index(host)].as_ref()
    }

    /// `kill -9` of a host's daemon.
    pub fn kill(&mut self, host: &str) -> Result<()> {
        match self.daemons[index(host)].take() {
            Some(daemon) => daemon.kill(),
            None => Ok(()),
        }
    }

    /// The command line on a host, not yet started.
    pub fn command(&self, lab: &Lab, host: &str, words: &[&str]) -> Result<std::process::Command> {
        let mut command = lab.host(host).command(&self.binaries.virt_replica)?;
        command.args(words);
        Ok(command)
    }

    /// Runs the command line on a host; gives what it printed. Fails when it fails.
    pub fn run(&self, lab: &Lab, host: &str, words: &[&str]) -> Result<String> {
        let program = self.binaries.virt_replica.to_str().context("a plain path")?;
        lab.host(host).exec([program].into_iter().chain(words.iter().copied()))
    }

    /// The same, whatever it ends with: (exit code, everything it printed).
    pub fn attempt(&self, lab: &Lab, host: &str, words: &[&str]) -> Result<(Option<i32>, String)> {
        let program = self.binaries.virt_replica.to_str().context("a plain path")?;
        let output = lab.host(host).exec_raw([program].into_iter().chain(words.iter().copied()))?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&printed).into_owned()))
    }

    /// The same with `--json`.
    pub fn json(&self, lab: &Lab, host: &str, words: &[&str]) -> Result<Value> {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let printed = self.run(lab, host, &words)?;
        serde_json::from_str(&printed).with_context(|| format!("JSON from {words:?}: {printed}"))
    }

    /// Waits until `show` on a host satisfies `good`; gives the last answer.
    pub fn wait_show(
        &self,
        lab: &Lab,
        host: &str,
        vm: &str,
        limit: Duration,
        good: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let begun = Instant::now();
        loop {
            let shown = self.json(lab, host, &["show", vm])?;
            if good(&shown) {
                return Ok(shown);
            }
            if begun.elapsed() > limit {
                // In one line, which leaves room for the whole of it where the words of a failure are cut.
                bail!("not within {limit:?}: {shown}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The newest operation that a host knows.
    pub fn newest_operation(&self, lab: &Lab, host: &str) -> Result<Value> {
        let operations = self.json(lab, host, &["operation", "list"])?;
        operations.get(0).cloned().context("an operation")
    }
}

/// Whether a `show` says Normal after at least `cycles` good cycles.
pub fn is_normal(shown: &Value, cycles: u64) -> bool {
    let done = shown.pointer("/statistics/cycles_acknowledged").and_then(Value::as_u64).unwrap_or(0);
    shown["health"] == "normal" && shown["state"] == "Replicating" && done >= cycles
}

/// What a handover did, as the judge outside and both hosts' reports tell it. What was not measured is none.
#[derive(Debug, serde::Serialize)]
pub struct Handover {
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// Writes that the guest acknowledged to the client outside.
    pub acknowledged_writes: usize,
    /// Acknowledged and gone.
    pub lost_writes: usize,
    /// Stored twice.
    pub doubled_writes: usize,
    /// Longest time without an acknowledged write, seen by the client outside.
    pub downtime_seconds: f64,
    /// From the guest being off to the VM being resumed, by the hosts' journal.
    pub seconds_off_to_resumed: Option<f64>,
    /// Guest data in the final sync.
    pub final_sync_bytes: Option<u64>,
    /// Guest data that turning round moved.
    pub reverse_bytes: Option<u64>,
    /// Both hosts computed the same digest at the freeze; none: one of them is missing.
    pub digests_equal: Option<bool>,
}

impl Product {
    /// A planned failover, judged from outside the guest. `first` is above every number that an earlier judge used.
    pub fn hand_over(
        &self,
        lab: &Lab,
        guest: &crate::Guest,
        from: &str,
        first: u64,
        options: &[&str],
    ) -> Result<Handover> {
        let to = HOSTS[1 - index(from)];
        let judge = crate::Judge::start(lab, guest, first)?;
        judge.wait_more(20, LIMIT)?;
        let words = ["planned-failover", &guest.name, "--to", to, "--yes"];
        let words: Vec<&str> = words.iter().copied().chain(options.iter().copied()).collect();
        print!("{}", self.run(lab, from, &words)?);
        judge.wait_more(20, LIMIT)?;
        let downtime = judge.downtime();
        let verdict = judge.finish(lab)?;
        let operation = self.newest_operation(lab, to)?;
        let number = |name: &str| operation.pointer(&format!("/report/{name}")).and_then(Value::as_u64);
        let digest = |name: &str| operation.pointer(&format!("/report/{name}")).and_then(Value::as_str);
        let digests = digest("old_primary_digest").zip(digest("new_primary_digest"));
        Ok(Handover {
            from: from.to_owned(),
            to: to.to_owned(),
            acknowledged_writes: verdict.acknowledged,
            lost_writes: verdict.lost.len() + verdict.corrupt,
            doubled_writes: verdict.doubled.len(),
            downtime_seconds: downtime.as_secs_f64(),
            seconds_off_to_resumed: number("downtime_ms").map(|ms| ms as f64 / 1000.0),
            final_sync_bytes: number("final_sync_bytes"),
            reverse_bytes: number("reverse_bytes"),
            digests_equal: digests.map(|(old, new)| old == new),
        })
    }
}

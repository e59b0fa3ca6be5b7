//! A soak: two hosts and some VMs for as long as one likes, faults at random instants, handovers in both directions.
//!
//! ```text
//! up ─▶ round of events ─▶ rest: everything heals by itself ─▶ round ─▶ … ─▶ the judges
//! ```
//! The judges know nothing of the program: clients outside that wrote into the guests all the time, processes of QEMU on both
//! hosts, and the bytes of both hosts' disks. NOT repeatable to the instant: a seed repeats what happens, not when.

mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::binaries::Binaries;
use crate::guest::{Guest, GuestOptions};
use crate::judge::{Judge, Verdict};
use crate::lab::Lab;
use crate::options::LabOptions;
use crate::product::{HOSTS, Product, is_normal};
use crate::sides::{Sides, disks_are_equal};

use plan::{Event, Plan, Round};

/// Longest time until everything has healed by itself.
const HEALS: Duration = Duration::from_secs(300);
/// Longest wait for a guest to boot or to shut down.
const BOOTS: Duration = Duration::from_secs(120);
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// How long a link that flaps is cut, and not.
const FLAP: Duration = Duration::from_millis(700);
/// A recovery point this young was made after whatever happened.
const YOUNG_MS: u128 = 8000;

/// What a soak is to do.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// How long events come; what heals and is judged afterwards comes on top.
    pub time: Duration,
    /// Chooses the events.
    pub seed: u64,
    /// VMs, half of them beginning on each host.
    pub vms: usize,
}

/// What came of it. One that failed is an error instead.
#[derive(Debug, Default)]
pub struct Soaked {
    /// How often each kind of event happened.
    pub events: BTreeMap<&'static str, usize>,
    /// How often a VM was found on the other host than before.
    pub moves: usize,
    /// Writes that guests acknowledged; none is lost or doubled.
    pub acknowledged: usize,
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: Vec<String> =
            self.events.iter().map(|(kind, count)| format!("{kind} {count}×")).collect();
        write!(
            f,
            "{}; the VMs moved {} times; {} writes acknowledged, none lost or doubled; never on both hosts; disks equal",
            events.join(", "),
            self.moves,
            self.acknowledged
        )
    }
}

struct Soaking {
    lab: Lab,
    product: Product,
    guests: Vec<Watched>,
    /// Commands that were typed and may not have ended.
    commands: Vec<Child>,
    soaked: Soaked,
}

/// A VM with its judges.
struct Watched {
    guest: Guest,
    judge: Judge,
    sides: Sides,
    /// Index of the host that was primary at the last rest.
    home: usize,
}

/// Runs a soak to its end. Where it fails, `keep` is called with the lab before that goes.
pub fn run(options: Soak, binaries: Binaries, say: impl Fn(&str), keep: impl FnOnce(&Lab)) -> Result<Soaked> {
    say("two hosts come up");
    let mut lab = Lab::up(LabOptions::named("soak"))?;
    let product = Product::up_with(&mut lab, binaries)?;
    let mut soaking =
        Soaking { lab, product, guests: Vec::new(), commands: Vec::new(), soaked: Soaked::default() };
    match soaking.through(options, &say) {
        Ok(()) => {
            soaking.lab.down()?;
            Ok(soaking.soaked)
        }
        Err(error) => {
            keep(&soaking.lab);
            Err(error)
        }
    }
}

impl Soaking {
    fn through(&mut self, options: Soak, say: &impl Fn(&str)) -> Result<()> {
        for number in 0..options.vms {
            let guest = self.protect(number)?;
            self.guests.push(guest);
        }
        let begun = Instant::now();
        for (number, round) in Plan::new(options.seed, options.vms).enumerate() {
            if begun.elapsed() > options.time {
                break;
            }
            let told: Vec<String> = round.iter().map(|(_, event)| event.to_string()).collect();
            say(&format!("{:>5} s, round {number}: {}", begun.elapsed().as_secs(), told.join(", ")));
            self.suffer(&round).with_context(|| format!("round {number}"))?;
            self.rest().with_context(|| format!("after round {number}: {}", told.join(", ")))?;
        }
        say("the judges");
        self.judge()
    }

    fn protect(&mut self, number: usize) -> Result<Watched> {
        let (name, home) = (format!("soak{:02}", number + 1), number % HOSTS.len());
        let (host, peer) = (HOSTS[home], HOSTS[1 - home]);
        let options = GuestOptions { name, number: 50 + u8::try_from(number)?, ..GuestOptions::default() };
        let guest = self.lab.define_guest(host, &options)?;
        self.lab.host(host).virsh(["start", &guest.name])?;
        guest.wait_workload(&self.lab, BOOTS)?;
        self.lab.host(host).wait_agent(&guest.name, BOOTS)?;
        let words = ["enable", &guest.name, "--peer", peer, "--frequency", "5s", "--yes"];
        self.product.run(&self.lab, host, &words)?;
        // Faults make cycles be missed; how many is not the question here.
        let words = ["set", &guest.name, "--missed-cycles-max", "100", "--yes"];
        self.product.run(&self.lab, host, &words)?;
        self.product.wait_show(&self.lab, host, &guest.name, BOOTS, |shown| is_normal(shown, 1))?;
        let judge = Judge::start(&self.lab, &guest, 1)?;
        let sides = Sides::watch(&self.lab, &guest.name)?;
        Ok(Watched { guest, judge, sides, home })
    }

    fn suffer(&mut self, round: &Round) -> Result<()> {
        for (pause, event) in round {
            std::thread::sleep(*pause);
            self.happen(*event).with_context(|| event.to_string())?;
            *self.soaked.events.entry(event.kind()).or_default() += 1;
        }
        Ok(())
    }

    /// Does it and, where it is a fault, ends its cause: what is left to heal is the program's.
    fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::CutLink(time) => {
                self.lab.cut_link()?;
                std::thread::sleep(time);
                self.lab.heal_link()?;
            }
            Event::Deafen(host, time) => {
                self.lab.deafen(host)?;
                std::thread::sleep(time);
                self.lab.heal_link()?;
            }
            Event::FlapLink(times) => {
                for _ in 0..times {
                    self.lab.cut_link()?;
                    std::thread::sleep(FLAP);
                    self.lab.heal_link()?;
                    std::thread::sleep(FLAP);
                }
            }
            Event::KillDaemon(host) => {
                self.product.kill(HOSTS[host])?;
                self.product.start(self.lab.host(HOSTS[host]))?;
            }
            Event::HangDaemon(host, time) => {
                let daemon = self.product.daemon(HOSTS[host]).context("the daemon runs")?;
                daemon.signal(Signal::STOP)?;
                std::thread::sleep(time);
                daemon.signal(Signal::CONT)?;
            }
            Event::KillLibvirtd(host) => self.lab.host_mut(HOSTS[host]).crash_libvirtd()?,
            Event::RestartLibvirtd(host) => self.lab.host_mut(HOSTS[host]).restart_libvirtd()?,
            Event::CutPower(host) => {
                self.lab.host_mut(HOSTS[host]).power_cut()?;
                self.lab.power_on(HOSTS[host])?;
                self.product.start(self.lab.host(HOSTS[host]))?;
            }
            Event::Fill(vm) => {
                let guest = &self.guests[vm].guest;
                // It may be off or on its way; then it writes nothing.
                drop(guest.ask(&self.lab, |client| client.fill("much", 24)));
            }
            Event::DeleteCheckpoints(vm) => {
                let name = &self.guests[vm].guest.name;
                for host in HOSTS {
                    let script = format!(
                        "virsh -q checkpoint-list --name {name} | while read -r it; do virsh -q checkpoint-delete {name} \"$it\"; done"
                    );
                    // Those in use by a running backup are refused.
                    drop(self.lab.host(host).sh(&script));
                }
            }
            Event::HandOver(vm) => {
                let watched = &self.guests[vm];
                let words = ["planned-failover", &watched.guest.name, "--yes"];
                // On both hosts: whichever is primary takes it, the other refuses.
                for host in HOSTS {
                    let mut command = self.product.command(&self.lab, host, &words)?;
                    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    self.commands.push(command.spawn()?);
                }
            }
        }
        Ok(())
    }

    /// Waits until everything has healed by itself: no operation is open, every VM runs where it is primary and is protected.
    fn rest(&mut self) -> Result<()> {
        for mut command in self.commands.drain(..) {
            // What it followed may be gone with a daemon; how it ends is told by the hosts.
            drop(command.kill());
            drop(command.wait());
        }
        for number in 0..self.guests.len() {
            let name = self.guests[number].guest.name.clone();
            let home = self.settled(&name).with_context(|| name.clone())?;
            self.soaked.moves += usize::from(home != self.guests[number].home);
            let watched = &mut self.guests[number];
            watched.home = home;
            ensure!(watched.sides.seen_on_both() == 0, "{name} ran on both hosts at once");
        }
        Ok(())
    }

    /// Index of the host where the VM has come to rest.
    fn settled(&self, name: &str) -> Result<usize> {
        let begun = Instant::now();
        loop {
            let shown: Vec<Option<Value>> = HOSTS.map(|host| self.show(host, name)).into();
            if let Some(home) = self.is_settled(name, &shown) {
                return Ok(home);
            }
            ensure!(begun.elapsed() < HEALS, "not healed within {HEALS:?}: {shown:#?}");
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    /// None while a host does not answer.
    fn show(&self, host: &str, name: &str) -> Option<Value> {
        self.product.json(&self.lab, host, &["show", name]).ok()
    }

    fn is_settled(&self, name: &str, shown: &[Option<Value>]) -> Option<usize> {
        let known: Vec<&Value> = shown.iter().flatten().collect();
        let idle = known.len() == HOSTS.len() && known.iter().all(|one| one["operation"].is_null());
        let home = known.iter().position(|one| one["mode"] == "primary").filter(|_| idle)?;
        if known[1 - home]["mode"] != "replica" {
            return None;
        }
        let host = self.lab.host(HOSTS[home]);
        if !host.guest_state(name).ok()?.starts_with("running") {
            // Its power failed; an administrator starts it.
            drop(host.virsh(["start", name]));
            return None;
        }
        (is_normal(known[home], 1) && is_young(known[home])).then_some(home)
    }

    fn judge(&mut self) -> Result<()> {
        for watched in std::mem::take(&mut self.guests) {
            let (host, name) = (HOSTS[watched.home], watched.guest.name.clone());
            watched.guest.wait_workload(&self.lab, BOOTS)?;
            let verdict: Verdict = watched.judge.finish(&self.lab)?;
            ensure!(verdict.clean() && verdict.acknowledged > 0, "{name}: {verdict:?}");
            self.soaked.acknowledged += verdict.acknowledged;
            self.lab.host(host).virsh(["shutdown", &name])?;
            self.lab.host(host).wait_guest_state(&name, "shut off", BOOTS)?;
            let powered_off =
                |shown: &Value| shown["head"]["consistency"] == "powered off" && is_young(shown);
            self.product.wait_show(&self.lab, host, &name, HEALS, powered_off)?;
            disks_are_equal(&self.lab, host, &name).with_context(|| name.clone())?;
            ensure!(watched.sides.seen_on_both() == 0, "{name} ran on both hosts at once");
        }
        Ok(())
    }
}

fn is_young(shown: &Value) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    shown["last_synchronized_at_ms"].as_u64().is_some_and(|at| u128::from(at) + YOUNG_MS > now)
}

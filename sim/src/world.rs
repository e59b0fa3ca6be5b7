//! Two hosts and the link between them, what happens to them, and what must be true when they have come to rest.

mod person;
#[cfg(test)]
mod scenes;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use domain::{DiskChoice, DiskTarget, Frequency, Phase, Settings, Thresholds, Timestamp, VmId};
use engine::{EnableRequest, Engine};
use hypervisor::Hypervisor;
use store::Record;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::time::Instant;
use transport::VersionRange;
use uuid::Uuid;

use crate::form::Form;
use crate::host::{Host, settle};
use crate::hypervisor::SimHypervisor;
use crate::link::{Link, road};
use crate::machine::{self, Machine};
use crate::outside::Outside;
use crate::plan::{Event, Round};
use crate::witness::Witness;
use crate::{Plan, Sabotage, image, judges};

/// Longest time until everything has healed by itself.
const HEALS: Duration = Duration::from_secs(600);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for a daemon's answer.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// A host that replicates syncs within this.
const SYNCS_WITHIN: Duration = Duration::from_secs(15);
/// Mean pause between two writes of the guest.
const WRITES_EVERY: Duration = Duration::from_millis(700);
/// How long a host lives alone while bytes travel: what the link takes.
const FINE: Duration = Duration::from_millis(5);
/// And at most, while none do.
const COARSE: Duration = Duration::from_millis(200);

/// Everything of one simulation. All of it happens on the thread that owns it, but for the blocking calls of the daemons.
pub(crate) struct World {
    hosts: [Host; 2],
    link: Arc<Link>,
    pub(crate) witness: Arc<Witness>,
    vm: VmId,
    /// What happened, for people.
    pub(crate) history: Vec<String>,
    outside: Outside,
    /// That of the outside.
    rest_of_it: Runtime,
    begun: Instant,
    now: Duration,
    step: Duration,
    /// What of a disk survives a power cut.
    chance: fastrand::Rng,
    sabotage: Option<Sabotage>,
    _root: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.hosts.iter_mut().for_each(Host::kill);
        for host in &self.hosts {
            // Threads that died wait for it.
            host.machine.disk.end();
        }
        Machine::leave();
    }
}

impl World {
    /// Two hosts, and a VM that runs on the first and is protected.
    pub(crate) fn new(plan: &Plan) -> Result<World> {
        let seed = plan.seed;
        // In memory where there is such a file system: no simulated disk is the machine's.
        let memory = std::path::Path::new("/dev/shm");
        let root = match memory.is_dir() {
            true => tempfile::tempdir_in(memory)?,
            false => tempfile::tempdir()?,
        };
        let rest_of_it = Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let begun = rest_of_it.block_on(async { Instant::now() });
        let outside = Outside::new(rest_of_it.handle().clone());
        let (witness, link) = (Arc::new(Witness::default()), Arc::new(Link::new(outside.clone())));
        let host = |index: usize| {
            let storage = root.path().join(Host::name(index)).join("storage");
            let forgets = plan.sabotage == Some(Sabotage::DiskForgets);
            let machine = Machine::new(outside.clone(), storage, forgets);
            let seed = seed ^ (index as u64 + 1);
            let hypervisor =
                SimHypervisor::new((index, plan.sabotage), Arc::clone(&machine), Arc::clone(&witness), seed);
            Host::new(index, root.path(), machine, hypervisor)
        };
        let mut hosts = [host(0)?, host(1)?];
        let roads = [0, 1].map(|index| road(&link, index, &hosts[index].port));
        let [to_first, to_second] = roads;
        hosts[0].pair(&hosts[1], to_second?)?;
        hosts[1].pair(&hosts[0], to_first?)?;
        hosts.iter_mut().try_for_each(|host| host.start(Duration::ZERO))?;
        let vm = Uuid::from_u128(u128::from(seed) + 1);
        let disk = hosts[0].disk("vm.qcow2");
        image::create(&disk)?;
        let form = Form { id: vm, name: "simVM01".into(), disk, agent: false, bridge: None };
        hosts[0].hypervisor.define(&serde_json::to_string(&form)?)?;
        let mut world = World {
            hosts,
            link,
            witness,
            vm: vm.into(),
            history: Vec::new(),
            outside,
            rest_of_it,
            begun,
            now: Duration::ZERO,
            step: FINE,
            chance: fastrand::Rng::with_seed(seed),
            sabotage: plan.sabotage,
            _root: root,
        };
        judges::plant(&world.hosts)?;
        world.start_vm(0)?;
        world.begin_guest(seed);
        world.protect(seed)?;
        Ok(world)
    }

    /// The guest, which writes wherever it runs.
    fn begin_guest(&self, seed: u64) {
        let hypervisors = [self.hosts[0].hypervisor.clone(), self.hosts[1].hypervisor.clone()];
        let mut chance = fastrand::Rng::with_seed(seed);
        self.rest_of_it.spawn(async move {
            loop {
                let cluster = chance.usize(..image::CLUSTERS);
                hypervisors.iter().for_each(|it| it.guest_writes(cluster));
                tokio::time::sleep(WRITES_EVERY.mul_f32(2.0 * chance.f32())).await;
            }
        });
    }

    fn protect(&mut self, seed: u64) -> Result<()> {
        let disks = vec![(DiskTarget::new("vda")?, DiskChoice::Replicated)];
        let retention = ["1", "3", "3x10s,2x30s"][(seed % 3) as usize].parse().context("a retention")?;
        let thresholds = Thresholds { missed_cycles_percent_max: 100, ..Thresholds::default() };
        let frequency = Frequency::from_seconds(5)?;
        let settings = Settings { frequency, retention, thresholds, ..Settings::of(disks) };
        let request = EnableRequest {
            vm: self.vm,
            peer: self.hosts[1].id,
            settings,
            initial_at: None,
            seeds: Vec::new(),
            export: None,
        };
        let enabled = self.ask(0, |engine| async move { engine.enable(request).await.map(drop) });
        enabled.context("no answer")?.map_err(|refused| anyhow::anyhow!("{refused}"))?;
        self.rest()
    }

    /// Each host lives alone for a moment, then what they sent each other arrives: short moments while there is any.
    fn live(&mut self) {
        self.now += self.step;
        self.rest_of_it.block_on(async {
            tokio::time::sleep_until(self.begun + self.now).await;
            settle().await;
        });
        self.hosts.iter_mut().for_each(|host| host.live_until(self.now));
        self.step = if self.outside.has_moved() { FINE } else { (2 * self.step).min(COARSE) };
    }

    /// Time passes.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step = self.step.min(end - self.now).max(Duration::from_millis(1));
            self.live();
        }
    }

    /// Asks a daemon; none: there is none, or it does not answer.
    fn ask<T, F>(&mut self, host: usize, question: impl FnOnce(Engine) -> F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let asked = question(self.hosts[host].engine()?.clone());
        let (done, mut answer) = oneshot::channel();
        self.hosts[host].home()?.spawn(async move { drop(done.send(asked.await)) });
        let end = self.now + ANSWER_MAX;
        self.step = FINE;
        while self.now < end {
            self.live();
            match answer.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => return None,
            }
        }
        None
    }

    /// `virsh start`.
    fn start_vm(&mut self, host: usize) -> Result<()> {
        let (hypervisor, vm) = (self.hosts[host].hypervisor.clone(), self.vm);
        if self.hosts[host].engine().is_none() {
            self.hosts[host].machine.enter();
            return Ok(hypervisor.start(vm, false)?);
        }
        let started = self.ask(host, |_| async move {
            tokio::task::spawn_blocking(move || hypervisor.start(vm, false)).await
        });
        Ok(started.context("it hangs")???)
    }

    /// `virsh start`; gives what came of it.
    fn try_to_start(&mut self, host: usize) -> String {
        match self.start_vm(host) {
            Ok(()) => "it starts".into(),
            Err(refused) => format!("it does not start: {refused}"),
        }
    }

    /// Lets a round happen, and everything heal.
    pub(crate) fn live_through(&mut self, round: &Round) -> Result<()> {
        if self.sabotage == Some(Sabotage::DatabaseForgets) {
            self.hosts.iter().try_for_each(Host::back_up_database)?;
        }
        for (pause, event) in round {
            self.pass(*pause);
            let begun = self.now;
            let told = self.happen(*event);
            let told = told.unwrap_or_else(|error| format!("failed: {error:#}"));
            self.history.push(format!("{:8.2} s {event:?} {told}", begun.as_secs_f32()));
            self.right()?;
        }
        self.rest()?;
        judges::judge(&self.hosts, &self.witness)?;
        self.clean()
    }

    /// Waits until nothing is left over.
    fn clean(&mut self) -> Result<()> {
        let begun = self.now;
        while let Some(left) = judges::leftovers(&self.hosts)? {
            ensure!(self.now - begun < HEALS, "{} is left over", left.display());
            self.pass(LOOK);
        }
        self.right()
    }

    /// Everything of a host stands still at one of its next syncs; without one, where it is after a while.
    fn die_at(&mut self, host: usize, syncs: u32) {
        self.hosts[host].machine.disk.die_at(syncs);
        let end = self.now + SYNCS_WITHIN;
        while self.now < end && !self.hosts[host].machine.disk.is_dead() {
            self.live();
        }
    }

    fn cut_power(&mut self, host: usize, time: Duration) -> Result<()> {
        self.lose_power(host)?;
        self.pass(time);
        self.hosts[host].start(self.now)
    }

    fn lose_power(&mut self, host: usize) -> Result<()> {
        self.hosts[host].kill();
        self.hosts[host].hypervisor.cut_power()?;
        if self.sabotage == Some(Sabotage::DatabaseForgets) {
            self.hosts[host].restore_database()?;
        }
        self.hosts[host].boot()?;
        Ok(self.hosts[host].machine.disk.lose_power(&mut self.chance)?)
    }

    /// Gives what came of it, where somebody asked for it.
    fn happen(&mut self, event: Event) -> Result<String> {
        let mut told = String::new();
        match event {
            Event::Swallow(time) => {
                self.link.swallow(true);
                self.pass(time);
                self.link.swallow(false);
            }
            Event::Break => self.link.break_all(),
            Event::BreakAfter(bytes) => self.link.break_after(bytes),
            Event::Kill(host, time) => {
                self.hosts[host].kill();
                self.pass(time);
                self.hosts[host].start(self.now)?;
            }
            Event::CutPower(host, time) => {
                self.cut_power(host, time)?;
            }
            Event::KillAt(host, syncs, time) => {
                self.die_at(host, syncs);
                self.hosts[host].kill();
                self.pass(time);
                self.hosts[host].start(self.now)?;
            }
            Event::CutPowerAt(host, syncs, time) => {
                self.die_at(host, syncs);
                self.cut_power(host, time)?;
            }
            Event::Full(host, time) => {
                self.hosts[host].machine.disk.fill(true);
                self.pass(time);
                self.hosts[host].machine.disk.fill(false);
            }
            Event::Fail(host, percent, time) => {
                self.hosts[host].hypervisor.fail(percent);
                self.pass(time);
                self.hosts[host].hypervisor.fail(0);
            }
            Event::Jump(host, by_ms, time) => {
                self.hosts[host].machine.jump(by_ms);
                self.pass(time);
                self.hosts[host].machine.set_clock();
            }
            Event::Update(host, time) => {
                let another = VersionRange::new(2, 2).context("a range")?;
                for (versions, lives) in [(another, time), (VersionRange::OURS, Duration::ZERO)] {
                    self.hosts[host].kill();
                    self.hosts[host].update(versions);
                    self.hosts[host].start(self.now)?;
                    self.pass(lives);
                }
            }
            Event::Start(host) => told = self.try_to_start(host),
            Event::HandOver => told = self.hand_over(),
            Event::Cancel(host) => told = self.cancel(host),
            Event::Disaster(back, after, time) => told = self.disaster(back, after, time)?,
            Event::Slow(host, takes, time) => {
                self.hosts[host].machine.disk.slow_down(takes);
                self.pass(time);
                self.hosts[host].machine.disk.slow_down(Duration::ZERO);
            }
            Event::Pause(host, time) => {
                told = self.pause(host);
                self.pass(time);
            }
        }
        Ok(told)
    }

    /// Nothing that must not happen was seen until now.
    fn right(&self) -> Result<()> {
        let records = [record(&self.hosts[0]), record(&self.hosts[1])];
        let known = || records.iter().enumerate().filter_map(|(host, record)| Some((host, record.as_ref()?)));
        known().for_each(|(host, record)| self.witness.is_in(host, record.relationship.epoch));
        // One that was failed over still lists the points that it gives up.
        for (host, record) in known().filter(|(_, it)| it.relationship.phase == Phase::Replicating) {
            let relationship = &record.relationship;
            let points = self.hosts[host].engine().and_then(|it| it.store().points(relationship.id).ok());
            if let Some(newest) = points.and_then(|points| Some(points.last()?.ordinal)) {
                self.witness.is_acknowledged(relationship.epoch, newest);
            }
        }
        let seen = self.witness.seen();
        ensure!(seen.wrong.is_empty(), "{}", seen.wrong.join("; "));
        Ok(())
    }

    /// Waits until no operation is open, the VM runs where it is primary, and a recovery point is younger than now.
    fn rest(&mut self) -> Result<()> {
        self.hosts[0].machine.enter();
        let (begun, asked) = (self.now, machine::now());
        loop {
            self.right()?;
            match self.unsettled(asked) {
                None => return Ok(()),
                Some(why) if self.now - begun > HEALS => bail!("not healed after {HEALS:?}: {why}"),
                Some(_) => {}
            }
            self.tend();
            self.pass(LOOK);
        }
    }

    /// Why it is not at rest.
    fn unsettled(&self, asked: Timestamp) -> Option<String> {
        let records = [record(&self.hosts[0]), record(&self.hosts[1])];
        let [Some(one), Some(two)] = &records else { return Some("a host knows no relationship".into()) };
        let told = || {
            let tell = |record: &Record| {
                let failure = record.last_failure.as_ref().map(|failure| format!("{failure:?}"));
                format!(
                    "{:?} in {}, {}",
                    record.relationship.phase,
                    record.relationship.epoch,
                    failure.unwrap_or_default()
                )
            };
            format!("{} / {}", tell(one), tell(two))
        };
        for (host, record) in self.hosts.iter().zip([one, two]) {
            let open = host.engine()?.store().open_operation(record.relationship.id);
            if let Ok(Some((operation, entries))) = open {
                let last: Vec<_> = entries.iter().rev().take(3).map(|entry| &entry.mark).collect();
                return Some(format!(
                    "{}; {:?} of {} is open: {last:?}",
                    told(),
                    operation.procedure,
                    host.name
                ));
            }
        }
        let Some(primary) = self.home() else { return Some(told()) };
        let home = &self.hosts[primary];
        if !home.hypervisor.runs() {
            return Some("the VM is off".into());
        }
        let points = home.engine()?.store().points([one, two][primary].relationship.id).unwrap_or_default();
        let is_young = points.last().is_some_and(|point| point.instant > asked);
        (!is_young).then(told)
    }
}

/// The only relationship of a host that is alive.
pub(crate) fn record(host: &Host) -> Option<Record> {
    host.engine()?.store().relationships().ok()?.pop()
}

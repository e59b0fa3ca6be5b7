//! Two hosts and the link between them, what happens to them, and what must be true when they have come to rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use choreography::Options;
use domain::{DiskChoice, DiskTarget, Frequency, Phase, Role, Settings, Thresholds, Timestamp, VmId};
use engine::EnableRequest;
use hypervisor::Hypervisor;
use layer::ReplicaDirectory;
use store::Record;
use uuid::Uuid;

use crate::form::Form;
use crate::host::Host;
use crate::hypervisor::{SimHypervisor, checkpoint_of};
use crate::image;
use crate::link::{Link, road};
use crate::plan::{Event, Round};
use crate::time::{self, SPEED};
use crate::witness::Witness;

/// Longest time until everything has healed by itself.
const HEALS: Duration = Duration::from_secs(600);
/// Pause between two looks, of the machine's time.
const LOOK: Duration = Duration::from_millis(10);
/// Mean pause between two writes of the guest.
const WRITES_EVERY: Duration = Duration::from_millis(700);

/// Everything of one simulation.
pub(crate) struct World {
    hosts: [Host; 2],
    link: Arc<Link>,
    pub(crate) witness: Arc<Witness>,
    vm: VmId,
    ends: Arc<AtomicBool>,
    guest: Option<std::thread::JoinHandle<()>>,
    _root: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(guest) = self.guest.take() {
            drop(guest.join());
        }
        self.hosts.iter_mut().for_each(Host::kill);
    }
}

impl World {
    /// Two hosts, and a VM that runs on the first and is protected.
    pub(crate) fn new(seed: u64) -> Result<World> {
        engine::clock::simulate(time::now);
        // In memory where there is such a file system: no simulated disk is the machine's.
        let memory = std::path::Path::new("/dev/shm");
        let root = match memory.is_dir() {
            true => tempfile::tempdir_in(memory)?,
            false => tempfile::tempdir()?,
        };
        let (witness, link) = (Arc::new(Witness::default()), Arc::new(Link::default()));
        let host = |index: usize| {
            let hypervisor = SimHypervisor::new(index, Arc::clone(&witness), seed ^ (index as u64 + 1));
            Host::new(index, root.path(), hypervisor)
        };
        let mut hosts = [host(0)?, host(1)?];
        let (to_first, to_second) = (road(&link, 0, &hosts[0].port)?, road(&link, 1, &hosts[1].port)?);
        hosts[0].pair(&hosts[1], to_second)?;
        hosts[1].pair(&hosts[0], to_first)?;
        hosts.iter_mut().try_for_each(Host::start)?;
        let vm = Uuid::from_u128(u128::from(seed) + 1);
        let disk = hosts[0].disk("vm.qcow2");
        image::create(&disk)?;
        let form = Form { id: vm, name: "simVM01".into(), disk, agent: false, bridge: None };
        hosts[0].hypervisor.define(&serde_json::to_string(&form)?)?;
        hosts[0].hypervisor.start(vm.into(), false)?;
        let mut world =
            World { hosts, link, witness, vm: vm.into(), ends: Arc::default(), guest: None, _root: root };
        world.guest = Some(world.guest(seed));
        world.protect(seed)?;
        Ok(world)
    }

    /// The guest, which writes wherever it runs.
    fn guest(&self, seed: u64) -> std::thread::JoinHandle<()> {
        let hypervisors = [self.hosts[0].hypervisor.clone(), self.hosts[1].hypervisor.clone()];
        let (ends, mut chance) = (Arc::clone(&self.ends), fastrand::Rng::with_seed(seed));
        std::thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                let cluster = chance.usize(..image::CLUSTERS);
                hypervisors.iter().for_each(|it| it.guest_writes(cluster));
                time::pass(WRITES_EVERY.mul_f32(2.0 * chance.f32()));
            }
        })
    }

    fn protect(&self, seed: u64) -> Result<()> {
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
        let enabled = self.hosts[0].ask(|engine| async move { engine.enable(request).await.map(drop) });
        enabled.context("no answer")?.map_err(|refused| anyhow::anyhow!("{refused}"))?;
        self.rest()
    }

    /// Lets a round happen, and everything heal.
    pub(crate) fn live_through(&mut self, round: &Round) -> Result<()> {
        for (pause, event) in round {
            time::pass(*pause);
            self.happen(*event)?;
        }
        self.rest()?;
        self.judge()
    }

    fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Swallow(time) => {
                self.link.swallows.store(true, Ordering::SeqCst);
                time::pass(time);
                self.link.swallows.store(false, Ordering::SeqCst);
            }
            Event::Break => self.link.break_all(),
            Event::BreakAfter(bytes) => self.link.break_after(bytes),
            Event::Kill(host, time) => {
                self.hosts[host].kill();
                time::pass(time);
                self.hosts[host].start()?;
            }
            Event::CutPower(host, time) => {
                self.hosts[host].kill();
                self.hosts[host].hypervisor.cut_power()?;
                time::pass(time);
                self.hosts[host].start()?;
            }
            Event::Fail(host, percent, time) => {
                self.hosts[host].hypervisor.fail(percent);
                time::pass(time);
                self.hosts[host].hypervisor.fail(0);
            }
            Event::HandOver => {
                for host in &self.hosts {
                    let Some(record) = record(host).filter(|it| it.relationship.role() == Role::Primary)
                    else {
                        continue;
                    };
                    // Refused as often as not: nobody waits for it.
                    let begin = |engine: engine::Engine| async move {
                        engine.begin_failover(&record, Options::default(), "the simulation").await.map(drop)
                    };
                    drop(host.ask(begin));
                }
            }
            Event::Cancel(host) => {
                let host = &self.hosts[host];
                let Some((engine, record)) = host.engine().zip(record(host)) else { return Ok(()) };
                if let Ok(Some((operation, _))) = engine.store().open_operation(record.relationship.id) {
                    drop(host.ask(move |engine| async move {
                        engine.cancel_operation(operation.id, "the simulation", false)
                    }));
                }
            }
        }
        self.right()
    }

    fn right(&self) -> Result<()> {
        let seen = self.witness.seen();
        ensure!(seen.wrong.is_empty(), "{}", seen.wrong.join("; "));
        Ok(())
    }

    /// Waits until no operation is open, the VM runs where it is primary, and a recovery point is younger than now.
    fn rest(&self) -> Result<()> {
        let (begun, asked) = (Instant::now(), time::now());
        loop {
            self.right()?;
            match self.unsettled(asked) {
                None => return Ok(()),
                Some(why) if begun.elapsed() * SPEED > HEALS => bail!("not healed after {HEALS:?}: {why}"),
                Some(_) => std::thread::sleep(LOOK),
            }
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
        let primary = match (&one.relationship.phase, &two.relationship.phase) {
            (Phase::Replicating, Phase::Receiving) => 0,
            (Phase::Receiving, Phase::Replicating) => 1,
            _ => return Some(told()),
        };
        for (host, record) in self.hosts.iter().zip([one, two]) {
            let open = host.engine()?.store().open_operation(record.relationship.id);
            if let Ok(Some((operation, entries))) = open {
                return Some(format!(
                    "{} {:?} is open: {:?}",
                    host.name,
                    operation.procedure,
                    entries.last()
                ));
            }
        }
        let home = &self.hosts[primary];
        if !home.hypervisor.runs() {
            // An administrator starts it.
            let started = home.hypervisor.start(self.vm, false);
            return Some(format!("the VM is off: {started:?}"));
        }
        let points = home.engine()?.store().points([one, two][primary].relationship.id).unwrap_or_default();
        let is_young = points.last().is_some_and(|point| point.instant > asked);
        (!is_young).then(told)
    }

    /// Every recovery point of the replica reads as the disk was when it was made.
    fn judge(&self) -> Result<()> {
        let moments = self.witness.seen().moments.clone();
        for host in &self.hosts {
            let replica = record(host).is_some_and(|it| it.relationship.role() == Role::Replica);
            for path in host.replicas()?.into_iter().filter(|_| replica) {
                self.judge_replica(&path, &moments).with_context(|| path.display().to_string())?;
            }
        }
        self.right()
    }

    fn judge_replica(
        &self,
        path: &std::path::Path,
        moments: &std::collections::HashMap<String, image::Content>,
    ) -> Result<()> {
        let directory = ReplicaDirectory::open(path)?;
        let points = &directory.manifest().points;
        ensure!(!points.is_empty(), "no recovery point");
        for point in points {
            let Some(expected) = moments.get(&checkpoint_of(point.point.id)) else {
                bail!("point {} was made of no moment", point.point.id)
            };
            let file = point.files.values().next().context("a point has a file")?;
            let target = DiskTarget::new("vda")?;
            let found = match image::read(&directory.disk_folder(&target).join(file)) {
                Ok(found) => found,
                // Merged or begun meanwhile.
                Err(_) if ReplicaDirectory::open(path)?.manifest().points != *points => return Ok(()),
                Err(error) => return Err(error),
            };
            if found != *expected && ReplicaDirectory::open(path)?.manifest().points == *points {
                bail!("point {} reads {found:?}, and the disk was {expected:?}", point.point.ordinal);
            }
        }
        Ok(())
    }
}

fn record(host: &Host) -> Option<Record> {
    host.engine()?.store().relationships().ok()?.pop()
}

#[cfg(test)]
mod scenes;

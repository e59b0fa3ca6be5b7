//! The benchmark: the real product on two hosts, measured beside another tool over the same link in the same run.
//!
//! ```text
//! make the disk ─► (nbdcopy, initial copy) × rounds ─► cycles ─► resynchronizations ─► handovers there and back
//! ─► many recovery points, merges ─► failover and reverse ─► the same with a larger disk
//! ```
//! NOT a test: a missed target is a figure, not a failure. Only what makes a figure worthless fails: a copy that differs,
//! a cycle that carried something else, a handover that had nothing left to send. A part that fails is named, and the rest
//! goes on.

mod content;
mod copy;
mod cycle;
mod dirty;
mod failover;
mod handover;
mod merge;
mod resynchronize;
mod usage;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use crate::binaries::Binaries;
use crate::guest::{Guest, GuestOptions};
use crate::lab::Lab;
use crate::options::LabOptions;
use crate::product::{HOSTS, Product};

pub use copy::Copies;
pub use cycle::CycleFigure;
pub use failover::{FailoverFigures, ReverseFigure};
pub use handover::HandoverFigure;
pub use merge::MergeFigure;
pub use resynchronize::ResynchronizeFigure;
pub use usage::Usage;

/// An emulated guest boots in some five seconds; beside other work it takes longer.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// While the guest shuts down, what is left to send is written; its own shutdown of half a second is too short for that.
const LINGER_SECONDS: u64 = 3;
/// Disk of the larger guest: so many times the first, content included.
const LARGER: usize = 4;

/// What is measured, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Benchmark {
    /// Virtual size of the disk, MiB.
    pub disk_mib: u64,
    /// Its content, MiB.
    pub data_mib: u64,
    /// Copies by each tool, and cycles.
    pub rounds: usize,
    /// Nothing but this part, after the initial copy that it needs; none: all parts.
    pub only: Option<Part>,
}

/// What can be measured for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Initial copies.
    Copies,
    /// Cycles.
    Cycles,
    /// Resynchronizations.
    Resynchronizations,
    /// Planned failovers.
    Handovers,
    /// With many recovery points: merges, failover, reads and the way back.
    Points,
    /// The larger disk.
    Larger,
}

impl Benchmark {
    /// What the targets are stated for.
    pub const FULL: Benchmark = Benchmark { disk_mib: 4096, data_mib: 1700, rounds: 3, only: None };
    /// To see that it works.
    pub const QUICK: Benchmark = Benchmark { disk_mib: 1024, data_mib: 400, rounds: 1, only: None };
}

/// What was measured.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Virtual size of the disk, bytes.
    pub disk_bytes: u64,
    /// What of it holds data, bytes.
    pub data_bytes: u64,
    /// Initial copies, ours and the other tool's.
    pub copies: Copies,
    /// Cycles with one hundredth of the disk changed.
    pub cycles: Vec<CycleFigure>,
    /// Resynchronizations of two copies that differ in one hundredth.
    pub resynchronizations: Vec<ResynchronizeFigure>,
    /// Merges of one layer, ours and the other tool's.
    pub merges: Vec<MergeFigure>,
    /// The failover that nobody planned, with a long chain.
    pub failover: Option<FailoverFigures>,
    /// The way back after it.
    pub reverse: Option<ReverseFigure>,
    /// Planned failovers, of the disk and of the larger one.
    pub handovers: Vec<HandoverFigure>,
    /// Memory and processor time of both daemons during the initial copies.
    pub usage: Vec<Usage>,
    /// What could not be measured.
    pub failures: Vec<Failure>,
}

/// A part that gave no figure.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// Which.
    pub part: String,
    /// Why.
    pub error: String,
}

impl Figures {
    /// Measures a part; what it failed with is noted.
    fn part(&mut self, say: &impl Fn(&str), part: &str, measure: impl FnOnce(&mut Figures) -> Result<()>) {
        say(part);
        if let Err(error) = measure(self) {
            let error = format!("{error:#}");
            say(&format!("FAILED: {part}: {error}"));
            self.failures.push(Failure { part: part.to_owned(), error });
        }
    }
}

/// Two hosts with the product on them, and what is measured there.
struct Bench {
    lab: Lab,
    product: Product,
    options: Benchmark,
}

/// A guest whose disk is measured.
struct Subject {
    guest: Guest,
    disk_bytes: u64,
}

impl Subject {
    fn name(&self) -> &str {
        &self.guest.name
    }
}

/// Brings a lab up, measures, and takes it down. `say` is told what happens.
pub fn run(options: Benchmark, binaries: Binaries, say: impl Fn(&str)) -> Result<Figures> {
    let mut lab = Lab::up(LabOptions::named("bench"))?;
    let product = Product::up_with(&mut lab, binaries)?;
    let bench = Bench { lab, product, options };
    let figures = bench.measure(&say);
    bench.lab.down()?;
    figures
}

impl Bench {
    fn measure(&self, say: &impl Fn(&str)) -> Result<Figures> {
        say("making the disk");
        let raw = content::make(&self.lab.folder(), &self.options)?;
        let disk_bytes = self.options.disk_mib << 20;
        let guest = self.start_guest("bench", 50, content::to_qcow2(&[&raw])?)?;
        let guest = Subject { guest, disk_bytes };
        let data_bytes = content::data_bytes(&raw)?;
        let mut figures = Figures { disk_bytes, data_bytes, ..Figures::default() };
        // Without a copy there is nothing to measure.
        say("initial copies, and the same disk by nbdcopy");
        let rounds = if self.measures(Part::Copies) { self.options.rounds } else { 1 };
        figures.copies = copy::measure(self, &guest, rounds, &mut figures.usage)?;
        if self.measures(Part::Cycles) {
            figures
                .part(say, "cycles", |it| cycle::measure(self, &guest).map(|measured| it.cycles = measured));
        }
        if self.measures(Part::Resynchronizations) {
            figures.part(say, "resynchronizations, and the same by rsync", |it| {
                resynchronize::measure(self, &guest).map(|measured| it.resynchronizations = measured)
            });
        }
        if self.measures(Part::Handovers) {
            figures.part(say, "planned failover, there and back", |it| {
                handover::measure(self, &guest).map(|measured| it.handovers = measured)
            });
        }
        if self.measures(Part::Points) {
            self.with_points(say, &guest, &mut figures);
            // It may have failed anywhere.
            self.lab.heal_link()?;
        }
        if self.measures(Part::Larger) {
            figures.part(say, "the end of the first disk", |_| self.retire(&guest));
            let larger = format!("the same with a disk {LARGER} times as large");
            figures.part(say, &larger, |it| self.larger(&raw, it));
        }
        Ok(figures)
    }

    fn measures(&self, part: Part) -> bool {
        self.options.only.is_none_or(|only| only == part)
    }

    fn with_points(&self, say: &impl Fn(&str), guest: &Subject, figures: &mut Figures) {
        figures.part(say, "recovery points", |_| failover::make_points(self, guest));
        figures.part(say, "merges, and the same by qemu-img", |it| {
            merge::measure(self, guest).map(|measured| it.merges = measured)
        });
        figures.part(say, "failover with many recovery points, and reads", |it| {
            failover::measure(self, guest).map(|measured| it.failover = Some(measured))
        });
        figures.part(say, "reverse, and a normal cycle", |it| {
            failover::reverse(self, guest).map(|measured| it.reverse = Some(measured))
        });
    }

    fn larger(&self, raw: &Path, figures: &mut Figures) -> Result<()> {
        let image = content::to_qcow2(&[raw; LARGER])?;
        std::fs::remove_file(raw)?;
        let guest = self.start_guest("larger", 51, image)?;
        let larger = Subject { guest, disk_bytes: figures.disk_bytes * LARGER as u64 };
        figures.usage.push(copy::initial(self, &larger)?.usage);
        figures.handovers.extend(handover::measure(self, &larger)?);
        Ok(())
    }

    fn start_guest(&self, name: &str, number: u8, disk: std::path::PathBuf) -> Result<Guest> {
        let options = GuestOptions {
            name: name.to_owned(),
            number,
            linger_seconds: LINGER_SECONDS,
            untouched_disk: Some(disk),
            ..GuestOptions::default()
        };
        let guest = self.lab.define_guest(HOSTS[0], &options)?;
        let host = self.lab.host(HOSTS[0]);
        host.virsh(["start", name])?;
        guest.wait_workload(&self.lab, BOOT_LIMIT)?;
        // Without the agent a shutdown would wait for it in vain.
        host.wait_agent(name, BOOT_LIMIT)?;
        Ok(guest)
    }

    /// Ends replication of a guest that is at home again, and the guest with its disks.
    fn retire(&self, guest: &Subject) -> Result<()> {
        let words = ["remove", guest.name(), "--delete-replica", "--yes"];
        let ended = self.product.run(&self.lab, HOSTS[0], &words);
        // The larger guest needs the memory and the room, whatever became of this one and wherever it runs.
        for host in HOSTS {
            let host = self.lab.host(host);
            drop(host.virsh(["destroy", guest.name()]));
            drop(host.virsh(["undefine", guest.name(), "--checkpoints-metadata"]));
        }
        self.lab.host(HOSTS[0]).sh(&format!("rm {}/{}-*", crate::IMAGE_FOLDER, guest.name()))?;
        ended.map(drop)
    }

    /// How many cycles were acknowledged, and what they took and carried together: (cycles, milliseconds, bytes).
    fn cycles(&self, host: &str, guest: &Subject) -> Result<(u64, u64, u64)> {
        let shown = self.product.json(&self.lab, host, &["show", guest.name()])?;
        let number = |name: &str| shown.pointer(&format!("/statistics/{name}")).and_then(|it| it.as_u64());
        let count = number("cycles_acknowledged").context("a count of cycles")?;
        let mean = |name| number(name).unwrap_or(0) * count;
        Ok((count, mean("average_latency_ms"), mean("average_bytes")))
    }
}

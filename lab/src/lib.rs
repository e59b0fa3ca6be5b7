//! Two real libvirt hosts on one machine, a tiny real guest, and a judge outside. Needs root and nothing running.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lab::{GuestOptions, Judge, Lab, LabOptions};
//! use std::time::Duration;
//!
//! let lab = Lab::up(LabOptions::named("example"))?;
//! let guest = lab.define_guest("hvhost01", &GuestOptions::default())?;
//! lab.host("hvhost01").virsh(["start", &guest.name])?;
//! guest.wait_workload(&lab, Duration::from_secs(60))?;
//! let judge = Judge::start(&lab, &guest, 1)?;
//! // ... whatever must not lose a write ...
//! println!("longest gap {:?}", judge.downtime());
//! assert!(judge.finish(&lab)?.clean());
//! lab.down()
//! # }
//! ```
//! It is NOT a simulation: libvirtd, QEMU, the network and the disks are the real ones, in namespaces of their own.

mod api;
mod bench;
mod binaries;
mod block;
mod browsers;
mod crowd;
mod guest;
mod hold;
mod host;
mod image;
mod judge;
mod lab;
mod namespace;
mod network;
mod options;
mod process;
mod product;
mod protected;
mod run;
mod sides;
mod soak;
mod workload;

/// Longest wait for whatever a machine takes its time for, be it a guest that boots beside seven others on two processors. What must
/// happen soon has a limit of its own.
pub const LIMIT: std::time::Duration = std::time::Duration::from_secs(300);

pub use api::{Answered, Api};
pub use bench::{
    Benchmark, Copies, CycleFigure, FailoverFigures, Failure, Figures, HandoverFigure, MergeFigure,
    Part as BenchmarkPart, ResynchronizeFigure, ReverseFigure, Usage, run as benchmark,
};
pub use binaries::{Binaries, binaries, binaries_in};
pub use block::BlockDevice;
pub use browsers::{PASSWORD, let_people_in, play};
pub use crowd::{define_crowd, multiply_relationships, remember_cycles};
pub use guest::{Guest, GuestOptions, IMAGE_FOLDER};
pub use hold::Hold;
pub use host::{Daemon, Host};
pub use judge::{Acknowledged, Judge, Verdict};
pub use lab::{Lab, running, sweep};
pub use namespace::Namespace;
pub use options::{Accel, LabOptions};
pub use process::{alive, wait_gone};
pub use product::{HOSTS, Handover, Product, is_normal};
pub use protected::{Protected, protected};
pub use rustix::process::Signal;
pub use sides::{Sides, disks_are_equal};
pub use soak::{Soak, Soaked, run as soak};
pub use workload::{Client, Dump, Who};

//! A virtualization host of the lab: one machine with its own libvirtd.
//!
//! NOT aware of the product: daemons are spawned like any program (see [`Host::spawn`]).

mod agent;
mod config;
mod daemon;
mod traffic;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

pub use daemon::Daemon;

use crate::image::Image;
use crate::namespace::Namespace;
use crate::network;
use crate::options::{Accel, LabOptions};
use crate::process;
use crate::run::{run, succeeded};

/// First answer of libvirtd; it asks QEMU for its abilities before.
const LIBVIRT_START_LIMIT: Duration = Duration::from_secs(60);
/// libvirtd ends its connections before itself.
const LIBVIRT_STOP_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks while waiting.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Where the guest's kernel and initramfs lie on every host.
pub(crate) const BOOT_FOLDER: &str = "/var/lib/libvirt/boot";

/// A host, powered on unless [`Host::power_cut`] was called.
#[derive(Debug)]
pub struct Host {
    lab: String,
    name: String,
    /// Last part of its addresses.
    number: u8,
    folder: PathBuf,
    accel: Accel,
    machine: Option<Namespace>,
    libvirtd: Option<Daemon>,
}

impl Host {
    /// The host as the options describe it, not yet powered on.
    pub(crate) fn new(options: &LabOptions, name: &str, number: u8) -> Self {
        Self {
            lab: options.name.clone(),
            name: name.to_owned(),
            number,
            folder: options.folder().join(name),
            accel: options.accel,
            machine: None,
            libvirtd: None,
        }
    }

    /// The host if it runs.
    pub(crate) fn find(options: &LabOptions, name: &str, number: u8) -> Option<Self> {
        let machine = Namespace::find(&options.name, name)?;
        let mut host = Self::new(options, name, number);
        host.libvirtd = daemon::find(&machine, config::LIBVIRTD_PID);
        host.machine = Some(machine);
        Some(host)
    }

    /// Name, which is also its hostname.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Address in the network of the lab.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.number)
    }

    /// How guests are run here.
    pub fn accel(&self) -> Accel {
        self.accel
    }

    /// Where a path of the host is found from outside; only while it is powered on.
    pub fn path(&self, inside: impl AsRef<Path>) -> Result<PathBuf> {
        let inside = inside.as_ref().to_str().context("paths of the lab are plain text")?;
        Ok(self.machine()?.path(inside))
    }

    /// Where a path below `/var/lib/libvirt` or `/var/lib/virt-replica` really lies on the machine's disk.
    pub(crate) fn on_disk(&self, inside: &str) -> PathBuf {
        self.folder.join("disk").join(inside.trim_start_matches('/'))
    }

    /// Processes, mounts and network of the host.
    pub fn machine(&self) -> Result<&Namespace> {
        self.machine.as_ref().with_context(|| format!("{} is powered off", self.name))
    }

    /// A command that will run on the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        Ok(self.machine()?.command(program))
    }

    /// Runs a command to its end and gives what it said, whether it succeeded or not.
    pub fn exec_raw<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Output> {
        Ok(self.prepare(words)?.output()?)
    }

    /// Runs a command that must succeed; gives its standard output.
    pub fn exec<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<String> {
        let mut command = self.prepare(words)?;
        let output = command.output()?;
        succeeded(&command, &output).with_context(|| format!("on {}", self.name))
    }

    /// Runs a shell script that must succeed; gives its standard output.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.exec(["sh", "-ec", script])
    }

    /// Runs `virsh` against the host's libvirtd.
    pub fn virsh<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<String> {
        let mut command = self.command("virsh")?;
        command.args(["-q", "-c", "qemu:///system"]).args(words);
        run(&mut command).map(|text| text.trim().to_owned()).with_context(|| format!("on {}", self.name))
    }

    /// Starts a program in the background; its output goes to `/var/log/NAME.log` of the host.
    pub fn spawn<W: AsRef<OsStr>>(&self, name: &str, words: impl IntoIterator<Item = W>) -> Result<Daemon> {
        let log = self.path(format!("/var/log/{name}.log"))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{}", log.display()))?;
        Daemon::spawn(name, self.prepare(words)?, log)
    }

    /// What a spawned program has said.
    pub fn log(&self, name: &str) -> Result<String> {
        let bytes = fs::read(self.path(format!("/var/log/{name}.log"))?)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn prepare<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Result<Command> {
        let mut words = words.into_iter();
        let mut command = self.command(words.next().context("no command")?)?;
        command.args(words);
        Ok(command)
    }

    /// Calls a function in the host's network (sockets only; files are those of outside), on a thread of its own.
    pub fn within<T: Send>(&self, call: impl FnOnce() -> T + Send) -> Result<T> {
        self.machine()?.within(call)
    }

    /// Sends a signal to a process; its id is as seen from outside the host.
    pub fn kill(&self, pid: u32, signal: Signal) -> Result<()> {
        process::signal(pid, signal)
    }

    /// Powers the host on: first processes, mounts, network, then libvirtd. Its disks are as it left them.
    pub(crate) fn power_on(&mut self, lan: &Namespace, image: &Image) -> Result<()> {
        ensure!(self.machine.is_none(), "{} is powered on already", self.name);
        let machine = Namespace::start(&self.lab, &self.name)?;
        config::mount(&machine, &self.folder).with_context(|| format!("file tree of {}", self.name))?;
        network::join(lan, &machine, &self.name, &self.address(), self.number)?;
        config::write(&machine, &self.name, self.number)?;
        for (file, name) in [(&image.kernel, "vmlinuz"), (&image.initramfs, "initramfs")] {
            let there = machine.path(&format!("{BOOT_FOLDER}/{name}"));
            if !there.exists() {
                fs::copy(file, there).with_context(|| format!("guest's {name} on {}", self.name))?;
            }
        }
        for folder in ["/var/log/libvirt", "/var/lib/libvirt", "/var/lib/virt-replica"] {
            forget_owners(&machine.path(folder));
        }
        self.machine = Some(machine);
        self.start_libvirtd()
    }

    /// Starts libvirtd, which must not run.
    pub fn start_libvirtd(&mut self) -> Result<()> {
        let daemon = self.spawn("libvirtd", ["libvirtd", "-p", config::LIBVIRTD_PID])?;
        self.libvirtd = Some(daemon);
        let deadline = Instant::now() + LIBVIRT_START_LIMIT;
        while self.virsh(["version"]).is_err() {
            let running = self.libvirtd.as_ref().is_some_and(Daemon::alive);
            if !running || Instant::now() > deadline {
                bail!("libvirtd of {} does not answer; its log: {}", self.name, self.log("libvirtd")?);
            }
            sleep(LOOK_PAUSE);
        }
        Ok(())
    }

    /// Ends libvirtd (guests run on) and starts it again.
    pub fn restart_libvirtd(&mut self) -> Result<()> {
        self.stop_libvirtd()?;
        self.start_libvirtd()
    }

    /// Kills libvirtd without a chance to tidy up, and starts it again.
    pub fn crash_libvirtd(&mut self) -> Result<()> {
        self.end_libvirtd(Signal::KILL)?;
        self.start_libvirtd()
    }

    /// Ends libvirtd, as an administrator does; guests run on.
    pub fn stop_libvirtd(&mut self) -> Result<()> {
        self.end_libvirtd(Signal::TERM)
    }

    fn end_libvirtd(&mut self, signal: Signal) -> Result<()> {
        let daemon =
            self.libvirtd.take().with_context(|| format!("libvirtd of {} does not run", self.name))?;
        daemon.signal(signal)?;
        daemon.wait_gone(LIBVIRT_STOP_LIMIT)
    }

    /// Every process of the host ends at once; its disks stay. Needs [`crate::Lab::power_on`] to come back.
    pub fn power_cut(&mut self) -> Result<()> {
        self.libvirtd = None;
        self.machine.take().map_or(Ok(()), Namespace::kill)
    }

    /// Lets the host outlive this process.
    pub(crate) fn keep(&mut self) -> Result<()> {
        self.machine.as_mut().map_or(Ok(()), Namespace::keep)
    }

    /// State and reason of a guest, such as `shut off (shutdown)`.
    pub fn guest_state(&self, guest: &str) -> Result<String> {
        self.virsh(["domstate", guest, "--reason"])
    }

    /// Waits until a guest has the state, such as `shut off`, whatever the reason; gives how long it took.
    pub fn wait_guest_state(&self, guest: &str, state: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let now = self.guest_state(guest)?;
            if now.starts_with(state) {
                return Ok(start.elapsed());
            }
            ensure!(
                start.elapsed() < limit,
                "{guest} on {} is {now}, not {state}, after {limit:?}",
                self.name
            );
            sleep(LOOK_PAUSE);
        }
    }

    /// Waits until the agent in a guest answers; gives how long it took.
    pub fn wait_agent(&self, guest: &str, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let answer =
                self.virsh(["qemu-agent-command", guest, "--timeout", "2", r#"{"execute":"guest-ping"}"#]);
            match answer {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > limit => {
                    let console = self.sh(&format!("tail -n 20 '/var/log/libvirt/qemu/{guest}-console.log'"));
                    let console = console.unwrap_or_default();
                    return Err(error).with_context(|| {
                        format!("agent of {guest} after {limit:?}; its console:\n{console}")
                    });
                }
                Err(_) => sleep(LOOK_PAUSE),
            }
        }
    }
}

/// What libvirt noted on files about their users, it trusts only within one boot of the machine; hosts of the lab boot without
/// the machine, so the notes of the boot before go here.
fn forget_owners(path: &Path) {
    for note in ["dac", "ref_dac", "timestamp_dac"] {
        let _ = rustix::fs::lremovexattr(path, format!("trusted.libvirt.security.{note}"));
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        forget_owners(&entry.path());
    }
}

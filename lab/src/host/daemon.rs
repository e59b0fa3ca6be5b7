//! A program in the background of a host.

use std::fs::File;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::namespace::Namespace;
use crate::process;

/// A fork and an exec on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running program. It is NOT ended when this is dropped: it ends with its host.
#[derive(Debug)]
pub struct Daemon {
    pid: u32,
    /// `nsenter`, which waits for the program; none when found by its pid file.
    waiter: Option<Child>,
}

impl Daemon {
    pub(super) fn spawn(name: &str, mut command: Command, log: File) -> Result<Self> {
        let log_too = log.try_clone()?;
        let waiter =
            command.stdout(log).stderr(log_too).spawn().with_context(|| format!("cannot start {name}"))?;
        let pid =
            process::wait_child(waiter.id(), START_LIMIT).with_context(|| format!("{name} did not start"))?;
        Ok(Self { pid, waiter: Some(waiter) })
    }

    /// Process id as seen from outside the host.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// True while it runs.
    pub fn alive(&self) -> bool {
        process::alive(self.pid)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.pid, signal)?;
        // nsenter stops itself together with the program and must be woken too.
        let waiter = self.waiter.as_ref().filter(|_| signal == Signal::CONT);
        waiter.map_or(Ok(()), |waiter| process::signal(waiter.id(), signal))
    }

    /// Waits until it has ended by itself or by a signal.
    pub fn wait_gone(mut self, limit: Duration) -> Result<()> {
        process::wait_gone(self.pid, limit)?;
        if let Some(waiter) = self.waiter.as_mut() {
            waiter.wait()?;
        }
        Ok(())
    }

    /// Kills it at once and waits for its end.
    pub fn kill(self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_gone(START_LIMIT)
    }
}

/// The program whose pid file lies on a machine. The file speaks of process ids inside.
pub(super) fn find(machine: &Namespace, pid_file: &str) -> Option<Daemon> {
    let inside: u32 = std::fs::read_to_string(machine.path(pid_file)).ok()?.trim().parse().ok()?;
    let pid =
        process::all().into_iter().map(|(pid, _)| pid).find(|pid| inner_id(machine, *pid) == Some(inside))?;
    Some(Daemon { pid, waiter: None })
}

/// Process id inside the machine, if the process belongs to it.
fn inner_id(machine: &Namespace, pid: u32) -> Option<u32> {
    let room = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    if room(pid)? != room(machine.pid())? {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    ids.split_whitespace().last()?.parse().ok()
}

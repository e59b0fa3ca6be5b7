//! Processes of the machine as `/proc` shows them: who they are, whose children, and whether they still live.
//!
//! NOT a process manager: nothing is found by name alone; see `namespace` for the marker by which ours are known.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Pause between two looks at `/proc` while waiting.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// All processes with their arguments.
pub(crate) fn all() -> Vec<(u32, Vec<String>)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(|pid| (pid, arguments(pid))).collect()
}

fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The first child of a process that waits for one, such as `nsenter` after its fork.
pub(crate) fn wait_child(parent: u32, limit: Duration) -> Result<u32> {
    let deadline = Instant::now() + limit;
    loop {
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
        if let Some(child) = children.split_whitespace().next() {
            return child.parse().context("child list of /proc");
        }
        if !alive(parent) || Instant::now() > deadline {
            bail!("process {parent} ended, or made no child within {limit:?}");
        }
        sleep(LOOK_PAUSE);
    }
}

/// True while the process runs; a zombie has ended.
pub fn alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits until the process has ended.
pub fn wait_gone(pid: u32, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while alive(pid) {
        if Instant::now() > deadline {
            bail!("process {pid} still runs after {limit:?}");
        }
        sleep(LOOK_PAUSE);
    }
    Ok(())
}

/// Sends a signal to one process; a process that has already ended is no error.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let target = i32::try_from(pid).ok().and_then(Pid::from_raw).context("process id out of range")?;
    match kill_process(target, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {pid}")),
    }
}

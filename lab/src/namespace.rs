//! One machine of the lab as the kernel sees it: own processes, mounts, network, name. Held by its first process.
//!
//! NOT a container runtime: the file tree is the real machine's, with private mounts on top.
//!
//! Everything inside ends when the first process ends, so "leave nothing" is one kill. The first process is known by its
//! arguments (`vr-lab-init LAB/MACHINE CHECKOUT`), so a lab whose owner was killed can be found; labs of another checkout on
//! the same machine are not ours to see. It is tied to its owner by a pipe:
//! when the owner ends in whatever way, the machine vanishes, unless the owner said `keep`.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::binaries::checkout;
use crate::process;

/// Third argument of each first process.
const MARKER: &str = "vr-lab-init";
/// Word on the pipe that lets the machine outlive its owner.
const KEEP: &str = "keep";
/// A fork and an exec on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Killing a guest with dirty memory takes the kernel a moment.
const END_LIMIT: Duration = Duration::from_secs(60);

/// bash, because it collects orphans as process 1 should (libvirtd waits for its daemonised QEMUs to be collected). It does
/// so in `wait`, not in `read`; hence the pipe is read by a child.
const FIRST_PROCESS: &str = r#"
trap '' INT HUP
exec 3<&0 0</dev/null
{ read -r word <&3; exec 3<&-; [ "$word" = keep ] && exec sleep infinity; } &
exec 3<&-
wait $!
"#;

/// A running machine.
#[derive(Debug)]
pub struct Namespace {
    pid: u32,
    /// `unshare` and the pipe to the first process; none when attached from another owner.
    holder: Option<Child>,
}

impl Namespace {
    /// Starts an empty machine that lives no longer than this process.
    pub fn start(lab: &str, machine: &str) -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--", "bash", "-c", FIRST_PROCESS, MARKER])
            .args([&format!("{lab}/{machine}"), checkout()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // ctrl-C at the terminal is the owner's business; the pipe tells the rest
            .spawn()
            .context("cannot run unshare: the lab needs root and util-linux")?;
        let pid = process::wait_child(holder.id(), START_LIMIT);
        let pid = pid
            .inspect_err(|_| drop(holder.kill()))
            .context("cannot create namespaces: the lab needs root")?;
        wait_exec(lab, machine, pid)?;
        Ok(Self { pid, holder: Some(holder) })
    }

    /// The machine of that name, if it runs.
    pub fn find(lab: &str, machine: &str) -> Option<Self> {
        let name = format!("{lab}/{machine}");
        let mut all = process::all().into_iter();
        let (pid, _) = all.find(|(pid, arguments)| name_of(arguments) == Some(&name) && is_first(*pid))?;
        Some(Self { pid, holder: None })
    }

    /// Names `LAB/MACHINE` of all machines of all labs of this checkout.
    pub fn all() -> Vec<String> {
        let machines = process::all();
        machines.iter().filter_map(|(_, arguments)| name_of(arguments)).map(str::to_owned).collect()
    }

    /// Process id of the first process, as seen from outside.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where a path of the machine is found from outside, while the machine runs.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// A command that will run inside, as root, in the root folder.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.enter(&["--mount", "--uts", "--ipc", "--net", "--pid", "--wd=/"]);
        command.arg(program);
        command
    }

    /// A command that sees only the machine's network, and the processes and files of outside.
    pub fn network_command(&self, program: &str) -> Command {
        let mut command = self.enter(&["--net"]);
        command.arg(program);
        command
    }

    fn enter(&self, kinds: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]).args(kinds).arg("--").stdin(Stdio::null());
        command
    }

    /// The way into the machine's network, for threads that live longer than one call.
    pub(crate) fn entrance(&self) -> Result<Entrance> {
        let path = format!("/proc/{}/ns/net", self.pid);
        Ok(Entrance(File::open(path).context("the machine has ended")?))
    }

    /// Calls a function in the machine's network, on a thread of its own; sockets that it gives back stay there.
    pub fn within<T: Send>(&self, call: impl FnOnce() -> T + Send) -> Result<T> {
        let entrance = self.entrance()?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || entrance.enter().map(|()| call()));
            inside.join().map_err(|_| anyhow!("the call in the machine's network panicked"))?
        })
    }

    /// Lets the machine live on when this process ends.
    pub fn keep(&mut self) -> Result<()> {
        let pipe = self.holder.as_mut().and_then(|holder| holder.stdin.as_mut());
        if let Some(pipe) = pipe {
            writeln!(pipe, "{KEEP}").context("the machine has already ended")?;
        }
        self.holder = None;
        Ok(())
    }

    /// Ends every process inside at once, as a power cut does, and waits for it.
    pub fn kill(mut self) -> Result<()> {
        process::signal(self.pid, Signal::KILL)?;
        if let Some(holder) = self.holder.as_mut() {
            holder.wait().context("unshare")?;
        }
        process::wait_gone(self.pid, END_LIMIT)
    }
}

/// A network that a thread can enter, and never leaves.
pub(crate) struct Entrance(File);

impl Entrance {
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .context("cannot enter the network")
    }
}

fn name_of(arguments: &[String]) -> Option<&str> {
    match arguments {
        [shell, flag, _, marker, name, owner, ..]
            if shell == "bash" && flag == "-c" && marker == MARKER && owner == checkout() =>
        {
            Some(name)
        }
        _ => None,
    }
}

/// Whether a process is the first of its namespace. The shell that waits for its word has the same arguments, and a smaller number where
/// the kernel has begun to count anew.
fn is_first(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    numbers.split_whitespace().next_back() == Some("1")
}

/// Until the child has become bash, it would still be taken for `unshare`.
fn wait_exec(lab: &str, machine: &str, pid: u32) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if Namespace::find(lab, machine).is_some_and(|found| found.pid == pid) {
            return Ok(());
        }
        if !process::alive(pid) {
            bail!("the first process of {lab}/{machine} ended at once: the lab needs root");
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("the first process of {lab}/{machine} did not start within {START_LIMIT:?}")
}

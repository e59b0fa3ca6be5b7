//! Running `qemu-img`: with a deadline, with paths that cannot be options, with its words kept short.
//!
//! If this process dies while `qemu-img` writes, the orphan goes on and holds QEMU's lock on its images; a second
//! run then fails with [`LayerError::InUse`], which is transient. Under systemd the orphan dies with the unit.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::LayerError;

/// For what only reads or writes a header. Generous for a busy disk; a hang is still noticed.
pub(crate) const SHORT: Duration = Duration::from_secs(60);
/// For what copies a layer's data: 64 TiB never arrive as one layer, a terabyte on a slow disk does.
pub(crate) const LONG: Duration = Duration::from_secs(6 * 3600);
/// How often the end is looked for: short against the 10 ms that the quickest run takes.
const POLL: Duration = Duration::from_millis(3);
/// Most that is read of its output: `map` of an image in half a million pieces stays below.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most of its message that reaches a person.
const MESSAGE_CHARS_MAX: usize = 400;

/// Runs `qemu-img verb options -- paths` and gives back what it printed.
pub(crate) fn run(
    verb: &'static str,
    options: &[&str],
    operands: &[&Path],
    limit: Duration,
) -> Result<Vec<u8>, LayerError> {
    run_unless(verb, options, operands, limit, &|| false)
}

/// The same, stopped as soon as `gives_way` says that its files are needed.
pub(crate) fn run_unless(
    verb: &'static str,
    options: &[&str],
    operands: &[&Path],
    limit: Duration,
    gives_way: &dyn Fn() -> bool,
) -> Result<Vec<u8>, LayerError> {
    let ended = run_to_end(verb, options, operands, limit, gives_way)?;
    if ended.code == Some(0) { Ok(ended.stdout) } else { Err(ended.failure(verb)) }
}

/// A run that came to its end, well or not.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it answered.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: Vec<u8>,
}

/// Answers instead of `qemu-img` to a verb, its options and its operands; none: the real one is asked.
pub type Simulated = fn(&str, &[&str], &[&Path]) -> Option<Ended>;

static SIMULATED: OnceLock<Simulated> = OnceLock::new();

/// From now on, in this process, `tool` is asked first. For a simulation alone.
pub fn simulate_qemu_img(tool: Simulated) {
    let _ = SIMULATED.set(tool);
}

impl Ended {
    /// What it complained about, as an error.
    pub(crate) fn failure(&self, verb: &'static str) -> LayerError {
        let text = String::from_utf8_lossy(&self.stderr);
        let message: String = text.trim().replace('\n', "; ").chars().take(MESSAGE_CHARS_MAX).collect();
        let locked = message.contains("Failed to get") && message.contains("lock");
        if locked { LayerError::InUse { verb, message } } else { LayerError::QemuImg { verb, message } }
    }
}

/// As [`run`], and the exit code is the caller's to judge.
pub(crate) fn run_to_code(
    verb: &'static str,
    options: &[&str],
    operands: &[&Path],
    limit: Duration,
) -> Result<Ended, LayerError> {
    run_to_end(verb, options, operands, limit, &|| false)
}

fn run_to_end(
    verb: &'static str,
    options: &[&str],
    operands: &[&Path],
    limit: Duration,
    gives_way: &dyn Fn() -> bool,
) -> Result<Ended, LayerError> {
    // A relative path could be an option, or "nbd:…" to QEMU; an absolute one is a file.
    if let Some(path) = operands.first().filter(|path| !path.is_absolute()) {
        return Err(LayerError::NotAbsolute(path.to_path_buf()));
    }
    if let Some(ended) = SIMULATED.get().and_then(|tool| tool(verb, options, operands)) {
        return Ok(ended);
    }
    let mut child = Command::new("qemu-img")
        .arg(verb)
        .args(options)
        .arg("--")
        .args(operands)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| LayerError::NoQemuImg { source })?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let code = wait(&mut child, verb, limit, gives_way)?;
    Ok(Ended { code, stdout: stdout.join().unwrap_or_default(), stderr: stderr.join().unwrap_or_default() })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // A broken pipe ends the output as an end of file does; the exit code tells the rest.
            let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        }
        bytes
    })
}

fn wait(
    child: &mut Child,
    verb: &'static str,
    limit: Duration,
    gives_way: &dyn Fn() -> bool,
) -> Result<Option<i32>, LayerError> {
    let end = Instant::now() + limit;
    loop {
        let lost = |source| LayerError::NoQemuImg { source };
        if let Some(status) = child.try_wait().map_err(lost)? {
            return Ok(status.code());
        }
        let late = Instant::now() >= end;
        if late || gives_way() {
            child.kill().map_err(lost)?;
            child.wait().map_err(lost)?;
            return Err(if late {
                LayerError::Deadline { verb, limit }
            } else {
                LayerError::GaveWay { verb }
            });
        }
        std::thread::sleep(POLL);
    }
}

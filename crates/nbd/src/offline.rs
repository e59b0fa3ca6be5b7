//! Exports of disks whose VM is off, by a `qemu-nbd` of our own that ends with the guard.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};

use crate::client::{Client, Deadlines};
use crate::error::NbdError;

/// How long `qemu-nbd` may take to open its socket.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at the socket; small beside what starting a process takes.
const START_POLL: Duration = Duration::from_millis(5);

/// How long one that nobody owns may take to greet.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(1);
/// How long a killed process may take to end; longer only when the disk hangs.
const END_DEADLINE: Duration = Duration::from_millis(500);

/// Of what `qemu-nbd` says when it fails, as much as fits into a message.
const LAST_WORDS_MAX: usize = 500;
/// How `qemu-nbd` begins to speak of a bitmap that is not found or inconsistent; a test holds it to that.
const OF_A_BITMAP: &str = "Bitmap '";

/// A disk file to export.
#[derive(Clone, Debug)]
pub struct OfflineDisk<'a> {
    /// The qcow2 file.
    pub file: &'a Path,
    /// Persistent bitmaps to export as meta contexts.
    pub bitmaps: &'a [String],
}

/// A running `qemu-nbd`; dropped, it is killed, has let go of the image, and its socket is removed.
///
/// It ends by itself when its last client has gone, so that one whose owner was killed does not hold the image for ever; one that has
/// had none yet is ended by [`end_orphan`].
pub struct OfflineExport {
    server: Server,
    /// The client that keeps it alive while nobody else is connected.
    _anchor: Client,
    socket: SocketFile,
}

/// Who serves.
enum Server {
    Process(Child),
    /// Ends when it is dropped.
    Simulated {
        _server: Box<dyn Send + Sync>,
    },
}

/// Serves a file and some of its bitmaps on a socket as `qemu-nbd` would, until the value is dropped; an error is what it would
/// say. None: the real one is started.
pub type Simulated = fn(&Path, &[String], &Path) -> Option<Result<Box<dyn Send + Sync>, String>>;

static SIMULATED: OnceLock<Simulated> = OnceLock::new();

/// From now on, in this process, `tool` is asked first. For a simulation alone.
pub fn simulate_offline(tool: Simulated) {
    let _ = SIMULATED.set(tool);
}

impl Drop for OfflineExport {
    /// Waits for the end of a killed process, which takes a millisecond: whoever drops it wants the image.
    fn drop(&mut self) {
        let Server::Process(child) = &mut self.server else { return };
        let _ = child.start_kill();
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < END_DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A socket that is removed with its owner.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Already gone is as good; one that stays is removed by the next start.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl OfflineExport {
    /// Exports a disk read-only on `socket`. QEMU's own image lock keeps the VM from starting meanwhile.
    pub async fn start(disk: OfflineDisk<'_>, socket: &Path) -> Result<OfflineExport, NbdError> {
        let file = || disk.file.display().to_string();
        // A socket of an export that was killed is in the way; only our own directory holds it.
        end_orphan(socket).await;
        let _ = std::fs::remove_file(socket);
        if let Some(served) = SIMULATED.get().and_then(|serve| serve(disk.file, disk.bitmaps, socket)) {
            return OfflineExport::simulated(served, file(), socket).await;
        }
        let spawned = command(disk, socket).spawn();
        let mut child =
            spawned.map_err(|error| NbdError::Export { file: file(), detail: error.to_string() })?;
        let socket = SocketFile(socket.to_owned());
        match tokio::time::timeout(START_DEADLINE, opened(&mut child, &socket.0)).await {
            Ok(Some(anchor)) => {
                if let Some(words) = child.stderr.take() {
                    tokio::spawn(listen_to(words));
                }
                Ok(OfflineExport { server: Server::Process(child), _anchor: anchor, socket })
            }
            Ok(None) => Err(failure(file(), last_words(child).await)),
            Err(_) => {
                let detail = format!("its socket did not open within {START_DEADLINE:?}");
                Err(NbdError::Export { file: file(), detail })
            }
        }
    }

    async fn simulated(
        served: Result<Box<dyn Send + Sync>, String>,
        file: String,
        socket: &Path,
    ) -> Result<OfflineExport, NbdError> {
        let server = served.map_err(|detail| failure(file, detail))?;
        let anchor = Client::connect_unix(socket, "", &[], Deadlines::default()).await?;
        let (server, socket) = (Server::Simulated { _server: server }, SocketFile(socket.to_owned()));
        Ok(OfflineExport { server, _anchor: anchor, socket })
    }

    /// Connects to the export.
    pub async fn connect(&self, contexts: &[&str], deadlines: Deadlines) -> Result<Client, NbdError> {
        Client::connect_unix(&self.socket.0, "", contexts, deadlines).await
    }

    /// Ends the export; the image lock is free afterwards.
    pub async fn stop(mut self) {
        if let Server::Process(child) = &mut self.server {
            let _ = child.kill().await;
        }
    }
}

/// Ends an export whose owner was killed before it had connected: it would wait for a first client for ever, and the VM could not start
/// from the image that it holds. One that serves somebody is not disturbed, and where nobody listens nothing happens.
pub async fn end_orphan(socket: &Path) {
    if socket.exists() {
        let deadlines = Deadlines { connect: ORPHAN_DEADLINE, request: ORPHAN_DEADLINE };
        drop(Client::connect_unix(socket, "", &[], deadlines).await);
    }
}

/// Why `qemu-nbd` did not open an image, by its words.
fn failure(file: String, detail: String) -> NbdError {
    if detail.contains(OF_A_BITMAP) {
        NbdError::BitmapUnusable { file, detail }
    } else {
        NbdError::Export { file, detail }
    }
}

fn command(disk: OfflineDisk<'_>, socket: &Path) -> Command {
    let mut command = Command::new("qemu-nbd");
    command.args(["--read-only", "--shared=8", "--format=qcow2", "--socket"]).arg(socket);
    for bitmap in disk.bitmaps {
        command.arg("--bitmap").arg(bitmap);
    }
    command.arg("--").arg(disk.file);
    // The words by which a failure is known must be those of the C locale.
    command.env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits until the export answers, or its process has ended (none); the caller has the deadline.
async fn opened(child: &mut Child, socket: &Path) -> Option<Client> {
    loop {
        // The socket opens before the file does: only a handshake tells that the export is there.
        if let Ok(client) = Client::connect_unix(socket, "", &[], Deadlines::default()).await {
            return Some(client);
        }
        if !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
        tokio::time::sleep(START_POLL).await;
    }
}

/// Reads what a running export says, so that it never waits for a reader. Ends with the process.
async fn listen_to(mut words: ChildStderr) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = words.read(&mut buffer).await {
        tracing::debug!("qemu-nbd: {}", String::from_utf8_lossy(&buffer[..length]).trim());
    }
}

async fn last_words(child: Child) -> String {
    match child.wait_with_output().await {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().chars().take(LAST_WORDS_MAX).collect(),
        Err(error) => error.to_string(),
    }
}

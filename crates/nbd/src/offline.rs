//! Exports of disks whose VM is off, by a `qemu-nbd` of our own that ends with the guard.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::client::{Client, Deadlines};
use crate::error::NbdError;

/// How long `qemu-nbd` may take to open its socket.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two looks at the socket; small beside what starting a process takes.
const START_POLL: Duration = Duration::from_millis(5);

/// A disk file to export.
#[derive(Clone, Debug)]
pub struct OfflineDisk<'a> {
    /// The qcow2 file.
    pub file: &'a Path,
    /// Persistent bitmaps to export as meta contexts.
    pub bitmaps: &'a [String],
}

/// A running `qemu-nbd`; dropped, it is killed.
pub struct OfflineExport {
    child: Child,
    socket: PathBuf,
}

impl OfflineExport {
    /// Exports a disk read-only on `socket`. QEMU's own image lock keeps the VM from starting meanwhile.
    pub async fn start(disk: OfflineDisk<'_>, socket: &Path) -> Result<OfflineExport, NbdError> {
        let failed = |detail: String| NbdError::Export { file: disk.file.display().to_string(), detail };
        // A socket of an export that was killed is in the way; only our own directory holds it.
        let _ = std::fs::remove_file(socket);
        let mut command = Command::new("qemu-nbd");
        command.args(["--read-only", "--persistent", "--shared=4", "--cache=writeback", "--discard=unmap"]);
        command.args(["--format=qcow2", "--socket"]).arg(socket);
        for bitmap in disk.bitmaps {
            command.arg("--bitmap").arg(bitmap);
        }
        command.arg("--").arg(disk.file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let opened = tokio::time::timeout(START_DEADLINE, async {
            loop {
                // The socket opens before the file does: only a handshake tells that the export is there.
                if let Ok(client) = Client::connect_unix(socket, "", &[], Deadlines::default()).await {
                    client.disconnect().await;
                    return true;
                }
                if !matches!(child.try_wait(), Ok(None)) {
                    return false;
                }
                tokio::time::sleep(START_POLL).await;
            }
        })
        .await;
        match opened {
            Ok(true) => Ok(OfflineExport { child, socket: socket.to_owned() }),
            Ok(false) => Err(failed(last_words(child).await)),
            Err(_) => Err(failed(format!("its socket did not open within {START_DEADLINE:?}"))),
        }
    }

    /// Connects to the export.
    pub async fn connect(&self, contexts: &[&str], deadlines: Deadlines) -> Result<Client, NbdError> {
        Client::connect_unix(&self.socket, "", contexts, deadlines).await
    }

    /// Ends the export and waits for its end, so that the image lock is free afterwards.
    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn last_words(child: Child) -> String {
    match child.wait_with_output().await {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect(),
        Err(error) => error.to_string(),
    }
}

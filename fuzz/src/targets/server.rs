//! What an NBD server says to us: recorded once from a real `qemu-nbd`, then said again, damaged, to the real client.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use extent::Extent;
use nbd::{Client, Deadlines, OfflineDisk, OfflineExport};
use tokio::runtime;

use super::made;

/// A liar that falls silent is given up soon.
const PATIENCE: Deadlines =
    Deadlines { connect: Duration::from_millis(100), request: Duration::from_millis(100) };
const EXPORT: &str = "";
const ALLOCATION: &str = "base:allocation";

pub(super) fn said() -> Vec<Vec<u8>> {
    record().into_iter().collect()
}

/// Plays the server; the client asks for what the engine asks for.
pub(super) fn listen(said: &[u8]) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let socket = folder.path().join("nbd");
    let Ok(listener) = UnixListener::bind(&socket) else { return };
    let said = said.to_vec();
    let server = thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            // Whether all of it is listened to is the client's affair.
            let _ = stream.write_all(&said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    talk(&socket, PATIENCE);
    drop(server.join());
}

fn talk(socket: &Path, patience: Deadlines) {
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let Ok(client) = Client::connect_unix(socket, EXPORT, &[ALLOCATION], patience).await else { return };
        drop(client.allocated().await);
        if let Ok(beginning) = Extent::new(0, client.size().min(1 << 16)) {
            drop(client.read(beginning).await);
        }
    });
}

/// Everything that `qemu-nbd` says in that conversation.
fn record() -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().ok()?;
    let image = folder.path().join("image");
    let script = "qemu-img create -q -f qcow2 image 1M && qemu-io -c 'write -P 7 0 4k' image >/dev/null";
    std::fs::write(&image, made("image", &["sh", "-c", script])?).ok()?;
    let (real, proxy) = (folder.path().join("real"), folder.path().join("proxy"));
    let listener = UnixListener::bind(&proxy).ok()?;
    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().ok()?;
    let disk = OfflineDisk { file: &image, bitmaps: &[] };
    let _export = runtime.block_on(OfflineExport::start(disk, &real)).ok()?;
    let (heard, recorded) = mpsc::channel();
    let relay = thread::spawn(move || -> Option<()> {
        let (client, _) = listener.accept().ok()?;
        let server = UnixStream::connect(&real).ok()?;
        let (mut asked, mut asking) = (client.try_clone().ok()?, server.try_clone().ok()?);
        thread::spawn(move || {
            let _ = std::io::copy(&mut asked, &mut asking);
            let _ = asking.shutdown(std::net::Shutdown::Write);
        });
        let (mut server, mut client, mut said) = (server, client, Vec::new());
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            said.extend_from_slice(&buffer[..length]);
            let _ = client.write_all(&buffer[..length]);
        }
        heard.send(said).ok()
    });
    talk(&proxy, Deadlines::default());
    let said = recorded.recv_timeout(Duration::from_secs(10)).ok();
    drop(relay);
    runtime.shutdown_background();
    said
}

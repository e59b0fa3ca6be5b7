//! What both hosts together must never do, seen from outside: run the VM twice, or hold different disks for one point.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;
use crate::product::HOSTS;
use crate::run::run;

/// Pause between two looks; a QEMU lives for seconds.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Watches the QEMU processes of a VM on both hosts.
#[derive(Debug)]
pub struct Sides {
    stop: Arc<AtomicBool>,
    both: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Sides {
    /// Begins to watch.
    pub fn watch(lab: &Lab, vm: &str) -> Result<Sides> {
        let (stop, both) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let roots: Vec<PathBuf> = HOSTS.iter().map(|host| lab.host(host).path("/")).collect::<Result<_>>()?;
        let (stopped, seen, pid_file) = (stop.clone(), both.clone(), format!("run/libvirt/qemu/{vm}.pid"));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if roots.iter().all(|root| runs(root, &pid_file)) {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(LOOK_PAUSE);
            }
        });
        Ok(Sides { stop, both, thread: Some(thread) })
    }

    /// How often a QEMU of the VM was seen on both hosts at once; it must be never.
    pub fn seen_on_both(&self) -> usize {
        self.both.load(Ordering::Relaxed)
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn runs(root: &Path, pid_file: &str) -> bool {
    let Ok(pid) = std::fs::read_to_string(root.join(pid_file)) else { return false };
    root.join("proc").join(pid.trim()).join("exe").exists()
}

/// Compares every disk of a VM that is off, as the two hosts would see it: the primary's file, the replica's newest layer.
pub fn disks_are_equal(lab: &Lab, primary: &str, vm: &str) -> Result<()> {
    let replica = HOSTS.into_iter().find(|host| *host != primary).context("two hosts")?;
    let disks = lab.host(primary).virsh(["domblklist", vm])?;
    for line in disks.lines() {
        let Some((target, source)) = line
            .split_whitespace()
            .collect::<Vec<_>>()
            .split_first()
            .map(|(target, rest)| (*target, rest.join(" ")))
        else {
            continue;
        };
        let ours = raw(lab, primary, &source)?;
        // The replica's definition names the overlay that is not there; its head is the newest file beside it.
        let active = lab.host(replica).virsh(["domblklist", vm])?;
        let active =
            active.lines().find(|line| line.trim_start().starts_with(target)).context("the same disk")?;
        let active =
            active.trim_start().split_once(char::is_whitespace).context("a file")?.1.trim().to_owned();
        let theirs = raw(lab, replica, &head_below(lab, replica, &active)?)?;
        ensure!(!same_file(&ours, &theirs)?, "the two copies are one file");
        run(Command::new("cmp").arg(&ours).arg(&theirs)).with_context(|| format!("disk {target}"))?;
        drop(std::fs::remove_file(ours));
        drop(std::fs::remove_file(theirs));
    }
    Ok(())
}

/// The file that an overlay at `active` would stand on, by the manifest of its directory.
fn head_below(lab: &Lab, host: &str, active: &str) -> Result<String> {
    let folder = Path::new(active).parent().context("an overlay lies in a folder")?;
    let target = folder.file_name().and_then(|name| name.to_str()).context("a disk's folder")?;
    let manifest = folder.parent().context("a replica directory")?.join("manifest.json");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(lab.host(host).path(&manifest)?)?)?;
    let head = manifest["points"].as_array().and_then(|points| points.last()).context("a recovery point")?;
    let name = head["files"][target].as_str().with_context(|| format!("{target} in {head}"))?;
    Ok(folder.join(name).display().to_string())
}

fn same_file(one: &Path, other: &Path) -> Result<bool> {
    let of = |path: &Path| path.metadata().map(|meta| (meta.dev(), meta.ino()));
    Ok(of(one)? == of(other)?)
}

/// The content of an image as a raw file on this machine.
fn raw(lab: &Lab, host: &str, image: &str) -> Result<PathBuf> {
    // A folder that each host has for itself: where both have the machine's, the second copy would take the place of the first, and
    // be compared with itself.
    let inside = "/var/lib/libvirt/compare.raw";
    lab.host(host).exec(["qemu-img", "convert", "-U", "-O", "raw", image, inside])?;
    let outside = lab.host(host).path(inside)?;
    ensure!(outside.exists(), "{} was converted", outside.display());
    Ok(outside)
}

//! Pull backups with a checkpoint at the same instant (libvirt's formatbackup.html).
//!
//! A job is ours when the names of its scratch files say so; another program's job is never touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use domain::{DiskTarget, VmId};
use hypervisor::{BackupRequest, HypervisorError, OpenBackup, OpenDisk, Result};
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};

use crate::definition::tree::{Element, parse};
use crate::error::{is, of_vm};
use crate::{checkpoint, raw};

/// A cancelled job vanishes when QEMU has closed its files; a stalled scratch disk may hold that up. So may libvirt: when the
/// guest agent connects while a job is open, its one thread for QEMU's events waits 30 s for a lock that the job has.
const END_LIMIT: Duration = Duration::from_secs(45);
/// Pause between two looks whether it vanished.
const END_PAUSE: Duration = Duration::from_millis(5);
/// Name of the dirty bitmap in the exports.
const EXPORT_BITMAP: &str = "vr-dirty";
/// Beginning of the names of our scratch files.
const SCRATCH_PREFIX: &str = "vr-scratch-";

/// `virDomainBackupBegin`.
pub(crate) fn begin(domain: &Domain, id: VmId, request: &BackupRequest) -> Result<OpenBackup> {
    if job(domain, id)?.is_some() {
        return Err(HypervisorError::Busy { detail: "a backup job is open".to_owned() });
    }
    for target in &request.disks {
        remove_scratch(&scratch(request, id, target))?;
    }
    let checkpoint =
        request.checkpoint.as_ref().map(|name| checkpoint::description(name, &request.disks).to_xml());
    raw::begin_backup(domain, &description(request, id)?.to_xml(), checkpoint.as_deref())
        .map_err(|error| begin_error(id, request, &error))?;
    let dirty_context = request.since.as_ref().map(|_| format!("qemu:dirty-bitmap:{EXPORT_BITMAP}"));
    let disk = |target: &DiskTarget| OpenDisk {
        target: target.clone(),
        export: target.as_str().to_owned(),
        dirty_context: dirty_context.clone().filter(|_| !request.whole.contains(target)),
    };
    Ok(OpenBackup { socket: request.socket.clone(), disks: request.disks.iter().map(disk).collect() })
}

fn begin_error(id: VmId, request: &BackupRequest, error: &Error) -> HypervisorError {
    let missing =
        is(error, ErrorNumber::CheckpointInconsistent) || is(error, ErrorNumber::NoDomainCheckpoint);
    match &request.since {
        Some(since) if missing => {
            HypervisorError::CheckpointUnusable { name: since.clone(), detail: error.message().to_owned() }
        }
        _ => of_vm("backup-begin", id, error),
    }
}

fn description(request: &BackupRequest, id: VmId) -> Result<Element> {
    let mut backup = Element::new("domainbackup").with("mode", "pull");
    if let Some(since) = &request.since {
        backup.push(Element::new("incremental").saying(since));
    }
    let socket = text(&request.socket)?;
    backup.push(Element::new("server").with("transport", "unix").with("socket", socket));
    let mut disks = Element::new("disks");
    for target in &request.disks {
        let name = target.as_str();
        let mut disk = Element::new("disk").with("name", name).with("backup", "yes").with("type", "file");
        disk.set("exportname", name);
        if let Some(since) = &request.since {
            if request.whole.contains(target) {
                disk.set("backupmode", "full");
            } else {
                disk.set("backupmode", "incremental");
                disk.set("incremental", since);
                disk.set("exportbitmap", EXPORT_BITMAP);
            }
        }
        let file = scratch(request, id, target);
        disk.push(Element::new("driver").with("type", "qcow2"));
        disk.push(Element::new("scratch").with("file", text(&file)?));
        disks.push(disk);
    }
    // Disks that are not listed take no part.
    Ok(backup.holding(disks))
}

fn scratch(request: &BackupRequest, id: VmId, target: &DiskTarget) -> PathBuf {
    request.scratch_dir.join(format!("{SCRATCH_PREFIX}{id}-{target}.qcow2"))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| HypervisorError::Definition {
        reason: format!("the path {} is no plain text", path.display()),
    })
}

/// Our open job.
pub(crate) fn open(domain: &Domain, id: VmId) -> Result<Option<OpenBackup>> {
    Ok(job(domain, id)?.filter(is_ours).and_then(|job| read(&job)))
}

/// Ends our open job and waits until it is gone; its scratch files go too.
pub(crate) fn end(domain: &Domain, id: VmId) -> Result<()> {
    let Some(open) = job(domain, id)?.filter(is_ours) else { return Ok(()) };
    // It may have ended by itself just now; what counts is that it is gone.
    let aborted = raw::abort_job(domain);
    let start = Instant::now();
    while job(domain, id)?.is_some_and(|job| is_ours(&job)) {
        if start.elapsed() > END_LIMIT {
            aborted.map_err(|error| of_vm("domjobabort", id, &error))?;
            let detail = format!("the backup job did not end within {END_LIMIT:?}");
            return Err(HypervisorError::Busy { detail });
        }
        thread::sleep(END_PAUSE);
    }
    scratch_files(&open).iter().try_for_each(|file| remove_scratch(file))
}

/// The open job, ours or not; none also when the VM does not run.
fn job(domain: &Domain, id: VmId) -> Result<Option<Element>> {
    match raw::backup_xml(domain) {
        Ok(text) => parse(&text).map(Some),
        Err(error) if is(&error, ErrorNumber::NoDomainBackup) => Ok(None),
        Err(error) if is(&error, ErrorNumber::OperationInvalid) => Ok(None),
        Err(error) => Err(of_vm("backup-dumpxml", id, &error)),
    }
}

fn is_ours(job: &Element) -> bool {
    let files = scratch_files(job);
    let ours = |file: &PathBuf| {
        file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(SCRATCH_PREFIX))
    };
    !files.is_empty() && files.iter().all(ours)
}

fn disks(job: &Element) -> impl Iterator<Item = &Element> {
    let disks = job.all("disks").flat_map(|disks| disks.all("disk"));
    disks.filter(|disk| disk.get("backup") != Some("no"))
}

fn scratch_files(job: &Element) -> Vec<PathBuf> {
    disks(job).filter_map(|disk| disk.child_attribute("scratch", "file")).map(PathBuf::from).collect()
}

fn read(job: &Element) -> Option<OpenBackup> {
    let socket = PathBuf::from(job.child_attribute("server", "socket")?);
    let disk = |disk: &Element| {
        let target = DiskTarget::new(disk.get("name")?).ok()?;
        let export = disk.get("exportname").unwrap_or(target.as_str()).to_owned();
        let dirty_context = disk.get("exportbitmap").map(|bitmap| format!("qemu:dirty-bitmap:{bitmap}"));
        Some(OpenDisk { target, export, dirty_context })
    };
    Some(OpenBackup { socket, disks: disks(job).filter_map(disk).collect() })
}

fn remove_scratch(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(HypervisorError::Image { path: file.to_owned(), detail: error.to_string() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> BackupRequest {
        BackupRequest {
            checkpoint: Some("vr-2".to_owned()),
            since: Some("vr-1".to_owned()),
            disks: ["vda", "vdb", "vdc"].map(|name| DiskTarget::new(name).unwrap()).to_vec(),
            whole: vec![DiskTarget::new("vdc").unwrap()],
            scratch_dir: "/scratch/it's <here>".into(),
            socket: "/run/a&b.nbd".into(),
        }
    }

    #[test]
    fn a_job_is_described_and_read_back() {
        let id = VmId(uuid::Uuid::nil());
        let described = description(&request(), id).unwrap();
        insta::assert_snapshot!(described.to_xml());
        let job = parse(&described.to_xml()).unwrap();
        assert!(is_ours(&job));
        let open = read(&job).unwrap();
        assert_eq!(open.socket, Path::new("/run/a&b.nbd"));
        assert_eq!(open.disks.len(), 3);
        assert_eq!(open.disks[2].dirty_context, None, "vdc was plugged in after the checkpoint");
        assert_eq!(open.disks[1].dirty_context.as_deref(), Some("qemu:dirty-bitmap:vr-dirty"));
    }

    #[test]
    fn the_job_of_another_program_is_not_ours() {
        let foreign = "<domainbackup mode='pull'><server transport='unix' socket='/tmp/x'/><disks>\
            <disk name='vda' backup='yes' type='file'><scratch file='/tmp/vda.scratch'/></disk></disks></domainbackup>";
        assert!(!is_ours(&parse(foreign).unwrap()));
        assert!(!is_ours(&parse("<domainbackup mode='pull'/>").unwrap()));
    }
}

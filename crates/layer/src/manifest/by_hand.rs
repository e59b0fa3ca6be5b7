//! What a person types who has a replica's files and nothing else, as the manifest carries it.
//!
//! The lines stay true whatever becomes of the directory after the manifest was written: where the VM has run on this host
//! meanwhile, the commands find what it wrote and keep it. A line that begins with a small letter is a command. Not here: which
//! side may run the VM. Without the program only the person knows.

use std::path::Path;

use domain::shell_word;

use super::Manifest;
use crate::belongings::POINTS;
use crate::replica_directory::{ACTIVE, ACTIVE_NVRAM};

/// The lines for the newest point of a manifest in `folder`.
pub(super) fn how_to_start(manifest: &Manifest, folder: &Path) -> Vec<String> {
    let word = |path: &Path| shell_word(&path.to_string_lossy());
    let active = |target: &domain::DiskTarget| word(&folder.join(target.as_str()).join(ACTIVE));
    let mut lines = vec![
        "Make sure first that the VM does not run on the other host: two running copies cannot be united again."
            .to_owned(),
        "Is there an active.qcow2 in a disk's folder? Then the VM ran on this host, and that file has its newest data, which may \
         be nowhere else. These commands keep it, and the VM goes on from it. If only some of the disks have one, the VM has \
         not started from them yet: rename those first."
            .to_owned(),
        "Otherwise these commands start the newest recovery point. For an older one put its file, listed under \"points\", in \
         place of the one after -b, and take nvram.fd and tpm.permall from the folder that is listed there; rename an active.qcow2 first, and do not delete it. The replica's files stay as they are: \
         writes go to active.qcow2."
            .to_owned(),
    ];
    let newest = manifest.points.last().and_then(|newest| newest.belongings);
    let kept_in = newest.map_or_else(|| folder.to_owned(), |kept| folder.join(POINTS).join(kept.to_string()));
    let ran_here = manifest.current_disks().next().map(|disk| active(&disk.target));
    if let Some(ran_here) = &ran_here {
        let tpm = format!("/var/lib/libvirt/swtpm/{}/tpm2/tpm2-00.permall", manifest.vm);
        for (kept, place) in [("nvram.fd", word(&folder.join(ACTIVE_NVRAM))), ("tpm.permall", tpm)] {
            let kept = word(&kept_in.join(kept));
            lines.push(format!(
                "test ! -e {kept} || {{ test -e {ran_here} && test -e {place}; }} || install -D -m 600 {kept} {place}"
            ));
        }
        lines.push(
            "Where the VM lived on this host at first, domain.xml may name another file in <nvram> than active-nvram.fd: put a copy \
             of nvram.fd there."
                .to_owned(),
        );
    }
    for disk in manifest.current_disks() {
        let (disk_folder, active, head) =
            (folder.join(disk.target.as_str()), active(&disk.target), disk.head());
        lines.push(format!(
            "test -e {active} || qemu-img create -f qcow2 -F {} -b {} {active}",
            head.format().qemu_name(),
            word(&head.resolve(&disk_folder)),
        ));
    }
    lines.push(format!("virsh define {}", word(&folder.join("domain.xml"))));
    lines.push(format!("virsh start {}", manifest.vm));
    lines.push(
        "If the start is refused by virt-replica's hook although the program is gone, remove \
         /etc/libvirt/hooks/qemu.d/virt-replica and restart libvirtd."
            .to_owned(),
    );
    lines
}

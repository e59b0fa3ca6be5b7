//! The runbook for whoever has the files and nothing else: what it says to type is typed, on a replica and on a host where the
//! VM ran. Only libvirt's own part is left out here.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{CLUSTER, assert_content, pattern, run, text};
use domain::Attachment;
use domain::fixture::{point, vda};
use layer::{LayerWriter, Manifest, ReplicaDirectory};

const SIZE: u64 = 4 * CLUSTER;
const RUNBOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runbooks/only-the-files.md");

/// A replica with two points, the VM's definition, its UEFI variables and the state of its TPM.
fn replica(root: &Path) -> ReplicaDirectory {
    let mut directory = common::directory(root, SIZE);
    let folder = directory.disk_folder(&vda());
    let base = ReplicaDirectory::base_name();
    let mut writer =
        LayerWriter::create(&folder, &base, directory.first_layer(&vda(), SIZE)).expect("a writer");
    writer.write(0, &pattern(1, SIZE)).expect("a write");
    writer.seal().expect("sealed");
    directory.write_definition("<domain/>").expect("a definition");
    directory.add_point(point(0), &[(vda(), base)]).expect("a point");
    let layer = ReplicaDirectory::layer_name(1, point(1).id);
    let spec = directory.next_layer(&vda()).expect("a spec");
    let mut writer = LayerWriter::create(&folder, &layer, spec).expect("a writer");
    writer.write(0, &pattern(9, CLUSTER)).expect("a write");
    writer.seal().expect("sealed");
    let came =
        [(Attachment::Tpm, &b"state of the point"[..]), (Attachment::Nvram, b"variables of the point")];
    let came = came.map(|(kind, bytes)| (kind, bytes.to_vec()));
    let kept = directory.keep_belongings(point(1).id, "<domain/>", &came).expect("kept");
    let offered = |manifest: &mut Manifest| {
        manifest.add_point(point(1), &[(vda(), layer)]);
        manifest.note_belongings(point(1).id, kept);
    };
    directory.update(offered).expect("a point");
    // What a delta brings that never became a point is not the point's.
    for kind in Attachment::ALL {
        directory.write_attachment(kind, b"of no point").expect("kept");
    }
    directory
}

fn newest() -> Vec<u8> {
    let mut content = pattern(1, SIZE);
    content[..CLUSTER as usize].copy_from_slice(&pattern(9, CLUSTER));
    content
}

/// The commands that the runbook's own command prints in the directory.
fn commands(directory: &Path) -> Vec<String> {
    let page = fs::read_to_string(RUNBOOK).expect("the runbook");
    let print = page.lines().map(str::trim).find(|line| line.starts_with("python3 ")).expect("its command");
    let printed = Command::new("sh").args(["-ec", print]).current_dir(directory).output().expect("it starts");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed = String::from_utf8(printed.stdout).expect("text");
    let is_command = |line: &&str| line.starts_with(|first: char| first.is_ascii_lowercase());
    printed.lines().filter(is_command).map(str::to_owned).collect()
}

/// Types them; `libvirt` stands for the directory in which libvirt keeps the state of TPMs. Gives what is libvirt's own to do.
fn type_them(directory: &ReplicaDirectory, libvirt: &Path) -> Vec<String> {
    let (to_libvirt, ours): (Vec<_>, Vec<_>) =
        commands(directory.path()).into_iter().partition(|line| line.starts_with("virsh "));
    for line in ours {
        run(&["sh", "-ec", &line.replace("/var/lib/libvirt", text(libvirt))]);
    }
    to_libvirt
}

fn tpm(directory: &ReplicaDirectory, libvirt: &Path) -> PathBuf {
    libvirt.join(format!("swtpm/{}/tpm2/tpm2-00.permall", directory.manifest().vm))
}

#[test]
fn a_replica_starts_from_its_newest_point_and_none_of_its_files_changes() {
    let (root, libvirt) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let directory = replica(root.path());
    let folder = directory.disk_folder(&vda());
    let files = || fs::read_dir(&folder).expect("listed").map(|entry| entry.expect("an entry").path());
    let before: Vec<_> = files().map(|file| (file.clone(), fs::read(&file).expect("read"))).collect();
    // A state of another time, when the VM was tried out here, is not that of the point.
    let place = tpm(&directory, libvirt.path());
    fs::create_dir_all(place.parent().expect("a folder")).expect("made");
    fs::write(&place, b"an older state").expect("written");
    let to_libvirt = type_them(&directory, libvirt.path());
    let define = format!("virsh define {}", domain::shell_word(text(&directory.definition_path())));
    assert_eq!(to_libvirt, [define, format!("virsh start {}", directory.manifest().vm)]);
    assert_content(&directory.active_path(&vda()), &newest());
    assert_eq!(fs::read(place).expect("read"), b"state of the point");
    assert_eq!(fs::read(directory.active_nvram_path()).expect("read"), b"variables of the point");
    for (file, content) in before {
        assert!(fs::read(&file).expect("read") == content, "{} changed", file.display());
    }
}

#[test]
fn what_a_vm_wrote_that_ran_here_is_kept_and_it_goes_on_from_there() {
    let (root, libvirt) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let directory = replica(root.path());
    // Failed over to the older point; the manifest is not written when the VM starts.
    let active = directory.create_active_at(&vda(), point(0).id).expect("an overlay");
    run(&["qemu-io", "-f", "qcow2", "-c", "write -q -P 0x5a 64k 64k", text(&active)]);
    let place = tpm(&directory, libvirt.path());
    fs::create_dir_all(place.parent().expect("a folder")).expect("made");
    for place in [&place, &directory.active_nvram_path()] {
        fs::write(place, b"what the guest wrote").expect("written");
    }
    let mut content = pattern(1, SIZE);
    content[CLUSTER as usize..2 * CLUSTER as usize].fill(0x5a);
    for _ in 0..2 {
        type_them(&directory, libvirt.path());
        assert_content(&active, &content);
        for place in [&place, &directory.active_nvram_path()] {
            assert_eq!(fs::read(place).expect("read"), b"what the guest wrote");
        }
    }
    // The state of the point is better than none, where that of the guest is lost.
    fs::remove_file(&place).expect("removed");
    type_them(&directory, libvirt.path());
    assert_eq!(fs::read(&place).expect("read"), b"state of the point");
}

#[test]
fn an_older_versions_manifest_gets_the_commands_that_keep_what_is_there() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = replica(root.path());
    let path = directory.path().join("manifest.json");
    let now = fs::read_to_string(&path).expect("a manifest");
    let active = domain::shell_word(text(&directory.active_path(&vda())));
    let older = now.replace(&format!("test -e {active} || qemu-img create"), "qemu-img create");
    assert_ne!(older, now);
    fs::write(&path, older).expect("written");
    ReplicaDirectory::open(directory.path()).expect("opened").renew_instructions().expect("renewed");
    assert_eq!(fs::read_to_string(&path).expect("a manifest"), now);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("metadata"));
    let before = inode(&path);
    directory.renew_instructions().expect("as it is");
    assert_eq!(inode(&path), before, "what is right is not written again");
}

//! Files of replicas have the same names everywhere; whose each is, its header says, and QEMU's tools keep that.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{CLUSTER, name, pattern, run, text};
use domain::DiskTarget;
use domain::fixture::{point, vda};
use layer::{
    Backing, FileName, Gate, GateRefusal, LayerError, LayerSpec, LayerWriter, Manifest, ManifestDisk, Owner,
    ReplicaDirectory, Storage, check_image, commit_into_base, inspect, set_backing,
};
use uuid::Uuid;

const SIZE: u64 = 20 * CLUSTER;

fn vdb() -> DiskTarget {
    DiskTarget::new("vdb").expect("a target")
}

fn write(folder: &Path, file: &FileName, spec: LayerSpec) {
    let mut writer = LayerWriter::create(folder, file, spec).expect("a writer");
    writer.write(0, &pattern(7, 2 * CLUSTER)).expect("a write");
    writer.seal().expect("sealed");
}

fn directory<const DISKS: usize>(
    storage: &Storage,
    relationship: u128,
    disks: [ManifestDisk; DISKS],
) -> ReplicaDirectory {
    let manifest = Manifest {
        vm_name: format!("VM {relationship}"),
        vm: Uuid::from_u128(relationship).into(),
        relationship: Uuid::from_u128(relationship).into(),
        disks: disks.into(),
        points: Vec::new(),
        autostart: false,
    };
    ReplicaDirectory::create(storage, manifest).expect("a directory")
}

/// A replica of two disks, each a base and two layers.
fn replica(storage: &Storage, relationship: u128) -> ReplicaDirectory {
    let disks = [vda(), vdb()].map(|target| ManifestDisk::fresh(target, SIZE));
    let mut directory = directory(storage, relationship, disks);
    for target in [vda(), vdb()] {
        let spec = directory.first_layer(&target, SIZE);
        write(&directory.disk_folder(&target), &ReplicaDirectory::base_name(), spec);
    }
    for ordinal in [1, 2] {
        let layer = ReplicaDirectory::layer_name(ordinal, point(ordinal).id);
        for target in [vda(), vdb()] {
            write(&directory.disk_folder(&target), &layer, directory.next_layer(&target).expect("a spec"));
        }
        let layers = [(vda(), layer.clone()), (vdb(), layer)];
        directory.add_point(point(ordinal), &layers).expect("a point");
    }
    directory
}

fn exchange(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).expect("renamed");
    fs::rename(other, one).expect("renamed");
    fs::rename(&aside, other).expect("renamed");
}

fn refusal(directory: &ReplicaDirectory, target: &DiskTarget) -> GateRefusal {
    match directory.check_chain(target) {
        Err(LayerError::Gate { refusal, .. }) => refusal,
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[test]
fn a_file_of_another_replica_or_disk_is_refused_though_name_chain_and_size_fit() {
    let root = tempfile::tempdir().expect("a folder");
    let storage = Storage::initialise(root.path()).expect("storage");
    let (one, other) = (replica(&storage, 1), replica(&storage, 2));
    let newest = ReplicaDirectory::layer_name(2, point(2).id);
    for file in [ReplicaDirectory::base_name().as_str(), newest.as_str()] {
        let path = |directory: &ReplicaDirectory, target: &DiskTarget| -> PathBuf {
            directory.disk_folder(target).join(file)
        };
        for with in [path(&other, &vda()), path(&one, &vdb())] {
            exchange(&path(&one, &vda()), &with);
            let refused = refusal(&one, &vda());
            assert!(matches!(refused, GateRefusal::Owner { .. }), "{file} and {}: {refused}", with.display());
            exchange(&path(&one, &vda()), &with);
            for (directory, target) in [(&one, vda()), (&one, vdb()), (&other, vda())] {
                directory.check_chain(&target).expect("everything is in its place");
            }
        }
    }
}

/// Two replicas that began from existing copies.
#[test]
fn a_base_that_was_an_existing_copy_is_judged_as_well() {
    let root = tempfile::tempdir().expect("a folder");
    let storage = Storage::initialise(root.path()).expect("storage");
    let [one, other] = [1, 2].map(|relationship| {
        let seed = Backing::beside(&ReplicaDirectory::seed_name());
        let mut directory =
            directory(&storage, relationship, [vda()].map(|it| ManifestDisk::on(it, SIZE, seed.clone())));
        // The disk has grown since the copy was made.
        let spec = directory.first_layer(&vda(), SIZE - CLUSTER);
        write(&directory.disk_folder(&vda()), &ReplicaDirectory::seed_name(), spec);
        directory.check_chain(&vda()).expect("a smaller copy is fine");
        let layer = ReplicaDirectory::layer_name(1, point(1).id);
        write(&directory.disk_folder(&vda()), &layer, directory.next_layer(&vda()).expect("a spec"));
        directory.add_point(point(1), &[(vda(), layer)]).expect("a point");
        directory
    });
    let seed = |directory: &ReplicaDirectory| {
        directory.disk_folder(&vda()).join(ReplicaDirectory::seed_name().as_str())
    };
    one.check_chain(&vda()).expect("everything is in its place");
    exchange(&seed(&one), &seed(&other));
    for directory in [&one, &other] {
        assert!(matches!(refusal(directory, &vda()), GateRefusal::Owner { .. }));
    }
    exchange(&seed(&one), &seed(&other));
    fs::remove_file(seed(&one)).expect("removed");
    let larger = LayerSpec { virtual_size: SIZE + CLUSTER, backing: None, owner: None };
    write(&one.disk_folder(&vda()), &ReplicaDirectory::seed_name(), larger);
    assert!(matches!(refusal(&one, &vda()), GateRefusal::Size { is_exact: false, .. }));
}

/// As files of an older version are.
#[test]
fn a_file_that_does_not_say_whose_it_is_must_have_a_size_that_fits() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = replica(&Storage::initialise(root.path()).expect("storage"), 1);
    let (folder, base) = (directory.disk_folder(&vda()), ReplicaDirectory::base_name());
    let newest = ReplicaDirectory::layer_name(2, point(2).id);
    let below = ReplicaDirectory::layer_name(1, point(1).id);
    for (size, is_good) in [(SIZE, true), (SIZE - CLUSTER, true), (SIZE + CLUSTER, false)] {
        fs::remove_file(folder.join(base.as_str())).expect("removed");
        write(&folder, &base, LayerSpec { virtual_size: size, backing: None, owner: None });
        assert_eq!(directory.check_chain(&vda()).is_ok(), is_good, "a base of {size} bytes");
    }
    assert!(matches!(refusal(&directory, &vda()), GateRefusal::Size { is_exact: false, .. }));
    fs::remove_file(folder.join(base.as_str())).expect("removed");
    write(&folder, &base, LayerSpec { virtual_size: SIZE, backing: None, owner: None });
    fs::remove_file(folder.join(newest.as_str())).expect("removed");
    let smaller = SIZE - CLUSTER;
    write(
        &folder,
        &newest,
        LayerSpec { virtual_size: smaller, backing: Some(Backing::beside(&below)), owner: None },
    );
    assert!(matches!(refusal(&directory, &vda()), GateRefusal::Size { is_exact: true, .. }));
}

#[test]
fn what_merges_rebases_and_opens_a_file_leaves_its_owner_in_it() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = replica(&Storage::initialise(root.path()).expect("storage"), 1);
    let folder = directory.disk_folder(&vda());
    let files = [
        folder.join(ReplicaDirectory::base_name().as_str()),
        folder.join(ReplicaDirectory::layer_name(1, point(1).id).as_str()),
        folder.join(ReplicaDirectory::layer_name(2, point(2).id).as_str()),
    ];
    let owner = Owner { relationship: Uuid::from_u128(1).into(), disk: vda() };
    let all_say_so = |what: &str| {
        for file in &files {
            let info = inspect(file, Gate::Foreign).expect("an image");
            assert_eq!(info.owner.as_ref(), Some(&owner), "{}, {what}", file.display());
            assert_eq!(check_image(file).map(|report| report.corruptions).expect("checked"), 0);
        }
    };
    all_say_so("written");
    let [base, first, second] = &files;
    // Our own change of one sector, there and back.
    set_backing(second, &Backing::beside(&name("base.qcow2"))).expect("rebased");
    set_backing(
        second,
        &Backing::beside(&name(first.file_name().and_then(|it| it.to_str()).expect("a name"))),
    )
    .expect("rebased");
    all_say_so("rebased here");
    commit_into_base(first, base).expect("merged");
    all_say_so("merged");
    // A header that QEMU has written anew: a bitmap comes and goes, and a longer name below.
    for file in &files {
        run(&["qemu-img", "bitmap", "--add", "-f", "qcow2", text(file), "theirs"]);
        run(&["qemu-img", "bitmap", "--remove", "-f", "qcow2", text(file), "theirs"]);
    }
    run(&["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", text(base), text(second)]);
    set_backing(second, &Backing::beside(&name("base.qcow2"))).expect("rebased by qemu-img");
    all_say_so("rewritten by QEMU");
}

#[test]
fn a_new_relationship_gets_nothing_that_is_here_of_its_id_under_whatever_name() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = common::directory(root.path(), SIZE);
    let storage = Storage::open(root.path()).expect("storage");
    let before = fs::read(directory.path().join("manifest.json")).expect("readable");
    for vm_name in [directory.manifest().vm_name.clone(), "vm!".into(), "else".into()] {
        let vm = Uuid::from_u128(78).into();
        let asked = Manifest { vm_name, vm, ..directory.manifest().clone() };
        let refused = ReplicaDirectory::create_new(&storage, asked).expect_err("refused");
        assert!(matches!(&refused, LayerError::Exists(path) if path == directory.path()), "{refused}");
    }
    // A folder without a manifest is somebody's too.
    let other = Uuid::from_u128(89);
    fs::create_dir(root.path().join(format!("kept.{other}"))).expect("made");
    assert!(storage.of_relationship(other.into()).expect("listed").is_some());
    assert_eq!(storage.of_relationship(Uuid::from_u128(90).into()).expect("listed"), None);
    assert_eq!(storage.replicas().expect("listed"), [directory.path()]);
    assert_eq!(fs::read(directory.path().join("manifest.json")).expect("readable"), before);
}

#[test]
fn the_directory_of_another_vm_is_not_opened_for_this_one() {
    let root = tempfile::tempdir().expect("a folder");
    let directory = common::directory(root.path(), SIZE);
    let storage = Storage::open(root.path()).expect("storage");
    let other = Manifest { vm: Uuid::from_u128(78).into(), ..directory.manifest().clone() };
    let refused = ReplicaDirectory::create(&storage, other).expect_err("refused");
    assert!(matches!(&refused, LayerError::Manifest { .. }), "{refused}");
}

#[test]
fn a_manifest_that_could_not_be_read_again_is_not_written() {
    let root = tempfile::tempdir().expect("a folder");
    let mut directory = common::directory(root.path(), SIZE);
    let before = fs::read(directory.path().join("manifest.json")).expect("readable");
    let long = "x".repeat(usize::try_from(layer::MANIFEST_BYTES_MAX).expect("it fits"));
    let refused = directory.update(|manifest| manifest.vm_name = long).expect_err("refused");
    assert!(matches!(&refused, LayerError::Manifest { .. }), "{refused}");
    assert_eq!(fs::read(directory.path().join("manifest.json")).expect("readable"), before);
    let again = ReplicaDirectory::open(directory.path()).expect("opened");
    assert_eq!(again.manifest(), directory.manifest());
}

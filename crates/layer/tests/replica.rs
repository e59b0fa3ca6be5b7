//! A replica directory always starts: after every point, and after a crash in every sub-step of every fold.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{CLUSTER, assert_content, assert_reads_as, foreign_base, keep_newest, name, pattern, run, text};
use domain::fixture::{point, vda};
use domain::{PointId, Timestamp};
use layer::{
    Backing, BackingFormat, FoldStep, LayerError, LayerWriter, Manifest, ManifestDisk, ReplicaDirectory,
    Scope, Storage, chain_check, check_image, commit_into_base, list_bitmaps, remove_bitmap, set_backing,
};

const SIZE: u64 = 20 * CLUSTER + 1024;

fn manifest(base: Backing) -> Manifest {
    Manifest {
        vm_name: "a \"VM\"/with ' odd\nname".to_owned(),
        vm: uuid::Uuid::from_u128(77).into(),
        relationship: uuid::Uuid::from_u128(88).into(),
        disks: vec![ManifestDisk::on(vda(), SIZE, base)],
        points: Vec::new(),
        autostart: false,
    }
}

/// A replica with a base and `layers` points over it, and what the disk holds at each point.
struct World {
    _root: tempfile::TempDir,
    directory: ReplicaDirectory,
    contents: BTreeMap<u64, Vec<u8>>,
}

fn world(layers: u64, foreign: bool) -> World {
    let root = tempfile::tempdir().expect("a folder");
    let storage = Storage::initialise(root.path()).expect("storage");
    let content = pattern(1, SIZE);
    let base_name = ReplicaDirectory::base_name();
    let base = if foreign {
        let path = foreign_base(root.path(), "users own disk.qcow2", &content);
        Backing::new(text(&path), BackingFormat::Qcow2).expect("a backing file")
    } else {
        Backing::beside(&base_name)
    };
    let mut directory = ReplicaDirectory::create(&storage, manifest(base)).expect("a directory");
    if !foreign {
        let spec = layer::LayerSpec { virtual_size: SIZE, backing: None, owner: None };
        let mut writer =
            LayerWriter::create(&directory.disk_folder(&vda()), &base_name, spec).expect("a writer");
        writer.write(0, &content).expect("a write");
        writer.seal().expect("sealed");
    }
    let first = if foreign { vec![] } else { vec![(vda(), base_name)] };
    directory.add_point(point(0), &first).expect("a point");
    let mut contents = BTreeMap::from([(0, content.clone())]);
    for ordinal in 1..=layers {
        add_layer(&mut directory, ordinal, &mut contents);
    }
    World { _root: root, directory, contents }
}

fn add_layer(directory: &mut ReplicaDirectory, ordinal: u64, contents: &mut BTreeMap<u64, Vec<u8>>) {
    let mut content = contents[&(ordinal - 1)].clone();
    let layer = ReplicaDirectory::layer_name(ordinal, point(ordinal).id);
    let spec = directory.next_layer(&vda()).expect("a spec");
    let mut writer = LayerWriter::create(&directory.disk_folder(&vda()), &layer, spec).expect("a writer");
    let data = pattern(ordinal as u8 * 16, 3 * CLUSTER);
    let at = ordinal * 2 * CLUSTER;
    writer.write(at, &data).expect("a write");
    content[at as usize..][..data.len()].copy_from_slice(&data);
    let zero_at = at + 4 * CLUSTER;
    writer.zero(zero_at, 2 * CLUSTER).expect("zeroes");
    content[zero_at as usize..(zero_at + 2 * CLUSTER) as usize].fill(0);
    writer.seal().expect("sealed");
    directory.add_point(point(ordinal), &[(vda(), layer)]).expect("a point");
    contents.insert(ordinal, content);
}

/// Every point of the manifest reads as the disk was, and the chain is what the manifest says.
fn assert_every_point_starts(directory: &ReplicaDirectory, contents: &BTreeMap<u64, Vec<u8>>) {
    let folder = directory.disk_folder(&vda());
    for point in &directory.manifest().points {
        let file = folder.join(&point.files[&vda()]);
        assert_content(&file, &contents[&point.point.ordinal]);
    }
    let head = directory.manifest().disks[0].head().resolve(&folder);
    let (newest, _) = contents.last_key_value().expect("there are points");
    assert_content(&head, &contents[newest]);
}

fn copy_tree(from: &Path, to: &Path) {
    run(&["cp", "-a", text(from), text(to)]);
}

#[test]
fn a_point_is_a_file_that_reads_as_the_disk_was_then() {
    let world = world(4, false);
    assert_every_point_starts(&world.directory, &world.contents);
    world.directory.check_chain(&vda()).expect("the chain fits the manifest");
    assert!(world.directory.leftovers().expect("listed").is_empty());
    let reopened = ReplicaDirectory::open(world.directory.path()).expect("opened");
    assert_eq!(reopened.manifest(), world.directory.manifest());
}

/// Points that stay, and how far the layers are merged: to the base, and in the middle of the chain.
const FOLDS: [(u64, &[u64], Scope, bool, usize); 7] = [
    (3, &[], Scope::BelowHead, false, 1),
    (2, &[], Scope::All, false, 0),
    (1, &[], Scope::All, true, 0),
    (3, &[], Scope::All, true, 0),
    (5, &[0, 1], Scope::BelowHead, false, 3),
    (5, &[0, 2], Scope::All, false, 2),
    (5, &[1, 3], Scope::BelowHead, true, 3),
];

#[test]
fn a_crash_after_every_sub_step_of_a_fold_leaves_points_that_start_and_a_fold_that_ends() {
    cov_mark::check!(a_fold_finds_a_rebase_that_was_not_recorded);
    cov_mark::check!(a_fold_finds_files_that_were_not_deleted);
    let none = HashSet::new();
    for (layers, kept, scope, foreign, left) in FOLDS {
        let World { _root: root, mut directory, contents } = world(layers, foreign);
        let path = directory.path().to_owned();
        let kept: Vec<_> = kept.iter().map(|ordinal| point(*ordinal).id).collect();
        directory.forget_points(|id| kept.contains(&id)).expect("forgotten");
        let mut steps = 0;
        loop {
            // A fresh object each time: nothing is remembered over a crash but what is on disk. Since a commit
            // leaves no trace of its own, every second step follows in the same run.
            let mut fold = directory.begin_fold(&vda(), scope, &none).expect("a fold");
            let first = fold.step().expect("a step");
            if first.is_none() {
                break;
            }
            drop(fold);
            directory = ReplicaDirectory::open(&path).expect("opened");
            assert_every_point_starts(&directory, &contents);
            let fold = directory.begin_fold(&vda(), scope, &none).expect("a fold");
            if let Some(FoldStep::Commit(merge)) = &first {
                assert_eq!(fold.next().expect("a step"), first, "a commit that was cut is repeated");
                let mut fold = fold.after(Some(merge.clone()));
                fold.step().expect("the step after the commit");
            }
            directory = ReplicaDirectory::open(&path).expect("opened");
            assert_every_point_starts(&directory, &contents);
            steps += 1;
            assert!(steps < 40, "the fold does not end");
        }
        assert_eq!(directory.manifest().points.len(), kept.len() + 1);
        assert_eq!(directory.manifest().disks[0].layers.len(), left);
        directory.check_chain(&vda()).expect("the chain fits");
        assert!(directory.leftovers().expect("listed").is_empty());
        let disk = &directory.manifest().disks[0];
        let layers = disk.layers.iter().map(Backing::beside);
        for file in layers.chain([disk.base.clone()]) {
            let file = file.resolve(&directory.disk_folder(&vda()));
            run(&["qemu-img", "check", "-q", text(&file)]);
        }
        drop(root);
    }
}

#[test]
fn a_delta_may_arrive_while_layers_are_merged() {
    let none = HashSet::new();
    let World { _root: root, mut directory, mut contents } = world(3, false);
    directory.forget_points(|id| id == point(1).id).expect("forgotten");
    let steps = |directory: &mut ReplicaDirectory, committed| {
        let mut fold = directory.begin_fold(&vda(), Scope::All, &none).expect("a fold").after(committed);
        while !matches!(fold.next().expect("a step"), None | Some(FoldStep::Commit(_))) {
            fold.step().expect("a step");
        }
        fold.next().expect("a step")
    };
    let mut committed = None;
    let mut ordinal = 3;
    while let Some(FoldStep::Commit(merge)) = steps(&mut directory, committed.take()) {
        assert!(matches!(directory.commit(&merge, &|| true), Ok(()) | Err(LayerError::GaveWay { .. })));
        directory.commit(&merge, &|| false).expect("merged");
        committed = Some(merge);
        if ordinal < 5 {
            ordinal += 1;
            add_layer(&mut directory, ordinal, &mut contents);
        }
    }
    assert_every_point_starts(&directory, &contents);
    directory.check_chain(&vda()).expect("the chain fits");
    assert_eq!(directory.manifest().disks[0].layers.len(), 3, "one for each of the points 3, 4 and 5");
    drop(root);
}

#[test]
fn what_is_pinned_is_not_touched() {
    let World { _root: root, mut directory, contents } = world(6, false);
    let pinned = HashSet::from([point(2).id]);
    let folder = directory.disk_folder(&vda());
    let files = |directory: &ReplicaDirectory| {
        let disk = &directory.manifest().disks[0];
        let names = [disk.base.file().to_owned(), disk.layers[0].to_string(), disk.layers[1].to_string()];
        names.map(|name| std::fs::read(folder.join(name)).expect("a file"))
    };
    let before = files(&directory);
    directory.forget_points(|id| pinned.contains(&id)).expect("forgotten");
    directory.fold(&vda(), Scope::All, &pinned).expect("folded");
    assert_eq!(directory.manifest().disks[0].layers.len(), 3);
    assert!(files(&directory) == before, "a pinned file changed");
    assert_every_point_starts(&directory, &contents);
    directory.fold(&vda(), Scope::All, &HashSet::new()).expect("folded");
    assert_eq!(directory.manifest().disks[0].layers.len(), 1);
    assert_every_point_starts(&directory, &contents);
    drop(root);
}

#[test]
fn a_power_cut_between_the_writes_of_a_fold_is_survived() {
    let World { _root: root, mut directory, contents } = world(2, false);
    let path = directory.path().to_owned();
    let storage = path.parent().expect("storage").to_owned();
    // What is on disk after each step is copied aside, then a new run finishes each copy.
    let mut copies = Vec::new();
    let none = HashSet::new();
    directory.forget_points(|_| false).expect("forgotten");
    let mut fold = directory.begin_fold(&vda(), Scope::BelowHead, &none).expect("a fold");
    while let Some(step) = fold.step().expect("a step") {
        let copy = storage.join(format!("copy{}", copies.len()));
        copy_tree(&path, &copy);
        copies.push((step, copy));
    }
    let kinds: Vec<_> = copies.iter().map(|(step, _)| std::mem::discriminant(step)).collect();
    assert_eq!(kinds.len(), 4, "{copies:?}");
    for (step, copy) in copies {
        let mut directory = ReplicaDirectory::open(&copy).expect("opened");
        assert_every_point_starts(&directory, &contents);
        keep_newest(&mut directory, &vda(), Scope::BelowHead).expect("folded");
        assert_every_point_starts(&directory, &contents);
        assert_eq!(directory.manifest().points.len(), 1, "after {step:?}");
        directory.check_chain(&vda()).expect("the chain fits");
    }
    drop(root);
}

#[test]
fn a_fold_grows_the_base_with_the_disk() {
    let World { _root: root, mut directory, .. } = world(0, false);
    let grown = SIZE + 7 * CLUSTER;
    directory.update(|manifest| manifest.disks[0].virtual_size = grown).expect("updated");
    let spec = directory.next_layer(&vda()).expect("a spec");
    let mut writer =
        LayerWriter::create(&directory.disk_folder(&vda()), &name("1.qcow2"), spec).expect("a writer");
    let end = SIZE.next_multiple_of(CLUSTER);
    writer.write(end, &pattern(5, CLUSTER)).expect("a write in the new part");
    writer.seal().expect("sealed");
    directory.add_point(point(1), &[(vda(), name("1.qcow2"))]).expect("a point");
    keep_newest(&mut directory, &vda(), Scope::All).expect("folded");
    let mut content = pattern(1, SIZE);
    content.resize(grown as usize, 0);
    content[end as usize..][..CLUSTER as usize].copy_from_slice(&pattern(5, CLUSTER));
    assert_reads_as(&directory.disk_folder(&vda()).join("base.qcow2"), &content);
    drop(root);
}

#[test]
fn layers_are_not_folded_below_an_active_overlay() {
    let mut world = world(1, false);
    world.directory.expect_no_active().expect("untouched");
    let active = world.directory.create_active(&vda()).expect("an overlay");
    world.directory.create_active(&vda()).expect("a repetition is harmless");
    assert!(matches!(world.directory.expect_no_active(), Err(LayerError::Active(found)) if found == active));
    assert!(matches!(keep_newest(&mut world.directory, &vda(), Scope::All), Err(LayerError::Active(_))));
    std::fs::remove_file(active).expect("removed");
    keep_newest(&mut world.directory, &vda(), Scope::All).expect("folded");
}

#[test]
fn what_the_vm_wrote_while_it_was_primary_becomes_the_newest_layer() {
    let mut world = world(1, false);
    let active = world.directory.create_active(&vda()).expect("an overlay");
    run(&["qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 0 64k", text(&active)]);
    run(&["qemu-img", "bitmap", "--add", "-f", "qcow2", "--", text(&active), "-odd name"]);
    assert_eq!(list_bitmaps(&active).expect("listed")[0].name, "-odd name");
    world.directory.adopt_active(&vda(), &name("2-adopted.qcow2")).expect("adopted");
    world.directory.adopt_active(&vda(), &name("2-adopted.qcow2")).expect("a repetition is harmless");
    let layer = world.directory.disk_folder(&vda()).join("2-adopted.qcow2");
    remove_bitmap(&layer, "-odd name").expect("removed");
    remove_bitmap(&layer, "-odd name").expect("a repetition is harmless");
    assert!(list_bitmaps(&layer).expect("listed").is_empty());
    world.directory.check_chain(&vda()).expect("the chain fits");
    let mut content = world.contents[&1].clone();
    content[..65536].fill(0x5a);
    // Until it is a point, nothing is merged into the newest one.
    keep_newest(&mut world.directory, &vda(), Scope::All).expect("folded");
    world.directory.add_point(point(2), &[(vda(), name("2-adopted.qcow2"))]).expect("a point");
    // QEMU has written this header, so the change of its backing file goes through qemu-img.
    keep_newest(&mut world.directory, &vda(), Scope::BelowHead).expect("folded");
    assert_reads_as(&layer, &content);
    keep_newest(&mut world.directory, &vda(), Scope::All).expect("folded");
    assert_reads_as(&world.directory.disk_folder(&vda()).join("base.qcow2"), &content);
}

#[test]
fn the_backing_file_changes_to_names_of_any_length_and_back() {
    let world = world(1, false);
    let folder = world.directory.disk_folder(&vda());
    let layer = folder.join(world.directory.manifest().disks[0].layers[0].as_str());
    let long = format!("/{}", "long name/".repeat(102));
    for file in [long.as_str(), "x.qcow2", &long, "base.qcow2", "base.qcow2"] {
        let backing = Backing::new(file, BackingFormat::Qcow2).expect("a backing file");
        set_backing(&layer, &backing).expect("changed");
        let info = layer::inspect(&layer, layer::Gate::Ours(Some(&backing))).expect("accepted");
        assert_eq!(info.backing.as_deref(), Some(file));
    }
    assert_reads_as(&layer, &world.contents[&1]);
}

#[test]
fn a_chain_is_followed_to_its_end_and_a_circle_is_noticed() {
    let world = world(2, true);
    let folder = world.directory.disk_folder(&vda());
    let disk = &world.directory.manifest().disks[0];
    let head = disk.head().resolve(&folder);
    let links = chain_check(&head).expect("a chain");
    assert_eq!(links.len(), 3);
    assert!(links[2].path.ends_with("users own disk.qcow2"));
    for link in &links {
        let report = check_image(&link.path).expect("checked");
        assert_eq!((report.corruptions, report.leaks), (0, 0));
    }
    let first = folder.join(disk.layers[0].as_str());
    set_backing(&first, &disk.head()).expect("a circle");
    assert!(matches!(chain_check(&head), Err(LayerError::ChainLength { .. })));
    assert!(world.directory.check_chain(&vda()).is_err());
}

#[test]
fn a_layer_is_committed_only_into_the_file_that_it_stands_on() {
    let world = world(2, false);
    let folder = world.directory.disk_folder(&vda());
    let second = folder.join(world.directory.manifest().disks[0].layers[1].as_str());
    let refused = commit_into_base(&second, &folder.join("base.qcow2"));
    assert!(matches!(refused, Err(LayerError::ChainDiffers { .. })), "{refused:?}");
}

#[test]
fn an_image_that_another_process_writes_is_in_use_not_broken() {
    let world = world(1, false);
    let folder = world.directory.disk_folder(&vda());
    let base = folder.join("base.qcow2");
    let mut holder = Command::new("qemu-io")
        .args(["-f", "qcow2", text(&base)])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("qemu-io starts");
    // Its prompt tells that the image is open.
    use std::io::Read;
    holder.stdout.as_mut().expect("piped").read_exact(&mut [0; 1]).expect("a prompt");
    let layer = folder.join(world.directory.manifest().disks[0].layers[0].as_str());
    let refused = commit_into_base(&layer, &base);
    assert!(matches!(&refused, Err(error) if error.is_transient()), "{refused:?}");
    drop(holder.stdin.take());
    holder.wait().expect("qemu-io ends");
    commit_into_base(&layer, &base).expect("committed");
}

#[test]
fn a_damaged_or_newer_manifest_is_refused_and_never_overwritten_by_opening() {
    let world = world(0, false);
    let path = world.directory.path().join("manifest.json");
    let text = fs::read_to_string(&path).expect("a manifest");
    for damaged in [
        text[..text.len() / 2].to_owned(),
        text.replace("\"version\": 1", "\"version\": 2"),
        text.replace("\"target\": \"vda\"", "\"target\": \"../x\""),
        text.replace("\"base\": \"base.qcow2\"", "\"base\": \"nbd://host/x\""),
        String::new(),
    ] {
        fs::write(&path, &damaged).expect("written");
        let refused = ReplicaDirectory::open(world.directory.path());
        assert!(matches!(refused, Err(LayerError::Manifest { .. })), "{damaged}");
        assert_eq!(fs::read_to_string(&path).expect("a manifest"), damaged);
    }
}

#[test]
fn storage_without_its_marker_is_refused() {
    let root = tempfile::tempdir().expect("a folder");
    assert!(matches!(Storage::open(root.path()), Err(LayerError::NoStorageMarker(_))));
    Storage::initialise(root.path()).expect("initialised");
    Storage::initialise(root.path()).expect("a repetition is harmless");
    let world = world(1, false);
    let link = root.path().join("link");
    std::os::unix::fs::symlink(world._root.path(), &link).expect("symlink");
    let storage = Storage::open(&link).expect("the administrator's own symlink is followed");
    assert_eq!(storage.replicas().expect("listed"), [world.directory.path()]);
    assert!(storage.free_bytes().expect("asked") > 0);
}

#[test]
fn creating_again_opens_and_removing_spares_what_is_not_ours() {
    let World { _root: root, directory, .. } = world(1, true);
    let storage = Storage::open(root.path()).expect("storage");
    let again = ReplicaDirectory::create(&storage, directory.manifest().clone()).expect("opened");
    assert_eq!(again.manifest(), directory.manifest());
    let path = directory.path().to_owned();
    fs::write(path.join("vda/notes.txt"), "mine").expect("written");
    assert_eq!(directory.leftovers().expect("listed"), [path.join("vda/notes.txt")]);
    directory.remove().expect("removed");
    assert_eq!(fs::read_to_string(path.join("vda/notes.txt")).expect("still there"), "mine");
    assert!(root.path().join("users own disk.qcow2").exists());
    again.remove().expect("a repetition is harmless");
}

#[test]
fn files_are_for_their_owner_and_group_and_folders_can_be_passed() {
    use std::os::unix::fs::PermissionsExt;
    let world = world(1, false);
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    let folder = world.directory.disk_folder(&vda());
    assert_eq!(mode(&folder.join("base.qcow2")), 0o640);
    assert_eq!(mode(&folder), 0o751);
    assert_eq!(mode(world.directory.path()), 0o751);
}

#[test]
fn a_throw_away_copy_of_any_point_starts_there_and_leaves_nothing_behind() {
    for foreign in [false, true] {
        let world = world(3, foreign);
        let before: Vec<_> = files(world.directory.path());
        for listed in &world.directory.manifest().points {
            let name = name(&format!("copy-{}", listed.point.ordinal));
            let disks = world.directory.create_throwaway(&name, listed.point.id).expect("a copy");
            assert_eq!(disks.len(), 1);
            assert_reads_as(&disks[0].1, &world.contents[&listed.point.ordinal]);
            // What the copy writes is its own.
            let file = text(&disks[0].1);
            run(&["qemu-io", "-f", "qcow2", "-c", "write -P 0x77 0 64k", file]);
        }
        for listed in &world.directory.manifest().points {
            let name = name(&format!("copy-{}", listed.point.ordinal));
            world.directory.remove_throwaway(&name).expect("removed");
            world.directory.remove_throwaway(&name).expect("repeated");
        }
        assert_eq!(files(world.directory.path()), before);
        let unknown = PointId(uuid::Uuid::from_u128(4711));
        let refused = world.directory.create_throwaway(&name("copy"), unknown);
        assert!(matches!(refused, Err(LayerError::NoSuchPoint { .. })), "{refused:?}");
    }
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(path).expect("read")));
        }
    }
    found.sort();
    found
}

/// Writes into an overlay as a guest does, through QEMU.
fn write_through(overlay: &Path, offset: u64, byte: u8) {
    let command = format!("write -P {byte} {offset} 4096");
    run(&["qemu-io", "-f", "qcow2", "-c", &command, text(overlay)]);
}

#[test]
fn a_failover_changes_no_point_and_what_was_written_stands_alone_afterwards() {
    let World { _root, directory, contents } = world(4, false);
    let before = directory.manifest().clone();
    let overlay = directory.create_active_at(&vda(), point(2).id).expect("an overlay");
    assert_content(&overlay, &contents[&2]);
    assert_eq!(directory.create_active_at(&vda(), point(2).id).expect("again"), overlay);
    write_through(&overlay, 7 * CLUSTER, 0xAB);
    write_through(&overlay, 12 * CLUSTER, 0xCD);
    for _ in 0..2 {
        directory.set_active_aside(&vda(), Timestamp(1234)).expect("set aside");
        assert!(!overlay.exists());
        let kept = directory.diverged().expect("listed");
        assert_eq!(kept.len(), 1);
        assert_eq!((kept[0].at, kept[0].bytes, kept[0].pieces), (Timestamp(1234), 2 * CLUSTER, 2));
        let info = layer::inspect(&kept[0].path, layer::Gate::Foreign).expect("an image");
        assert_eq!(info.backing, None, "it stands on nothing");
        run(&[
            "qemu-io",
            "-r",
            "-f",
            "qcow2",
            "-c",
            &format!("read -P 171 {} 4096", 7 * CLUSTER),
            text(&kept[0].path),
        ]);
    }
    assert_eq!(directory.manifest(), &before);
    assert_every_point_starts(&directory, &contents);
    assert_eq!(directory.remove_diverged(Timestamp(1)).expect("removed"), 0);
    assert_eq!(directory.remove_diverged(Timestamp(1234)).expect("removed"), 1);
    assert!(directory.diverged().expect("listed").is_empty());
}

/// What stands in the manifest, or is asked for, and what the VM stands on are two things.
#[test]
fn nothing_is_given_up_or_merged_that_the_vm_does_not_stand_on_as_expected() {
    for foreign in [false, true] {
        let World { _root, mut directory, contents } = world(4, foreign);
        let overlay = directory.create_active_at(&vda(), point(2).id).expect("an overlay");
        let before = directory.manifest().clone();
        let elsewhere =
            |refused: &layer::LayerError| matches!(refused, layer::LayerError::StandsElsewhere { .. });
        for wrong in [1, 3] {
            let refused = directory.give_up_after(point(wrong).id).expect_err("the VM stands on another");
            assert!(elsewhere(&refused), "{refused}");
        }
        let refused = directory.to_merge(&vda()).expect_err("the newest layer is not below the VM");
        assert!(elsewhere(&refused), "{refused}");
        let refused = directory.keep_only(point(9).id).expect_err("nobody knows it");
        assert!(matches!(refused, layer::LayerError::NoSuchPoint { .. }), "{refused}");
        assert_eq!(directory.manifest(), &before);
        assert_every_point_starts(&directory, &contents);
        assert_content(&overlay, &contents[&2]);
    }
}

#[test]
fn a_failover_that_is_final_keeps_one_point_and_ends_on_one_file() {
    for foreign in [false, true] {
        let World { _root, mut directory, mut contents } = world(4, foreign);
        let overlay = directory.create_active_at(&vda(), point(2).id).expect("an overlay");
        for _ in 0..2 {
            directory.give_up_after(point(2).id).expect("given up");
        }
        contents.retain(|ordinal, _| *ordinal <= 2);
        assert_every_point_starts(&directory, &contents);
        assert!(directory.leftovers().expect("listed").is_empty(), "no file of a point that was given up");

        directory.keep_only(point(2).id).expect("kept");
        let (top, base) = directory.to_merge(&vda()).expect("looked").expect("two layers");
        // As QEMU does it below a VM: the data, then what the overlay stands on.
        run(&["qemu-img", "commit", "-q", "-d", "-f", "qcow2", "-b", text(&base), text(&top)]);
        run(&["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&overlay)]);
        assert_eq!(directory.to_merge(&vda()).expect("looked"), None);
        for _ in 0..2 {
            directory.layers_are_merged(&vda()).expect("noted");
        }
        contents.retain(|ordinal, _| *ordinal == 2);
        assert_every_point_starts(&directory, &contents);
        assert_content(&overlay, &contents[&2]);
        assert!(directory.leftovers().expect("listed").is_empty());
    }
}

#[test]
fn what_was_set_aside_of_a_disk_that_went_is_listed_until_a_person_removes_it() {
    let World { _root, mut directory, .. } = world(2, false);
    let overlay = directory.create_active_at(&vda(), point(2).id).expect("an overlay");
    write_through(&overlay, 7 * CLUSTER, 0xAB);
    directory.set_active_aside(&vda(), Timestamp(1234)).expect("set aside");
    directory
        .update(|manifest| {
            manifest.have_disks(&[]);
            manifest.points.clear();
        })
        .expect("the disk is gone, and every point that had it");
    assert_eq!(directory.drop_retired().expect("dropped"), [vda()]);
    let kept = directory.diverged().expect("listed");
    assert_eq!((kept.len(), kept[0].bytes, kept[0].path.exists()), (1, CLUSTER, true));
    assert_eq!(directory.remove_diverged(Timestamp(1234)).expect("removed"), 1);
    assert!(directory.diverged().expect("listed").is_empty() && !directory.disk_folder(&vda()).exists());
}

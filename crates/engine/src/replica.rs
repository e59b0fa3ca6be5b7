//! A replica on this host's disk: its directory, its definition, and the ways in and out of being primary.

use std::path::{Path, PathBuf};

use domain::{Attachment, DiskTarget, Phase, PointId, RecoveryPoint, RelationshipId, vm_argument};
use hypervisor::{Firmware, Placement, VmFacts};
use layer::{Backing, BackingFormat, Manifest, ManifestDisk, ManifestPoint, ReplicaDirectory, Storage};
use store::Record;
use tokio::time::Instant;

use crate::compare::serve;
use crate::seed::{self, Seed};
use crate::source::{checkpoint_name, own_checkpoints, source_file};
use crate::{Code, Engine, Refusal, Result, attachments, blocking, chain, visible};

/// The directory of a relationship on this host.
pub(crate) fn directory(record: &Record) -> Result<ReplicaDirectory> {
    let path = record.directory.as_ref().ok_or_else(|| {
        Refusal::new(Code::Failed, "this host has no replica directory for the VM", "virt-replica show")
    })?;
    ReplicaDirectory::open(path).map_err(Refusal::from)
}

/// Points that the manifest lists and the store does not know become known: they were sealed, and only the last word of a
/// delta was cut off. The manifest is never behind the store.
pub(crate) fn catch_up(engine: &Engine, record: &Record) -> Result<()> {
    let id = record.relationship.id;
    if record.relationship.phase != Phase::Receiving || record.directory.is_none() {
        return Ok(());
    }
    let known = engine.store().points(id).map_err(Refusal::failed)?;
    let newest = known.last().map_or(0, |point| point.ordinal);
    for listed in &directory(record)?.manifest().points {
        if listed.point.ordinal > newest {
            tracing::info!(point = %listed.point.id, "sealed before a crash; it counts");
            engine.store().add_point(id, &listed.point, listed.point.instant).map_err(Refusal::failed)?;
        }
    }
    Ok(())
}

/// What a replica's manifest tells a person to type is what this version knows, also where nothing else changes it for months.
pub(crate) async fn renew_instructions(engine: &Engine, id: RelationshipId) {
    let slot = engine.slot(id);
    let _alone = slot.replica.lock().await;
    // A replica that cannot be read is told of by whoever needs it.
    let Some(directory) = engine.record(id).ok().and_then(|record| directory(&record).ok()) else { return };
    let renewed = blocking(move || directory.renew_instructions().map_err(Refusal::from)).await;
    if let Err(error) = renewed {
        tracing::warn!(relationship = %id, %error, "the manifest keeps its older instructions");
    }
}

/// The recovery point that is meant (none: the newest), if this host has it whole.
pub(crate) fn point(record: &Record, asked: Option<PointId>) -> Result<RecoveryPoint> {
    let directory = directory(record)?;
    let points = &directory.manifest().points;
    let found = match asked {
        None => points.last(),
        Some(asked) => points.iter().find(|listed| listed.point.id == asked),
    };
    let found = found.map(|listed| listed.point.clone());
    found.ok_or_else(|| match asked {
        None => {
            let cure = format!(
                "wait for the first one: virt-replica wait {}",
                vm_argument(&record.relationship.vm_name)
            );
            Refusal::new(Code::Refused, "there is no complete recovery point yet", cure)
        }
        Some(asked) => {
            let known: Vec<String> = points.iter().map(|listed| listed.point.id.to_string()).collect();
            let cure = format!("choose one that is there: {}", known.join(", "));
            Refusal::new(Code::NotFound, format!("recovery point {asked} is not on this host"), cure)
        }
    })
}

/// Nobody has started the VM from the files of this replica: an overlay that lies there would be started from instead of the
/// recovery point.
pub(crate) fn expect_untouched(record: &Record) -> Result<()> {
    directory(record)?.expect_no_active().map_err(|error| {
        let found = format!("somebody started the VM from the replica's files: {error}");
        Refusal::new(
            Code::Refused,
            found,
            "keep what was written there under another name: mv FILE FILE.kept",
        )
    })
}

/// The storage of this host; made at the first start, afterwards it must carry its marker.
pub(crate) fn storage(engine: &Engine) -> Result<Storage> {
    Storage::open(&engine.config().storage).map_err(|error| {
        let cure = format!("mount the file system of {}", engine.config().storage.display());
        Refusal::new(Code::Refused, error.to_string(), cure)
    })
}

/// Deletes a replica with all its files.
pub(crate) fn delete(directory: ReplicaDirectory) -> Result<()> {
    seed::forget(&directory)?;
    directory.remove().map_err(Refusal::failed)
}

/// The definition under which the replica is visible and cannot start: its disks are overlays that do not exist.
pub(crate) async fn replica_definition(
    engine: &Engine,
    record: &Record,
    directory: &ReplicaDirectory,
    definition: &str,
) -> Result<String> {
    let active = |target: &DiskTarget| (target.clone(), directory.active_path(target));
    let disks = record.relationship.settings.disks.iter().map(|(target, _)| active(target)).collect();
    place(engine, record, directory, (definition, None), disks).await
}

/// `at`: the point with whose UEFI variables it starts; none: those that came last.
async fn place(
    engine: &Engine,
    record: &Record,
    directory: &ReplicaDirectory,
    (definition, at): (&str, Option<PointId>),
    disks: Vec<(DiskTarget, PathBuf)>,
) -> Result<String> {
    let settings = record.relationship.settings.clone();
    let (definition, local_definition) = (definition.to_owned(), record.home_definition.clone());
    let vm = record.relationship.vm;
    let has_nvram = directory.read_attachment(Attachment::Nvram, at).map_err(Refusal::failed)?.is_some();
    // The guest writes to it: that of the recovery points stays as it is.
    let nvram = directory.active_nvram_path();
    engine
        .hypervisor(move |it| {
            let facts = it.read_definition(&definition)?;
            let home = local_definition.as_deref().and_then(|xml| it.read_definition(xml).ok());
            let home_nvram = home.and_then(|home| match home.firmware {
                Firmware::Uefi { nvram, .. } => nvram,
                Firmware::Bios => None,
            });
            let mapped = |name: &String| (name.clone(), settings.network_on_peer(name).to_owned());
            // There is no copy of it (it is newer than the point), and the VM must start without.
            let known = |target: &DiskTarget| disks.iter().any(|(known, _)| known == target);
            let strangers =
                facts.disks.iter().map(|disk| disk.target.clone()).filter(|it| !known(it)).collect();
            let networks = facts.nics.iter().map(|nic| mapped(&nic.source)).collect();
            let nvram = home_nvram.or(has_nvram.then_some(nvram));
            it.place_definition(
                &definition,
                &Placement { vm, disks, strangers, networks, nvram, local_definition },
            )
        })
        .await
}

/// Refused while anything of this relationship lies in the storage: a new one has nothing here. Whoever asks for one again must not get
/// what a person kept, nor a directory whose bases are the disks of a VM of this host.
pub(crate) fn expect_nothing_of(engine: &Engine, id: RelationshipId) -> Result<()> {
    match storage(engine)?.of_relationship(id).map_err(Refusal::failed)? {
        None => Ok(()),
        Some(path) => {
            tracing::warn!(path = %path.display(), "a peer asks for a relationship of which something lies here");
            let found = format!("files of relationship {id} lie on the replica server already");
            let cure = "enable again on the primary server, which makes a relationship of another id";
            Err(Refusal::new(Code::Refused, found, cure))
        }
    }
}

/// Makes the directory of a new replica and shows the VM, shut off and not startable, in libvirt. On failure nothing of it stays.
pub(crate) async fn create(
    engine: &Engine,
    record: &Record,
    definition: &str,
    sizes: Vec<(DiskTarget, u64)>,
    seeds: Vec<Seed>,
) -> Result<PathBuf> {
    let relationship = record.relationship.clone();
    let storage = storage(engine)?;
    let wanted = seeds.clone();
    let directory = blocking(move || {
        let disk = |(target, virtual_size)| {
            let seeded = wanted.iter().any(|(seeded, _)| *seeded == target);
            let base = if seeded { ReplicaDirectory::seed_name() } else { ReplicaDirectory::base_name() };
            let base = Backing::beside(&base);
            ManifestDisk::on(target, virtual_size, base)
        };
        let manifest = Manifest {
            vm_name: relationship.vm_name.clone(),
            vm: relationship.vm,
            relationship: relationship.id,
            disks: sizes.into_iter().map(disk).collect(),
            points: Vec::new(),
            autostart: false,
        };
        ReplicaDirectory::create_new(&storage, manifest).map_err(Refusal::failed)
    })
    .await?;
    let path = directory.path().to_owned();
    let filled = fill(engine, record, directory, definition, seeds).await;
    if let Err(error) = filled {
        // Only what was made here just now.
        if let Ok(half_made) = ReplicaDirectory::open(&path) {
            delete(half_made)?;
        }
        return Err(error);
    }
    Ok(path)
}

async fn fill(
    engine: &Engine,
    record: &Record,
    directory: ReplicaDirectory,
    definition: &str,
    seeds: Vec<Seed>,
) -> Result<()> {
    let replicated: Vec<_> = record.relationship.settings.replicated_disks().cloned().collect();
    let directory = blocking(move || {
        seed::want(&directory, &seeds)?;
        // An excluded disk is there, empty, so that the VM starts.
        for disk in directory.manifest().disks.iter().filter(|disk| !replicated.contains(&disk.target)) {
            let folder = directory.disk_folder(&disk.target);
            if !folder.join(ReplicaDirectory::base_name().as_str()).exists() {
                layer::discard(&folder, &ReplicaDirectory::base_name()).map_err(Refusal::failed)?;
                let spec = directory.first_layer(&disk.target, disk.virtual_size);
                let writer = layer::LayerWriter::create(&folder, &ReplicaDirectory::base_name(), spec);
                writer.and_then(layer::LayerWriter::seal).map_err(Refusal::failed)?;
            }
        }
        Ok(directory)
    })
    .await?;
    let placed = replica_definition(engine, record, &directory, definition).await?;
    directory.write_definition(&placed).map_err(Refusal::failed)?;
    directory.write_primary_definition(definition).map_err(Refusal::failed)?;
    visible::define(engine, record.relationship.vm, placed).await
}

/// The VM's disks on this host when it is primary: at home its own files, elsewhere overlays over the head.
async fn primary_disks(record: &Record) -> Result<Vec<(DiskTarget, PathBuf)>> {
    if let Phase::FailedOver { point, .. } = record.relationship.phase {
        // Every file below stays as it is: this may be taken back.
        return overlays_at(record, point).await;
    }
    if record.home_definition.is_some() {
        chain::merge_all(record).await?;
    }
    let (directory, at_home) = (directory(record)?, record.home_definition.is_some());
    blocking(move || {
        let disks = directory.manifest().current_disks().map(|disk| {
            let path = if at_home {
                disk.base.resolve(&directory.disk_folder(&disk.target))
            } else {
                directory.create_active(&disk.target).map_err(Refusal::failed)?
            };
            Ok((disk.target.clone(), path))
        });
        disks.collect()
    })
    .await
}

async fn overlays_at(record: &Record, point: PointId) -> Result<Vec<(DiskTarget, PathBuf)>> {
    let directory = directory(record)?;
    blocking(move || {
        let overlay = |target: DiskTarget| {
            let path = directory.create_active_at(&target, point).map_err(Refusal::failed)?;
            Ok((target, path))
        };
        directory.disks_at(point).map_err(Refusal::failed)?.into_iter().map(overlay).collect()
    })
    .await
}

/// Starts the VM here, tracked from its first write; `start` false: defines it, tracked as well, and leaves it off.
pub(crate) async fn promote(engine: &Engine, record: &Record, head: PointId, start: bool) -> Result<String> {
    let begun = Instant::now();
    let slot = engine.slot(record.relationship.id);
    let _alone = slot.replica.lock().await;
    serve::close(&slot).await;
    let _files = slot.chain.hold().await;
    let vm = record.relationship.vm;
    let state = engine.hypervisor(move |it| it.vm_state(vm)).await?;
    let name = checkpoint_name(head);
    if !state.is_some_and(hypervisor::VmState::is_active) {
        define_primary(engine, record, primary_disks(record).await?, Some(head)).await?;
        if start {
            engine.hypervisor_in_time("start the VM", move |it| it.start(vm, true)).await?;
        }
    }
    // A VM that runs already passed here before; paused, it may not have its checkpoint yet.
    let state = engine.hypervisor(move |it| it.vm_state(vm)).await?;
    let tracked = own_checkpoints(engine, vm).await?.contains(&head);
    // At an older point it may have fewer.
    let facts = engine.hypervisor(move |it| it.vm(vm)).await?;
    let has = |target: &&DiskTarget| {
        facts.as_ref().is_some_and(|facts| facts.disks.iter().any(|disk| disk.target == **target))
    };
    let disks: Vec<DiskTarget> =
        record.relationship.settings.replicated_disks().filter(has).cloned().collect();
    match state {
        Some(hypervisor::VmState::Running) => Ok("the VM runs".into()),
        Some(hypervisor::VmState::Paused) => {
            let paused = begun.elapsed();
            if !tracked {
                engine.hypervisor(move |it| it.create_checkpoint(vm, &name, &disks)).await?;
            }
            let tracked = begun.elapsed();
            engine.hypervisor(move |it| it.resume(vm)).await?;
            let (paused, tracked) = (paused.as_secs_f32(), (tracked - paused).as_secs_f32());
            Ok(format!("started paused in {paused:.1} s, tracked in {tracked:.1} s, resumed"))
        }
        _ => {
            if !tracked {
                engine.hypervisor(move |it| it.create_checkpoint_offline(vm, &name, &disks)).await?;
            }
            Ok("defined and tracked, left off".into())
        }
    }
}

/// An id that no point has, the same at each repetition: of what a primary of this epoch wrote.
fn beside(id: RelationshipId, epoch: domain::Epoch) -> PointId {
    PointId(uuid::Uuid::from_u128(id.0.as_u128() ^ u128::from(epoch.number())))
}

/// The VM, which is off, becomes a replica of this host: its files are the common base, its definition names overlays that
/// do not exist. Gives the directory. Repeating it, also after a crash in the middle, is fine. `is_whole`: what the files hold is
/// `head`; otherwise they hold more, and it is not offered as a recovery point.
pub(crate) async fn demote(
    engine: &Engine,
    record: &Record,
    head: &RecoveryPoint,
    is_whole: bool,
) -> Result<PathBuf> {
    let slot = engine.slot(record.relationship.id);
    let _alone = slot.replica.lock().await;
    let _files = slot.chain.hold().await;
    let (id, vm) = (record.relationship.id, record.relationship.vm);
    let facts = engine.hypervisor(move |it| it.vm(vm)).await?;
    let facts = facts.ok_or_else(|| Refusal::failed("the VM is not defined here any more"))?;
    if facts.state.is_active() {
        let cure = format!("virsh shutdown {}", vm_argument(&facts.name));
        return Err(Refusal::new(Code::Refused, "the VM runs: its files do not become a replica's", cure));
    }
    for point in own_checkpoints(engine, vm).await? {
        engine.hypervisor(move |it| it.delete_checkpoint(vm, &checkpoint_name(point))).await?;
    }
    let mut record = record.clone();
    let mut directory = match &record.directory {
        Some(path) => ReplicaDirectory::open(path).map_err(Refusal::failed)?,
        None => {
            engine.store().set_home_definition(id, &facts.definition).map_err(Refusal::failed)?;
            record.home_definition = Some(facts.definition.clone());
            let directory = home_directory(engine, &record, &facts).await?;
            engine.store().set_directory(id, directory.path()).map_err(Refusal::failed)?;
            directory
        }
    };
    let already_replica = facts.disks.iter().any(|disk| !disk.source.exists());
    if !already_replica {
        directory.write_primary_definition(&facts.definition).map_err(Refusal::failed)?;
        attachments::keep(&directory, &attachments::read(&facts)?)?;
        follow_disks(engine, &record, &facts, &mut directory).await?;
        directory.update(|manifest| manifest.autostart = facts.autostart).map_err(Refusal::failed)?;
    }
    let wrote_to_base = |disk: &ManifestDisk| {
        let base = disk.base.resolve(&directory.disk_folder(&disk.target));
        facts.disks.iter().any(|it| it.target == disk.target && it.source == base)
    };
    let bases_changed = directory.manifest().disks.iter().any(wrote_to_base);
    // A disk may have grown while the VM wrote to it.
    let mut sizes = Vec::new();
    for disk in directory.manifest().disks.iter().filter(|disk| wrote_to_base(disk)) {
        let path = disk.base.resolve(&directory.disk_folder(&disk.target));
        let format = disk.base.format().qemu_name();
        let size = engine.hypervisor(move |it| it.image_size(&path, format)).await?;
        sizes.push((disk.target.clone(), size.virtual_bytes));
    }
    let (head, epoch) = (head.clone(), record.relationship.epoch);
    let (mut directory, definition) = blocking(move || {
        let stays = |listed: &ManifestPoint| match (bases_changed, is_whole) {
            // Whatever point the directory still lists has other content now, unless it is this one.
            (true, true) => listed.point.id == head.id,
            (true, false) => false,
            (false, true) => true,
            // Newer ones are not shared: their content is part of what differs.
            (false, false) => listed.point.ordinal <= head.ordinal,
        };
        let as_it_is = |manifest: &mut Manifest| {
            manifest.points.retain(stays);
            for disk in &mut manifest.disks {
                let now = sizes.iter().find(|(target, _)| *target == disk.target);
                disk.virtual_size = now.map_or(disk.virtual_size, |(_, size)| *size);
            }
        };
        directory.update(as_it_is).map_err(Refusal::failed)?;
        // What holds more than the point must not be taken for the point's own layer, which may be here already.
        let holds = if is_whole { head.id } else { beside(id, epoch) };
        let layer = ReplicaDirectory::layer_name(head.ordinal, holds);
        let targets: Vec<DiskTarget> =
            directory.manifest().disks.iter().map(|disk| disk.target.clone()).collect();
        let mut layers = Vec::new();
        for target in targets {
            let known = directory.manifest().disk(&target).is_some_and(|disk| disk.layers.contains(&layer));
            if known
                || directory.active_path(&target).exists()
                || directory.disk_folder(&target).join(layer.as_str()).exists()
            {
                directory.adopt_active(&target, &layer).map_err(Refusal::failed)?;
                layers.push((target, layer.clone()));
            }
        }
        let definition = directory.primary_definition(None).map_err(Refusal::failed)?;
        if is_whole {
            let files = attachments::kept(&directory)?;
            let kept = directory.keep_belongings(head.id, &definition, &files).map_err(Refusal::failed)?;
            let offered = |manifest: &mut Manifest| {
                let id = head.id;
                manifest.add_point(head, &layers);
                manifest.note_belongings(id, kept);
            };
            directory.update(offered).map_err(Refusal::failed)?;
        }
        Ok((directory, definition))
    })
    .await?;
    let placed = replica_definition(engine, &record, &directory, &definition).await?;
    directory.write_definition(&placed).map_err(Refusal::failed)?;
    directory.update(|manifest| manifest.vm_name.clone_from(&facts.name)).map_err(Refusal::failed)?;
    visible::define(engine, vm, placed).await?;
    // Its content was kept above.
    directory.remove_active_nvram().map_err(Refusal::failed)?;
    engine.hypervisor(move |it| it.set_autostart(vm, false)).await?;
    // When the VM comes back, its disks are where the other host had them.
    engine.store().set_seen(id, "").map_err(Refusal::failed)?;
    Ok(directory.path().to_owned())
}

/// A demotion that was cut leaves a primary whose definition names overlays that do not exist, and nothing carries it on when the
/// relationship ends: the VM is defined once more with the disks that hold what it wrote last. Otherwise nothing is done.
pub(crate) async fn undo_demotion(engine: &Engine, record: &Record) -> Result<()> {
    let vm = record.relationship.vm;
    let Some(facts) = engine.hypervisor(move |it| it.vm(vm)).await? else { return Ok(()) };
    // Without its directory, which a person may have lost too, there is nothing to mend it with.
    let Ok(directory) = directory(record) else { return Ok(()) };
    let is_lost = |disk: &ManifestDisk| {
        let active = directory.active_path(&disk.target);
        !active.exists() && facts.disks.iter().any(|it| it.target == disk.target && it.source == active)
    };
    if facts.state.is_active() || !directory.manifest().current_disks().any(is_lost) {
        return Ok(());
    }
    if let Phase::FailedOver { point, .. } = record.relationship.phase {
        return define_primary(engine, record, overlays_at(record, point).await?, None).await;
    }
    let disks = blocking(move || {
        let disks = directory.manifest().current_disks().map(|disk| {
            // Where no layer lies over it, the base is what the VM wrote to.
            let path = match disk.layers.is_empty() {
                true => disk.base.resolve(&directory.disk_folder(&disk.target)),
                false => directory.create_active(&disk.target).map_err(Refusal::failed)?,
            };
            Ok((disk.target.clone(), path))
        });
        disks.collect::<Result<Vec<_>>>()
    })
    .await?;
    define_primary(engine, record, disks, None).await
}

/// Defines the VM as a primary's with these disks, as it was at a point; none: as it was last.
async fn define_primary(
    engine: &Engine,
    record: &Record,
    disks: Vec<(DiskTarget, PathBuf)>,
    at: Option<PointId>,
) -> Result<()> {
    let (vm, directory) = (record.relationship.vm, directory(record)?);
    let definition = directory.primary_definition(at).map_err(Refusal::failed)?;
    let definition = place(engine, record, &directory, (&definition, at), disks).await?;
    attachments::restore(engine, &directory, &definition, at).await?;
    visible::define(engine, vm, definition).await?;
    let autostart = directory.manifest().autostart;
    engine.hypervisor(move |it| it.set_autostart(vm, autostart)).await
}

/// A directory whose bases are the VM's own files: nothing is copied to turn round.
async fn home_directory(engine: &Engine, record: &Record, facts: &VmFacts) -> Result<ReplicaDirectory> {
    let storage = storage(engine)?;
    let mut disks = Vec::new();
    for (target, _) in &record.relationship.settings.disks {
        disks.push(own_disk(engine, facts, target).await?);
    }
    let manifest = Manifest {
        vm_name: facts.name.clone(),
        vm: facts.id,
        relationship: record.relationship.id,
        disks,
        points: Vec::new(),
        autostart: false,
    };
    blocking(move || ReplicaDirectory::create(&storage, manifest).map_err(Refusal::failed)).await
}

/// A disk whose base is the file that the VM writes to.
async fn own_disk(engine: &Engine, facts: &VmFacts, target: &DiskTarget) -> Result<ManifestDisk> {
    let path = source_file(facts, target)?;
    let raw = facts.disks.iter().any(|disk| disk.target == *target && disk.format == "raw");
    let format = if raw { BackingFormat::Raw } else { BackingFormat::Qcow2 };
    let measured = path.clone();
    let size = engine.hypervisor(move |it| it.image_size(&measured, format.qemu_name())).await?;
    let base = Backing::new(plain(&path)?, format).map_err(Refusal::failed)?;
    Ok(ManifestDisk::on(target.clone(), size.virtual_bytes, base))
}

/// The VM's disks came and went while it ran here: the directory, which was made before, follows.
async fn follow_disks(
    engine: &Engine,
    record: &Record,
    facts: &VmFacts,
    directory: &mut ReplicaDirectory,
) -> Result<()> {
    let now: Vec<DiskTarget> =
        record.relationship.settings.disks.iter().map(|(target, _)| target.clone()).collect();
    let mut added = Vec::new();
    for target in &now {
        if directory.manifest().disk(target).is_none() && facts.disks.iter().any(|it| it.target == *target) {
            added.push(own_disk(engine, facts, target).await?);
        }
    }
    let follow = |manifest: &mut Manifest| {
        manifest.disks.extend(added);
        manifest.have_disks(&now);
    };
    directory.update(follow).map_err(Refusal::failed)
}

fn plain(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| Refusal::new(Code::Refused, format!("{path:?} is no UTF-8"), "rename the file"))
}

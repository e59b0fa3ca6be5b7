//! The copy itself: made step by step, and removed step by step. Removing whatever may be missing is no error.

use std::path::PathBuf;

use domain::{Attachment, DiskTarget};
use hypervisor::{Identity, NicKind, Placement};
use layer::ReplicaDirectory;

use super::{TestView, kind_of, network};
use crate::{Engine, Refusal, Result, attachments, blocking, clock, replica};

/// Makes and starts the copy.
pub(super) async fn make(engine: &Engine, test: &TestView) -> Result<()> {
    let path = test.facts.directory.clone();
    let (folder, point) = (test.folder()?, test.point);
    let slot = engine.slot(test.relationship);
    // Above the point layers may be merged: not while the chain is looked at.
    let files = slot.chain.hold().await;
    let (directory, disks) = blocking(move || {
        let directory = ReplicaDirectory::open(&path).map_err(Refusal::failed)?;
        // What an interrupted try left.
        directory.remove_throwaway(&folder).map_err(Refusal::failed)?;
        let disks = directory.create_throwaway(&folder, point).map_err(Refusal::failed)?;
        Ok((directory, disks))
    })
    .await?;
    drop(files);
    engine.reach("test.files").await;
    if test.facts.isolated {
        network::make(test.id).await?;
    }
    engine.reach("test.network").await;
    let definition = definition(engine, test, &directory, disks).await?;
    let text = definition.clone();
    engine.hypervisor(move |it| it.define(&text)).await?;
    engine.reach("test.defined").await;
    attachments::restore(engine, &directory, &definition, Some(test.point)).await?;
    let vm = test.vm;
    engine.hypervisor(move |it| it.start(vm, false)).await?;
    let started = clock::now().millis();
    engine.know(test.id, |facts| facts.started_ms = Some(started))?;
    engine.reach("test.started").await;
    Ok(())
}

/// The VM's own definition on the copy's files, with the copy's identity. What belongs to a host (pinning, huge pages) is left
/// out: the copy must not take it from somebody.
async fn definition(
    engine: &Engine,
    test: &TestView,
    directory: &ReplicaDirectory,
    disks: Vec<(DiskTarget, PathBuf)>,
) -> Result<String> {
    let primary = directory.primary_definition(Some(test.point)).map_err(Refusal::failed)?;
    let original = directory.manifest().vm;
    let variables = directory.read_attachment(Attachment::Nvram, Some(test.point));
    let has_nvram = variables.map_err(Refusal::failed)?.is_some();
    let nvram =
        has_nvram.then(|| Ok::<_, Refusal>(directory.throwaway_path(&test.folder()?).join("nvram.fd")));
    let nvram = nvram.transpose()?;
    let (vm, name, network) = (test.vm, test.facts.name.clone(), test.facts.network.clone());
    let isolated = test.facts.isolated;
    engine
        .hypervisor(move |it| {
            let facts = it.read_definition(&primary)?;
            let copied = |target: &DiskTarget| disks.iter().any(|(known, _)| known == target);
            let strangers =
                facts.disks.into_iter().map(|disk| disk.target).filter(|it| !copied(it)).collect();
            let kind = match isolated {
                true => NicKind::Bridge,
                false => kind_of(&it.host_facts()?, &network).unwrap_or(NicKind::Bridge),
            };
            let placement = Placement {
                vm: original,
                disks: disks.clone(),
                strangers,
                networks: Vec::new(),
                nvram: nvram.clone(),
                local_definition: None,
            };
            let placed = it.place_definition(&primary, &placement)?;
            it.disguise_definition(&placed, &Identity { vm, name, network: (kind, network) })
        })
        .await
}

/// Removes all of it. The VM is thrown away because its UUID is that of this test, which no other VM has.
pub(super) async fn remove(engine: &Engine, test: &TestView) -> Result<()> {
    // Without its storage the files would seem to be gone.
    replica::storage(engine)?;
    let vm = test.vm;
    engine.hypervisor(move |it| it.discard(vm)).await?;
    engine.reach("test.discarded").await;
    network::remove(test.id).await?;
    engine.reach("test.disconnected").await;
    let folder = test.folder()?;
    if test.facts.directory.exists() {
        let directory = ReplicaDirectory::open(&test.facts.directory).map_err(Refusal::failed)?;
        blocking(move || directory.remove_throwaway(&folder).map_err(Refusal::failed)).await?;
    }
    engine.reach("test.removed").await;
    Ok(())
}

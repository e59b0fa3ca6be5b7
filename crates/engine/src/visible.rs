//! The VM of a relationship as libvirt shows it on this host: defined under the name that it has, whatever it was called here.

use domain::VmId;
use hypervisor::VmFacts;
use layer::ReplicaDirectory;
use store::Record;

use crate::{Engine, Refusal, Result, replica};

/// Defines the VM. One that is off and was renamed here gives way: libvirt refuses a second name for the same UUID.
pub(crate) async fn define(engine: &Engine, vm: VmId, definition: String) -> Result<()> {
    let defined = move |it: &dyn hypervisor::Hypervisor| {
        let wanted = it.read_definition(&definition)?.name;
        let renamed = it.vm(vm)?.is_some_and(|there| there.name != wanted && !there.state.is_active());
        if renamed {
            it.undefine(vm)?;
        }
        it.define(&definition)
    };
    engine.hypervisor_in_time("define the VM", defined).await
}

/// Shows a replica's definition when it is another than before. A new name is left to [`put_back`], which comes right after.
pub(crate) async fn show(
    engine: &Engine,
    record: &Record,
    directory: &ReplicaDirectory,
    placed: &str,
) -> Result<()> {
    if std::fs::read_to_string(directory.definition_path()).is_ok_and(|known| known == placed) {
        return Ok(());
    }
    let text = placed.to_owned();
    let name = engine.hypervisor(move |it| it.read_definition(&text)).await?.name;
    if name != record.relationship.vm_name {
        return Ok(());
    }
    define(engine, record.relationship.vm, placed.to_owned()).await
}

/// Shows a replica as its directory describes it, when it vanished from libvirt or has another name there; says what was
/// mended. The VM's name follows the definition that came with the newest delta.
pub(crate) async fn put_back(
    engine: &Engine,
    record: &Record,
    there: Option<&VmFacts>,
) -> Result<Option<String>> {
    let slot = engine.slot(record.relationship.id);
    // A delta that is being sealed, or the end of the relationship: it is looked at again later.
    let Ok(_alone) = slot.replica.try_lock() else { return Ok(None) };
    let Ok(record) = &engine.record(record.relationship.id) else { return Ok(None) };
    let relationship = &record.relationship;
    if record.directory.is_none() {
        return Ok(None); // it is being made
    }
    let path = replica::directory(record)?.definition_path();
    let definition = std::fs::read_to_string(path).map_err(Refusal::failed)?;
    let text = definition.clone();
    let name = engine.hypervisor(move |it| it.read_definition(&text)).await?.name;
    let found = match there {
        Some(there) if there.name == name => return Ok(None),
        Some(there) if relationship.vm_name == name => format!("the replica was renamed {:?}", there.name),
        Some(there) => format!("the VM was called {:?} before", there.name),
        None => "the replica was undefined".to_owned(),
    };
    define(engine, relationship.vm, definition).await?;
    if relationship.vm_name != name {
        engine.store().set_vm_name(relationship.id, &name).map_err(Refusal::failed)?;
    }
    Ok(Some(format!("{found}; it is defined as {name:?} here")))
}

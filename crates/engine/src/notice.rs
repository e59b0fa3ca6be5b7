//! What an administrator did behind our back: noticed, carried over or put back where that is clean, and otherwise shown in
//! health with the way out. Nothing here reads or writes a disk's content; a cycle judges what still can be trusted.
//!
//! | on the primary | answer |
//! |---|---|
//! | disk plugged in, removed | carried over (`life`), an event says so; one that cannot be: Warning, a handover is refused |
//! | the only disk removed, VM undefined | Critical |
//! | disk grown, snapshot, blockcommit, edit, rename | carried over, an event says so |
//! | written to a file that a handover cannot turn round on | Warning, a handover is refused |
//!
//! | on the replica | answer |
//! |---|---|
//! | undefined, renamed | put back, an event says so |
//! | it runs | Critical: two writers |

use domain::{Health, Notice, Phase, Role, Settings, shell_word, vm_argument};
use hypervisor::{Obstacle, VmFacts};
use store::Record;

use crate::events::Number;
use crate::seen::Seen;
use crate::{
    Engine, Refusal, Result, comeback, failover, life, quiesce, replica, room, shrunk, test_failover,
    visible, wrap,
};

/// Looks at the VM of a relationship and says what is new. True when the VM has just been turned off: the last changes wait.
pub(crate) async fn notice(engine: &Engine, record: &Record) -> Result<bool> {
    let (mut notices, turned_off) = match record.relationship.role() {
        Role::Primary => on_primary(engine, record).await?,
        Role::Replica => (on_replica(engine, record).await?, false),
    };
    if let domain::Verdict::Fail { found, cure } = engine.guard_check_known().await.verdict {
        notices.push(Notice { severity: Health::Warning, what: found, cure });
    }
    publish(engine, record, &notices)?;
    Ok(turned_off)
}

async fn on_primary(engine: &Engine, record: &Record) -> Result<(Vec<Notice>, bool)> {
    let relationship = &record.relationship;
    let (id, name) = (relationship.id, &relationship.vm_name);
    let mut notices: Vec<Notice> = engine.role_notice(record).await?.into_iter().collect();
    notices.extend(comeback::notices(engine, record).await);
    notices.extend(failover::timer::overdue(engine, record));
    let Some((facts, mut seen)) = engine.look_at(record).await? else {
        notices.push(undefined(record));
        return Ok((notices, false));
    };
    let before = Seen::before(record);
    if let Some(before) = &before {
        life::keep_places(before, &mut seen, &relationship.settings);
        shrunk::keep_sizes(before, &mut seen);
    }
    for (number, text) in before.iter().flat_map(|before| changes(before, &seen)) {
        engine.event(number, name, text);
    }
    let untracked = |before: &Seen| {
        // No bitmap knows of the new part, and a logical volume that was extended holds what was on the disk before.
        wrap::grown(before, &seen).or_else(|| shrunk::cause(before, &seen, &relationship.settings))
    };
    if let Some(cause) = before.as_ref().and_then(untracked) {
        engine.store().want_resynchronization(id, &cause).map_err(Refusal::failed)?;
    }
    engine.remember(record, &seen)?;
    if facts.name != *name {
        engine.store().set_vm_name(id, &facts.name).map_err(Refusal::failed)?;
        engine.event(Number::CarriedOver, &facts.name, format!("the VM was called {name:?} before"));
    }
    let active = facts.state.is_active();
    if active && record.offline_seal.is_some() {
        // Its files change now; what they were while it was off says nothing any more.
        engine.store().set_offline_seal(id, None).map_err(Refusal::failed)?;
    }
    let failure = engine.slot(id).follow_failure().clone();
    notices.extend(judge(&facts, &relationship.settings, failure.as_ref()));
    notices.extend(life::moved_disks(&seen, &facts, &relationship.settings));
    match strayed_disks(record, &facts) {
        Ok(strayed) => notices.extend(strayed),
        Err(error) => notices.push(Notice {
            severity: Health::Critical,
            what: format!(
                "the VM's directory cannot be read, and it can neither be handed over nor made final: {}",
                error.detail
            ),
            cure: match error.cure.is_empty() {
                true => format!("virt-replica show {}", word(name)),
                false => error.cure,
            },
        }),
    }
    notices.extend(wrap::grown_below(&facts));
    notices.extend(quiesce::notices(engine, record)?);
    Ok((notices, !active && before.is_some_and(|before| before.ran)))
}

fn undefined(record: &Record) -> Notice {
    let name = &record.relationship.vm_name;
    let vm = word(name);
    let cure = match record.relationship.phase {
        Phase::FailedOver { .. } => format!(
            "define it again: {}; or take the failover back: virt-replica cancel-failover {vm}",
            failover::define_again(record)
        ),
        _ => format!(
            "define it again: virsh define FILE (the replica server has its definition in the replica's directory, \
             primary.xml), or end its replication: virt-replica remove {vm}"
        ),
    };
    Notice {
        severity: Health::Critical,
        what: format!("VM {name:?} is not defined on this host any more"),
        cure,
    }
}

/// What the facts alone tell of a primary's VM.
fn judge(facts: &VmFacts, settings: &Settings, failure: Option<&String>) -> Vec<Notice> {
    let (name, vm) = (&facts.name, word(&facts.name));
    let mut notices = Vec::new();
    if facts.obstacles.contains(&Obstacle::NotPersistent) {
        notices.push(not_persistent(name));
    }
    notices.extend(life::added_disks(facts, settings, failure));
    for disk in settings.disks.iter().map(|(disk, _)| disk) {
        let there = facts.disks.iter().any(|there| there.target == *disk);
        if !there && !life::is_gone_for_good(facts, settings, disk) {
            notices.push(Notice {
                severity: Health::Critical,
                what: format!("disk {disk} of VM {name:?} is gone: the VM is not replicated until that is settled"),
                cure: format!(
                    "virsh attach-disk {vm} FILE {disk} --subdriver qcow2 --persistent; or replicate without it: \
                     virt-replica remove {vm}, then virt-replica enable {vm}"
                ),
            });
        }
    }
    notices
}

/// Disks that are written to another file than the one that a handover leaves behind as the replica's: an overlay of the
/// administrator's own, or one that was merged by hand. Where the VM has never been a replica, any file is as good.
pub(crate) fn strayed_disks(record: &Record, facts: &VmFacts) -> Result<Vec<Notice>> {
    if record.directory.is_none() {
        return Ok(Vec::new());
    }
    let (directory, at_home) = (replica::directory(record)?, record.home_definition.is_some());
    let mut notices = Vec::new();
    for disk in directory.manifest().current_disks() {
        // After a failover at home the VM writes to an overlay of ours until it comes home the next time.
        let expected = if at_home && !directory.active_path(&disk.target).exists() {
            disk.base.resolve(&directory.disk_folder(&disk.target))
        } else {
            directory.active_path(&disk.target)
        };
        let there = facts.disks.iter().find(|there| there.target == disk.target);
        let Some(found) = there.map(|there| &there.source).filter(|source| **source != expected) else {
            continue;
        };
        let chain = layer::chain_check(found).unwrap_or_default();
        let below = chain.iter().any(|link| link.path == expected);
        let (name, vm) = (&facts.name, word(&facts.name));
        let (target, file) = (&disk.target, word(&expected.to_string_lossy()));
        let expected = expected.display();
        let cure = if below {
            format!("virsh blockcommit {vm} {target} --base {file} --active --pivot --wait")
        } else {
            format!("virt-replica remove {vm}, then virt-replica enable {vm}")
        };
        notices.push(Notice {
            severity: Health::Warning,
            what: format!(
                "disk {target} of VM {name:?} is written to {}, not to {expected}: it is replicated, and cannot be handed \
                 over like this",
                found.display()
            ),
            cure,
        });
    }
    Ok(notices)
}

pub(crate) fn not_persistent(name: &str) -> Notice {
    Notice {
        severity: Health::Critical,
        what: format!(
            "VM {name:?} was undefined while it runs: libvirt cannot track its changes, and forgets it when it stops"
        ),
        cure: {
            let (vm, file) = (vm_argument(name), shell_word(&format!("./{name}.xml")));
            format!("virsh dumpxml --migratable --security-info {vm} >{file}; virsh define {file}")
        },
    }
}

/// What is different from the last look, in words.
fn changes(before: &Seen, now: &Seen) -> Vec<(Number, String)> {
    let mut changes = Vec::new();
    let mut edited = before.definition != now.definition;
    for disk in &now.disks {
        let Some(old) = before.disks.iter().find(|old| old.target == disk.target) else { continue };
        let target = &disk.target;
        if old.file != disk.file {
            edited = false;
            let text = format!(
                "disk {target} is written to {} now, before to {} (a snapshot, a block job or an edit); the next cycle \
                 carries what changed, or the whole disk where that is not known",
                disk.file.display(),
                old.file.display()
            );
            changes.push((Number::CarriedOver, text));
        }
        if let Some((old, new)) = old.size_bytes.zip(disk.size_bytes).filter(|(old, new)| old != new) {
            edited = false;
            changes.push(if new > old {
                let text = format!("disk {target} grew from {old} to {new} bytes; the replica follows");
                (Number::CarriedOver, text)
            } else {
                let text =
                    format!("disk {target} shrank from {old} to {new} bytes, which is not carried over: nothing is sent until it has grown back");
                (Number::Weakened, text)
            });
        }
    }
    if edited {
        changes
            .push((Number::CarriedOver, "the definition was edited; the next cycle carries it".to_owned()));
    }
    changes
}

async fn on_replica(engine: &Engine, record: &Record) -> Result<Vec<Notice>> {
    let vm = record.relationship.vm;
    let facts = engine.hypervisor(move |it| it.vm(vm)).await?;
    if let Some(facts) = facts.as_ref().filter(|facts| facts.state.is_active()) {
        let name = &facts.name;
        return Ok(vec![Notice {
            severity: Health::Critical,
            what: format!(
                "the replica of VM {name:?} runs on this host although the other host is primary: two writers"
            ),
            cure: format!(
                "virsh destroy {}, on this host and at once; what it wrote is not replicated",
                word(name)
            ),
        }]);
    }
    let mut notices = Vec::new();
    // The definition follows the files: who is called otherwise, or is gone, is put back.
    match visible::put_back(engine, record, facts.as_ref()).await {
        Ok(None) => {}
        Ok(Some(what)) => engine.event(Number::CarriedOver, &record.relationship.vm_name, what),
        Err(error) => notices.push(Notice {
            severity: Health::Critical,
            what: format!("the replica cannot be shown in libvirt: {}", error.detail),
            cure: "virsh list --all; a VM of the same name that is not the replica must be renamed"
                .to_owned(),
        }),
    }
    let failure = engine.slot(record.relationship.id).fold_failure().clone();
    notices.extend(test_failover::notices(engine, record)?);
    notices.extend(room::notice(engine, record)?);
    notices.extend(failure.map(|why| Notice {
        severity: Health::Critical,
        what: format!("recovery points cannot be merged, and each cycle adds one: {why}"),
        cure:
            "make room, or mend the file that is named, on this host; it is tried again by itself".to_owned(),
    }));
    Ok(notices)
}

/// One word for a shell, whatever is in it.
pub(crate) fn word(text: &str) -> String {
    shell_word(text)
}

/// Each new notice is an event, and so is the end of one.
fn publish(engine: &Engine, record: &Record, notices: &[Notice]) -> Result<()> {
    if notices == record.notices {
        return Ok(());
    }
    let name = &record.relationship.vm_name;
    for notice in notices.iter().filter(|notice| !record.notices.contains(notice)) {
        let number =
            if notice.severity == Health::Critical { Number::Interference } else { Number::Weakened };
        engine.event(number, name, format!("{}. Cure: {}", notice.what, notice.cure));
    }
    for past in record.notices.iter().filter(|past| !notices.contains(past)) {
        engine.event(Number::Settled, name, format!("settled: {}", past.what));
    }
    engine.store().set_notices(record.relationship.id, notices).map_err(Refusal::failed)
}

#[cfg(test)]
mod tests {
    use crate::seen::SeenDisk;

    use super::*;

    #[test]
    fn the_cure_of_a_vm_that_was_undefined_runs_nothing_of_its_name() {
        let cure = not_persistent("web;reboot").cure;
        assert_eq!(
            cure,
            "virsh dumpxml --migratable --security-info 'web;reboot' >'./web;reboot.xml'; virsh define './web;reboot.xml'"
        );
    }

    fn seen(file: &str, size_bytes: u64, definition: &str) -> Seen {
        let disk = SeenDisk {
            target: "vda".into(),
            file: file.into(),
            size_bytes: Some(size_bytes),
            largest_bytes: None,
            bus: None,
        };
        Seen { disks: vec![disk], definition: definition.into(), ..Seen::default() }
    }

    fn check(now: &Seen, expected: &[(Number, &str)]) {
        let found = changes(&seen("/one", 1024, "a"), now);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((number, text), (wanted, words)) in found.iter().zip(expected) {
            assert!(number == wanted && text.contains(words), "{found:?}");
        }
    }

    #[test]
    fn each_change_is_told_once_and_a_shrunken_disk_is_no_good_news() {
        check(&seen("/one", 1024, "a"), &[]);
        check(&seen("/one", 1024, "b"), &[(Number::CarriedOver, "edited")]);
        // libvirt writes the new path into the definition: that is the same change.
        check(&seen("/two", 1024, "b"), &[(Number::CarriedOver, "written to /two")]);
        check(&seen("/one", 2048, "a"), &[(Number::CarriedOver, "grew from 1024 to 2048")]);
        check(&seen("/one", 512, "a"), &[(Number::Weakened, "shrank from 1024 to 512")]);
        check(&Seen { disks: Vec::new(), definition: "a".into(), ..Seen::default() }, &[]);
    }
}

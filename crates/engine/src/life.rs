//! The disks of a VM come and go while it is replicated, and its replica follows by itself.
//!
//! ```text
//! plugged in    settings on both hosts ─▶ the next delta carries all of it, at the same instant as the others' changes
//! removed       settings on both hosts ─▶ the next point does not have it; older ones keep it
//! ```
//! Only what is plugged in *and* in the definition counts: a disk that is there until the VM stops would be missing on the
//! other host, and one that comes back with the next start is not gone. What cannot be followed is a notice with its cure.

use domain::{CheckName, DiskChoice, DiskTarget, Health, NewDisks, Notice, Phase, Settings};
use hypervisor::{Obstacle, VmFacts};
use store::Record;
use wire::message::form::DISKS_MAX;

use crate::events::Number;
use crate::notice::word;
use crate::seen::Seen;
use crate::{Code, Engine, Refusal, Result, replica, survey};

/// What is different between the VM's disks and those that are replicated.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    added: Vec<DiskTarget>,
    removed: Vec<DiskTarget>,
}

impl Changes {
    fn of(facts: &VmFacts, settings: &Settings) -> Changes {
        let there = |target: &DiskTarget| facts.disks.iter().any(|disk| disk.target == *target);
        let known = |target: &DiskTarget| settings.disks.iter().any(|(known, _)| known == target);
        let configured = facts.configured.iter().map(|disk| &disk.target);
        let added = configured.filter(|it| there(it) && !known(it));
        let removed = settings.disks.iter().map(|(target, _)| target);
        let removed = removed.filter(|it| !there(it) && !is_configured(facts, it));
        Changes { added: added.cloned().collect(), removed: removed.cloned().collect() }
    }

    /// The settings that follow; none when nothing changed, or no replicated disk would be left.
    fn apply(&self, facts: &VmFacts, settings: &Settings) -> Option<Settings> {
        if self.added.is_empty() && self.removed.is_empty() {
            return None;
        }
        let choice = |target: &DiskTarget| {
            let known = settings.disks.iter().find(|(known, _)| known == target);
            known.map_or(DiskChoice::Replicated, |(_, choice)| *choice)
        };
        let stays = |target: &&DiskTarget| {
            self.added.contains(target) || settings.disks.iter().any(|(known, _)| known == *target)
        };
        let configured = facts.configured.iter().map(|disk| &disk.target);
        let mut order: Vec<DiskTarget> = configured.filter(stays).cloned().collect();
        // Not in the definition any more, and plugged in as long as the VM runs.
        for (target, _) in &settings.disks {
            if !order.contains(target) && !self.removed.contains(target) {
                order.push(target.clone());
            }
        }
        let disks = order.into_iter().map(|target| (target.clone(), choice(&target))).collect();
        let follows = Settings { disks, ..settings.clone() };
        (follows.replicated_disks().next().is_some() && follows.disks.len() <= DISKS_MAX).then_some(follows)
    }
}

fn is_configured(facts: &VmFacts, target: &DiskTarget) -> bool {
    facts.configured.iter().any(|disk| disk.target == *target)
}

/// Why an added disk is not replicated by itself; none: it will be.
pub(crate) fn why_not(facts: &VmFacts, target: &DiskTarget) -> Option<String> {
    let disks = facts.obstacles.iter().filter_map(Obstacle::disk);
    if let Some((_, kind)) = disks.into_iter().find(|(there, _)| *there == target.as_str()) {
        return Some(format!("it is a {kind}, which keeps no record of its changes"));
    }
    (!is_configured(facts, target))
        .then(|| "it is plugged in only until the VM stops: it is not in the definition".to_owned())
}

/// Whether the VM goes on being replicated without a disk that is gone.
pub(crate) fn is_gone_for_good(facts: &VmFacts, settings: &Settings, target: &DiskTarget) -> bool {
    let changes = Changes::of(facts, settings);
    changes.removed.contains(target) && changes.apply(facts, settings).is_some()
}

/// Lets both hosts know the disks that the VM has now; gives the record as it is afterwards. The other disks are replicated
/// whatever comes of it.
pub(crate) async fn follow_or_say_why(engine: &Engine, record: &Record) -> Record {
    let slot = engine.slot(record.relationship.id);
    let followed = follow(engine, record).await;
    let why = followed.as_ref().err().map(ToString::to_string);
    let before = std::mem::replace(&mut *slot.follow_failure(), why.clone());
    if let Some(why) = why.filter(|why| before.as_ref() != Some(why)) {
        engine.event(Number::NotFollowed, &record.relationship.vm_name, why);
    }
    followed.unwrap_or_else(|_| record.clone())
}

async fn follow(engine: &Engine, record: &Record) -> Result<Record> {
    let relationship = &record.relationship;
    if !matches!(relationship.phase, Phase::Replicating | Phase::Resynchronizing { .. })
        || relationship.paused_since.is_some()
    {
        return Ok(record.clone());
    }
    let Some(facts) = engine.vm(record).await? else { return Ok(record.clone()) };
    if moved_since(record, &facts).next().is_some() {
        // Health says so: a disk with another name is not one that went and one that came.
        return Ok(record.clone());
    }
    let waits = relationship.settings.new_disks == NewDisks::Warn;
    let mut changes = Changes::of(&facts, &relationship.settings);
    changes.added.retain(|target| !waits && why_not(&facts, target).is_none());
    let Some(settings) = changes.apply(&facts, &relationship.settings) else { return Ok(record.clone()) };
    if !changes.added.is_empty() {
        expect_room(engine, record, &facts, &settings, &changes.added).await?;
    }
    engine.change(record, settings).await?;
    // What was compared with is no measure any more.
    engine.store().set_offline_seal(relationship.id, None).map_err(Refusal::failed)?;
    for target in &changes.added {
        let text = format!("disk {target} was added; the next recovery point has it, whole");
        engine.event(Number::DiskAdded, &facts.name, text);
    }
    for target in &changes.removed {
        let text = format!("disk {target} was removed; recovery points up to now keep it");
        engine.event(Number::DiskRemoved, &facts.name, text);
    }
    engine.record(relationship.id)
}

/// A disk that does not fit must not stop the replication of the others.
async fn expect_room(
    engine: &Engine,
    record: &Record,
    facts: &VmFacts,
    settings: &Settings,
    added: &[DiskTarget],
) -> Result<()> {
    let relationship = &record.relationship;
    let id = Some(relationship.id.0);
    let mut requirements = survey::requirements(engine, facts, settings, id).await?;
    let is_new = |target: &str| added.iter().any(|added| added.as_str() == target);
    let known = requirements.disks.iter_mut().filter(|disk| !is_new(&disk.target));
    known.for_each(|disk| disk.allocated_bytes = None);
    let checks = survey::there(engine, relationship.peer, requirements).await?;
    match checks.iter().find(|check| check.name == CheckName::DiskSpace && !check.holds()) {
        Some(check) => Err(crate::plan::refused(check)),
        None => Ok(()),
    }
}

/// On the replica: replicated disks that its newest point does not have. Without a point, everything travels anyway.
pub(crate) fn lacks(record: &Record) -> Result<Vec<String>> {
    if record.directory.is_none() {
        return Ok(Vec::new());
    }
    let directory = replica::directory(record)?;
    let lacking = record.relationship.settings.replicated_disks();
    Ok(lacking.filter(|it| directory.manifest().head_lacks(it)).map(ToString::to_string).collect())
}

/// Disks of the VM that are not replicated.
pub(crate) fn added_disks(facts: &VmFacts, settings: &Settings, failure: Option<&String>) -> Vec<Notice> {
    let (name, vm) = (&facts.name, word(&facts.name));
    let known = |target: &DiskTarget| settings.disks.iter().any(|(known, _)| known == target);
    let added = facts.disks.iter().map(|disk| &disk.target).filter(|target| !known(target));
    let notice = |disk: &DiskTarget| {
        let (why, cure) = match why_not(facts, disk).or_else(|| failure.cloned()) {
            Some(why) => (
                why,
                format!(
                    "virsh detach-disk {vm} {disk}; a qcow2 disk that is attached with --config and --live is replicated \
                     by itself"
                ),
            ),
            None if settings.new_disks == NewDisks::Warn => (
                "it was added after replication was enabled".to_owned(),
                format!(
                    "virt-replica set {vm} --add-disk {disk}; or virsh detach-disk {vm} {disk} --persistent"
                ),
            ),
            None => (
                "it was added, and its first copy travels with the next cycle".to_owned(),
                format!(
                    "wait for that cycle: virt-replica wait {vm}; or without it: virsh detach-disk {vm} {disk} --persistent"
                ),
            ),
        };
        Notice {
            severity: Health::Warning,
            what: format!("disk {disk} of VM {name:?} is not replicated: {why}"),
            cure,
        }
    };
    added.map(notice).collect()
}

/// What is remembered of where a replicated disk is outlives a change of it, until a person accepts the change.
pub(crate) fn keep_places(before: &Seen, now: &mut Seen, settings: &Settings) {
    for old in
        before.disks.iter().filter(|old| settings.replicated_disks().any(|it| it.as_str() == old.target))
    {
        let renamed = now.disks.iter().any(|disk| disk.file == old.file);
        match now.disks.iter_mut().find(|disk| disk.target == old.target) {
            Some(disk) => disk.bus = old.bus.clone().or(disk.bus.take()),
            None if renamed => now.disks.push(old.clone()),
            None => {}
        }
    }
}

/// The same, from what the last look left behind.
pub(crate) fn moved_since(record: &Record, facts: &VmFacts) -> impl Iterator<Item = Notice> {
    let seen = Seen::before(record).unwrap_or_default();
    moved_disks(&seen, facts, &record.relationship.settings).into_iter()
}

/// Replicated disks that are on another bus or have another name now. The replica's newest point was made of a VM that finds
/// its disks elsewhere: whether the guest copes with that is a person's decision.
pub(crate) fn moved_disks(seen: &Seen, facts: &VmFacts, settings: &Settings) -> Vec<Notice> {
    let (name, vm) = (&facts.name, word(&facts.name));
    let mut notices = Vec::new();
    for old in seen.disks.iter().filter(|old| settings.replicated_disks().any(|it| it.as_str() == old.target))
    {
        let target = &old.target;
        let same = facts.configured.iter().find(|disk| disk.target.as_str() == target);
        let renamed = facts.configured.iter().find(|disk| disk.source == old.file);
        let (now, what) = match (same, renamed) {
            (Some(disk), _) if old.bus.as_ref().is_some_and(|bus| *bus != disk.bus) => {
                let bus = old.bus.as_deref().unwrap_or_default();
                (
                    &disk.target,
                    format!("disk {target} of VM {name:?} was on bus {bus}, and is on bus {}", disk.bus),
                )
            }
            (None, Some(disk)) => {
                (&disk.target, format!("disk {target} of VM {name:?} is called {} now", disk.target))
            }
            _ => continue,
        };
        notices.push(Notice {
            severity: Health::Critical,
            what: format!("{what}: the VM is not replicated until that is settled"),
            cure: format!("put it back: virsh edit {vm}; or, if the guest starts like this: virt-replica set {vm} --add-disk {now}"),
        });
    }
    notices
}

impl Engine {
    /// Settings with which these disks of the VM are replicated, as they are now.
    pub async fn with_disks(
        &self,
        record: &Record,
        mut settings: Settings,
        asked: &[String],
    ) -> Result<Settings> {
        if asked.is_empty() {
            return Ok(settings);
        }
        let vm = word(&record.relationship.vm_name);
        let refuse = |found: String, cure: String| Err(Refusal::new(Code::Refused, found, cure));
        if record.relationship.role() != domain::Role::Primary {
            let found =
                "disks are added on the primary server, and this host is the replica server".to_owned();
            return refuse(found, format!("there: virt-replica set {vm} --add-disk DISK"));
        }
        let facts =
            self.vm(record).await?.ok_or_else(|| Refusal::failed("the VM is not defined on this host"))?;
        for name in asked {
            let there = facts.disks.iter().map(|disk| &disk.target).find(|target| target.as_str() == name);
            let Some(target) = there else {
                return refuse(format!("the VM has no disk {name:?}"), format!("virsh domblklist {vm}"));
            };
            if let Some(why) = why_not(&facts, target) {
                return refuse(
                    format!("disk {target} cannot be replicated: {why}"),
                    format!("virsh domblklist {vm}"),
                );
            }
            match settings.disks.iter().find(|(known, _)| known == target) {
                Some((_, DiskChoice::Excluded)) => {
                    let found = format!("disk {target} was excluded when replication was enabled");
                    return refuse(found, format!("virt-replica remove {vm}, then virt-replica enable {vm}"));
                }
                Some(_) => {}
                None => settings.disks.push((target.clone(), DiskChoice::Replicated)),
            }
        }
        // What has another name now is not replicated under its old one.
        settings.disks.retain(|(target, _)| is_configured(&facts, target));
        Ok(settings)
    }

    /// A person accepts these disks as they are now: what was remembered of them is forgotten.
    pub async fn accept_disks(&self, record: &Record, asked: &[String]) -> Result<()> {
        let Some(mut seen) = Seen::before(record).filter(|_| !asked.is_empty()) else { return Ok(()) };
        let Some(facts) = self.vm(record).await? else { return Ok(()) };
        let accepted =
            facts.configured.iter().filter(|disk| asked.iter().any(|it| it == disk.target.as_str()));
        let accepted: Vec<_> = accepted.collect();
        seen.disks.retain(|old| {
            !accepted.iter().any(|disk| disk.source == old.file || disk.target.as_str() == old.target)
        });
        self.remember(record, &seen)?;
        self.wake(record.relationship.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

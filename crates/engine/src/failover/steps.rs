//! The steps of the procedures of one host, as `operation` asks for them. Every step may be done again after a crash.

use std::time::Duration;

use choreography::{Mark, OtherHost, Step};
use domain::{
    DiskTarget, Phase, PointId, RecoveryPoint, Settlement, Timestamp, counted, shell_word, vm_argument,
};
use hypervisor::{Hypervisor, VmState};
use layer::ReplicaDirectory;
use store::Record;
use tokio::time::Instant;

use crate::compare::serve;
use crate::operation::Run;
use crate::{
    Code, Engine, Refusal, Result, blocking, chain, clock, comeback, guest_files, receive, replica, visible,
};

/// Pause between two looks how far a merge is.
const MERGE_LOOK: Duration = Duration::from_millis(100);
/// How long a merge that was told to end may take to do so before it is said that it does not.
const END_MERGE_MAX: Duration = Duration::from_secs(10);

impl Run<'_> {
    /// The point of no return: this host is primary. A delta that is arriving is cut off; none can come after.
    pub(crate) async fn take_over_alone(&self) -> Result<()> {
        let slot = self.engine.slot(self.operation.relationship);
        let _alone = receive::alone(&slot).await?;
        // A merge under way gives way.
        let _files = slot.chain.hold().await;
        serve::close(&slot).await;
        replica::expect_untouched(&self.record)?;
        // What this host wrote as an old primary is kept before anything can be written over it.
        self.engine.expect_covered(&self.record)?;
        comeback::set_aside(self.engine, &self.record)
            .await
            .map_err(|error| not_kept(&self.record, error))?;
        // A host that was primary for long, or whose store failed once, knows other points than its files hold. What is failed over
        // to must be known: everything after this counts from it.
        chain::know_points(self.engine, self.operation.relationship, &replica::directory(&self.record)?)?;
        let options = &self.operation.options;
        let point = replica::point(&self.record, options.point)?.id;
        let now = clock::now();
        let timer = options.commit_timer.map(|(what, after)| (what, now.plus(after)));
        let phase = Phase::FailedOver { since: now, point, timer };
        let words = format!("this host is primary now, from recovery point {point}");
        let done = self.engine.entry(Mark::Done(Step::TakeOver, words));
        self.engine.store().take_over(self.operation, &phase, &done).map_err(Refusal::failed)
    }

    /// A copy that is stale now is told so before this one starts: from then on nothing starts it. One that does not answer learns
    /// it when it does. Refused while it does not say that the VM is off there: a handover that is undone, or a person, may have
    /// started it since it was asked.
    pub(crate) async fn tell_of_failover(&self) -> Result<()> {
        let record = self.engine.record(self.operation.relationship)?;
        let (peer, vm) = (self.engine.peer_name(&record), vm_argument(&record.relationship.vm_name));
        let other = self.engine.ask_whether_it_runs(&record).await;
        if other == OtherHost::Silent {
            tracing::info!(%peer, "the other host will learn of the failover later");
        }
        if other.lets_start(self.operation.options.force) {
            return Ok(());
        }
        let found = match other {
            OtherHost::Runs => format!("the VM was started on {peer} meanwhile"),
            _ => format!("{peer} was asked again: {}", other.words()),
        };
        let cure = format!(
            "on {peer}: virsh shutdown {vm}, and it starts here; or here: virt-replica cancel-failover {vm}"
        );
        Err(Refusal::new(Code::Refused, format!("{found}; it is not started here as well"), cure))
    }

    /// The VM did not come up in the time that a person gave it: nothing more is done for it. What follows is decided by this line alone,
    /// however often the daemon dies on the way there.
    pub(crate) fn give_up(&self, found: &str) -> Result<()> {
        self.write(Mark::GivenUp(format!("{found}: the failover is taken back")))
    }

    /// The failover is taken back as soon as this operation has ended: the time for that is over since the failover began.
    pub(crate) fn roll_back_now(&self) -> Result<()> {
        let Phase::FailedOver { since, point, .. } = self.record.relationship.phase else { return Ok(()) };
        let phase = Phase::FailedOver { since, point, timer: Some((Settlement::RollBack, since)) };
        self.engine.store().set_phase(self.operation.relationship, &phase).map_err(Refusal::failed)
    }

    /// Shuts the guest down; it is turned off only where a person said so.
    pub(crate) async fn shut_down_here(&self) -> Result<String> {
        if !self.runs().await? {
            return Ok("the VM was off".into());
        }
        let asked = self.shut_down().await;
        if !self.runs().await? {
            return Ok("the guest shut down".into());
        }
        let vm = self.record.relationship.vm;
        match asked {
            Err(error) if self.operation.options.destroy => {
                self.engine.hypervisor(move |it| it.turn_off(vm)).await?;
                Ok(format!("turned off, as was asked for: {}", error.detail))
            }
            Err(error) => {
                let name = vm_argument(&self.record.relationship.vm_name);
                let cure = format!("turn it off on the way: virt-replica cancel-failover --turn-off {name}");
                Err(Refusal::new(Code::Refused, error.detail, cure))
            }
            Ok(words) => Ok(words),
        }
    }

    /// The point of no return: the other host is primary in the epoch that begins now.
    pub(crate) async fn give_back(&self) -> Result<()> {
        let slot = self.engine.slot(self.operation.relationship);
        let _alone = slot.replica.lock().await;
        if self.runs().await? {
            let cure = format!("virsh shutdown {}", vm_argument(&self.record.relationship.vm_name));
            return Err(Refusal::new(Code::Refused, "the VM was started again", cure));
        }
        let done = self.engine.entry(Mark::Done(Step::GiveBack, "this host is the replica again".into()));
        self.engine.store().give_back(self.operation, &done).map_err(Refusal::failed)
    }

    /// What the VM wrote here is kept apart, and libvirt shows the replica again.
    pub(crate) async fn set_aside(&self) -> Result<String> {
        let slot = self.engine.slot(self.operation.relationship);
        let _alone = slot.replica.lock().await;
        let (engine, vm) = (self.engine, self.record.relationship.vm);
        // One that passed the guard just before the right to run was given back: its files are not moved from under it.
        match engine.vm_state(&self.record).await? {
            // The start of the failover, which was not waited for any more: nobody resumes it, and it hears no shutdown.
            Some(VmState::Paused) if self.operation.options.destroy => {
                engine.hypervisor(move |it| it.turn_off(vm)).await?;
            }
            Some(state) if state.is_active() => {
                let found = "the VM was started again, and belongs to the other host now: two writers, if it runs there";
                let verb = if state == VmState::Paused { "destroy" } else { "shutdown" };
                let cure = format!(
                    "here, and at once: virsh {verb} {}; what it wrote is kept aside",
                    vm_argument(&self.record.relationship.vm_name)
                );
                return Err(Refusal::new(Code::Refused, found, cure));
            }
            _ => {}
        }
        let (directory, at) = (replica::directory(&self.record)?, self.operation.begun);
        // With the definition go the checkpoints of what is set aside.
        engine.hypervisor(move |it| it.undefine(vm)).await?;
        for disk in &directory.manifest().disks {
            let below = directory.file_below_active(&disk.target).map_err(Refusal::failed)?;
            let list = layer::diverged_list_name(at);
            let list = directory.disk_folder(&disk.target).join(list.as_str());
            if let Some(below) = below {
                // What it stands on is the recovery point itself: whatever differs was written here.
                guest_files::list(engine, &directory.active_path(&disk.target), &below, i64::MIN, &list)
                    .await;
            }
        }
        let (definition, bytes) = blocking(move || {
            let mut disks = directory.manifest().disks.iter();
            disks
                .try_for_each(|disk| directory.set_active_aside(&disk.target, at))
                .map_err(Refusal::failed)?;
            directory.remove_active_nvram().map_err(Refusal::failed)?;
            // Not what was set aside before: that may be damaged by now.
            let name = layer::diverged_name(at);
            let aside = directory
                .manifest()
                .disks
                .iter()
                .map(|it| directory.disk_folder(&it.target).join(name.as_str()));
            let bytes = aside
                .filter(|file| file.exists())
                .map(|file| comeback::bytes_in(&file))
                .sum::<Result<u64>>()?;
            let definition = std::fs::read_to_string(directory.definition_path()).map_err(Refusal::failed)?;
            Ok((definition, bytes))
        })
        .await?;
        visible::define(engine, vm, definition).await?;
        Ok(format!(
            "{} that the VM wrote here are kept: virt-replica diverged list",
            crate::operation::mib(bytes)
        ))
    }

    /// The point of no return: no other recovery point is offered any more. Their files go with the merge.
    pub(crate) async fn settle(&self) -> Result<()> {
        let Phase::FailedOver { point, .. } = self.record.relationship.phase else {
            // An earlier version wrote its evidence apart, and was cut in between.
            return self.write(Mark::Done(Step::Settle, "it was final".into()));
        };
        let slot = self.engine.slot(self.operation.relationship);
        let _alone = slot.replica.lock().await;
        let newer = self.engine.newer_than(&self.record, point)?;
        let words = match newer {
            0 => "it was the newest recovery point".to_owned(),
            count => format!("{} given up", counted(count, "newer recovery point")),
        };
        let done = self.engine.entry(Mark::Done(Step::Settle, words));
        let within = Some((self.operation.id, &done));
        self.engine
            .store()
            .settle(self.operation.relationship, within, clock::now())
            .map_err(Refusal::failed)?;
        self.engine.reach("settle.stored").await;
        Ok(())
    }

    /// QEMU merges what lies below the overlay, while the VM runs.
    pub(crate) async fn merge(&self) -> Result<String> {
        let (engine, vm) = (self.engine, self.record.relationship.vm);
        let slot = engine.slot(self.operation.relationship);
        let _alone = slot.replica.lock().await;
        engine.give_up_files(&self.record).await?;
        let point = replica::point(&self.record, None)?.id;
        let targets = keep_only(&self.record, point).await?;
        for target in &targets {
            if let Some((top, base)) = to_merge(&self.record, target).await? {
                if !self.runs().await? {
                    let cure = format!("virsh start {}", vm_argument(&self.record.relationship.vm_name));
                    return Err(Refusal::new(
                        Code::Refused,
                        "the VM is off, and it is QEMU that merges",
                        cure,
                    ));
                }
                let disk = target.clone();
                let begin = move |it: &dyn Hypervisor| it.begin_merge(vm, &disk, &top, &base);
                engine.hypervisor_in_time("begin the merge", begin).await?;
                engine.reach("merge.under way").await;
                while let Some((done, total)) = self.merging(target).await? {
                    slot.show_progress(done, total, self.operation.begun);
                    tokio::time::sleep(MERGE_LOOK).await;
                }
                slot.stop_progress();
            }
            engine.reach("merge.merged").await;
            self.note_merged(target).await?;
        }
        Ok("the VM's disks stand on one file each".into())
    }

    async fn merging(&self, target: &DiskTarget) -> Result<Option<(u64, u64)>> {
        let (vm, disk) = (self.record.relationship.vm, target.clone());
        self.engine.hypervisor(move |it| it.merging(vm, &disk)).await
    }

    /// The manifest follows what QEMU has merged. A merge that ended before its end (QEMU ran out of space, say) is told, and tried
    /// again after a pause; the disk reads as before.
    async fn note_merged(&self, target: &DiskTarget) -> Result<()> {
        if let Some((top, base)) = to_merge(&self.record, target).await? {
            let found = format!(
                "QEMU ended the merge of disk {target} before all of it was in {}: what is below {} may be larger than the space \
                 that is left",
                base.display(),
                top.display()
            );
            let folder = shell_word(&base.parent().unwrap_or(&base).to_string_lossy());
            let cure = format!("make room: df -h {folder}; it is tried again by itself");
            return Err(Refusal::new(Code::Failed, found, cure));
        }
        let (mut directory, target) = (replica::directory(&self.record)?, target.clone());
        blocking(move || directory.layers_are_merged(&target).map_err(Refusal::failed)).await
    }

    /// A merge that a person left out may be under way, or at its end: it is ended, and the files are told as they are before anything else
    /// is done with them.
    pub(crate) async fn conclude_merge(&self) -> Result<()> {
        let slot = self.engine.slot(self.operation.relationship);
        let _alone = slot.replica.lock().await;
        let vm = self.record.relationship.vm;
        let facts =
            self.engine.hypervisor(move |it| it.vm(vm)).await?.filter(|facts| facts.state.is_active());
        let targets: Vec<DiskTarget> = replica::directory(&self.record)?
            .manifest()
            .current_disks()
            .map(|disk| disk.target.clone())
            .collect();
        for target in &targets {
            let is_there =
                facts.as_ref().is_some_and(|facts| facts.disks.iter().any(|disk| disk.target == *target));
            if is_there {
                self.end_merge(target).await?;
            }
            let left = to_merge(&self.record, target).await;
            if left.as_ref().is_ok_and(Option::is_none) {
                self.note_merged(target).await?;
            }
        }
        Ok(())
    }

    /// QEMU is told to end a merge, and does when what it reads or writes just then has ended: on a disk that hangs, not before.
    async fn end_merge(&self, target: &DiskTarget) -> Result<()> {
        let (vm, disk, begun) = (self.record.relationship.vm, target.clone(), Instant::now());
        self.engine.hypervisor(move |it| it.end_merge(vm, &disk)).await?;
        while self.merging(target).await?.is_some() {
            if begun.elapsed() > END_MERGE_MAX {
                let found = format!(
                    "QEMU was told to end the merge of what lies below disk {target}, and has not: a request to its files hangs"
                );
                let vm = vm_argument(&self.record.relationship.vm_name);
                let cure = format!(
                    "see to the storage below it (dmesg); to look: virsh blockjob {vm} {target} --info; it is told so again by itself"
                );
                return Err(Refusal::new(Code::Busy, found, cure));
            }
            tokio::time::sleep(MERGE_LOOK).await;
        }
        Ok(())
    }
}

/// Nothing can be started over what only this host has, and no force skips that.
fn not_kept(record: &Record, error: Refusal) -> Refusal {
    let found = format!(
        "what this host wrote as the old primary must be set aside first, and cannot be: {}",
        error.detail
    );
    let path = record.directory.clone().unwrap_or_default();
    let again = format!(
        "make room for it (df -h {}), then again: virt-replica failover {}",
        shell_word(&path.to_string_lossy()),
        vm_argument(&record.relationship.vm_name)
    );
    let cure = if error.cure.is_empty() { again } else { format!("{}; {again}", error.cure) };
    Refusal { detail: found, cure, ..error }
}

async fn keep_only(record: &Record, point: PointId) -> Result<Vec<DiskTarget>> {
    let mut directory = replica::directory(record)?;
    blocking(move || {
        directory.keep_only(point).map_err(Refusal::failed)?;
        Ok(directory.manifest().current_disks().map(|disk| disk.target.clone()).collect())
    })
    .await
}

async fn to_merge(
    record: &Record,
    target: &DiskTarget,
) -> Result<Option<(std::path::PathBuf, std::path::PathBuf)>> {
    let (directory, target) = (replica::directory(record)?, target.clone());
    blocking(move || directory.to_merge(&target).map_err(Refusal::failed)).await
}

impl crate::Slot {
    fn show_progress(&self, done: u64, total: u64, begun: Timestamp) {
        use std::sync::atomic::Ordering::Relaxed;
        self.done_bytes.store(done, Relaxed);
        self.total_bytes.store(total, Relaxed);
        self.sent_before_bytes.store(0, Relaxed);
        self.begun_ms.store(begun.millis(), Relaxed);
    }
}

impl Engine {
    /// A failover becomes final because it is reversed: newer points are forgotten in the store, then their files go.
    pub(crate) async fn settle_failover(&self, record: &Record) -> Result<()> {
        let relationship = &record.relationship;
        let slot = self.slot(relationship.id);
        let _alone = slot.replica.lock().await;
        if let Phase::FailedOver { point, .. } = relationship.phase {
            self.newer_than(record, point)?;
        }
        self.store().settle(relationship.id, None, clock::now()).map_err(Refusal::failed)?;
        self.reach("settle.stored").await;
        self.give_up_files(record).await
    }

    /// How many recovery points are newer than the one that a failover started from, which is the newest that is known once the others
    /// are given up: it must be among them.
    fn newer_than(&self, record: &Record, point: PointId) -> Result<usize> {
        let directory = replica::directory(record)?;
        chain::know_points(self, record.relationship.id, &directory)?;
        Ok(newer(&directory, &replica::point(record, Some(point))?))
    }

    /// The files of points that the store has given up go. They follow the store, so that whatever stopped this is mended by the next
    /// call, and nothing leaves a failover that is final without one. Whoever calls it holds the replica's lock.
    async fn give_up_files(&self, record: &Record) -> Result<()> {
        let head = self.store().points(record.relationship.id).map_err(Refusal::failed)?.pop();
        let (Some(head), true) = (head, record.directory.is_some()) else { return Ok(()) };
        let mut directory = replica::directory(record)?;
        if newer(&directory, &head) == 0 {
            return Ok(());
        }
        blocking(move || directory.give_up_after(head.id).map_err(Refusal::failed)).await
    }
}

/// How many points of a directory are newer than one.
pub(crate) fn newer(directory: &ReplicaDirectory, than: &RecoveryPoint) -> usize {
    directory.manifest().points.iter().filter(|it| it.point.ordinal > than.ordinal).count()
}

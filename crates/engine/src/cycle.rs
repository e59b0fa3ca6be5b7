//! One round of replication: compare beliefs, freeze one instant, read what changed, send it, and only when the replica has
//! sealed it let go of what it stood on. If the link breaks, the delta goes on where it stopped (`transfer`); if anything else
//! fails, the new checkpoint goes and the next cycle covers more.

use domain::{
    Consistency, DiskTarget, Divergence, Epoch, Lineage, Notice, Phase, PointId, RecoveryPoint, Timestamp,
};
use hypervisor::{Obstacle, VmFacts, VmState};
use store::Record;
use uuid::Uuid;
use wire::DeltaHeader;
use wire::delta::DeltaDisk;
use wire::message::form::{consistency_from_name, consistency_name};
use wire::message::{Beliefs, Partial, Unfinished};

use crate::attachments::Envelope;
use crate::basis::{self, Basis};
use crate::compare::{policy, verify};
use crate::events::Number;
use crate::export::{self, Export};
use crate::hear::{Heard, overtaken_by};
use crate::notice;
use crate::points;
use crate::quiesce::Moment;
use crate::seal::{self, Seal};
use crate::shrunk;
use crate::source::{self, Source, checkpoint_name, own_checkpoints, source_file};
use crate::transfer::{Acknowledged, Transfer};
use crate::{
    Code, Engine, Recovery, Refusal, Result, boot, clock, comeback, ended, life, operation, scratch,
};

/// What a cycle achieved.
#[derive(Clone, Debug)]
pub(crate) struct Synchronized {
    /// The head that both sides have.
    pub(crate) head: RecoveryPoint,
    /// The replica's own lineage of it.
    pub(crate) replica_lineage: Lineage,
    /// Bytes of guest data that travelled now; zero when nothing had changed.
    pub(crate) bytes: u64,
    /// Bytes that went over the link for it.
    pub(crate) sent_bytes: u64,
}

/// Runs one cycle of a primary.
pub(crate) async fn run(engine: &Engine, record: &Record) -> Result<Synchronized> {
    let relationship = &record.relationship;
    let slot = engine.slot(relationship.id);
    let stale = slot.unfinished().take_if(|transfer| transfer.is_stale());
    if let Some(stale) = stale {
        // Before anybody is asked: the guest pays for its source, and the other host may be away for long.
        stale.close(engine).await;
    }
    let kept = if slot.unfinished().is_some() { None } else { kept_header(engine, record)? };
    let unfinished = slot.unfinished().as_ref().map(|it| &it.header).or(kept.as_ref()).map(unfinished);
    let beliefs = beliefs(engine, record, unfinished).await?;
    engine.reach("cycle.agreed").await;
    // It may have said that this host is primary in a higher epoch.
    let record = &engine.record(relationship.id)?;
    let relationship = &record.relationship;
    let seeded = beliefs.seeded;
    let their_head = beliefs.head.map(RecoveryPoint::try_from).transpose()?;
    let export = export::wanted(engine, relationship.id)?.filter(|_| their_head.is_none());
    if let Some(export) = export.as_ref().filter(|export| export.point.is_some()) {
        return Err(export::waits(engine, record, export));
    }
    let vm = relationship.vm;
    let (facts, seen) = engine.look_at(record).await?.ok_or_else(|| {
        let found = format!("VM {:?} is not defined on this host any more", relationship.vm_name);
        Refusal::new(
            Code::Refused,
            found,
            "define it again (virsh define), or end its replication: virt-replica remove",
        )
    })?;
    check_vm(&facts, record)?;
    shrunk::expect_none(engine, record, &seen)?;
    let disks: Vec<DiskTarget> = relationship.settings.replicated_disks().cloned().collect();

    let history = engine.store().points(relationship.id).map_err(Refusal::failed)?;
    let checkpoints = own_checkpoints(engine, vm).await?;
    let their_epoch =
        Epoch::new(beliefs.epoch).ok_or_else(|| Refusal::failed("the other host sent epoch 0"))?;
    let decision =
        basis::decide((relationship.epoch, their_epoch), &history, their_head.as_ref(), &checkpoints);
    let decision = decision
        .map_err(|error| Refusal::new(Code::InDoubt, error.to_string(), "virt-replica show on both hosts"))?;
    if let Some(adopted) = &decision.adopt {
        engine.store().add_point(relationship.id, adopted, clock::now()).map_err(Refusal::failed)?;
        // What else came with it is not known: what is there now travels once more.
        engine.store().set_offline_seal(relationship.id, None).map_err(Refusal::failed)?;
    }
    let envelope = Envelope::of(&facts)?;
    let divergence = beliefs.divergence.map(Divergence::try_from).transpose()?;
    let basis = with_divergence(decision.basis, divergence.as_ref());
    let whole = disks.iter().filter(|disk| beliefs.lacks.iter().any(|it| it == disk.as_str()));
    let whole = whole.cloned().collect();
    let basis = match (basis, policy::wanted(engine, record)?) {
        (Basis::Initial, _) if seeded => {
            Basis::Compare { cause: "the replica begins from an existing copy".to_owned() }
        }
        (Basis::Since(_), Some(cause)) => Basis::Compare { cause },
        (basis, _) => basis,
    };
    let verifies = matches!(basis, Basis::Since(_)) && policy::verification_is_due(engine, record)?;
    let mut attempt = Attempt {
        engine,
        record,
        facts,
        envelope,
        disks,
        whole,
        their_head,
        basis,
        divergence,
        verifies,
        export,
    };
    let transfer = slot.unfinished().take();
    let transfer = match (transfer, kept) {
        (None, Some(header)) => attempt.reopen(header).await,
        (transfer, _) => transfer,
    };
    if let Some(transfer) = transfer {
        if attempt.stands_where_it_did(&transfer) {
            return attempt.go_on(transfer, beliefs.partial).await;
        }
        transfer.close(engine).await;
    }
    engine.store().forget_unfinished(relationship.id).map_err(Refusal::failed)?;
    let mut _room = None;
    if let Basis::Compare { cause } = &attempt.basis {
        if relationship.phase == Phase::Replicating {
            announce_resynchronization(engine, record, cause)?;
        }
        _room = policy::admit(engine, record, cause).await?;
    }
    match attempt.synchronize(&checkpoints).await {
        // Tracking turned out to be unusable: both sides are compared, what differs goes onto the head, no point is lost.
        Err(error) if error.code == Code::TrackingLost && matches!(attempt.basis, Basis::Since(_)) => {
            announce_resynchronization(engine, record, &error.detail)?;
            _room = policy::admit(engine, record, &error.detail).await?;
            attempt.verifies = false;
            attempt.basis = Basis::Compare { cause: error.detail };
            attempt.synchronize(&checkpoints).await
        }
        other => other,
    }
}

/// The header of a first copy that was on its way when this daemon ended.
fn kept_header(engine: &Engine, record: &Record) -> Result<Option<DeltaHeader>> {
    let kept = engine.store().unfinished(record.relationship.id).map_err(Refusal::failed)?;
    Ok(kept.and_then(|json| DeltaHeader::from_json(json.as_bytes()).ok()))
}

fn unfinished(header: &DeltaHeader) -> Unfinished {
    Unfinished { point: header.point, ordinal: header.ordinal }
}

async fn beliefs(engine: &Engine, record: &Record, unfinished: Option<Unfinished>) -> Result<Beliefs> {
    let relationship = &record.relationship;
    let beliefs = match engine.hear_for_a_cycle(record, unfinished).await {
        Heard::Unknown(_) => return Err(ended::refusal(engine, record)),
        heard => heard.into_beliefs()?,
    };
    if let Some(by) = overtaken_by(&engine.record(relationship.id)?) {
        let (peer, vm) = (engine.peer_name(record), domain::vm_argument(&relationship.vm_name));
        let found = format!(
            "{peer} failed the VM over (epoch {by}, here {}): what is here is a stale copy",
            relationship.epoch
        );
        let cure = match beliefs.ended {
            true => ended::stale_cure(&peer, &vm),
            false => format!("on {peer}: virt-replica reverse {vm}, or virt-replica cancel-failover {vm}"),
        };
        return Err(Refusal::new(Code::InDoubt, found, cure));
    }
    if beliefs.ended {
        return Err(ended::refusal(engine, record));
    }
    engine.store().set_paused_on_peer(relationship.id, beliefs.paused).map_err(Refusal::failed)?;
    if beliefs.paused {
        let vm = domain::vm_argument(&relationship.vm_name);
        let cure = format!("on the replica server: virt-replica resume {vm}");
        return Err(Refusal::new(Code::Refused, "replication is paused on the replica server", cure));
    }
    if !beliefs.receives {
        let found = format!("the replica server does not receive: it is in state \"{}\"", beliefs.phase);
        return Err(Refusal::new(Code::Refused, found, "virt-replica show, on both hosts"));
    }
    Ok(beliefs)
}

fn announce_resynchronization(engine: &Engine, record: &Record, cause: &str) -> Result<()> {
    let relationship = &record.relationship;
    // In a handover the side stays locked: the final delta carries what differs, and the lock is not ours to lift.
    if relationship.phase == Phase::Yielding {
        return Ok(());
    }
    Recovery::Resynchronization.taken();
    let phase = Phase::Resynchronizing { cause: cause.to_owned() };
    engine.store().set_phase(relationship.id, &phase).map_err(Refusal::failed)?;
    engine.event(
        Number::ResynchronizationRequired,
        &relationship.vm_name,
        format!("resynchronization: {cause}"),
    );
    Ok(())
}

/// A VM that libvirt will not track, and a disk that came, went or became something else, are noticed before any byte moves.
fn check_vm(facts: &VmFacts, record: &Record) -> Result<()> {
    let relationship = &record.relationship;
    let mut notices = Vec::new();
    if facts.obstacles.contains(&Obstacle::NotPersistent) {
        notices.push(notice::not_persistent(&facts.name));
    }
    notices.extend(life::moved_since(record, facts));
    // Health has warned of these. What is handed over must be whole.
    if relationship.phase == Phase::Yielding {
        notices.extend(life::added_disks(facts, &relationship.settings, None));
        notices.extend(notice::strayed_disks(record, facts)?);
    }
    if let Some(Notice { what, cure, .. }) = notices.into_iter().next() {
        return Err(Refusal::new(Code::Refused, what, cure));
    }
    relationship.settings.replicated_disks().try_for_each(|target| source_file(facts, target).map(drop))
}

/// A replica that differs from its newest point in nobody knows what is compared.
fn with_divergence(basis: Basis, divergence: Option<&Divergence>) -> Basis {
    match divergence {
        Some(divergence) if !divergence.is_known() => Basis::Compare {
            cause: "what the old primary wrote after the failover was not tracked to the end".to_owned(),
        },
        _ => basis,
    }
}

struct Attempt<'a> {
    engine: &'a Engine,
    record: &'a Record,
    facts: VmFacts,
    envelope: Envelope,
    disks: Vec<DiskTarget>,
    /// Those of them that the replica's newest point lacks.
    whole: Vec<DiskTarget>,
    their_head: Option<RecoveryPoint>,
    basis: Basis,
    /// Where the replica's disks differ from its newest point.
    divergence: Option<Divergence>,
    /// The source is compared with the replica's new head.
    verifies: bool,
    /// Where a first copy goes that is carried by hand.
    export: Option<Export>,
}

impl Attempt<'_> {
    async fn synchronize(&self, checkpoints: &[PointId]) -> Result<Synchronized> {
        if let Basis::Compare { .. } = self.basis {
            let begun = self.engine.store().begin_resynchronization(self.record.relationship.id);
            begun.map_err(Refusal::failed)?;
        }
        if self.facts.state.is_active() {
            self.live(checkpoints).await
        } else {
            self.offline(checkpoints).await
        }
    }

    async fn live(&self, checkpoints: &[PointId]) -> Result<Synchronized> {
        let (engine, vm) = (self.engine, self.facts.id);
        let base = match &self.basis {
            Basis::Since(base) => Some(*base),
            _ => None,
        };
        boot::wait(engine, self.record, &self.facts).await?;
        // A job or a checkpoint of ours that a crash left behind.
        engine.hypervisor(move |it| it.end_backup(vm)).await?;
        self.drop_checkpoints(checkpoints.iter().copied().filter(|it| Some(*it) != base)).await;
        let point = PointId(Uuid::now_v7());
        let wanted = points::wanted(engine, self.record)?;
        let how = (self.record, wanted.freeze);
        let disks = (&self.disks[..], &self.whole[..]);
        let source = source::open_live(engine, how, &self.facts, disks, point, &self.basis).await;
        engine.reach("cycle.frozen").await;
        let sent = match source {
            Ok((source, moment)) => self.send(source, point, Moment { tag: wanted.tag, ..moment }).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(synchronized) => {
                engine.reach("cycle.kept").await;
                self.drop_checkpoints(base.into_iter()).await;
                Ok(synchronized)
            }
            // It can go on: the checkpoint stays, and the job too if it is still needed.
            Err(error) if self.counts_from(point) => Err(error),
            Err(error) => {
                let _ = engine.hypervisor(move |it| it.end_backup(vm)).await;
                self.drop_checkpoints(std::iter::once(point)).await;
                Err(error)
            }
        }
    }

    /// The backup job of a first copy outlives the daemon, and with it the instant that is copied.
    async fn reopen(&self, header: DeltaHeader) -> Option<Transfer> {
        let basis = match &self.basis {
            Basis::Since(_) => return None,
            other => other.clone(),
        };
        let point = PointId(header.point);
        let whose = (self.record.relationship.id, self.facts.id);
        let source = source::reopen_live(self.engine, whose, point, &basis).await;
        let source = source.inspect_err(|error| tracing::info!(%error, "the first copy begins anew")).ok()?;
        let parent = self.their_head.as_ref().map_or(Lineage::ORIGIN, |head| head.lineage);
        Some(Transfer::new(header, basis, parent, source))
    }

    /// A transfer that broke goes on only in the same world: the same head below, the same epoch, the same disks.
    fn stands_where_it_did(&self, transfer: &Transfer) -> bool {
        let header = &transfer.header;
        !transfer.is_stale()
            && header.parent == self.their_head.as_ref().map(|head| head.id.0)
            && header.epoch == self.record.relationship.epoch.number()
            && header
                .disks
                .iter()
                .map(|disk| disk.target.as_str())
                .eq(self.disks.iter().map(DiskTarget::as_str))
    }

    async fn go_on(&self, transfer: Transfer, from: Option<Partial>) -> Result<Synchronized> {
        let point = PointId(transfer.header.point);
        let from = from.filter(|from| from.point == point.0);
        let done = self.carry(transfer, from).await?;
        let checkpoints = own_checkpoints(self.engine, self.facts.id).await?;
        if checkpoints.contains(&point) {
            self.drop_checkpoints(checkpoints.into_iter().filter(|it| *it != point)).await;
        }
        Ok(done)
    }

    /// Of a VM that is off. Programs of QEMU write into its bitmaps as QEMU itself does; whatever else leaves a disk behind
    /// has no bitmap of the head, for each head has its own.
    async fn offline(&self, checkpoints: &[PointId]) -> Result<Synchronized> {
        let (engine, relationship) = (self.engine, &self.record.relationship);
        let (id, point) = (relationship.id, PointId(Uuid::now_v7()));
        let bitmaps: Vec<String> = match &self.basis {
            Basis::Since(base) => {
                // What is handed over is read from the bitmap itself, which costs milliseconds.
                let handed_over = relationship.phase == Phase::Yielding;
                let shared = self.divergence.is_none() && !self.verifies;
                let wished = points::is_wished(engine, self.record);
                if !handed_over
                    && shared
                    && !wished
                    && let Some(unchanged) = self.unchanged_since_last_time()?
                {
                    return Ok(unchanged);
                }
                seal::expect_one_bitmap(&self.facts, &self.disks).await?;
                checkpoints.iter().skip_while(|it| *it != base).map(|it| checkpoint_name(*it)).collect()
            }
            Basis::Initial | Basis::Compare { .. } => {
                self.drop_checkpoints(checkpoints.iter().copied()).await;
                seal::forget_bitmaps(&self.facts, &self.disks).await;
                Vec::new()
            }
        };
        // In a handover the demotion ends all tracking, and the guest waits for us.
        let tracks = relationship.phase != Phase::Yielding || bitmaps.is_empty();
        if tracks {
            // Tracking begins before the first byte is read; the image lock keeps the VM off meanwhile.
            let (vm, name, disks) = (self.facts.id, checkpoint_name(point), self.disks.clone());
            engine.hypervisor(move |it| it.create_checkpoint_offline(vm, &name, &disks)).await?;
        }
        let frozen = Seal::now(&self.facts, &self.disks, &self.envelope)?;
        let held = engine.slot(id).files.hold();
        let disks = (&self.disks[..], &self.whole[..]);
        let source = source::open_offline(engine, held, &self.facts, disks, &bitmaps, &self.basis).await;
        let tag = points::wanted(engine, self.record)?.tag;
        let sent = match source {
            Ok(source) => self.send(source, point, Moment::now(self.consistency_of_off(), tag)).await,
            Err(error) => Err(error),
        };
        let done = match &sent {
            Ok(_) => checkpoints,
            // It can go on, and then these are the checkpoints that it needs.
            Err(_) if self.counts_from(point) => &[],
            Err(_) => &[point],
        };
        // The image lock is gone long before the last byte has travelled: somebody may have written, or started the VM.
        let untouched = Seal::now(&self.facts, &self.disks, &self.envelope)? == frozen;
        if tracks {
            self.drop_checkpoints(done.iter().copied()).await;
        }
        if sent.is_ok() {
            let seal = if untouched { self.seal_of_off().await? } else { None };
            engine.store().set_offline_seal(id, seal.as_deref()).map_err(Refusal::failed)?;
        }
        sent
    }

    /// Whether a delta that this host has not heard of yet may become this point: its checkpoint stays.
    fn counts_from(&self, point: PointId) -> bool {
        let id = self.record.relationship.id;
        let exported = export::wanted(self.engine, id).ok().flatten().and_then(|export| export.point);
        self.engine.slot(id).unfinished().is_some() || exported == Some(point.0)
    }

    /// Writes a first copy to where it is carried from by hand; the replica tells when it has it.
    async fn export(&self, mut transfer: Transfer, export: &Export) -> Refusal {
        let (engine, id) = (self.engine, self.record.relationship.id);
        let written = transfer.export(engine, self.record, &export.directory).await;
        let point = transfer.header.point;
        transfer.close(engine).await;
        let done = Export { point: Some(point), ..export.clone() };
        if let Err(error) = written.and_then(|()| export::keep(engine, id, &done)) {
            return error;
        }
        let text = format!("the initial copy lies in {}", export.directory.display());
        engine.event(Number::Exported, &self.facts.name, text);
        export::waits(engine, self.record, &done)
    }

    /// The seal as it is now that our own checkpoints have gone; none when the VM runs.
    async fn seal_of_off(&self) -> Result<Option<String>> {
        let seal = Seal::now(&self.facts, &self.disks, &self.envelope)?.to_text()?;
        let vm = self.facts.id;
        let state = self.engine.hypervisor(move |it| it.vm_state(vm)).await?;
        Ok(state.filter(|state| !state.is_active()).map(|_| seal))
    }

    fn consistency_of_off(&self) -> Consistency {
        match self.facts.state {
            VmState::ShutOff(hypervisor::ShutoffReason::Shutdown) => Consistency::PoweredOff,
            _ => Consistency::Crash,
        }
    }

    /// What is to be answered when nobody touched the VM since the last delta; an event tells when somebody did.
    fn unchanged_since_last_time(&self) -> Result<Option<Synchronized>> {
        let (engine, id) = (self.engine, self.record.relationship.id);
        let Some(before) = Seal::before(self.record) else { return Ok(None) };
        let now = Seal::now(&self.facts, &self.disks, &self.envelope)?;
        if before.files != now.files {
            let text = "a disk was written to while the VM was off; what changed travels now";
            engine.event(Number::CarriedOver, &self.facts.name, text);
            engine.store().set_offline_seal(id, None).map_err(Refusal::failed)?;
        }
        let head = engine.store().points(id).map_err(Refusal::failed)?.pop();
        let common = head.zip(self.their_head.as_ref()).filter(|(ours, theirs)| ours.id == theirs.id);
        let Some((head, theirs)) = common.filter(|_| before == now) else { return Ok(None) };
        engine.store().set_synchronized(id, clock::now()).map_err(Refusal::failed)?;
        Ok(Some(Synchronized { head, replica_lineage: theirs.lineage, bytes: 0, sent_bytes: 0 }))
    }

    async fn drop_checkpoints(&self, points: impl Iterator<Item = PointId>) {
        for point in points {
            let (vm, name) = (self.facts.id, checkpoint_name(point));
            if let Err(error) = self.engine.hypervisor(move |it| it.delete_checkpoint(vm, &name)).await {
                // It only costs a little memory; a checkpoint that cannot go must not stop replication.
                tracing::warn!(%point, %error, "a checkpoint could not be deleted");
            }
        }
    }

    async fn send(&self, mut source: Source, id: PointId, moment: Moment) -> Result<Synchronized> {
        if let (Some(divergence), Basis::Since(_)) = (&self.divergence, &self.basis)
            && let Err(error) = comeback::cover(&mut source, divergence).await
        {
            source.close(self.engine).await;
            return Err(error);
        }
        let parent = self.their_head.as_ref().map_or(Lineage::ORIGIN, |head| head.lineage);
        let header = self.header(&source, id, moment);
        let transfer = Transfer::new(header, self.basis.clone(), parent, source).verifying(self.verifies);
        self.carry(transfer, None).await
    }

    /// Sends a delta to its end, or keeps it for the next try; acknowledged, it becomes a point here too.
    async fn carry(&self, mut transfer: Transfer, from: Option<Partial>) -> Result<Synchronized> {
        if let Some(export) = &self.export {
            return Err(self.export(transfer, export).await);
        }
        let (engine, id) = (self.engine, self.record.relationship.id);
        if transfer.outlives_the_daemon() {
            let header = serde_json::to_string(&transfer.header).map_err(Refusal::failed)?;
            engine.store().keep_unfinished(id, &header).map_err(Refusal::failed)?;
        }
        let sent = transfer.send(engine, self.record, from.as_ref()).await;
        let acknowledged = match sent.map_err(|error| scratch::reason(engine, id).unwrap_or(error)) {
            Ok(acknowledged) => acknowledged,
            Err(error) if transfer.can_go_on(&error) => {
                *engine.slot(id).unfinished() = Some(transfer);
                return Err(error);
            }
            Err(error) => {
                transfer.close(engine).await;
                engine.store().forget_unfinished(id).map_err(Refusal::failed)?;
                return Err(error);
            }
        };
        engine.store().forget_unfinished(id).map_err(Refusal::failed)?;
        let header = &transfer.header;
        let head = RecoveryPoint {
            id: PointId(header.point),
            parent: header.parent.map(PointId),
            ordinal: header.ordinal,
            epoch: self.record.relationship.epoch,
            instant: Timestamp(header.instant_ms),
            consistency: consistency_from_name(&header.consistency)?,
            lineage: acknowledged.lineage,
            delta_bytes: acknowledged.bytes,
            tag: header.tag.clone(),
        };
        engine.reach("cycle.acknowledged").await;
        engine.store().add_point(id, &head, clock::now()).map_err(Refusal::failed)?;
        engine.store().forget_old_points(id, &head).map_err(Refusal::failed)?;
        let Acknowledged { replica_lineage, bytes, sent_bytes, .. } = acknowledged;
        if let Basis::Compare { .. } = transfer.basis {
            self.resynchronized(&transfer.header, bytes)?;
        }
        if let Some(source) = transfer.kept_source()
            && let Err(error) = verify::verify(engine, self.record, &head, source).await
        {
            // The cycle was a good one; the verification stays wanted, and comes with a later one.
            tracing::warn!(%error, "the replica could not be verified");
        }
        Ok(Synchronized { head, replica_lineage, bytes, sent_bytes })
    }

    fn resynchronized(&self, header: &DeltaHeader, bytes: u64) -> Result<()> {
        self.engine.store().resynchronized(self.record.relationship.id).map_err(Refusal::failed)?;
        let total = header.disks.iter().map(|disk| disk.virtual_size).sum();
        let (bytes, total) = (operation::mib(bytes), operation::mib(total));
        let point = header.point;
        let text = format!(
            "resynchronized: {bytes} of {total} differed and travelled as recovery point {point}; none was lost"
        );
        self.engine.event(Number::Resynchronized, &self.facts.name, text);
        Ok(())
    }

    fn header(&self, source: &Source, id: PointId, moment: Moment) -> DeltaHeader {
        let disk = |disk: &source::SourceDisk| DeltaDisk {
            target: disk.target.as_str().to_owned(),
            virtual_size: disk.client.size(),
        };
        DeltaHeader {
            relationship: self.record.relationship.id.0,
            epoch: self.record.relationship.epoch.number(),
            point: id.0,
            parent: self.their_head.as_ref().map(|head| head.id.0),
            ordinal: self.their_head.as_ref().map_or(1, |head| head.ordinal + 1),
            instant_ms: moment.instant.millis(),
            consistency: consistency_name(moment.consistency).to_owned(),
            disks: source.disks.iter().map(disk).collect(),
            resume_at: None,
            domain_xml: self.envelope.definition.clone(),
            attachments: self.envelope.attachments.clone(),
            expected_bytes: source.data_bytes(),
            tag: moment.tag,
            autostart: Some(self.facts.autostart),
        }
    }
}

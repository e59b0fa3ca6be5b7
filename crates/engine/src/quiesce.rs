//! Application-consistent points: the guest's agent freezes its file systems for the instant in which the point is made.
//!
//! ```text
//! watchdog ─▶ row ─▶ freeze ─▶ the backup job begins: this is the instant ─▶ thaw ─▶ row ─▶ watchdog is sent home
//! ```
//! Whatever ends in between, the guest is thawed: by the watchdog, a process of its own that thaws when this daemon dies or takes
//! too long, and by the next start of the daemon, which reads the row. The point says what was really reached.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use domain::{Consistency, Health, Notice, Phase, Timestamp, VmId, vm_argument};
use hypervisor::{BackupRequest, Hypervisor, OpenBackup, VmFacts};
use store::{Record, Store};
use tokio::time::Instant;

use crate::events::Number;
use crate::{Engine, Refusal, Result, clock};

/// How long the agent is given to freeze: a guest that writes much has much to write out first.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// How long it is given to thaw, for each try.
const THAW_DEADLINE: Duration = Duration::from_secs(5);
/// After this long the watchdog thaws the guest, whoever is at work.
pub const FROZEN_MAX: Duration = Duration::from_secs(20);
/// Pause between two tries to thaw.
const RETRY: Duration = Duration::from_secs(2);
/// After the start of the daemon a guest is thawed within this long, or its agent is gone.
const LATE_THAW_MAX: Duration = Duration::from_secs(300);

/// A backup job that has begun, and at which instant.
pub(crate) struct Begun {
    pub(crate) open: OpenBackup,
    pub(crate) moment: Moment,
}

/// The instant of a point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Moment {
    pub(crate) instant: Timestamp,
    pub(crate) consistency: Consistency,
    pub(crate) tag: Option<String>,
}

impl Moment {
    /// Now, of a VM that is left alone.
    pub(crate) fn now(consistency: Consistency, tag: Option<String>) -> Moment {
        Moment { instant: clock::now(), consistency, tag }
    }
}

/// Whether the next point is to be application-consistent.
pub(crate) fn is_due(engine: &Engine, record: &Record) -> Result<bool> {
    let settings = &record.relationship.settings;
    let Some(every) = settings.application_consistent_every else { return Ok(false) };
    let last = engine.store().last_freeze(record.relationship.id).map_err(Refusal::failed)?;
    Ok(last.is_none_or(|last| last.tried.is_due_again(every, clock::now())))
}

/// Begins a backup job, with the guest frozen for that instant when `freeze`. A guest that cannot be frozen is no obstacle: the point
/// is then as after a power cut.
pub(crate) async fn begin(
    engine: &Engine,
    record: &Record,
    facts: &VmFacts,
    request: BackupRequest,
    freeze: bool,
) -> Result<Begun> {
    let (id, vm, has_agent) = (record.relationship.id, facts.id, facts.has_agent);
    let (store, program) = (engine.store().clone(), engine.config().program.clone());
    // One piece of work on one thread: a cycle that is given up does not leave it in its middle.
    let hold = engine.clone();
    let handle = tokio::runtime::Handle::current();
    let begun = engine
        .hypervisor(move |it| {
            if !freeze {
                let open = it.begin_backup(vm, &request)?;
                return Ok((open, clock::now(), None));
            }
            let frozen = match has_agent {
                true => Frozen::freeze(it, &store, &program, id, vm),
                false => Err("the VM has no guest agent channel".to_owned()),
            };
            handle.block_on(hold.reach("freeze.frozen"));
            let opened = it.begin_backup(vm, &request);
            let instant = clock::now();
            let reached = frozen.and_then(|frozen| frozen.thaw(it, &store));
            Ok((opened?, instant, Some(reached)))
        })
        .await;
    let (open, instant, reached) = begun?;
    let consistency = match &reached {
        Some(Ok(consistency)) => *consistency,
        Some(Err(_)) | None => Consistency::Crash,
    };
    if let Some(reached) = reached {
        keep(engine, record, reached.err())?;
    }
    Ok(Begun { open, moment: Moment { instant, consistency, tag: None } })
}

/// What became of a try to freeze: said when it changes.
fn keep(engine: &Engine, record: &Record, failure: Option<String>) -> Result<()> {
    let (id, name) = (record.relationship.id, &record.relationship.vm_name);
    let before = engine.store().last_freeze(id).map_err(Refusal::failed)?.and_then(|last| last.failure);
    engine.store().set_freeze_result(id, clock::now(), failure.as_deref()).map_err(Refusal::failed)?;
    match (before, failure) {
        (Some(_), None) => {
            engine.event(
                Number::ConsistentAgain,
                name,
                "application-consistent recovery points are made again",
            );
        }
        (before, Some(why)) if before.as_ref() != Some(&why) => {
            let text = format!("a recovery point is only crash-consistent: {why}. {CURE}");
            engine.event(Number::NotConsistent, name, text);
        }
        _ => {}
    }
    Ok(())
}

const CURE: &str =
    "Cure: see that the guest agent runs in the guest (qemu-guest-agent) and may freeze its file systems";

/// A guest whose file systems are frozen.
struct Frozen {
    relationship: domain::RelationshipId,
    vm: VmId,
    since: Instant,
    /// What it promises of its applications.
    consistency: Consistency,
    watchdog: Watchdog,
}

impl Frozen {
    fn freeze(
        it: &dyn Hypervisor,
        store: &Store,
        program: &Path,
        relationship: domain::RelationshipId,
        vm: VmId,
    ) -> std::result::Result<Frozen, String> {
        // Asked before: a frozen agent answers nothing else.
        let consistency = match it.freezes_applications(vm, THAW_DEADLINE) {
            Ok(true) => Consistency::Application,
            Ok(false) => Consistency::FileSystem,
            Err(error) => return Err(format!("the guest agent does not answer: {error}")),
        };
        let watchdog = Watchdog::start(program, vm)
            .map_err(|error| format!("no watchdog over the freeze could be started: {error}"))?;
        store.begin_freeze(relationship, clock::now()).map_err(|error| error.to_string())?;
        let frozen = Frozen { relationship, vm, since: Instant::now(), consistency, watchdog };
        let failure = match it.freeze(vm, FREEZE_DEADLINE) {
            Ok(0) => "the guest agent froze no file system".to_owned(),
            Ok(_) => return Ok(frozen),
            // One that answered too late may still have happened.
            Err(error) => format!("the guest's file systems could not be frozen: {error}"),
        };
        let _ = frozen.release(it, store);
        Err(failure)
    }

    /// Thaws, and says what the guest's file systems were like until now.
    fn thaw(self, it: &dyn Hypervisor, store: &Store) -> std::result::Result<Consistency, String> {
        let (consistency, took) = (self.consistency, self.since.elapsed());
        let thawed = self.release(it, store)?;
        if thawed == 0 || took >= FROZEN_MAX {
            let took = took.as_secs();
            return Err(format!("the guest thawed before the point was made, which took {took} s"));
        }
        Ok(consistency)
    }

    /// Thaws, as often as it takes while the watchdog would.
    fn release(self, it: &dyn Hypervisor, store: &Store) -> std::result::Result<u32, String> {
        let mut thawed = it.thaw(self.vm, THAW_DEADLINE);
        while thawed.is_err() && self.since.elapsed() < FROZEN_MAX {
            std::thread::sleep(RETRY);
            thawed = it.thaw(self.vm, THAW_DEADLINE);
        }
        match thawed {
            Ok(file_systems) => {
                // A row that stays costs one thaw too many at the next start.
                let _ = store.end_freeze(self.relationship);
                self.watchdog.dismiss();
                Ok(file_systems)
            }
            // The watchdog goes on.
            Err(error) => Err(format!("the guest could not be thawed at once: {error}")),
        }
    }
}

/// The process that thaws a guest when nobody else does.
struct Watchdog(Child);

impl Watchdog {
    fn start(program: &Path, vm: VmId) -> std::io::Result<Watchdog> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command.args(["--thaw-when-orphaned", &vm.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        command.spawn().map(Watchdog)
    }

    /// The guest is thawed: nothing is left to do.
    fn dismiss(mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(DISMISSED);
        }
        std::thread::spawn(move || self.0.wait());
    }
}

/// What a watchdog reads when it is not needed any more; the end of the pipe without it means that the daemon died.
pub const DISMISSED: &[u8] = b"thawed\n";

/// After a start: guests that a daemon froze and did not thaw.
pub(crate) async fn thaw_what_is_left(engine: Engine) {
    for id in engine.store().frozen().unwrap_or_default() {
        let Ok(record) = engine.record(id) else { continue };
        let (vm, begun) = (record.relationship.vm, Instant::now());
        loop {
            let state = engine.hypervisor(move |it| it.vm_state(vm)).await;
            let off = matches!(&state, Ok(state) if !state.is_some_and(hypervisor::VmState::is_active));
            let thawed =
                if off { Ok(0) } else { engine.hypervisor(move |it| it.thaw(vm, THAW_DEADLINE)).await };
            match thawed {
                Ok(file_systems) => {
                    if file_systems > 0 {
                        let text = "the guest was found frozen after the daemon had ended, and was thawed";
                        engine.event(Number::FoundFrozen, &record.relationship.vm_name, text);
                    }
                    let _ = engine.store().end_freeze(id);
                    break;
                }
                Err(error) if begun.elapsed() > LATE_THAW_MAX => {
                    let vm = vm_argument(&record.relationship.vm_name);
                    let text = format!(
                        "the guest may be frozen, and does not thaw: {error}. Cure: virsh domfsthaw {vm}"
                    );
                    engine.event(Number::FoundFrozen, &record.relationship.vm_name, text);
                    break;
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }
}

/// What health says: the schedule is not kept.
pub(crate) fn notices(engine: &Engine, record: &Record) -> Result<Vec<Notice>> {
    let relationship = &record.relationship;
    if relationship.settings.application_consistent_every.is_none()
        || relationship.phase != Phase::Replicating
    {
        return Ok(Vec::new());
    }
    let last = engine.store().last_freeze(relationship.id).map_err(Refusal::failed)?;
    let notice = |why: String| Notice {
        severity: Health::Warning,
        what: format!("no application-consistent recovery point was made when one was due: {why}"),
        cure: format!(
            "see that the guest agent runs in the guest, or do not ask for it: virt-replica set {} --application-consistent-every never",
            vm_argument(&relationship.vm_name)
        ),
    };
    Ok(last.and_then(|last| last.failure).map(notice).into_iter().collect())
}

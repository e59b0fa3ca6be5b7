//! Test failover: a throw-away copy of the VM starts from a recovery point on the replica, while replication goes on.
//!
//! ```text
//! making ──▶ standing ──▶ removing ──▶ ended          any failure of making goes to removing as well
//!  files      boot check    VM, network,  only the
//!  network    picture       files go      report is left
//!  VM         probes
//! ```
//! Each is written in the store before anything of it is made, and one task carries it from there to its end. After a crash
//! what was half made is removed, and what was complete stands as it stood. The copy has an identity of its own, sees no
//! network but its own, and writes to overlays; its point is pinned, so that nobody merges what it reads.

mod check;
mod drill;
mod make;
mod network;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use choreography::authority::Denied;
use domain::{Check, CheckName, Phase, PointId, RelationshipId, TestId, Timestamp, VmId, vm_argument};
use hypervisor::NicKind;
use layer::FileName;
use serde::{Deserialize, Serialize};
use store::{Record, StoreError, TestFailover, TestState};
use uuid::Uuid;

use crate::events::Number;
use crate::intact::{self, Start};
use crate::notice::word;
use crate::{Code, Engine, Plan, Refusal, Result, clock, replica, survey};

pub(crate) use drill::{mind, notices};

/// Most copies of one VM at once.
const AT_ONCE_MAX: usize = 16;
/// What a copy is expected to write at most while it boots and is looked at. Less is enough for smaller disks.
const ROOM_BYTES: u64 = 2 << 30;
/// Reports of tests that have ended are kept, for each VM.
const REPORTS_KEPT: usize = 50;
/// Longest wait for a merge of recovery points.
const MERGE_WAIT: Duration = Duration::from_secs(60);
/// Pause before removing is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Pause between two looks whether somebody wants it to end.
const LOOK: Duration = Duration::from_millis(500);

/// What is asked of a test failover.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TestOptions {
    /// From which point; none: the newest. What it came to is in the row.
    #[serde(skip)]
    pub point: Option<PointId>,
    /// A bridge or libvirt network of this host; none: one of its own, in which there is nobody else.
    pub network: Option<String>,
    /// A shell command that must succeed once the guest is up.
    pub probe: Option<String>,
    /// A TCP port of the guest that must answer once it is up.
    pub probe_port: Option<u16>,
    /// How long booting and probing may take, seconds.
    pub boot_timeout_s: u64,
    /// Stays after its check, until it is stopped.
    pub keep: bool,
}

/// Something that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// Whether it is as it should be; none: nobody knows.
    pub ok: Option<bool>,
    /// What was found.
    pub detail: String,
}

/// What is known of a test failover beside its row; kept as JSON, and written as its report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // `…_ms` are instants but for `boot_ms`, a duration; the rest says itself
pub struct TestFacts {
    pub vm_name: String,
    pub name: String,
    pub host: String,
    pub point_instant_ms: u64,
    pub options: TestOptions,
    /// The bridge or network, and whether it is made for this test alone.
    pub network: String,
    pub isolated: bool,
    pub requested_by: String,
    pub directory: PathBuf,
    /// The boot of this host in which it began; a copy does not outlive it.
    pub boot: String,
    pub started_ms: Option<u64>,
    pub ended_ms: Option<u64>,
    /// From the start to the guest agent's first answer.
    pub boot_ms: Option<u64>,
    pub addresses: Vec<String>,
    /// None: it was not checked yet.
    pub findings: Option<Vec<Finding>>,
    pub picture: Option<PathBuf>,
    /// Why it could not be made, or ended before its check.
    pub failure: Option<String>,
}

impl TestFacts {
    /// Whether it passed; none: not known (yet).
    #[must_use]
    pub fn passed(&self) -> Option<bool> {
        if self.failure.is_some() {
            return Some(false);
        }
        let findings = self.findings.as_ref()?;
        let failed = findings.iter().any(|finding| finding.ok == Some(false));
        let proved = findings.iter().any(|finding| finding.ok == Some(true));
        (failed || proved).then_some(!failed)
    }
}

/// A test failover with all that is known of it.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // as in the store
pub struct TestView {
    pub id: TestId,
    pub relationship: RelationshipId,
    pub vm: VmId,
    pub point: PointId,
    pub state: TestState,
    pub begun: Timestamp,
    pub facts: TestFacts,
}

impl TestView {
    fn of(row: TestFailover) -> Result<TestView> {
        let facts = serde_json::from_str(&row.form).map_err(Refusal::failed)?;
        let TestFailover { id, relationship, vm, point, state, begun, .. } = row;
        Ok(TestView { id, relationship, vm, point, state, begun, facts })
    }

    /// Its folder beside the replica's disks.
    fn folder(&self) -> Result<FileName> {
        FileName::new(&self.id.to_string()).map_err(Refusal::failed)
    }
}

/// The last letters of an id: random, and short enough for the name of a network device.
fn short(id: TestId) -> String {
    let text = id.0.simple().to_string();
    text[text.len() - 7..].to_owned()
}

impl Engine {
    /// All that are remembered, the newest first.
    pub fn tests(&self) -> Result<Vec<TestView>> {
        self.store().tests().map_err(Refusal::failed)?.into_iter().map(TestView::of).collect()
    }

    /// One by its id.
    pub fn test(&self, id: TestId) -> Result<TestView> {
        let found = self.store().test(id).map_err(Refusal::failed)?;
        let missing = || {
            Refusal::new(
                Code::NotFound,
                format!("no test failover {id} here"),
                "virt-replica test-failover list",
            )
        };
        TestView::of(found.ok_or_else(missing)?)
    }

    /// Where the report of a test lies: as JSON, and as Markdown.
    #[must_use]
    pub fn test_report(&self, id: TestId) -> PathBuf {
        self.config().reports.join(format!("{id}.md"))
    }

    /// Every prerequisite of a test failover. What makes it impossible whatever a person does is refused at once.
    pub async fn plan_test(&self, record: &Record, options: &TestOptions) -> Result<Plan> {
        let point = self.point_to_test(record, options.point)?;
        let directory = replica::directory(record)?;
        let sizes: u64 = directory.manifest().disks.iter().map(|disk| disk.virtual_size).sum();
        intact::expect_trusted(self, record, point, Start::TestFailover).await?;
        let facts = intact::definition(self, &directory, point).await?;
        let host = self.hypervisor(|it| it.host_facts()).await?;
        let checks = vec![
            self.none_too_many(record)?,
            self.room_for_test(sizes),
            survey::memory(&host, &facts),
            network_there(options, &host),
        ];
        Ok(Plan { checks, expected_bytes: None, expected_downtime_ms: None })
    }

    /// The point that is meant, if this host has it whole.
    fn point_to_test(&self, record: &Record, asked: Option<PointId>) -> Result<PointId> {
        let relationship = &record.relationship;
        let vm = vm_argument(&relationship.vm_name);
        if relationship.phase != Phase::Receiving {
            let peer = word(&self.peer_name(record));
            let found = format!(
                "this host has no replica of VM {:?} that receives: its state is \"{}\"",
                relationship.vm_name,
                relationship.phase.words()
            );
            let cure = format!("on {peer}, if that is the replica server: virt-replica test-failover {vm}");
            return Err(Refusal::new(Code::Refused, found, cure));
        }
        self.must_be_idle(record)?;
        replica::point(record, asked).map(|point| point.id)
    }

    fn none_too_many(&self, record: &Record) -> Result<Check> {
        let open = self.open_tests(record.relationship.id)?.len();
        Ok(Check::when(CheckName::NoOtherOperation, open < AT_ONCE_MAX, || {
            let vm = vm_argument(&record.relationship.vm_name);
            (
                format!("{open} test failovers of the VM are there"),
                format!("virt-replica stop-test-failover {vm}"),
            )
        }))
    }

    fn room_for_test(&self, sizes: u64) -> Check {
        let (name, storage) = (CheckName::DiskSpace, word(&self.config().storage.to_string_lossy()));
        let needed = sizes.min(ROOM_BYTES);
        let free = replica::storage(self).and_then(|storage| storage.free_bytes().map_err(Refusal::failed));
        match free {
            Err(error) => Check::fail(name, error.detail, error.cure),
            Ok(free) => Check::when(name, free >= needed, || {
                let found = format!(
                    "the copy may write {} MiB, {storage} has {} MiB free, and replication must not run out of room",
                    needed >> 20,
                    free >> 20
                );
                (found, format!("make room in {storage} (df -h {storage}; du -sh {storage}/*)"))
            }),
        }
    }

    /// Begins one; it goes on by itself. Its row is durable before anything is made.
    pub async fn begin_test(
        &self,
        record: &Record,
        options: TestOptions,
        requested_by: &str,
    ) -> Result<TestId> {
        let plan = self.plan_test(record, &options).await?;
        if let Some(check) = plan.checks.iter().find(|check| !check.holds()) {
            let refused = crate::plan::refused(check);
            return Err(match check.name {
                CheckName::NoOtherOperation => Refusal { code: Code::Busy, ..refused },
                _ => refused,
            });
        }
        let relationship = &record.relationship;
        let slot = self.slot(relationship.id);
        let chain = tokio::time::timeout(MERGE_WAIT, slot.chain.hold()).await;
        let busy = |_| {
            Refusal::new(Code::Busy, "recovery points of the VM are being merged", "try again in a minute")
        };
        let _chain = chain.map_err(busy)?;
        // Whatever was merged until now; from here on the point is pinned.
        let point = self.point_to_test(&self.record(relationship.id)?, options.point)?;
        let directory = replica::directory(record)?;
        let instant =
            directory.manifest().points.iter().find(|it| it.point.id == point).map(|it| it.point.instant);
        let id = TestId(Uuid::now_v7());
        let facts = TestFacts {
            vm_name: relationship.vm_name.clone(),
            name: self.free_name(record).await?,
            host: self.config().host_name.clone(),
            point_instant_ms: instant.map_or(0, Timestamp::millis),
            network: options.network.clone().unwrap_or_else(|| network::name(id)),
            isolated: options.network.is_none(),
            options,
            requested_by: requested_by.to_owned(),
            directory: directory.path().to_owned(),
            boot: store::boot_id().to_owned(),
            started_ms: None,
            ended_ms: None,
            boot_ms: None,
            addresses: Vec::new(),
            findings: None,
            picture: None,
            failure: None,
        };
        let row = TestFailover {
            id,
            relationship: relationship.id,
            vm: VmId(Uuid::new_v4()),
            point,
            state: TestState::Making,
            begun: clock::now(),
            form: serde_json::to_string(&facts).map_err(Refusal::failed)?,
        };
        self.store().begin_test(&row).map_err(|error| match error {
            StoreError::Denied(Denied::Busy(_)) => Refusal::new(Code::Busy, error.to_string(), ""),
            other => Refusal::failed(other),
        })?;
        let text = format!("test failover {id} from recovery point {point}: VM {:?}", facts.name);
        self.event(Number::TestBegun, &relationship.vm_name, text);
        spawn(self, id);
        Ok(id)
    }

    /// `NAME - Test`, or with the first number that is free.
    async fn free_name(&self, record: &Record) -> Result<String> {
        let mut taken: Vec<String> =
            self.hypervisor(|it| it.names()).await?.into_iter().map(|(_, name)| name).collect();
        taken.extend(self.open_tests(record.relationship.id)?.into_iter().map(|test| test.facts.name));
        let name = format!("{} - Test", record.relationship.vm_name);
        let numbered = (2..).map(|number| format!("{name} {number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name));
        Ok(free.unwrap_or(name))
    }

    fn open_tests(&self, id: RelationshipId) -> Result<Vec<TestView>> {
        let rows = self.store().tests_of(id).map_err(Refusal::failed)?;
        rows.into_iter().filter(|row| row.state != TestState::Ended).map(TestView::of).collect()
    }

    /// Lets one end. Repeating is fine.
    pub fn stop_test(&self, id: TestId) -> Result<()> {
        for from in [TestState::Making, TestState::Standing] {
            self.store().move_test(id, from, TestState::Removing).map_err(Refusal::failed)?;
        }
        Ok(())
    }

    /// Refused while a copy stands on the replica's files: what is to be done would change them.
    pub(crate) fn must_have_no_test(&self, record: &Record) -> Result<()> {
        match survey::no_test(self, record.relationship.id, &record.relationship.vm_name)? {
            check if check.holds() => Ok(()),
            check => Err(Refusal { code: Code::Busy, ..crate::plan::refused(&check) }),
        }
    }

    /// After a start of the daemon: what was half made is removed, what is complete stands.
    pub(crate) fn resume_tests(&self) -> Result<()> {
        for test in self.tests()?.into_iter().filter(|test| test.state != TestState::Ended) {
            let interrupted = match test.state {
                TestState::Making => Some("the daemon ended while it was being made"),
                TestState::Standing if test.facts.boot != store::boot_id() => Some("the host was restarted"),
                _ => None,
            };
            if let Some(why) = interrupted {
                self.know(test.id, |facts| facts.failure = Some(why.to_owned()))?;
                self.stop_test(test.id)?;
            }
            spawn(self, test.id);
        }
        Ok(())
    }

    /// Keeps what was learnt. Only the test's own task learns.
    fn know(&self, id: TestId, learn: impl FnOnce(&mut TestFacts)) -> Result<TestView> {
        let mut test = self.test(id)?;
        learn(&mut test.facts);
        let form = serde_json::to_string(&test.facts).map_err(Refusal::failed)?;
        self.store().set_test_form(id, &form).map_err(Refusal::failed)?;
        Ok(test)
    }
}

fn network_there(options: &TestOptions, host: &hypervisor::HostFacts) -> Check {
    let Some(wanted) = &options.network else { return Check::pass(CheckName::NetworksPresent) };
    Check::when(CheckName::NetworksPresent, kind_of(host, wanted).is_some(), || {
        let known: Vec<&str> = host.bridges.iter().chain(&host.networks).map(String::as_str).collect();
        let found = format!("{} has no bridge or active network {wanted:?}", host.hostname);
        (found, format!("leave --network out for one of its own, or choose from: {}", known.join(", ")))
    })
}

/// A name is that of a network first, as libvirt's own definitions have it.
fn kind_of(host: &hypervisor::HostFacts, name: &String) -> Option<NicKind> {
    match name {
        name if host.networks.contains(name) => Some(NicKind::Network),
        name if host.bridges.contains(name) => Some(NicKind::Bridge),
        _ => None,
    }
}

/// Carries a test to its end.
fn spawn(engine: &Engine, id: TestId) {
    let engine = engine.clone();
    tokio::spawn(async move {
        while let Err(error) = carry(&engine, id).await {
            tracing::warn!(test = %id, %error, "a test failover will be looked at again");
            tokio::time::sleep(RETRY).await;
        }
    });
}

async fn carry(engine: &Engine, id: TestId) -> Result<()> {
    let mut watched = false;
    loop {
        let test = engine.test(id)?;
        match test.state {
            TestState::Making => {
                engine.reach("test.journaled").await;
                if let Err(error) = make::make(engine, &test).await {
                    engine.know(id, |facts| facts.failure = Some(error.to_string()))?;
                    engine.stop_test(id)?;
                }
                // False when somebody stopped it meanwhile.
                let standing = engine.store().move_test(id, TestState::Making, TestState::Standing);
                standing.map_err(Refusal::failed)?;
                watched = true;
                engine.reach("test.standing").await;
            }
            TestState::Standing if test.facts.findings.is_none() => {
                let findings = tokio::select! {
                    findings = check::check(engine, &test, watched) => findings?,
                    () = leaves(engine, id) => continue,
                };
                let test = engine.know(id, |facts| facts.findings = Some(findings))?;
                report::write(engine, &test)?;
                say_result(engine, &test);
                engine.reach("test.checked").await;
            }
            TestState::Standing if !test.facts.options.keep => engine.stop_test(id)?,
            TestState::Standing => leaves(engine, id).await,
            TestState::Removing => {
                engine.reach("test.removing").await;
                make::remove(engine, &test).await?;
                let ended = clock::now().millis();
                let test = engine.know(id, |facts| facts.ended_ms = Some(ended))?;
                report::write(engine, &test)?;
                if test.facts.failure.is_some() {
                    say_result(engine, &test);
                }
                let moved = engine.store().move_test(id, TestState::Removing, TestState::Ended);
                moved.map_err(Refusal::failed)?;
                let text = format!("test failover {id} has ended; nothing of it is left but its report");
                engine.event(Number::TestEnded, &test.facts.vm_name, text);
                engine.reach("test.ended").await;
                engine.wake(test.relationship);
            }
            TestState::Ended => return report::forget_old(engine, test.relationship),
        }
    }
}

fn say_result(engine: &Engine, test: &TestView) {
    let (id, name) = (test.id, &test.facts.vm_name);
    let number = if test.facts.passed() == Some(false) { Number::TestFailed } else { Number::TestPassed };
    engine.event(number, name, format!("test failover {id}: {}", report::result(&test.facts)));
}

/// Comes back when the test is not standing any more.
async fn leaves(engine: &Engine, id: TestId) {
    loop {
        tokio::time::sleep(LOOK).await;
        if engine.test(id).is_ok_and(|test| test.state != TestState::Standing) {
            return;
        }
    }
}

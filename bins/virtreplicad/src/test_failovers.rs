//! Test failovers as the command line asks for them, and as it shows them.

use api::dto::{self, Answer, LIMIT_MAX, Page, Paged};
use api::{Caller, Problem};
use domain::TestId;
use engine::{TestOptions, TestView};
use store::TestState;

use crate::lists::{limit, no_cursor};
use crate::problems::{checks_hold, problem, shown};
use crate::service::Daemon;

impl Daemon {
    pub(crate) fn all_tests(&self, page: &Page) -> Result<Paged<Vec<dto::TestFailoverView>>, Problem> {
        let (tests, limit) = (self.engine.tests().map_err(problem)?, limit(page, LIMIT_MAX)?);
        let behind = page.after.as_ref().map(|after| place_of(after).ok_or_else(no_cursor)).transpose()?;
        let place = |test: &TestView| (test.begun.millis(), test.id.to_string());
        let left =
            tests.into_iter().filter(|test| behind.as_ref().is_none_or(|behind| place(test) < *behind));
        let page = Paged::of(left, limit, |test| format!("{} {}", test.begun.millis(), test.id));
        Ok(page.map(|tests| tests.into_iter().map(|test| self.shown_test(test)).collect()))
    }

    pub(crate) fn one_test(&self, id: &str) -> Result<dto::TestFailoverView, Problem> {
        let missing = || Problem::not_found("test failover", id, "virt-replica test-failover list");
        let id: TestId = id.parse().map_err(|_| missing())?;
        Ok(self.shown_test(self.engine.test(id).map_err(problem)?))
    }

    pub(crate) async fn begin_test(
        &self,
        who: Caller,
        vm: String,
        request: dto::TestFailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::TestFailoverView>, Problem> {
        let record = self.find_idle(&vm)?;
        let options = TestOptions {
            point: self.point_wanted(&record, request.point.as_deref()).await?,
            network: request.network.filter(|network| network != "isolated"),
            probe: request.probe,
            probe_port: request.probe_port,
            boot_timeout_s: request.boot_timeout_seconds,
            keep: request.keep,
        };
        if dry_run {
            let plan = self.engine.plan_test(&record, &options).await.map_err(problem)?;
            return Ok(Answer::Planned(shown(sentences(&vm, &options), &plan, false)));
        }
        let plan = self.engine.plan_test(&record, &options).await.map_err(problem)?;
        checks_hold(&shown(Vec::new(), &plan, false))?;
        let asker = format!("{who} on {}", self.own.name);
        let id = self.engine.begin_test(&record, options, &asker).await.map_err(problem)?;
        self.one_test(&id.to_string()).map(Answer::Done)
    }

    /// Those that a person means: one by its id, or all of a VM.
    pub(crate) fn stop_tests(
        &self,
        named: &str,
        dry_run: bool,
    ) -> Result<Answer<Vec<dto::TestFailoverView>>, Problem> {
        let all = self.engine.tests().map_err(problem)?;
        let mut meant: Vec<TestView> = match named.parse::<TestId>() {
            Ok(id) if all.iter().any(|test| test.id == id) => {
                all.into_iter().filter(|test| test.id == id).collect()
            }
            _ => {
                let record = self.find(named)?;
                all.into_iter().filter(|test| test.relationship == record.relationship.id).collect()
            }
        };
        meant.retain(|test| test.state != TestState::Ended);
        if dry_run {
            let line = |test: &TestView| {
                format!("{} is turned off and removed with all that it wrote.", test.facts.name)
            };
            let none = || vec!["No test failover stands; there is nothing to do.".to_owned()];
            let lines: Vec<String> = meant.iter().map(line).collect();
            return Ok(Answer::Planned(dto::Plan::of(if lines.is_empty() { none() } else { lines })));
        }
        for test in &meant {
            self.engine.stop_test(test.id).map_err(problem)?;
        }
        let stopped = meant.iter().map(|test| self.one_test(&test.id.to_string()));
        Ok(Answer::Done(stopped.collect::<Result<_, _>>()?))
    }

    fn shown_test(&self, test: TestView) -> dto::TestFailoverView {
        let report = self.engine.test_report(test.id);
        let facts = test.facts;
        let passed = facts.passed();
        let state = match (test.state, &facts.findings) {
            (TestState::Making, _) => dto::TestFailoverState::Making,
            (TestState::Standing, None) => dto::TestFailoverState::Checking,
            (TestState::Standing, Some(_)) => dto::TestFailoverState::Standing,
            (TestState::Removing, _) => dto::TestFailoverState::Removing,
            (TestState::Ended, _) => dto::TestFailoverState::Ended,
        };
        let finding = |it: engine::Finding| dto::Finding { what: it.what, ok: it.ok, detail: it.detail };
        dto::TestFailoverView {
            id: test.id.to_string(),
            vm: facts.vm_name,
            name: facts.name,
            vm_uuid: test.vm.to_string(),
            host: facts.host,
            point: test.point.to_string(),
            point_at_ms: facts.point_instant_ms,
            network: facts.network,
            isolated: facts.isolated,
            state,
            passed,
            findings: facts.findings.unwrap_or_default().into_iter().map(finding).collect(),
            failure: facts.failure,
            boot_ms: facts.boot_ms,
            addresses: facts.addresses,
            picture: facts.picture.map(|path| path.display().to_string()),
            report: report.exists().then(|| report.display().to_string()),
            keep: facts.options.keep,
            requested_by: facts.requested_by,
            begun_at_ms: test.begun.millis(),
            ended_at_ms: facts.ended_ms,
        }
    }
}

/// The place in the list, newest first, that a cursor names.
fn place_of(after: &str) -> Option<(u64, String)> {
    let (begun_ms, id) = after.split_once(' ')?;
    Some((begun_ms.parse().ok()?, id.to_owned()))
}

fn sentences(vm: &str, options: &TestOptions) -> Vec<String> {
    let point = options
        .point
        .map_or_else(|| "the newest recovery point".to_owned(), |it| format!("recovery point {it}"));
    let network = match &options.network {
        None => "It is in a network of its own and reaches nobody.".to_owned(),
        Some(network) => {
            format!("It is plugged into {network:?}, with the addresses of {vm}: it meets whoever is there.")
        }
    };
    let end = match options.keep {
        true => "It stays until `virt-replica stop-test-failover`; planned failovers are refused until then.",
        false => "When it was checked it is turned off and removed with all that it wrote.",
    };
    vec![
        format!("A throw-away copy of {vm} starts from {point}, beside the replica; replication goes on."),
        network,
        end.to_owned(),
    ]
}

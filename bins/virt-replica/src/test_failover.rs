//! `test-failover` and `stop-test-failover`: a throw-away copy is begun, followed until it is checked, listed and ended.

use std::time::Duration;

use api::dto::{TestFailoverRequest, TestFailoverState, TestFailoverView};
use api::{Code, Problem};
use clap::{Args, Subcommand};

use crate::change::{Consent, Outcome, carry_out};
use crate::exit::Exit;
use crate::parse;
use crate::render;
use crate::session::{Ending, Session};

/// Pause between two looks; one cheap request each.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// A daemon that is restarted is back within seconds.
const SILENT_POLLS_MAX: u32 = 400;

/// `test-failover`
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TestFailover {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The VM's name, its UUID, or the relationship's id
    #[arg(required = true)]
    vm: Option<String>,
    /// From this recovery point, by its id or its number in `point list` [default: latest]
    #[arg(long, value_name = "POINT")]
    point: Option<String>,
    /// Plug the copy into this bridge or network of the replica server [default: isolated, a network of its own]
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// A shell command that must succeed once the guest is up; it finds VM_NAME, VM_UUID, VM_ADDRESS and VM_NETWORK in its
    /// environment, and in an isolated network it reaches the copy and nobody else
    #[arg(long, value_name = "COMMAND")]
    probe: Option<String>,
    /// A TCP port of the guest that must answer once it is up
    #[arg(long, value_name = "PORT")]
    probe_port: Option<u16>,
    /// How long booting and probing may take
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse::seconds)]
    boot_timeout: u64,
    /// Keep the copy after its check, until `stop-test-failover`
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    consent: Consent,
}

/// What else can be asked of test failovers.
#[derive(Subcommand)]
pub enum Verb {
    /// All test failovers, those that stand and those that have ended
    List,
    /// One test failover with what was found
    Show {
        /// The test failover's id
        id: String,
    },
}

/// `stop-test-failover`
#[derive(Args)]
pub struct Stop {
    /// The VM, for all of its test failovers, or the id of one
    named: String,
    #[command(flatten)]
    consent: Consent,
}

/// Begins one and follows it, or shows those that are known.
pub async fn test_failover(session: &Session, args: TestFailover) -> Ending {
    match args.verb {
        Some(Verb::List) => {
            let tests = session.client.test_failovers().await?;
            session.show(&tests, |screen, tests| render::test_failovers(screen, tests));
            return Ok(Exit::Ok);
        }
        Some(Verb::Show { id }) => {
            session.show(&session.client.test_failover(&id).await?, render::test_failover);
            return Ok(Exit::Ok);
        }
        None => {}
    }
    let vm = args.vm.unwrap_or_default();
    let request = TestFailoverRequest {
        point: args.point,
        network: args.network,
        probe: args.probe,
        probe_port: args.probe_port,
        boot_timeout_seconds: args.boot_timeout,
        keep: args.keep,
    };
    let call = async |dry| session.client.begin_test_failover(&vm, &request, dry).await;
    let question = format!("Start a test copy of {vm}?");
    let test = match carry_out(session, args.consent, &question, call).await? {
        Outcome::Done(test) => test,
        Outcome::Not(exit) => return Ok(exit),
    };
    session.say(&format!("Test failover {} began.", test.id));
    let last = follow(session, test, |test| {
        test.state == TestFailoverState::Ended || test.keep && test.state == TestFailoverState::Standing
    })
    .await?;
    session.show(&last, render::test_failover);
    // Nothing proved is no failure: a guest without an agent says so in the report.
    Ok(if last.passed == Some(false) { Exit::Failed } else { Exit::Ok })
}

/// Ends one or all of a VM, and waits until nothing of them is left.
pub async fn stop(session: &Session, args: Stop) -> Ending {
    let call = async |dry| session.client.stop_test_failover(&args.named, dry).await;
    let stopped = match carry_out(session, args.consent, "Remove it?", call).await? {
        Outcome::Done(stopped) => stopped,
        Outcome::Not(exit) => return Ok(exit),
    };
    let mut ended = Vec::new();
    for test in stopped {
        ended.push(follow(session, test, |test| test.state == TestFailoverState::Ended).await?);
    }
    session.show(&ended, |screen, ended| render::test_failovers(screen, ended));
    Ok(Exit::Ok)
}

/// Tells each new state until `done`. The test failover lives in the daemon's journal; this only watches.
async fn follow(
    session: &Session,
    mut test: TestFailoverView,
    done: impl Fn(&TestFailoverView) -> bool,
) -> Result<TestFailoverView, Problem> {
    let mut told = None;
    let mut silent = 0;
    while !done(&test) {
        if told != Some(test.state) {
            session.say(&format!("  {}: {}", test.name, test.state.words()));
            told = Some(test.state);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        match session.client.test_failover(&test.id).await {
            Err(problem) if problem.code == Code::Unreachable && silent < SILENT_POLLS_MAX => silent += 1,
            answer => (test, silent) = (answer?, 0),
        }
    }
    Ok(test)
}

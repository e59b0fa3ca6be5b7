//! Follows an operation to its end: each step ticks with its time. The operation lives in the daemons' journals; this
//! only watches, reconnects when the daemon restarts, and may be interrupted at any time.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use api::dto::{OperationState, OperationView, StepState};
use api::{Code, Problem, units};
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::render;
use crate::screen::printable;
use crate::session::{Ending, Session, print_text};

/// Often enough that a step seems to tick at once; one cheap request each.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// A daemon that is restarted (an upgrade, a crash) is back within seconds; after this somebody should look.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(120);

/// Shows the steps until the operation ended or rests, then its report; none when the operator stopped watching.
/// Ctrl-C ends the watching, not the operation.
async fn to_the_end(session: &Session, operation: OperationView) -> Result<Option<OperationView>, Problem> {
    let id = operation.id.clone();
    tokio::select! {
        last = watch(session, operation) => {
            let last = last?;
            session.show(&last, render::ending);
            Ok(Some(last))
        }
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nNo longer watching; the operation goes on. To see it: virt-replica operation show {id}");
            Ok(None)
        }
    }
}

/// Follows an operation that was meant to complete.
pub async fn to_completion(session: &Session, operation: OperationView) -> Ending {
    Ok(exit(to_the_end(session, operation).await?.as_ref(), OperationState::Completed))
}

/// Follows an operation that was meant to be taken back.
pub async fn to_undone(session: &Session, operation: OperationView) -> Ending {
    Ok(exit(to_the_end(session, operation).await?.as_ref(), OperationState::Undone))
}

/// An operation that waits for a person says so; one that ended otherwise than wanted, or is out of sight, has failed.
fn exit(last: Option<&OperationView>, wanted: OperationState) -> Exit {
    match last {
        Some(operation) if operation.state == wanted => Exit::Ok,
        Some(operation) if operation.rests() => Exit::NeedsOperator,
        _ => Exit::Failed,
    }
}

async fn watch(session: &Session, first: OperationView) -> Result<OperationView, Problem> {
    let bar = spinner(session);
    let mut shown: Option<OperationView> = None;
    let mut now = first;
    loop {
        for line in render::news(&session.screen, shown.as_ref(), &now) {
            tell(session, &bar, &line);
        }
        bar.set_message(running(session, &now));
        if now.state.is_ended() || now.rests() {
            bar.finish_and_clear();
            return Ok(now);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        let next = ask(session, &now.id, &bar).await;
        shown = Some(now);
        now = next?;
    }
}

/// Asks once more and more while the daemon is silent.
async fn ask(session: &Session, id: &str, bar: &ProgressBar) -> Result<OperationView, Problem> {
    let silent_since = Instant::now();
    let mut told = false;
    loop {
        match session.client.operation(id).await {
            Err(problem) if problem.code == Code::Unreachable && silent_since.elapsed() < SILENCE_MAX => {
                if !told {
                    tell(
                        session,
                        bar,
                        "The daemon does not answer; the operation is in its journal. Waiting for it …",
                    );
                    told = true;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
            Err(problem) if problem.code == Code::Unreachable => {
                let cure = format!("systemctl start virtreplicad; virt-replica operation show {id}");
                return Err(problem.with_cure(cure));
            }
            answer => return answer,
        }
    }
}

fn spinner(session: &Session) -> ProgressBar {
    if session.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::default_spinner());
    bar.enable_steady_tick(POLL_INTERVAL);
    bar
}

/// A line that stays, above the spinner if there is one.
fn tell(session: &Session, bar: &ProgressBar, line: &str) {
    if !session.json {
        bar.suspend(|| print_text(line));
    }
}

/// What the spinner says: the running step, its time, its bytes.
fn running(session: &Session, operation: &OperationView) -> String {
    let Some(step) = operation.steps.iter().find(|step| step.state == StepState::Running) else {
        return operation.state.words().to_owned();
    };
    let now_ms = session.screen.refreshed().now_ms;
    let elapsed = step.started_at_ms.map(|since| units::duration(now_ms.saturating_sub(since)));
    let bytes = operation.transfer.map(|transfer| match transfer.bytes_total {
        Some(total) => format!("{} of {}", units::size(transfer.bytes_done), units::size(total)),
        None => units::size(transfer.bytes_done),
    });
    let facts: Vec<String> = elapsed.into_iter().chain(bytes).collect();
    printable(&format!("{} on {}: {}  {}", step.name, step.host, step.does, facts.join(", ")))
}

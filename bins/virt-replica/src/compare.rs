//! `resynchronize`, `verify` and `import`: work that the daemon begins at once, and whose end an event tells.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::dto::{Answer, ComparisonView, Done, Event, EventQuery, ImportRequest, RelationshipDetail};
use api::{Code, Problem, units};
use clap::Args;
use indicatif::ProgressBar;

use crate::change::{Consent, Outcome, carry_out, finish};
use crate::follow::SILENCE_MAX;
use crate::parse::absolute;
use crate::screen::printable;
use crate::session::{Ending, Session};
use crate::{observe, render};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// Events that tell how a comparison ended.
const ENDS: [u32; 4] = [1401, 1402, MISMATCH, NOT_VERIFIED];
const MISMATCH: u32 = 1403;
const NOT_VERIFIED: u32 = 1404;
const IMPORTED: u32 = 1407;
const NOT_IMPORTED: u32 = 1408;

/// `resynchronize`
#[derive(Args)]
pub struct Resynchronize {
    #[command(flatten)]
    compared: Compared,
}

/// `verify`
#[derive(Args)]
pub struct Verify {
    #[command(flatten)]
    compared: Compared,
}

/// `import`
#[derive(Args)]
pub struct Import {
    /// What `enable --export` has written on the primary server
    directory: PathBuf,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
struct Compared {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    consent: Consent,
}

/// Compares both sides, and sends what differs.
pub async fn resynchronize(session: &Session, args: Resynchronize) -> Ending {
    let question = format!("Resynchronize {}?", args.compared.vm);
    let call = async |dry| session.client.resynchronize(&args.compared.vm, dry).await;
    run(session, &args.compared, &question, call).await
}

/// Proves that the replica is equal.
pub async fn verify(session: &Session, args: Verify) -> Ending {
    let question = format!("Verify the replica of {}?", args.compared.vm);
    let call = async |dry| session.client.verify(&args.compared.vm, dry).await;
    run(session, &args.compared, &question, call).await
}

/// Takes the first copies that were carried here.
pub async fn import(session: &Session, args: Import) -> Ending {
    let request = ImportRequest { directory: absolute(&args.directory) };
    let before = newest(session, None).await?;
    let call = async |dry| session.client.import(&request, dry).await;
    let begun = match carry_out(session, args.consent, "Take it?", call).await? {
        Outcome::Done(begun) => begun,
        Outcome::Not(exit) => return Ok(exit),
    };
    let vms = begun.vms.join(", ");
    if args.no_wait {
        let said = Done::saying(format!("the initial copy of {vms} is being taken"));
        return finish(session, Outcome::Done(said), render::done);
    }
    let (mut imported, mut failed) = (Vec::new(), Vec::new());
    for vm in &begun.vms {
        let end = end(session, vm, before, &[IMPORTED, NOT_IMPORTED]).await?;
        let ended = if end.number == IMPORTED { &mut imported } else { &mut failed };
        ended.push(end.text);
    }
    if failed.is_empty() {
        return finish(session, Outcome::Done(Done::saying(imported.join("\n"))), render::done);
    }
    Err(Problem::new(Code::Failed, "Not imported", [failed, imported].concat().join("; ")))
}

async fn run(
    session: &Session,
    args: &Compared,
    question: &str,
    call: impl AsyncFn(bool) -> Result<Answer<Done>, Problem>,
) -> Ending {
    let before = newest(session, Some(&args.vm)).await?;
    match carry_out(session, args.consent, question, call).await? {
        Outcome::Done(_) if !args.no_wait => {
            let end = end(session, &args.vm, before, &ENDS).await?;
            match end.number {
                MISMATCH | NOT_VERIFIED => {
                    let problem =
                        Problem::new(Code::Failed, "The replica was not proven to be equal", end.text);
                    Err(problem.with_cure(format!("virt-replica show {}", api::vm_argument(&args.vm))))
                }
                _ => finish(session, Outcome::Done(Done::saying(end.text)), render::done),
            }
        }
        outcome => finish(session, outcome, render::done),
    }
}

async fn events(session: &Session, vm: Option<&str>, since: Option<u64>) -> Result<Vec<Event>, Problem> {
    session.client.events(&EventQuery { vm: vm.map(str::to_owned), since, ..EventQuery::default() }).await
}

async fn newest(session: &Session, vm: Option<&str>) -> Result<u64, Problem> {
    Ok(events(session, vm, None).await?.last().map_or(0, |event| event.sequence))
}

/// Waits for the event that tells how it ended, with a bar while blocks are compared. What was begun goes on when the daemon is
/// restarted meanwhile, and so does the waiting.
async fn end(session: &Session, vm: &str, since: u64, ends: &[u32]) -> Result<Event, Problem> {
    let bar = observe::bar(session);
    let (mut heard, mut told) = (Instant::now(), false);
    loop {
        match look(session, vm, since, ends, &bar).await {
            Ok(Some(end)) => {
                bar.finish_and_clear();
                return Ok(end);
            }
            Ok(None) => heard = Instant::now(),
            Err(problem) if problem.code == Code::Unreachable && heard.elapsed() < SILENCE_MAX => {
                observe::tell_silence(&bar, &mut told);
            }
            Err(problem) => return Err(problem),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(
    session: &Session,
    vm: &str,
    since: u64,
    ends: &[u32],
    bar: &ProgressBar,
) -> Result<Option<Event>, Problem> {
    let happened = events(session, Some(vm), Some(since)).await?;
    let end = happened.into_iter().find(|event| ends.contains(&event.number));
    if end.is_none() {
        show(bar, &session.client.relationship(vm).await?);
    }
    Ok(end)
}

fn show(bar: &ProgressBar, detail: &RelationshipDetail) {
    let message = match &detail.comparison {
        Some(ComparisonView { waiting: Some(waiting), .. }) => waiting.clone(),
        Some(comparison) => {
            bar.set_length(comparison.total_bytes.unwrap_or(0));
            bar.set_position(comparison.compared_bytes);
            format!("{} differ", units::size(comparison.differing_bytes))
        }
        None => {
            let reason = detail.reasons.first();
            reason.map_or_else(|| detail.summary.state.clone(), |reason| reason.text.clone())
        }
    };
    bar.set_message(printable(&message));
}

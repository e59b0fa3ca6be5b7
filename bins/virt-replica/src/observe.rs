//! `list`, `show`, `wait`, `events`: looking, never changing.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use api::dto::{EventQuery, Health, RelationshipDetail};
use api::{Code, Problem, units};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Exit;
use crate::session::{Ending, Session};
use crate::{parse, render};

/// One cheap request each; a person does not see more.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// All relationships.
pub async fn list(session: &Session) -> Ending {
    let relationships = session.client.relationships().await?;
    session.show(&relationships, |screen, relationships| render::relationships(screen, relationships));
    Ok(Exit::Ok)
}

/// `show`
#[derive(Args)]
pub struct Show {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
}

/// View Replication Health.
pub async fn show(session: &Session, args: Show) -> Ending {
    session.show(&session.client.relationship(&args.vm).await?, render::detail);
    Ok(Exit::Ok)
}

/// `events`
#[derive(Args)]
pub struct Events {
    /// Only those of this VM
    #[arg(long, value_name = "VM")]
    vm: Option<String>,
    /// Only those after this sequence number
    #[arg(long, value_name = "N")]
    since: Option<u64>,
    /// At most so many, the newest of them
    #[arg(long, value_name = "N", default_value_t = EventQuery::LIMIT_DEFAULT)]
    limit: u32,
}

/// What happened.
pub async fn events(session: &Session, args: Events) -> Ending {
    let query = EventQuery { vm: args.vm, since: args.since, limit: Some(args.limit), after: None };
    let events = session.client.events(&query).await?;
    session.show(&events, |screen, events| render::events(screen, events));
    Ok(Exit::Ok)
}

/// `wait`
#[derive(Args)]
pub struct Wait {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse::seconds)]
    timeout: u64,
}

/// Waits until the VM is protected, with a bar while a whole-disk copy is under way.
pub async fn wait(session: &Session, args: Wait) -> Ending {
    let began = Instant::now();
    let bar = bar(session);
    let mut told = false;
    loop {
        let answer = session.client.relationship(&args.vm).await;
        let late = began.elapsed() >= Duration::from_secs(args.timeout);
        match answer {
            Ok(detail) if is_protected(&detail) => {
                bar.finish_and_clear();
                session.show(&detail, render::protected);
                return Ok(Exit::Ok);
            }
            Ok(detail) if late => {
                bar.finish_and_clear();
                return Err(not_in_time(&detail, args.timeout));
            }
            Ok(detail) => show_copy(&bar, &detail),
            // A daemon that restarts comes back within the time that the operator gave.
            Err(problem) if problem.code == Code::Unreachable && !late => tell_silence(&bar, &mut told),
            Err(problem) => return Err(problem),
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Once, also where there is no bar: a daemon that is down for good must not be waited for without a word.
pub(crate) fn tell_silence(bar: &ProgressBar, told: &mut bool) {
    if !std::mem::replace(told, true) {
        bar.suspend(|| {
            eprintln!("The daemon does not answer; waiting for it … (systemctl status virtreplicad)")
        });
    }
}

fn is_protected(detail: &RelationshipDetail) -> bool {
    let summary = &detail.summary;
    summary.health == Health::Normal && summary.last_synchronized_at_ms.is_some() && !summary.paused
}

fn not_in_time(detail: &RelationshipDetail, timeout_seconds: u64) -> Problem {
    let summary = &detail.summary;
    let why = detail.reasons.first().map_or(summary.state.as_str(), |reason| reason.text.as_str());
    let detail_text =
        format!("after {} health is {}: {why}", units::interval(timeout_seconds), summary.health.words());
    let problem = Problem::new(Code::Failed, "Not protected yet", detail_text);
    match detail.reasons.first().and_then(|reason| reason.cure.clone()) {
        Some(cure) => problem.with_cure(cure),
        None => problem.with_cure(format!("virt-replica show {}", api::vm_argument(&summary.vm))),
    }
}

pub(crate) fn bar(session: &Session) -> ProgressBar {
    if session.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("[{bar:40}] {bytes} of {total_bytes}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

fn show_copy(bar: &ProgressBar, detail: &RelationshipDetail) {
    let message = match &detail.initial_copy {
        Some(copy) => {
            bar.set_length(copy.bytes_total.unwrap_or(copy.bytes_done));
            bar.set_position(copy.bytes_done);
            render::speed(copy)
        }
        None => {
            detail.reasons.first().map_or_else(|| detail.summary.state.clone(), |reason| reason.text.clone())
        }
    };
    bar.set_message(crate::screen::printable(&message));
}

//! The way of every change: plan, question, deed. A plan with a failed check ends there; `--yes` answers the question.

use api::dto::{Answer, Plan};
use api::{Code, Problem};
use clap::Args;
use serde::Serialize;

use crate::exit::Exit;
use crate::render;
use crate::screen::{self, Screen};
use crate::session::{Ending, Session};

/// The options of every change.
#[derive(Args, Clone, Copy, Debug)]
pub struct Consent {
    /// Show what would happen, with every check, and change nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// What came of a change.
pub enum Outcome<T> {
    /// It was made.
    Done(T),
    /// It was not: a dry run, a refusal, or the answer was no.
    Not(Exit),
}

/// Plans with `call(true)`, shows the plan, asks, then does it with `call(false)`.
pub async fn carry_out<T>(
    session: &Session,
    consent: Consent,
    question: &str,
    call: impl AsyncFn(bool) -> Result<Answer<T>, Problem>,
) -> Result<Outcome<T>, Problem> {
    if !consent.dry_run && !consent.yes && (session.json || !screen::can_ask()) {
        return Err(nobody_to_ask());
    }
    let plan = match call(true).await? {
        Answer::Planned(plan) => plan,
        Answer::Done(done) => return Ok(Outcome::Done(done)),
    };
    if consent.dry_run {
        session.show(&plan, render::plan);
        return Ok(Outcome::Not(verdict(&plan)));
    }
    session.say(&render::plan(&session.screen, &plan));
    if !plan.is_allowed() {
        return Err(refused(plan, session.json));
    }
    if !consent.yes && !screen::ask(question) {
        eprintln!("Nothing was changed.");
        return Ok(Outcome::Not(Exit::Failed));
    }
    match call(false).await? {
        Answer::Done(done) => Ok(Outcome::Done(done)),
        Answer::Planned(_) => Err(Problem::new(
            Code::Failed,
            "The daemon only planned",
            "it answered a change with a plan; nothing was changed",
        )
        .with_cure("install the same version of virt-replica and virtreplicad: virt-replica --version")),
    }
}

/// Shows what was done, if it was done.
pub fn finish<T: Serialize>(
    session: &Session,
    outcome: Outcome<T>,
    words: impl FnOnce(&Screen, &T) -> String,
) -> Ending {
    match outcome {
        Outcome::Done(done) => {
            session.show(&done, words);
            Ok(Exit::Ok)
        }
        Outcome::Not(exit) => Ok(exit),
    }
}

fn verdict(plan: &Plan) -> Exit {
    match plan.is_allowed() {
        true => Exit::Ok,
        false if plan.is_only_busy() => Exit::Busy,
        false => Exit::Refused,
    }
}

/// People saw the checks in the plan; programs did not.
fn refused(plan: Plan, with_checks: bool) -> Problem {
    let failed = plan.checks.iter().filter(|check| !check.ok).count();
    let detail = format!("{failed} of {} checks failed; nothing was changed", plan.checks.len());
    let code = if plan.is_only_busy() { Code::Busy } else { Code::Refused };
    let checks = if with_checks { plan.checks } else { Vec::new() };
    Problem::new(code, "Refused", detail).with_checks(checks)
}

fn nobody_to_ask() -> Problem {
    Problem::new(
        Code::Invalid,
        "Nobody to ask",
        "this change wants a yes, and there is no terminal to ask on",
    )
    .with_cure("add --yes to do it, or --dry-run to see what it would do")
}

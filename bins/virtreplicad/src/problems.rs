//! A refusal of the engine, and a plan, in the forms of the API.

use api::dto;
use api::{Code, Problem};
use engine::{Plan, Refusal};

pub(crate) fn problem(refusal: Refusal) -> Problem {
    let (code, title) = match refusal.code {
        engine::Code::Refused => (Code::Refused, "Refused"),
        engine::Code::NotFound => (Code::NotFound, "Not found"),
        engine::Code::Stale => (Code::Stale, "State changed"),
        engine::Code::Busy => (Code::Busy, "Another operation is under way"),
        engine::Code::Unavailable => (Code::Failed, "No answer"),
        engine::Code::InDoubt => (Code::NeedsOperator, "In doubt"),
        engine::Code::Failed | engine::Code::TrackingLost => (Code::Failed, "Failed"),
    };
    let problem = Problem::new(code, title, refusal.detail);
    if refusal.cure.is_empty() { problem } else { problem.with_cure(refusal.cure) }
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Problem {
    problem(Refusal::failed(error))
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::Invalid, "Not accepted", error.to_string())
}

pub(crate) fn shown(summary: Vec<String>, plan: &Plan, touches_guest: bool) -> dto::Plan {
    dto::Plan {
        summary,
        checks: plan.checks.iter().map(dto::Check::from).collect(),
        touches_guest,
        expected_bytes: plan.expected_bytes,
        expected_downtime_ms: plan.expected_downtime_ms.filter(|_| touches_guest),
    }
}

pub(crate) fn checks_hold(plan: &dto::Plan) -> Result<(), Problem> {
    match plan.checks.iter().find(|check| !check.ok) {
        None => Ok(()),
        Some(check) => {
            let refusal = Problem::new(Code::Refused, check.name.clone(), check.detail.clone());
            let refusal = refusal.with_checks(plan.checks.clone());
            Err(match &check.cure {
                Some(cure) => refusal.with_cure(cure.clone()),
                None => refusal,
            })
        }
    }
}

//! How this crate writes what the wire never carries: phases, notices, and the JSON around all forms.

use domain::{Health, Notice, Phase, PointId, Settlement, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Result;
use crate::error::row;

#[derive(Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
enum PhaseForm {
    InitialPending { start_ms: u64 },
    InitialReplication,
    Replicating,
    Resynchronizing { cause: String },
    Yielding,
    Unprotected { since_ms: u64 },
    FailedOver { since_ms: u64, point: Uuid, complete_ms: Option<u64>, roll_back_ms: Option<u64> },
    Receiving,
    Stopped { since_ms: u64 },
}

pub(crate) fn phase_to_text(phase: &Phase) -> String {
    let form = match phase {
        Phase::InitialPending { start } => PhaseForm::InitialPending { start_ms: start.millis() },
        Phase::InitialReplication => PhaseForm::InitialReplication,
        Phase::Replicating => PhaseForm::Replicating,
        Phase::Resynchronizing { cause } => PhaseForm::Resynchronizing { cause: cause.clone() },
        Phase::Yielding => PhaseForm::Yielding,
        Phase::Unprotected { since } => PhaseForm::Unprotected { since_ms: since.millis() },
        Phase::FailedOver { since, point, timer } => {
            let due = |wanted| timer.filter(|(what, _)| *what == wanted).map(|(_, at)| at.millis());
            PhaseForm::FailedOver {
                since_ms: since.millis(),
                point: point.0,
                complete_ms: due(Settlement::Complete),
                roll_back_ms: due(Settlement::RollBack),
            }
        }
        Phase::Receiving => PhaseForm::Receiving,
        Phase::Stopped { since } => PhaseForm::Stopped { since_ms: since.millis() },
    };
    to_json(&form)
}

pub(crate) fn phase_from_text(text: &str) -> Result<Phase> {
    Ok(match serde_json::from_str(text).map_err(row)? {
        PhaseForm::InitialPending { start_ms } => Phase::InitialPending { start: Timestamp(start_ms) },
        PhaseForm::InitialReplication => Phase::InitialReplication,
        PhaseForm::Replicating => Phase::Replicating,
        PhaseForm::Resynchronizing { cause } => Phase::Resynchronizing { cause },
        PhaseForm::Yielding => Phase::Yielding,
        PhaseForm::Unprotected { since_ms } => Phase::Unprotected { since: Timestamp(since_ms) },
        PhaseForm::FailedOver { since_ms, point, complete_ms, roll_back_ms } => {
            let due = |what, at: Option<u64>| at.map(|at| (what, Timestamp(at)));
            let timer = due(Settlement::Complete, complete_ms).or(due(Settlement::RollBack, roll_back_ms));
            Phase::FailedOver { since: Timestamp(since_ms), point: PointId(point), timer }
        }
        PhaseForm::Receiving => Phase::Receiving,
        PhaseForm::Stopped { since_ms } => Phase::Stopped { since: Timestamp(since_ms) },
    })
}

#[derive(Serialize, Deserialize)]
struct NoticeForm {
    critical: bool,
    what: String,
    cure: String,
}

pub(crate) fn notices_to_text(notices: &[Notice]) -> String {
    let form = |Notice { severity, what, cure }: &Notice| NoticeForm {
        critical: *severity == Health::Critical,
        what: what.clone(),
        cure: cure.clone(),
    };
    to_json(&notices.iter().map(form).collect::<Vec<_>>())
}

pub(crate) fn notices_from_text(text: &str) -> Result<Vec<Notice>> {
    let forms: Vec<NoticeForm> = serde_json::from_str(text).map_err(row)?;
    let notice = |NoticeForm { critical, what, cure }| Notice {
        severity: if critical { Health::Critical } else { Health::Warning },
        what,
        cure,
    };
    Ok(forms.into_iter().map(notice).collect())
}

pub(crate) fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

//! How this crate writes what the wire never carries: phases, and the JSON around all forms.

use domain::{Phase, Timestamp};
use serde::{Deserialize, Serialize};

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
        PhaseForm::Receiving => Phase::Receiving,
        PhaseForm::Stopped { since_ms } => Phase::Stopped { since: Timestamp(since_ms) },
    })
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data becomes JSON")
}

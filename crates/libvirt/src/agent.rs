//! The guest agent. Every question has a deadline that libvirt keeps; a silent guest costs no more.

use std::time::Duration;

use domain::VmId;
use hypervisor::{HypervisorError, Result};
use serde_json::Value;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};

use crate::error::{is, of_vm};

/// An agent that works answers a ping at once, also on a loaded host.
const PING_DEADLINE: Duration = Duration::from_secs(5);
/// How long an agent is given to refuse; it does not answer when it obeys.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);

/// Asks the guest to shut down, and does not wait until it has.
pub(crate) fn shut_down(domain: &Domain, id: VmId) -> Result<()> {
    let failed = |error: Error| of_vm("shutdown", id, &error);
    ask(domain, r#"{"execute":"guest-ping"}"#, PING_DEADLINE).map_err(failed)?;
    let command = r#"{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}"#;
    match ask(domain, command, REFUSAL_DEADLINE) {
        // The agent was there a moment ago, so it heard the command; whoever does not refuse obeys: by silence, or by
        // the end of the channel because the VM is off already.
        Err(error) if is(&error, ErrorNumber::AgentCommandFailed) => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Whether it answers.
pub(crate) fn answers(domain: &Domain, id: VmId, deadline: Duration) -> Result<bool> {
    match ask(domain, r#"{"execute":"guest-ping"}"#, deadline) {
        Ok(_) => Ok(true),
        Err(error) if is_silence(&error) => Ok(false),
        Err(error) => Err(of_vm("guest-ping", id, &error)),
    }
}

/// Freezes all file systems; gives their number.
pub(crate) fn freeze(domain: &Domain, id: VmId, deadline: Duration) -> Result<u32> {
    count("fsfreeze", id, ask(domain, r#"{"execute":"guest-fsfreeze-freeze"}"#, deadline))
}

/// Thaws all file systems; gives their number.
pub(crate) fn thaw(domain: &Domain, id: VmId, deadline: Duration) -> Result<u32> {
    count("fsthaw", id, ask(domain, r#"{"execute":"guest-fsfreeze-thaw"}"#, deadline))
}

fn ask(domain: &Domain, command: &str, deadline: Duration) -> std::result::Result<String, Error> {
    let seconds = i32::try_from(deadline.as_secs().max(1)).unwrap_or(i32::MAX);
    domain.qemu_agent_command(command, seconds, 0)
}

fn is_silence(error: &Error) -> bool {
    use ErrorNumber::{
        AgentUnresponsive, AgentUnsynced, ArgumentUnsupported, OperationInvalid, OperationTimeout,
    };
    let silences =
        [AgentUnresponsive, AgentUnsynced, ArgumentUnsupported, OperationInvalid, OperationTimeout];
    silences.into_iter().any(|number| is(error, number))
}

fn count(verb: &'static str, id: VmId, answer: std::result::Result<String, Error>) -> Result<u32> {
    let answer = answer.map_err(|error| of_vm(verb, id, &error))?;
    let value: Option<Value> = serde_json::from_str(&answer).ok();
    let number = value.as_ref().and_then(|value| value.get("return")).and_then(Value::as_u64);
    let number = number.and_then(|number| u32::try_from(number).ok());
    number
        .ok_or_else(|| HypervisorError::Failed { verb, detail: "the agent's answer is no number".to_owned() })
}

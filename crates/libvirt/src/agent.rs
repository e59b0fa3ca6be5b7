//! The guest agent. Every question has a deadline that libvirt keeps; a silent guest costs no more.

use std::time::Duration;

use domain::VmId;
use hypervisor::{GuestAddress, HypervisorError, Result};
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

/// Whether the guest is a Windows, whose agent freezes by shadow copies. An agent that is too old to say is none.
pub(crate) fn is_windows(domain: &Domain, id: VmId, deadline: Duration) -> Result<bool> {
    match ask(domain, r#"{"execute":"guest-get-osinfo"}"#, deadline) {
        Ok(answer) => {
            let value: Value = serde_json::from_str(&answer).unwrap_or_default();
            Ok(value["return"]["id"].as_str() == Some("mswindows"))
        }
        Err(error) if is(&error, ErrorNumber::AgentCommandFailed) => Ok(false),
        Err(error) => Err(of_vm("guest-get-osinfo", id, &error)),
    }
}

/// Its own IPv4 addresses but those of the loopback.
pub(crate) fn addresses(domain: &Domain, id: VmId, deadline: Duration) -> Result<Vec<GuestAddress>> {
    let answer = ask(domain, r#"{"execute":"guest-network-get-interfaces"}"#, deadline);
    Ok(read_addresses(&answer.map_err(|error| of_vm("guest-network-get-interfaces", id, &error))?))
}

/// What cannot be understood is left out: the guest may say anything.
fn read_addresses(answer: &str) -> Vec<GuestAddress> {
    let value: Value = serde_json::from_str(answer).unwrap_or_default();
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let address = |one: &Value| {
        let address: std::net::Ipv4Addr = one["ip-address"].as_str()?.parse().ok()?;
        let prefix = u8::try_from(one["prefix"].as_u64()?).ok().filter(|prefix| *prefix <= 32)?;
        (!address.is_loopback()).then_some(GuestAddress { address, prefix })
    };
    let cards = list(&value, "return");
    cards.iter().flat_map(|card| list(card, "ip-addresses")).filter_map(|one| address(&one)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_others_can_reach_and_nonsense_is_none() {
        let answer = r#"{"return":[
            {"name":"lo","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"127.0.0.1","prefix":8}]},
            {"name":"eth0","ip-addresses":[{"ip-address-type":"ipv4","ip-address":"10.1.2.3","prefix":24},
                {"ip-address-type":"ipv6","ip-address":"fe80::1","prefix":64},
                {"ip-address-type":"ipv4","ip-address":"10.1.2.4","prefix":77}]},
            {"name":"eth1"}]}"#;
        let expected = GuestAddress { address: "10.1.2.3".parse().unwrap(), prefix: 24 };
        assert_eq!(read_addresses(answer), [expected]);
        for nonsense in ["", "[]", r#"{"return":7}"#, r#"{"return":[1,{"ip-addresses":"x"}]}"#] {
            assert_eq!(read_addresses(nonsense), [], "{nonsense}");
        }
    }
}

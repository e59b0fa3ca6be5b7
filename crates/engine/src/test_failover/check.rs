//! Does the copy work? The guest agent's first answer, a port, a command, and a picture of the screen. What is not known is
//! said to be so: a guest without an agent has not failed, and has not passed.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use hypervisor::GuestAddress;
use tokio::time::Instant;

use super::{Finding, TestView, network};
use crate::{Engine, Refusal, Result, clock, replica};

/// Longest time for booting and probing, whatever a row says that was written before anybody looked at it.
const BOOT_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long one question to the agent may take.
const AGENT_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two tries of anything.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for one connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// What `timeout` ends with when the time was over.
const TIMED_OUT: i32 = 124;
/// Last words of a probe that are kept, characters.
const SAID_MAX: usize = 400;

/// All of it, in order; `watched`: this daemon has seen it start, and can tell how long it took. Errors are those of this host; what is wrong with the copy is a finding.
pub(super) async fn check(engine: &Engine, test: &TestView, watched: bool) -> Result<Vec<Finding>> {
    let deadline = Instant::now() + Duration::from_secs(test.facts.options.boot_timeout_s).min(BOOT_MAX);
    let (boot, boot_ms) = boot(engine, test, watched, deadline).await?;
    let agent = boot.ok;
    engine.know(test.id, |facts| facts.boot_ms = boot_ms)?;
    let mut findings = vec![boot];
    let record = engine.record(test.relationship)?;
    if let Some(what) = engine.doubted(&record, &replica::point(&record, Some(test.point))?)? {
        findings.push(finding("recovery point", None, format!("not known to be right: {what}")));
    }
    let options = &test.facts.options;
    if options.probe.is_some() || options.probe_port.is_some() {
        match agent {
            Some(false) => findings.push(finding("probe", None, "not tried: the guest is not up")),
            agent => findings.extend(probes(engine, test, agent.is_some(), deadline).await?),
        }
    }
    findings.push(picture(engine, test).await?);
    Ok(findings)
}

fn finding(what: &str, ok: Option<bool>, detail: impl Into<String>) -> Finding {
    Finding { what: what.to_owned(), ok, detail: detail.into() }
}

/// Waits for the guest agent; gives how long it took since the start, if this daemon has watched it.
async fn boot(
    engine: &Engine,
    test: &TestView,
    watched: bool,
    deadline: Instant,
) -> Result<(Finding, Option<u64>)> {
    let vm = test.vm;
    let facts = engine.hypervisor(move |it| it.vm(vm)).await?;
    // By a person's hand: nothing brings it back, and looking again would never end.
    let Some(facts) = facts else {
        return Ok((finding("boot", Some(false), "the copy is not defined in libvirt any more"), None));
    };
    if !facts.has_agent {
        let detail = "not known: the VM has no guest agent channel, so nobody tells when it is up";
        return Ok((finding("boot", None, detail), None));
    }
    let started = test.facts.started_ms.filter(|_| watched);
    loop {
        let state = engine.hypervisor(move |it| it.vm_state(vm)).await?;
        if !state.is_some_and(hypervisor::VmState::is_active) {
            return Ok((finding("boot", Some(false), "the VM is off"), None));
        }
        if engine.hypervisor(move |it| it.agent_answers(vm, AGENT_DEADLINE)).await? {
            let took = started.map(|since| clock::now().millis().saturating_sub(since));
            let words = took.map_or_else(String::new, |ms| format!(" after {:.1} s", ms as f64 / 1000.0));
            return Ok((finding("boot", Some(true), format!("the guest agent answered{words}")), took));
        }
        if Instant::now() >= deadline {
            let limit = test.facts.options.boot_timeout_s;
            return Ok((
                finding("boot", Some(false), format!("the guest agent did not answer within {limit} s")),
                None,
            ));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The port and the command, from beside the copy. Only an agent tells where it is.
async fn probes(engine: &Engine, test: &TestView, agent: bool, deadline: Instant) -> Result<Vec<Finding>> {
    let found = if agent { addresses(engine, test, deadline).await } else { Vec::new() };
    let words = found.iter().map(|it| it.address.to_string()).collect::<Vec<_>>();
    engine.know(test.id, |facts| facts.addresses.clone_from(&words))?;
    let lost = match agent {
        true => "the guest agent tells no IPv4 address: the copy has another MAC address than the VM",
        false => "the address of the guest is not known: the VM has no guest agent channel",
    };
    match found.first() {
        Some(guest) if test.facts.isolated => network::plug_in(test.id, *guest).await?,
        None if test.facts.isolated => return Ok(vec![finding("probe", Some(false), lost)]),
        _ => {}
    }
    engine.reach("test.probing").await;
    let mut findings = Vec::new();
    if let Some(number) = test.facts.options.probe_port {
        findings.push(match found.first() {
            Some(guest) => port(test, *guest, number, deadline).await,
            None => finding(&format!("port {number}"), Some(false), lost),
        });
    }
    if let Some(script) = &test.facts.options.probe {
        findings.push(command(test, &words, script, deadline).await);
    }
    if test.facts.isolated {
        network::unplug(test.id).await?;
    }
    Ok(findings)
}

async fn addresses(engine: &Engine, test: &TestView, deadline: Instant) -> Vec<GuestAddress> {
    let vm = test.vm;
    loop {
        let found = engine.hypervisor(move |it| it.addresses(vm, AGENT_DEADLINE)).await.unwrap_or_default();
        if !found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn port(test: &TestView, guest: GuestAddress, number: u16, deadline: Instant) -> Finding {
    let (what, to) = (format!("port {number}"), SocketAddrV4::new(guest.address, number));
    loop {
        match network::connects(test.facts.isolated.then_some(test.id), to, CONNECT_MAX).await {
            Ok(()) => return finding(&what, Some(true), format!("{to} answers")),
            Err(error) if Instant::now() >= deadline => {
                return finding(&what, Some(false), format!("{to} does not answer: {error}"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The command is tried until it succeeds: a guest is up before its services are.
async fn command(test: &TestView, addresses: &[String], script: &str, deadline: Instant) -> Finding {
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
        let mut command = network::script(test.facts.isolated.then_some(test.id), script, left);
        command.env("VM_NAME", &test.facts.name).env("VM_UUID", test.vm.to_string());
        command
            .env("VM_ADDRESS", addresses.first().map_or("", String::as_str))
            .env("VM_ADDRESSES", addresses.join(" "));
        command.env("VM_NETWORK", &test.facts.network).kill_on_drop(true).stdin(std::process::Stdio::null());
        let failed = match command.output().await {
            Ok(output) if output.status.success() => {
                return finding("probe", Some(true), format!("succeeded {}", said(&output)).trim_end());
            }
            Ok(output) if output.status.code() == Some(TIMED_OUT) => {
                format!("it did not end within the time for booting {}", said(&output))
            }
            Ok(output) => format!("{} {}", output.status, said(&output)),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return finding("probe", Some(false), failed.trim_end());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn said(output: &std::process::Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).trim().replace('\n', " / ");
    text.chars().take(SAID_MAX).collect()
}

/// A picture is evidence for people; that there is none is no failure.
async fn picture(engine: &Engine, test: &TestView) -> Result<Finding> {
    let vm = test.vm;
    let shown = match engine.hypervisor(move |it| it.screen(vm)).await {
        Ok(Some(shown)) => shown,
        Ok(None) => return Ok(finding("picture", None, "none: the VM has no display")),
        Err(error) => return Ok(finding("picture", None, format!("none: {}", error.detail))),
    };
    let path = engine.config().reports.join(format!("{}.png", test.id));
    let (folder, file) = (engine.config().reports.clone(), path.clone());
    let written = crate::blocking(move || {
        std::fs::create_dir_all(folder).and_then(|()| std::fs::write(file, shown)).map_err(Refusal::failed)
    });
    written.await?;
    let kept: PathBuf = path.clone();
    engine.know(test.id, |facts| facts.picture = Some(kept))?;
    Ok(finding("picture", None, path.display().to_string()))
}

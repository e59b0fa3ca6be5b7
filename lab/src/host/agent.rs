//! Commands inside a guest, through its agent.

use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Host, LOOK_PAUSE};
use crate::LIMIT;

impl Host {
    /// Runs a shell script inside a guest, as root; it must succeed. Gives its standard output.
    pub fn guest_sh(&self, guest: &str, script: &str) -> Result<String> {
        let arguments = json!({"path": "/bin/sh", "arg": ["-ec", script], "capture-output": true});
        let started = self.ask_agent(guest, &json!({"execute": "guest-exec", "arguments": arguments}))?;
        let question = json!({"execute": "guest-exec-status", "arguments": {"pid": started["pid"]}});
        let start = Instant::now();
        let ended = loop {
            let status = self.ask_agent(guest, &question)?;
            if status["exited"] == true {
                break status;
            }
            ensure!(start.elapsed() < LIMIT, "{script:?} runs on in {guest} after {LIMIT:?}");
            sleep(LOOK_PAUSE);
        };
        let said = |name: &str| -> Result<String> {
            let bytes = STANDARD.decode(ended[name].as_str().unwrap_or_default())?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        if ended["exitcode"] != 0 {
            bail!("{script:?} in {guest}: {}{}", said("out-data")?, said("err-data")?);
        }
        said("out-data")
    }

    fn ask_agent(&self, guest: &str, question: &Value) -> Result<Value> {
        let answer = self.virsh(["qemu-agent-command", guest, "--timeout", "10", &question.to_string()])?;
        let answer: Value = serde_json::from_str(&answer).context("the agent's answer")?;
        Ok(answer["return"].clone())
    }
}

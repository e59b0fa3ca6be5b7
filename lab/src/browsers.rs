//! Real browsers beside the hosts, driven by a script of `lab/browser`, and people who sign in with them.
//!
//! NOT aware of what the console shows: the scripts are. They ask for what a browser cannot do in lines, `LAB words`, and are answered
//! in one line each.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::lab::Lab;

/// Port of the console on each host.
const PORT: u16 = 8444;
/// Everybody's password.
pub const PASSWORD: &str = "right horse battery";
/// One person for each role; they exist in the file tree of one host and nowhere else.
const PEOPLE: &str = "
for role in admin operator viewer; do groupadd virt-replica-$role; done
add() { useradd --no-create-home --shell /usr/sbin/nologin --groups virt-replica-$2 $1; echo \"$1:$PASSWORD\" | chpasswd; }
add alice admin
add otto operator
add vera viewer
";

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The people of the story, on every host: alice (administrator), otto (operator), vera (viewer).
pub fn let_people_in(lab: &Lab) -> Result<()> {
    let policy = repository().join("packaging/pam.d/virt-replica");
    for host in lab.hosts() {
        std::fs::copy(&policy, host.path("/etc/pam.d/virt-replica")?).context("the policy of sign-in")?;
        host.sh(&format!("PASSWORD='{PASSWORD}'\n{PEOPLE}"))?;
    }
    Ok(())
}

/// Plays a script of `lab/browser` to its end; `answer` does what it asks for, and says `ok` or why not.
pub fn play(lab: &mut Lab, script: &str, mut answer: impl FnMut(&mut Lab, &[&str]) -> String) -> Result<()> {
    let folder = repository().join("target/console");
    let (tools, pictures) = (folder.join("node_modules"), folder.join("pictures"));
    ensure!(tools.exists(), "the browser's tools are not there: run `cargo xtask install`");
    std::fs::create_dir_all(&pictures)?;
    let address =
        |host: &crate::Host| (host.name().to_owned(), format!("https://{}:{PORT}", host.address()).into());
    let addresses: serde_json::Map<String, serde_json::Value> = lab.hosts().iter().map(address).collect();
    let mut command = Command::new("node");
    command
        .arg(repository().join("lab/browser").join(script))
        .env("CONSOLE_TOOLS", &tools)
        .env("CONSOLE_PICTURES", &pictures)
        .env("CONSOLE_FIGURES", &folder)
        .env("CONSOLE_ADDRESSES", serde_json::Value::Object(addresses).to_string())
        .env("CONSOLE_PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut node = lab.outside(|| command.spawn())?.context("cannot run node")?;
    let mut answers = node.stdin.take().context("a pipe")?;
    let mut told = Vec::new();
    for line in BufReader::new(node.stdout.take().context("a pipe")?).lines() {
        let line = line?;
        match line.strip_prefix("LAB ") {
            Some(asked) => writeln!(answers, "{}", answer(lab, &asked.split(' ').collect::<Vec<_>>()))?,
            None => {
                println!("{line}");
                told.push(line);
            }
        }
    }
    let ended = node.wait()?;
    let told = told.join("\n");
    ensure!(ended.success(), "{script} failed; its last pages are in {}\n{told}", pictures.display());
    Ok(())
}

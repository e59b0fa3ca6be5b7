//! What libvirt's `qemu` hook calls: may this VM start on this host?
//!
//! `virt-replica-hook OBJECT OPERATION SUBOPERATION EXTRA`, the definition of the VM on standard input. Exit code 0: it may;
//! 1: it may not, and one line on standard error, which libvirt shows to the person who tried, says why and what to do.
//!
//! It is *not* a client of libvirt, which waits for it. It prints nothing on standard output, which libvirt would take for a new
//! definition. The daemon asks the other host at each start, for that may have taken the VM over meanwhile, between two cycles too;
//! it may be down.
//!
//! | what it finds | answer |
//! |---|---|
//! | an operation that starts nothing (`reconnect`, `release`, …) | yes, before anything is looked at |
//! | no database | yes, and a line says so: nothing is protected on this host |
//! | a database without this VM | yes |
//! | with it as primary | what the peer says, through the daemon, which lets go of the VM's disks; if either is silent, the setting `start_when_peer_silent` |
//! | a VM that belongs to the other host or is being handed over | no |
//! | a database that cannot be read, or not in time | no: two writers are worse than a VM that starts later |

mod daemon;
mod definition;
mod question;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use api::dto::StartWord;
use question::Question;
use store::{Guard, GuardVerdict, StoreError};

/// libvirt waits for its hooks without a limit of its own, and with it everybody who calls it.
const DEADLINE: Duration = Duration::from_secs(2);
/// The part of it in which the definition must arrive; after that the VM's name has to do.
const DEFINITION_DEADLINE: Duration = Duration::from_secs(1);
/// What printing the answer may take.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Where the daemon keeps its state, unless the variable `VIRT_REPLICA_STATE` says otherwise.
const STATE: &str = "/var/lib/virt-replica/state.db";

fn main() -> ExitCode {
    let begun = Instant::now();
    let arguments = std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let Some(question) = Question::read(arguments) else { return ExitCode::SUCCESS };
    let state = std::env::var_os("VIRT_REPLICA_STATE").map_or_else(|| PathBuf::from(STATE), PathBuf::from);
    let vm = within(DEFINITION_DEADLINE, || definition::uuid(std::io::stdin().lock())).flatten();

    let asked = state.clone();
    let name = question.name.clone();
    let daemon_says = || {
        let vm = vm.map_or_else(|| question.name.clone(), |vm| vm.to_string());
        within(left(begun).saturating_sub(LAST_WORDS), move || daemon::about_to_start(&vm)).flatten()
    };
    let answer = match within(left(begun), move || ask(&asked, vm, &name)) {
        Some(Ok(Known::Primary(peer))) => {
            let silence = format!(
                "whether VM {} was moved to {peer} is not known: the daemon of this host does not answer (systemctl status \
                 virtreplicad)",
                question.name
            );
            judge(daemon_says(), silence.replace(char::is_control, " "))
        }
        Some(Ok(Known::Answer(answer))) => answer,
        Some(Err(error)) => Answer::No(cannot_tell(&question.name, &error.to_string())),
        None => {
            let cause = format!("{} did not answer within {} s", state.display(), DEADLINE.as_secs());
            Answer::No(cannot_tell(&question.name, &cause))
        }
    };
    match answer {
        Answer::Yes => ExitCode::SUCCESS,
        Answer::YesBut(remark) => {
            eprintln!("virt-replica: {remark}");
            ExitCode::SUCCESS
        }
        Answer::No(reason) => {
            eprintln!("virt-replica: {reason}");
            ExitCode::FAILURE
        }
    }
}

enum Answer {
    Yes,
    YesBut(String),
    No(String),
}

/// What the database says.
enum Known {
    Answer(Answer),
    /// It may start as far as this host knows, and the other host is asked; its name.
    Primary(String),
}

fn left(begun: Instant) -> Duration {
    DEADLINE.saturating_sub(begun.elapsed())
}

/// The daemon's word, or, where nobody knows, the host's setting.
fn judge(word: Option<StartWord>, silence: String) -> Answer {
    let silence = match word {
        Some(StartWord::Allowed) => return Answer::Yes,
        Some(StartWord::Refused { reason }) => return Answer::No(reason),
        Some(StartWord::PeerSilent { reason }) => reason,
        None => silence,
    };
    match std::env::var_os("VIRT_REPLICA_PEER_SILENT") {
        Some(setting) if setting == "refuse" => Answer::No(format!(
            "{silence}; when the other host answers, start it again; if you know that it runs nowhere else: set \
             start_when_peer_silent = true in virtreplicad.toml, and systemctl restart virtreplicad"
        )),
        _ => Answer::YesBut(silence),
    }
}

fn ask(state: &Path, vm: Option<domain::VmId>, name: &str) -> Result<Known, StoreError> {
    let Some(guard) = Guard::open(state)? else {
        let remark =
            format!("there is no {}: nothing is protected on this host, all VMs may start", state.display());
        return Ok(Known::Answer(Answer::YesBut(remark)));
    };
    let verdict = match vm {
        Some(vm) => guard.verdict(vm)?,
        None => guard.verdict_by_name(name)?,
    };
    Ok(match verdict {
        GuardVerdict::NotProtected => Known::Answer(Answer::Yes),
        GuardVerdict::Primary { peer } => Known::Primary(peer),
        GuardVerdict::Refused(reason) => Known::Answer(Answer::No(reason)),
    })
}

/// Refused for want of knowledge. The cure lasts until the daemon's next start, which puts the script back.
fn cannot_tell(name: &str, cause: &str) -> String {
    let text = format!(
        "whether VM {name} may run on this host is not known: {cause}; see: systemctl status virtreplicad; if you know that \
         it runs nowhere else: rm /etc/libvirt/hooks/qemu.d/virt-replica, and start it again"
    );
    text.replace(char::is_control, " ")
}

/// What `work` gives, if it is ready in time; else it is left behind, and ends with the process.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, ready) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    ready.recv_timeout(limit).ok()
}

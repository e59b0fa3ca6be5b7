//! The daemon's side: starts the process that asks, and does not wait longer for it than it may take.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::{Question, Verdict};

/// Longest time for one question. A directory server that takes longer does not answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Most passwords that are checked at once, so that guessing costs this host little.
const SIGN_INS_MAX: usize = 4;
/// Most sign-ins that wait for their turn.
const SIGN_INS_WAITING_MAX: usize = 16;
/// Most look-ups at once. They have places of their own: who guesses passwords does not hold up who is signed in.
const LOOK_UPS_MAX: usize = 2;
/// Longest answer, bytes: thousands of groups.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// An account cannot be judged now.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// Too many at once.
    #[error("too many sign-ins at once")]
    Busy,
    /// The process cannot be started or spoken to.
    #[error("the process that asks PAM cannot be run")]
    Process(#[source] std::io::Error),
    /// No answer in time.
    #[error("PAM did not answer within {} s", ANSWER_DEADLINE.as_secs())]
    Deadline,
    /// The process ended without an answer; it said why on standard error.
    #[error("PAM gave no answer: {0}")]
    NoAnswer(String),
}

/// Asks about accounts.
#[derive(Clone, Debug)]
pub struct Accounts {
    program: PathBuf,
    argument: String,
    waiting: Arc<Semaphore>,
    sign_ins: Arc<Semaphore>,
    look_ups: Arc<Semaphore>,
}

impl Accounts {
    /// Questions go to `program argument`, which calls [`crate::answer`].
    #[must_use]
    pub fn new(program: PathBuf, argument: &str) -> Accounts {
        Accounts {
            program,
            argument: argument.to_owned(),
            waiting: Arc::new(Semaphore::new(SIGN_INS_MAX + SIGN_INS_WAITING_MAX)),
            sign_ins: Arc::new(Semaphore::new(SIGN_INS_MAX)),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS_MAX)),
        }
    }

    /// Whether this person may come in with this password.
    pub async fn sign_in(&self, name: &str, password: &str, from: IpAddr) -> Result<Verdict, AccountsError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| AccountsError::Busy)?;
        let _place = self.sign_ins.acquire().await.map_err(|_| AccountsError::Busy)?;
        let question = Question::SignIn { name: name.to_owned(), password: password.to_owned(), from };
        self.ask(&question).await
    }

    /// Whether an account is still good, and its groups.
    pub async fn look_up(&self, name: &str) -> Result<Verdict, AccountsError> {
        let _place = self.look_ups.acquire().await.map_err(|_| AccountsError::Busy)?;
        self.ask(&Question::LookUp { name: name.to_owned() }).await
    }

    async fn ask(&self, question: &Question) -> Result<Verdict, AccountsError> {
        timeout(ANSWER_DEADLINE, self.exchange(question)).await.map_err(|_| AccountsError::Deadline)?
    }

    /// The process is killed when this is dropped. It gets nothing of our environment: modules act on what they find there.
    async fn exchange(&self, question: &Question) -> Result<Verdict, AccountsError> {
        let question = serde_json::to_vec(question).map_err(|error| AccountsError::Process(error.into()))?;
        let mut process = Command::new(&self.program)
            .arg(&self.argument)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(AccountsError::Process)?;
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let (Some(mut input), Some(output), Some(errors)) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err(AccountsError::NoAnswer("it has no pipes".to_owned()));
        };
        let ask = async {
            let asked = input.write_all(&question).await;
            drop(input); // its end is the end of the question
            asked
        };
        let (mut output, mut errors) = (output.take(ANSWER_BYTES_MAX), errors.take(ANSWER_BYTES_MAX));
        let (asked, heard, complaint) =
            tokio::join!(ask, output.read_to_end(&mut said), errors.read_to_end(&mut complained));
        let status = process.wait().await.map_err(AccountsError::Process)?;
        let understood = serde_json::from_slice(&said).ok().filter(|_| status.success());
        understood.ok_or_else(|| {
            let complained = String::from_utf8_lossy(&complained);
            let fault = [asked.err(), heard.err(), complaint.err()].into_iter().flatten().next();
            let fault = fault.map(|error| format!(" ({error})")).unwrap_or_default();
            AccountsError::NoAnswer(format!("{status}{fault}: {}", complained.trim()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    use super::*;
    use crate::Account;

    /// A process that behaves as the script does; the script's text is all that it is told.
    fn behaving(script: &str) -> (tempfile::TempDir, Accounts) {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("process");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).expect("executable");
        let accounts = Accounts::new(program, "argument");
        (folder, accounts)
    }

    #[tokio::test]
    async fn the_question_goes_through_the_pipe_and_nothing_of_it_is_seen_from_outside() {
        let script = r#"[ "$1" = argument ] && [ -z "$SECRET" ] && ! env | grep -q alice || exit 1
            question=$(cat); case "$question" in *alice*) ;; *) exit 2;; esac
            echo '{"good":{"name":"alice","groups":["alice","wheel"]}}'"#;
        let (_folder, accounts) = behaving(script);
        let verdict = accounts.look_up("alice").await.expect("an answer");
        let groups = vec!["alice".to_owned(), "wheel".to_owned()];
        assert_eq!(verdict, Verdict::Good(Account { name: "alice".to_owned(), groups }));
    }

    #[tokio::test]
    async fn a_process_that_crashes_is_no_answer_even_if_it_said_yes_before() {
        let (_folder, accounts) = behaving(r#"echo '{"good":{"name":"alice","groups":[]}}'; kill -SEGV $$"#);
        let error = accounts.look_up("alice").await.expect_err("no answer");
        assert!(matches!(error, AccountsError::NoAnswer(_)), "{error}");
    }

    #[tokio::test]
    async fn nonsense_is_no_answer_and_what_the_process_complained_of_is_told() {
        let (_folder, accounts) = behaving("echo perhaps; echo 'no such module' >&2");
        let error = accounts.look_up("alice").await.expect_err("no answer").to_string();
        assert!(error.contains("no such module"), "{error}");
    }

    #[tokio::test]
    async fn sign_ins_beyond_the_queue_are_turned_away_at_once_and_look_ups_are_not_held_up() {
        let (_folder, accounts) =
            behaving("cat >/dev/null; sleep 0.3; echo '{\"refused\":\"wrong password\"}'");
        let from = IpAddr::from([127, 0, 0, 1]);
        let ask = || accounts.sign_in("alice", "secret", from);
        let begun = Instant::now();
        let tries =
            futures_util::future::join_all((0..SIGN_INS_MAX + SIGN_INS_WAITING_MAX + 3).map(|_| ask()));
        let (tries, looked_up) = tokio::join!(tries, async {
            let verdict = accounts.look_up("alice").await;
            (verdict, begun.elapsed())
        });
        let turned_away = tries.iter().filter(|it| matches!(it, Err(AccountsError::Busy))).count();
        assert_eq!(turned_away, 3);
        assert!(looked_up.0.is_ok() && looked_up.1 < begun.elapsed(), "{looked_up:?}");
    }
}

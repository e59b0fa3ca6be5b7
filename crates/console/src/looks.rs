//! What the host's accounts say of who is signed in, asked again and again: one question per person at a time, and none for a while
//! after one that failed. A page asks for ten things at once, and in an outage of the directory each question takes its whole
//! deadline. What is *not* here: what is believed meanwhile (`guard`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use accounts::{Accounts, Verdict};
use api::Role;
use domain::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::roles::Roles;

/// A person is asked about again after this, whatever the last answer was.
const ASKED_AGAIN: Duration = Duration::from_secs(60);

/// What is known of a person.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// The account is good, and its groups give this role.
    Role(Role),
    /// It may not stay, and why.
    Out(String),
    /// The accounts cannot be asked, or have not answered yet.
    Unknown,
}

struct Look {
    at: Timestamp,
    begun: Instant,
    word: watch::Receiver<Word>,
    asking: tokio::task::JoinHandle<()>,
}

impl Look {
    fn is_fresh(&self, now: Timestamp) -> bool {
        !self.asking.is_finished() || now.since(self.at) < ASKED_AGAIN
    }
}

/// The questions under way, and those of the last minute.
#[derive(Default)]
pub(crate) struct Looks(Mutex<HashMap<String, Look>>);

impl Looks {
    /// The word about a person, from the question that is under way or was answered just now; of a question that lasts longer than
    /// `patience` it is [`Word::Unknown`].
    pub(crate) async fn word(
        &self,
        (accounts, roles): (&Accounts, &Roles),
        user: &str,
        now: Timestamp,
        patience: Duration,
    ) -> Word {
        let (begun, mut word) = {
            let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            looks.retain(|_, look| look.is_fresh(now));
            let look = looks.entry(user.to_owned()).or_insert_with(|| begin(accounts, roles, user, now));
            (look.begun, look.word.clone())
        };
        // Its end is the end of the question, whatever came of it.
        let _ = timeout_at(begun + patience, async { while word.changed().await.is_ok() {} }).await;
        word.borrow().clone()
    }
}

fn begin(accounts: &Accounts, roles: &Roles, user: &str, now: Timestamp) -> Look {
    let (told, word) = watch::channel(Word::Unknown);
    let (accounts, roles, user) = (accounts.clone(), roles.clone(), user.to_owned());
    let asking = tokio::spawn(async move {
        let found = match accounts.look_up(&user).await {
            Ok(Verdict::Good(account)) => match roles.of(&account.groups) {
                Some(role) => Word::Role(role),
                None => Word::Out("the account is in no group with a role any more".to_owned()),
            },
            Ok(Verdict::Refused(why)) => Word::Out(why),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(user, error, "the groups of who is signed in cannot be looked at");
                Word::Unknown
            }
        };
        let _ = told.send(found); // nobody may be left who asks
    });
    Look { at: now, begun: Instant::now(), word, asking }
}

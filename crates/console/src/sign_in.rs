//! Coming in: with the password of a system account, or with root's one-time link.
//!
//! Whoever is not let in hears one answer, after one time, whether the password is wrong, nobody has that name, the account has expired or is in no
//! group with a role. Why stands in the record and in the journal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accounts::{AccountsError, Verdict};
use api::{Code, Problem, Role};

use crate::audit::Deed;
use crate::door::Door;
use crate::sessions::{BoxError, Vouched};
use crate::token::Token;

const TOO_MANY: &str = "not looked at: too many tries";

/// Why a person does not come in.
pub(crate) enum NotIn {
    /// The one answer.
    Wrong,
    /// Too many tries; so long until the next.
    Wait(Duration),
    /// Nobody can come in with a password now.
    CannotJudge,
}

impl NotIn {
    pub(crate) fn problem(&self) -> Problem {
        match self {
            NotIn::Wrong => Problem::new(
                Code::NotSignedIn,
                "Not signed in",
                "name and password do not fit, or this account may not use the console",
            )
            .with_cure(
                "try again; why it was refused stands in this host's journal: journalctl -u virtreplicad",
            ),
            NotIn::Wait(wait) => Problem::new(
                Code::TooMany,
                "Too many tries",
                format!("the next one is looked at in {} s", seconds(*wait)),
            )
            .with_cure("wait; or, as root on this host: virt-replica console link"),
            NotIn::CannotJudge => Problem::new(
                Code::Failed,
                "Accounts cannot be asked",
                "this host cannot check passwords now",
            )
            .with_cure(
                "journalctl -u virtreplicad says why; as root on this host: virt-replica console link",
            ),
        }
    }
}

/// Rounded up, so that whoever waits so long does not come too early.
pub(crate) fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// With a password. Runs to its end even when the caller hangs up: a guess is counted and recorded all the same.
pub(crate) async fn by_password(
    door: Arc<Door>,
    user: String,
    password: String,
    from: IpAddr,
) -> Result<Token, NotIn> {
    let begun = tokio::time::Instant::now();
    let failure_takes = door.failure_takes;
    let judged = tokio::spawn(async move { judge(&door, &user, &password, from).await }).await;
    let judged = judged.unwrap_or_else(|error| {
        tracing::error!(%error, "a sign-in was not judged");
        Err(NotIn::CannotJudge)
    });
    if matches!(judged, Err(NotIn::Wrong)) {
        tokio::time::sleep_until(begun + failure_takes).await;
    }
    judged
}

async fn judge(door: &Door, user: &str, password: &str, from: IpAddr) -> Result<Token, NotIn> {
    let attempt = door.attempts.begin(from, Some(user), Instant::now()).map_err(|wait| {
        door.turn_away(user, from, Deed::Refused(TOO_MANY));
        NotIn::Wait(wait)
    })?;
    match door.accounts.sign_in(user, password, from).await {
        Ok(Verdict::Good(account)) => {
            let Some(role) = door.roles.of(&account.groups) else {
                // The password was right, but that is for nobody to know who has no role.
                return Err(wrong(door, &account.name, from, "the account is in no group with a role"));
            };
            door.attempts.was_right(attempt);
            let token = begin(door, &account.name, role, Vouched::Account, from)?;
            door.record(&account.name, from, Deed::SignedIn(role));
            Ok(token)
        }
        Ok(Verdict::Refused(why)) => Err(wrong(door, user, from, &why)),
        Err(AccountsError::Busy) => {
            door.attempts.was_not_judged(attempt);
            door.turn_away(user, from, Deed::Refused("not looked at: too many sign-ins at once"));
            Err(NotIn::Wait(door.failure_takes))
        }
        Err(error) => {
            door.attempts.was_not_judged(attempt);
            tracing::error!(user, %from, error = &error as &dyn std::error::Error, "a sign-in to the console cannot be judged");
            door.turn_away(
                user,
                from,
                Deed::Refused("not judged: the accounts of this host cannot be asked"),
            );
            Err(NotIn::CannotJudge)
        }
    }
}

fn wrong(door: &Door, user: &str, from: IpAddr, why: &str) -> NotIn {
    door.record(user, from, Deed::Refused(why));
    NotIn::Wrong
}

/// With a one-time link. Guesses are hopeless, and counted with the others of the address.
pub(crate) async fn by_link(door: &Door, token: &str, from: IpAddr) -> Result<Token, NotIn> {
    let begun = tokio::time::Instant::now();
    let attempt = door.attempts.begin(from, None, Instant::now()).map_err(|wait| {
        door.turn_away("unknown", from, Deed::Refused(TOO_MANY));
        NotIn::Wait(wait)
    })?;
    let Some(link) = Token::parse(token).and_then(|token| door.links.take(&token, door.now())) else {
        door.record("unknown", from, Deed::Refused("the one-time link is unknown, used or expired"));
        tokio::time::sleep_until(begun + door.failure_takes).await;
        return Err(NotIn::Wrong);
    };
    door.attempts.was_right(attempt);
    let token = begin(door, &link.user, link.role, Vouched::Link, from)?;
    door.record(&link.user, from, Deed::SignedInByLink(link.role));
    Ok(token)
}

fn begin(door: &Door, user: &str, role: Role, vouched: Vouched, from: IpAddr) -> Result<Token, NotIn> {
    door.end_old_sessions();
    let begun = door.sessions.begin(user, role, vouched, from, door.now());
    let (token, ended) = begun.map_err(|error: BoxError| {
        tracing::error!(error, user, "a session of the console cannot begin");
        NotIn::CannotJudge
    })?;
    for session in ended {
        door.record(
            &session.user,
            session.from,
            Deed::PutOut("there were too many sessions, and it was used least"),
        );
    }
    Ok(token)
}

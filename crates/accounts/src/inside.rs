//! The process that asks PAM and NSS: one question, one answer, and it ends.

use std::io::{self, Read, Write};

use nonstick::ErrorCode;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{Question, TEXT_BYTES_MAX, Verdict, groups, pam};

/// Longest question, bytes: a name, a password, an address, each byte escaped.
const QUESTION_BYTES_MAX: u64 = 16 * 1024;

/// Answers the question on standard input. The whole of a process: what modules leave behind goes with it.
pub fn answer() -> io::Result<()> {
    // A crash of a module must not write the password into a file.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let mut question = Vec::new();
    io::stdin().take(QUESTION_BYTES_MAX).read_to_end(&mut question)?;
    let verdict = judge(serde_json::from_slice(&question)?)?;
    serde_json::to_writer(io::stdout(), &verdict)?;
    io::stdout().flush()
}

fn judge(question: Question) -> io::Result<Verdict> {
    match question {
        Question::SignIn { name, password, from } => {
            if let Some(refused) = not_text(&name).or_else(|| not_text(&password)) {
                return Ok(refused);
            }
            match pam::sign_in(&name, &password, from) {
                Err(code) => refused(code),
                Ok(spelt) => match spelt.to_str() {
                    Some(name) => groups::of(name),
                    None => Ok(Verdict::Refused("the account's name is no text".to_owned())),
                },
            }
        }
        Question::LookUp { name } => match not_text(&name) {
            Some(refused) => Ok(refused),
            None => pam::account_is_good(&name).map_or_else(refused, |()| groups::of(&name)),
        },
    }
}

/// C ends a text at its first zero byte: what stands behind it would be believed and not checked.
fn not_text(text: &str) -> Option<Verdict> {
    let bad = text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains('\0');
    bad.then(|| Verdict::Refused("an empty or overlong name or password, or one with a zero byte".to_owned()))
}

/// What PAM says about the person is an answer; what it says about itself is a fault.
fn refused(code: ErrorCode) -> io::Result<Verdict> {
    let why = match code {
        ErrorCode::AuthenticationError | ErrorCode::CredentialsError => "wrong password",
        ErrorCode::UserUnknown => "no such account",
        ErrorCode::AccountExpired => "the account has expired",
        ErrorCode::NewAuthTokRequired | ErrorCode::AuthTokExpired | ErrorCode::CredentialsExpired => {
            "the password has expired"
        }
        ErrorCode::MaxTries => "too many tries",
        ErrorCode::PermissionDenied => "the account is locked, or not allowed here",
        ErrorCode::ConversationError => "a module asked for more than a password",
        ErrorCode::CredentialsInsufficient => "this process may not check passwords: it is not root",
        fault => return Err(io::Error::other(format!("PAM: {fault}"))),
    };
    Ok(Verdict::Refused(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn sign_in(name: &str, password: &str) -> Verdict {
        let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
        judge(Question::SignIn { name: name.into(), password: password.into(), from }).expect("an answer")
    }

    #[test]
    fn what_c_would_cut_short_or_nobody_has_is_refused_before_pam_is_asked() {
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        for (name, password) in
            [("", "x"), ("root", ""), ("root\0", "x"), ("root", "x\0y"), (&long, "x"), ("root", &long)]
        {
            let verdict = sign_in(name, password);
            assert!(matches!(&verdict, Verdict::Refused(why) if why.contains("overlong")), "{verdict:?}");
        }
    }
}

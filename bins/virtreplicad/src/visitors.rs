//! Who is at the console, as it is asked for and shown; and root's way to let somebody in.

use std::net::IpAddr;
use std::sync::Arc;

use api::dto::{self, Answer, Done};
use api::{Caller, Code, Problem, Role};
use console::{Door, LINK_VALID, Roles, Served, Vouched};
use transport::Fingerprint;

use crate::door::without_port;
use crate::problems::failed;
use crate::service::Daemon;

/// Who comes with a link that names nobody: whoever holds it, which is not root.
const GUEST: &str = "root's guest";
/// Longest name of a visitor, bytes.
const NAME_BYTES_MAX: usize = 64;

impl Daemon {
    pub(crate) fn visitors(&self) -> Result<Vec<dto::ConsoleSession>, Problem> {
        let sessions = self.console()?.sessions();
        Ok(sessions.into_iter().map(shown).collect())
    }

    pub(crate) fn roles(&self) -> Result<Vec<dto::ConsoleRole>, Problem> {
        let Roles { viewer, operator, administrator } = self.console()?.roles();
        let by_role =
            [(Role::Viewer, viewer), (Role::Operator, operator), (Role::Administrator, administrator)];
        Ok(by_role.map(|(role, groups)| dto::ConsoleRole { role, groups: groups.clone() }).into())
    }

    pub(crate) fn let_in(
        &self,
        who: &Caller,
        request: dto::ConsoleLinkRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::ConsoleLink>, Problem> {
        // A visitor could else make itself a way back in that outlives its account.
        if who.from.is_some() {
            let why = "a link is made by root on the host itself; nothing was changed";
            return Err(Problem::new(Code::Forbidden, "Not from the console", why)
                .with_cure("as root on this host: virt-replica console link"));
        }
        let door = self.console()?;
        let served = door.served().map_err(|why| {
            Problem::new(Code::Refused, "The console is not served", why)
                .with_cure("see `console` in virtreplicad.toml, then: systemctl restart virtreplicad")
        })?;
        let user = request.user.unwrap_or_else(|| GUEST.to_owned());
        if user.is_empty() || user.len() > NAME_BYTES_MAX || user.chars().any(char::is_control) {
            let why =
                format!("{user:?} is empty, longer than {NAME_BYTES_MAX} bytes, or has control characters");
            return Err(Problem::new(Code::Invalid, "Not a name", why)
                .with_cure("virt-replica console link --user NAME"));
        }
        if dry_run {
            let (role, minutes) = (request.role.words(), LINK_VALID.as_secs() / 60);
            return Ok(Answer::Planned(dto::Plan::of([format!(
                "A link will be made that lets {user} in as {role}, once, within {minutes} minutes."
            )])));
        }
        let issued = door
            .make_link(&user, request.role)
            .ok_or_else(|| failed("the kernel gives no random numbers"))?;
        Ok(Answer::Done(dto::ConsoleLink {
            url: format!("https://{}/#link={}", self.authority(&served), issued.token),
            user,
            role: request.role,
            expires_at_ms: issued.expires.millis(),
            fingerprint: Fingerprint::of(&served.certificate.der()).to_string(),
        }))
    }

    pub(crate) fn put_out(
        &self,
        request: &dto::EndSessionsRequest,
        dry_run: bool,
    ) -> Result<Answer<Done>, Problem> {
        let door = self.console()?;
        let user = request.user.as_deref();
        let many = |count: usize| domain::counted(count, "session");
        if dry_run {
            let count = door.sessions().iter().filter(|it| user.is_none_or(|user| it.user == user)).count();
            return Ok(Answer::Planned(dto::Plan::of([format!("{} of the console will end.", many(count))])));
        }
        Ok(Answer::Done(Done::saying(format!("{} of the console ended", many(door.end_sessions(user))))))
    }

    fn console(&self) -> Result<&Arc<Door>, Problem> {
        self.door.as_ref().ok_or_else(|| {
            Problem::new(Code::Refused, "There is no console", "it is turned off on this host").with_cure(
                "set console = \"0.0.0.0:8444\" in virtreplicad.toml, then: systemctl restart virtreplicad",
            )
        })
    }

    /// Where others reach the console.
    fn authority(&self, served: &Served) -> String {
        let (ip, port) = (served.address.ip(), served.address.port());
        let told = self.advertise.first().map(|name| without_port(name));
        let host = told.filter(|_| ip.is_unspecified()).unwrap_or_else(|| ip.to_string());
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            _ => format!("{host}:{port}"),
        }
    }
}

fn shown(session: console::Session) -> dto::ConsoleSession {
    dto::ConsoleSession {
        ends_at_ms: session.ends().millis(),
        user: session.user,
        role: session.role,
        by_link: session.vouched == Vouched::Link,
        from: session.from.to_string(),
        begun_at_ms: session.begun.millis(),
        used_at_ms: session.used.millis(),
    }
}

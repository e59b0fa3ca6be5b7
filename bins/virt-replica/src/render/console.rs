//! `console`.

use api::dto::{ConsoleLink, ConsoleRole, ConsoleSession};
use api::units;

use super::table::{Cell, table};
use crate::screen::{Screen, printable};

/// After `console link`.
pub fn console_link(screen: &Screen, link: &ConsoleLink) -> String {
    format!(
        "Open this once, before {}; whoever does is {} with the role {}:\n\n  {}\n\nThe browser must see the certificate\n  {}",
        units::instant(link.expires_at_ms, &screen.zone),
        printable(&link.user),
        link.role.words(),
        printable(&link.url),
        printable(&link.fingerprint)
    )
}

/// The table of `console sessions`.
pub fn console_sessions(screen: &Screen, sessions: &[ConsoleSession]) -> String {
    if sessions.is_empty() {
        return "Nobody is signed in to the console. To let somebody in: virt-replica console link"
            .to_owned();
    }
    let rows = sessions.iter().map(|session| {
        let instant = |at| Cell::plain(units::instant(at, &screen.zone));
        [
            Cell::plain(&session.user),
            Cell::plain(session.role.words()),
            Cell::plain(if session.by_link { "link" } else { "account" }),
            Cell::plain(&session.from),
            instant(session.begun_at_ms),
            instant(session.used_at_ms),
            instant(session.ends_at_ms),
        ]
    });
    table(screen, ["USER", "ROLE", "BY", "FROM", "SIGNED IN", "LAST SEEN", "ENDS"], rows.collect())
}

/// The table of `console roles`.
pub fn console_roles(screen: &Screen, roles: &[ConsoleRole]) -> String {
    let rows = roles.iter().map(|role| {
        let groups = if role.groups.is_empty() { "none".to_owned() } else { role.groups.join(", ") };
        [Cell::plain(role.role.words()), Cell::plain(groups)]
    });
    table(screen, ["ROLE", "MEMBERS OF"], rows.collect())
}

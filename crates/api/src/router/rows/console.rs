//! Who is signed in to the console, and root's way to let somebody in.

use super::{administrator, viewer};
use crate::dto::{ConsoleLinkRequest, EndSessionsRequest};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    table
        .read(
            administrator(
                "/console/sessions",
                "console-sessions",
                "Who is signed in to the console, the newest first.",
            ),
            |it, _: Read<(), Nothing>| it.console_sessions(),
        )
        .read(
            viewer("/console/roles", "console-roles", "Which groups of the system have which role."),
            |it, _: Read<(), Nothing>| it.console_roles(),
        )
        .change(
            administrator(
                "/console/sessions/end",
                "console-end-sessions",
                "Signs a person out of the console, or everybody.",
            ),
            |it, asked: Change<(), EndSessionsRequest>| {
                it.console_end_sessions(asked.who, asked.body, asked.dry_run)
            },
        )
        .change(
            administrator(
                "/console/link",
                "console-link",
                "Makes a link that opens the console once; only through the control socket of the host.",
            ),
            |it, asked: Change<(), ConsoleLinkRequest>| it.console_link(asked.who, asked.body, asked.dry_run),
        )
}

//! This host, what happened on it, and who changed what.

use super::{administrator, viewer};
use crate::dto::{EventQuery, HostChange, ImportRequest, Page};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    table
        .read(
            viewer("/host", "host", "This host: name, version, listener, storage, limits."),
            |it, _: Read<(), Nothing>| it.host(),
        )
        .read(
            viewer(
                "/host/check",
                "host-check",
                "Everything that replication needs of this host, with the cure of what is missing.",
            ),
            |it, _: Read<(), Nothing>| it.host_check(),
        )
        .change(
            administrator("/host", "host-set", "Changes this host's settings; what is left out stays."),
            |it, asked: Change<(), HostChange>| it.host_set(asked.who, asked.body, asked.dry_run),
        )
        .change(
            administrator(
                "/import",
                "import",
                "Takes the first copies that were carried here in a directory.",
            ),
            |it, asked: Change<(), ImportRequest>| it.import(asked.who, asked.body, asked.dry_run),
        )
        .list(
            viewer(
                "/events",
                "events",
                "What happened: the newest events, the oldest of a page first. Pages lead back in time.",
            ),
            |it, asked: Read<(), EventQuery>| it.events(asked.query),
        )
        .list(
            administrator(
                "/audit",
                "audit",
                "Who changed what, from where, and what came of it; the newest first.",
            ),
            |it, asked: Read<(), Page>| it.audit(asked.query),
        )
}

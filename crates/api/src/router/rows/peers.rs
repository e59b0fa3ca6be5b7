//! Hosts that trust each other, and what a peer shows of itself.

use super::{administrator, viewer};
use crate::dto::{EventQuery, InviteRequest, JoinRequest, OperationQuery, Page};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    trust(table)
        .read(
            viewer("/peers/{peer}/host", "peer-host", "A peer as it shows itself."),
            |it, asked: Read<String, Nothing>| it.peer_host(asked.path),
        )
        .list(
            viewer(
                "/peers/{peer}/vms",
                "peer-vms",
                "The VMs of a peer, as far as it shows them to this host.",
            ),
            |it, asked: Read<String, Page>| it.peer_vms(asked.path, asked.query),
        )
        .list(
            viewer(
                "/peers/{peer}/relationships",
                "peer-relationships",
                "The relationships with this host, as the peer sees them.",
            ),
            |it, asked: Read<String, Page>| it.peer_relationships(asked.path, asked.query),
        )
        .list(
            viewer(
                "/peers/{peer}/operations",
                "peer-operations",
                "Operations of those relationships, as the peer has them; the newest first.",
            ),
            |it, asked: Read<String, OperationQuery>| it.peer_operations(asked.path, asked.query),
        )
        .list(
            viewer(
                "/peers/{peer}/events",
                "peer-events",
                "What happened to those relationships on the peer.",
            ),
            |it, asked: Read<String, EventQuery>| it.peer_events(asked.path, asked.query),
        )
}

fn trust(table: Table) -> Table {
    table
        .read(viewer("/peers", "peers", "The hosts that this one trusts."), |it, _: Read<(), Nothing>| {
            it.peers()
        })
        .change(
            administrator(
                "/peers/invite",
                "peer-invite",
                "Makes a one-time token that lets one host pair with this one.",
            ),
            |it, asked: Change<(), InviteRequest>| it.peer_invite(asked.who, asked.body, asked.dry_run),
        )
        .change(
            administrator(
                "/peers/join",
                "peer-join",
                "Uses a token of another host: both trust each other from then on.",
            ),
            |it, asked: Change<(), JoinRequest>| it.peer_join(asked.who, asked.body, asked.dry_run),
        )
        .change(
            administrator(
                "/peers/rotate",
                "peer-rotate",
                "A new certificate for this host, announced to every peer and then used.",
            ),
            |it, asked: Change<(), Nothing>| it.peer_rotate(asked.who, asked.dry_run),
        )
        .read(
            viewer(
                "/peers/{peer}/test",
                "peer-test",
                "Talks to a peer and changes nothing: is it reached, trusted, of this time?",
            ),
            |it, asked: Read<String, Nothing>| it.peer_test(asked.path),
        )
        .change(
            administrator(
                "/peers/{peer}/remove",
                "peer-remove",
                "Trusts a peer no longer; refused while relationships with it exist.",
            ),
            |it, asked: Change<String, Nothing>| it.peer_remove(asked.who, asked.path, asked.dry_run),
        )
}

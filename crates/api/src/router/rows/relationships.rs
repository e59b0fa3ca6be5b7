//! Protected VMs: their health, their settings, the course of their replication.

use super::{administrator, operator, viewer};
use crate::dto::{
    CycleView, EnableRequest, Page, PlannedFailoverRequest, RemoveRequest, ReverseRequest, SettingsChange,
};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    course(looks(table))
        .change_with_more(
            operator("/relationships", "enable", "Protects a VM: replicates it to a peer."),
            (|body: &EnableRequest| body.export.is_some() || !body.seeds.is_empty(), "a first copy from or to files of the hosts"),
            |it, asked: Change<(), EnableRequest>| it.enable(asked.who, asked.body, asked.dry_run),
        )
        .change(
            operator("/relationships/{vm}", "set", "Changes the settings of a relationship; what is left out stays."),
            |it, asked: Change<String, SettingsChange>| it.change(asked.who, asked.path, asked.body, asked.dry_run),
        )
        .change(
            operator("/relationships/{vm}/planned-failover", "planned-failover", "Hands a VM over with nothing lost. Answers when it is journaled; its steps are those of the operation."),
            |it, asked: Change<String, PlannedFailoverRequest>| {
                it.planned_failover(asked.who, asked.path, asked.body, asked.dry_run)
            },
        )
        .change(
            operator("/relationships/{vm}/reverse", "reverse", "Protects a VM again in the other direction, after a failover without reverse."),
            |it, asked: Change<String, ReverseRequest>| it.reverse(asked.who, asked.path, asked.body, asked.dry_run),
        )
        .change(
            administrator("/relationships/{vm}/remove", "remove", "Ends the replication of a VM."),
            |it, asked: Change<String, RemoveRequest>| it.remove(asked.who, asked.path, asked.body, asked.dry_run),
        )
}

fn looks(table: Table) -> Table {
    let cycles = "The cycles that are remembered, the newest first.";
    table
        .list(
            viewer("/relationships", "relationships", "All relationships of this host, by the VM's name."),
            |it, asked: Read<(), Page>| it.relationships(asked.query),
        )
        .read_tagged(
            viewer(
                "/relationships/{vm}",
                "relationship",
                "View Replication Health of one VM. The first part of its ETag is its revision.",
            ),
            |it, asked: Read<String, Nothing>| it.relationship(asked.path),
            |shown| Some(&shown.summary.revision),
        )
        .read(
            // Who asks is about to start the VM: a cycle that reads its files lets go of them.
            administrator(
                "/relationships/{vm}/may-start",
                "may-start",
                "May the VM start on this host? What libvirt's start hook asks; replication gives up what it reads of the VM then.",
            ),
            |it, asked: Read<String, Nothing>| it.may_start(asked.path),
        )
        .list_and_csv(
            viewer("/relationships/{vm}/cycles", "cycles", cycles),
            viewer("/relationships/{vm}/cycles.csv", "cycles-csv", cycles),
            |it, asked: Read<String, Page>| it.cycles(asked.path, asked.query),
            CycleView::csv,
        )
}

fn course(table: Table) -> Table {
    table
        .change(
            operator(
                "/relationships/{vm}/pause",
                "pause",
                "Holds replication of a VM; changes are still tracked.",
            ),
            |it, asked: Change<String, Nothing>| it.pause(asked.who, asked.path, asked.dry_run),
        )
        .change(
            operator("/relationships/{vm}/resume", "resume", "Lets replication of a VM go on."),
            |it, asked: Change<String, Nothing>| it.resume(asked.who, asked.path, asked.dry_run),
        )
        .change(
            operator(
                "/relationships/{vm}/resynchronize",
                "resynchronize",
                "Compares both sides now, and sends what differs.",
            ),
            |it, asked: Change<String, Nothing>| it.resynchronize(asked.who, asked.path, asked.dry_run),
        )
        .change(
            operator(
                "/relationships/{vm}/verify",
                "verify",
                "Proves that the replica equals the VM's disks, while the VM runs.",
            ),
            |it, asked: Change<String, Nothing>| it.verify(asked.who, asked.path, asked.dry_run),
        )
}

//! A failover that nobody planned, how it ends, and what is set aside by it.

use super::{administrator, operator, viewer};
use crate::dto::{CancelFailoverRequest, FailoverRequest};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    table
        .change_with_more(
            operator("/relationships/{vm}/failover", "failover", "Starts a VM on its replica server, because its primary server is lost. Answers when it is journaled."),
            (|body: &FailoverRequest| body.force, "force, although the VM runs on the other host"),
            |it, asked: Change<String, FailoverRequest>| it.failover(asked.who, asked.path, asked.body, asked.dry_run),
        )
        .change(
            operator("/relationships/{vm}/cancel-failover", "cancel-failover", "Takes a failover back: this host is the replica again."),
            |it, asked: Change<String, CancelFailoverRequest>| {
                it.cancel_failover(asked.who, asked.path, asked.body, asked.dry_run)
            },
        )
        .change(
            operator("/relationships/{vm}/complete-failover", "complete-failover", "Makes a failover final: its recovery points are merged while the VM runs."),
            |it, asked: Change<String, Nothing>| it.complete_failover(asked.who, asked.path, asked.dry_run),
        )
        .read(
            viewer("/relationships/{vm}/diverged", "diverged", "What only this host has of a VM's disks since a failover; the oldest first."),
            |it, asked: Read<String, Nothing>| it.diverged(asked.path),
        )
        .change(
            administrator("/relationships/{vm}/diverged/{id}/remove", "diverged-remove", "Deletes what was set aside."),
            |it, asked: Change<(String, String), Nothing>| {
                let (vm, id) = asked.path;
                it.remove_diverged(asked.who, vm, id, asked.dry_run)
            },
        )
}

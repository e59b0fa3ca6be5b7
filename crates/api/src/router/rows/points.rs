//! Recovery points, and test failovers that start from them.

use super::{operator, viewer};
use crate::dto::{CreatePointRequest, Page, TestFailoverRequest};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    tests(table)
        .list(
            viewer(
                "/relationships/{vm}/points",
                "points",
                "Recovery points, the oldest first; the primary asks its replica server.",
            ),
            |it, asked: Read<String, Page>| it.points(asked.path, asked.query),
        )
        .change(
            operator(
                "/relationships/{vm}/points",
                "point-create",
                "Makes a recovery point now; answers when the replica server has it.",
            ),
            |it, asked: Change<String, CreatePointRequest>| {
                it.create_point(asked.who, asked.path, asked.body, asked.dry_run)
            },
        )
        .change(
            operator(
                "/relationships/{vm}/points/{point}/remove",
                "point-remove",
                "Removes a recovery point.",
            ),
            |it, asked: Change<(String, String), Nothing>| {
                let (vm, point) = asked.path;
                it.remove_point(asked.who, vm, point, asked.dry_run)
            },
        )
}

fn tests(table: Table) -> Table {
    table
        .list(
            viewer("/test-failovers", "test-failovers", "Test failovers, standing and past; the newest first."),
            |it, asked: Read<(), Page>| it.test_failovers(asked.query),
        )
        .read(
            viewer("/test-failovers/{id}", "test-failover", "One test failover with what was found."),
            |it, asked: Read<String, Nothing>| it.test_failover(asked.path),
        )
        .change_with_more(
            operator("/relationships/{vm}/test-failover", "begin-test-failover", "Starts a throw-away copy of a VM on its replica server and checks it. Answers when it is journaled."),
            (|body: &TestFailoverRequest| body.probe.is_some(), "a program of the host as probe"),
            |it, asked: Change<String, TestFailoverRequest>| {
                it.begin_test_failover(asked.who, asked.path, asked.body, asked.dry_run)
            },
        )
        .change(
            operator("/test-failovers/{id}/stop", "stop-test-failover", "Ends a test failover, or all of a VM when its name stands for the id: nothing of them is left but their reports."),
            |it, asked: Change<String, Nothing>| it.stop_test_failover(asked.who, asked.path, asked.dry_run),
        )
}

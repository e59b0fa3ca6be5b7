//! Handovers and failovers, running and past.

use super::{operator, viewer};
use crate::dto::{CancelRequest, OperationQuery};
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    table
        .list(
            viewer(
                "/operations",
                "operations",
                "Operations with their steps, of all VMs or of one, the newest first.",
            ),
            |it, asked: Read<(), OperationQuery>| it.operations(asked.query),
        )
        .read(
            viewer(
                "/operations/{id}",
                "operation",
                "One operation: its steps while it goes on, its report when it ended.",
            ),
            |it, asked: Read<String, Nothing>| it.operation(asked.path),
        )
        .change(
            operator("/operations/{id}/resume", "operation-resume", "Tries the next step again now."),
            |it, asked: Change<String, Nothing>| it.operation_resume(asked.who, asked.path, asked.dry_run),
        )
        .change_with_more(
            operator(
                "/operations/{id}/cancel",
                "operation-cancel",
                "Takes an operation back, as far as that is possible.",
            ),
            (|body: &CancelRequest| body.force, "force, without the other host's word"),
            |it, asked: Change<String, CancelRequest>| {
                it.operation_cancel(asked.who, asked.path, asked.body, asked.dry_run)
            },
        )
}

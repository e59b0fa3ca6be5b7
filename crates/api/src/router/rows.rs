//! All routes, by subject. A viewer may read everything but the audit and who is signed in, and no more than read: the start hook's
//! question is no viewer's. An operator changes the replication of VMs; an administrator changes the host and whom it trusts, ends
//! relationships, and gives what reaches past a VM: force, paths and programs of the host.

mod console;
mod host;
mod live;
mod operations;
mod peers;
mod points;
mod relationships;
mod unplanned;
mod vms;

use super::table::{Row, Table};
use crate::caller::Role;

/// Every row.
pub(super) fn table() -> Table {
    let rooms = [
        host::rows,
        peers::rows,
        vms::rows,
        relationships::rows,
        points::rows,
        unplanned::rows,
        operations::rows,
        live::rows,
        console::rows,
    ];
    rooms.into_iter().fold(Table::new(), |table, rows| rows(table))
}

fn viewer(path: &'static str, name: &'static str, about: &'static str) -> Row {
    Row { path, name, role: Role::Viewer, about }
}

fn operator(path: &'static str, name: &'static str, about: &'static str) -> Row {
    Row { path, name, role: Role::Operator, about }
}

fn administrator(path: &'static str, name: &'static str, about: &'static str) -> Row {
    Row { path, name, role: Role::Administrator, about }
}

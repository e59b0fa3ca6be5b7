//! The VMs of this host, protected or not.

use super::{administrator, viewer};
use crate::dto::Page;
use crate::router::request::Nothing;
use crate::router::table::{Change, Read, Table};

pub(super) fn rows(table: Table) -> Table {
    table
        .list(
            viewer("/vms", "vms", "All VMs of this host, also those that nobody protects. Looks at no image: sizes are unknown here."),
            |it, asked: Read<(), Page>| it.vms(asked.query),
        )
        .read(
            viewer("/vms/{vm}", "vm", "One VM of this host, with the sizes of its disks."),
            |it, asked: Read<String, Nothing>| it.vm(asked.path),
        )
        .change(
            administrator("/vms/{vm}/wrap-raw-disks", "wrap-raw-disks", "Puts the raw disks of a VM that is off behind wrappers that can track changes; no data is copied."),
            |it, asked: Change<String, Nothing>| it.wrap_raw_disks(asked.who, asked.path, asked.dry_run),
        )
        .change(
            administrator("/vms/{vm}/unwrap-raw-disks", "unwrap-raw-disks", "Puts a VM that is off, and not replicated any more, back on its raw disks."),
            |it, asked: Change<String, Nothing>| it.unwrap_raw_disks(asked.who, asked.path, asked.dry_run),
        )
}

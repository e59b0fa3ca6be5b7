//! What was set aside since a failover.

use api::dto::{DivergedDisk, DivergedView};
use api::units;

use super::table::{Cell, table};
use crate::screen::{Screen, printable};

/// One line for each disk, then the guest's files, so many of each file system.
pub fn diverged(screen: &Screen, found: &[DivergedView], shown: usize) -> String {
    if found.is_empty() {
        return "Nothing was set aside on this host.".to_owned();
    }
    let rows = found.iter().flat_map(|view| {
        view.disks.iter().map(|disk| {
            [
                Cell::plain(&view.id),
                Cell::plain(units::instant(view.at_ms, &screen.zone)),
                Cell::plain(&disk.target),
                Cell::plain(units::size(disk.bytes)),
                Cell::plain(disk.pieces.to_string()),
                Cell::plain(&disk.path),
            ]
        })
    });
    let blocks = table(screen, ["ID", "SET ASIDE", "DISK", "SIZE", "PIECES", "FILE"], rows.collect());
    let disks = found.iter().flat_map(|view| view.disks.iter().map(move |disk| (view, disk)));
    disks.map(|(view, disk)| files(screen, view, disk, shown)).fold(blocks, |text, more| text + &more)
}

/// The guest's files on one disk.
fn files(screen: &Screen, view: &DivergedView, disk: &DivergedDisk, shown: usize) -> String {
    let mut text = String::new();
    for system in disk.file_systems.iter().flatten() {
        text += &format!("\n{}, disk {}, {}:\n", view.id, disk.target, printable(&system.place));
        for file in system.files.iter().take(shown) {
            let kind = if file.is_new { "new" } else { "changed" };
            let (when, size) = (units::instant(file.changed_at_ms, &screen.zone), units::size(file.bytes));
            text += &format!("  {kind:<8} {when}  {size:>10}  {}\n", printable(&file.path));
        }
        if let Some(more) = system.files.len().checked_sub(shown).filter(|more| *more > 0) {
            text += &format!("  and {more} more: virt-replica diverged list VM --all-files\n");
        }
        if let Some(why) = &system.incomplete {
            text += &format!("  {}\n", printable(why));
        } else if system.files.is_empty() {
            text += "  no file was changed\n";
        }
    }
    text
}

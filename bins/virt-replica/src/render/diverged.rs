//! What was set aside since a failover.

use api::dto::DivergedView;
use api::units;

use super::table::{Cell, table};
use crate::screen::Screen;

/// One line for each disk.
pub fn diverged(screen: &Screen, found: &[DivergedView]) -> String {
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
    table(screen, ["ID", "SET ASIDE", "DISK", "SIZE", "PIECES", "FILE"], rows.collect())
}

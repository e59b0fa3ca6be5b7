//! Recovery points: the list, and one made on demand.

use api::dto::{ChainView, PointList, PointMade};
use api::units;

use super::table::{Cell, table};
use crate::screen::{Screen, printable};

/// The table of `point list`.
pub fn points(screen: &Screen, list: &PointList) -> String {
    if list.points.is_empty() {
        return "There is no recovery point yet.".to_owned();
    }
    let head = ["NUMBER", "INSTANT", "CONSISTENCY", "DISKS", "SIZE", "TAG", "READ BY", "ID"];
    let newest = list.points.last().map(|point| point.ordinal);
    let rows = list.points.iter().map(|point| {
        let tag = point.tag.clone().unwrap_or_default();
        let mark = if newest == Some(point.ordinal) { " (newest)" } else { "" };
        [
            Cell::plain(point.ordinal.to_string()),
            Cell::plain(format!("{}{mark}", units::instant(point.at_ms, &screen.zone))),
            Cell::plain(&point.consistency),
            Cell::plain(point.disks.join(",")),
            Cell::plain(point.bytes.map_or_else(|| "unknown".to_owned(), units::size)),
            Cell::plain(tag),
            Cell::plain(point.pinned_by.join(",")),
            Cell::plain(&point.id),
        ]
    });
    format!("{}\n{}", table(screen, head, rows.collect()), chain(&list.chain))
}

/// The files of all points in a line.
pub fn chain(chain: &ChainView) -> String {
    let bytes = chain.bytes.map_or_else(|| "unknown size".to_owned(), units::size);
    let points = api::counted(chain.points, "recovery point");
    format!("{points}, {}, {bytes}", api::counted(chain.layers, "layer"))
}

/// After `point create`.
pub fn point_made(screen: &Screen, made: &PointMade) -> String {
    let point = &made.point;
    let tag = point.tag.as_deref().unwrap_or_default();
    let at = units::instant(point.at_ms, &screen.zone);
    let line = printable(&format!(
        "Recovery point {} ({tag}) of {at}, {}: {}",
        point.ordinal, point.consistency, point.id
    ));
    match &made.failure {
        None => line,
        Some(why) => {
            format!("{line}\n{}", screen.warn(&printable(&format!("Less than was asked for: {why}"))))
        }
    }
}

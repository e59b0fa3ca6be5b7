//! Columns that line up, whatever alphabet a VM's name is written in.

use unicode_width::UnicodeWidthStr;

use crate::screen::{Screen, printable};

/// Columns between two columns.
const GAP: usize = 2;

/// Gives text a colour.
type Dress<'a> = Box<dyn Fn(&str) -> String + 'a>;

/// A cell: its text, and how it is dressed once its width is known.
pub struct Cell<'a> {
    text: String,
    dress: Option<Dress<'a>>,
}

impl<'a> Cell<'a> {
    /// Plain text.
    pub fn plain(text: impl AsRef<str>) -> Cell<'a> {
        Cell { text: printable(text.as_ref()), dress: None }
    }

    /// Text with a colour.
    pub fn dressed(text: impl AsRef<str>, dress: impl Fn(&str) -> String + 'a) -> Cell<'a> {
        Cell { dress: Some(Box::new(dress)), ..Cell::plain(text) }
    }

    fn padded(&self, width: usize) -> String {
        let padding = " ".repeat(width.saturating_sub(self.text.width()));
        let shown = self.dress.as_ref().map_or_else(|| self.text.clone(), |dress| dress(&self.text));
        format!("{shown}{padding}")
    }
}

/// A table with a head. No trailing spaces.
pub fn table<'a, const N: usize>(screen: &Screen, head: [&str; N], rows: Vec<[Cell<'a>; N]>) -> String {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].text.width());
        cells.chain([head[column].width()]).max().unwrap_or(0)
    });
    let head = head.map(|title| Cell::dressed(title, |text| screen.bold(text)));
    let lines = std::iter::once(&head).chain(rows.iter()).map(|row| line(row, &widths));
    lines.collect()
}

fn line<const N: usize>(row: &[Cell<'_>; N], widths: &[usize; N]) -> String {
    let cells: Vec<String> = row
        .iter()
        .enumerate()
        .map(|(column, cell)| cell.padded(if column + 1 == N { 0 } else { widths[column] }))
        .collect();
    format!("{}\n", cells.join(&" ".repeat(GAP)).trim_end())
}

/// Lines of `label: value` with the values under each other.
pub fn labelled(screen: &Screen, lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(label, _)| label.width()).max().unwrap_or(0);
    let show = |(label, value): &(&str, String)| {
        let padding = " ".repeat(width - label.width() + GAP);
        format!("{}{padding}{value}\n", screen.dim(&format!("{label}:")))
    };
    lines.iter().map(show).collect()
}

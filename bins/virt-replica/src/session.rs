//! What every verb needs: the daemon, the terminal, and whether programs are reading.

use api::{Client, Problem};
use serde::Serialize;

use crate::exit::Exit;
use crate::screen::Screen;

/// How a verb ends: with an exit code, or with a problem that is shown and becomes one.
pub type Ending = Result<Exit, Problem>;

/// One run of the command.
pub struct Session {
    /// Speaks to the daemon.
    pub client: Client,
    /// The terminal.
    pub screen: Screen,
    /// JSON on standard output instead of text.
    pub json: bool,
}

impl Session {
    /// Shows an answer: as JSON to programs, else in words.
    pub fn show<T: Serialize>(&self, value: &T, words: impl FnOnce(&Screen, &T) -> String) {
        if self.json { print_json(value) } else { print_text(&words(&self.screen, value)) }
    }

    /// A sentence for people; programs do not see it.
    pub fn say(&self, text: &str) {
        if !self.json {
            print_text(text);
        }
    }
}

/// Prints text that ends with exactly one line end. A closed pipe (`| head`) is no error.
pub fn print_text(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush());
}

fn print_json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print_text(&text),
        Err(error) => eprintln!("virt-replica: the answer cannot be written as JSON: {error}"),
    }
}

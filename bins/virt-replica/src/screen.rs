//! The terminal: whether it has colours, which zone its user lives in, and the one question that is asked.

use std::io::{self, BufRead, IsTerminal, Write};

use api::dto::Health;
use jiff::tz::TimeZone;

/// How text is dressed and times are shown.
#[derive(Clone)]
pub struct Screen {
    /// Colours are wanted and can be shown.
    pub colour: bool,
    /// The operator's zone.
    pub zone: TimeZone,
    /// This moment, milliseconds since 1970.
    pub now_ms: u64,
}

impl Screen {
    /// The real terminal, now. `NO_COLOR` (any text) and `TERM=dumb` switch colours off.
    pub fn of_process() -> Screen {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Screen {
            colour: io::stdout().is_terminal() && !forbidden,
            zone: TimeZone::system(),
            now_ms: u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0),
        }
    }

    /// The same terminal, at this moment.
    pub fn refreshed(&self) -> Screen {
        Screen { now_ms: Screen::of_process().now_ms, ..self.clone() }
    }

    /// Good news.
    pub fn good(&self, text: &str) -> String {
        self.dress("32", text)
    }

    /// Something to look at.
    pub fn warn(&self, text: &str) -> String {
        self.dress("33", text)
    }

    /// Trouble.
    pub fn bad(&self, text: &str) -> String {
        self.dress("31", text)
    }

    /// Of less weight.
    pub fn dim(&self, text: &str) -> String {
        self.dress("2", text)
    }

    /// A heading.
    pub fn bold(&self, text: &str) -> String {
        self.dress("1", text)
    }

    /// Text in the colour of a health.
    pub fn by_health(&self, health: Health, text: &str) -> String {
        match health {
            Health::Normal => self.good(text),
            Health::Warning => self.warn(text),
            Health::Critical => self.bad(text),
        }
    }

    fn dress(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Whether somebody can answer a question here.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a yes-or-no question; anything but yes is no.
pub fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let _ = io::stderr().flush(); // an unseen question is answered with no
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).is_ok();
    read && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Text from outside (VM names, messages of the guest) so that it cannot steer the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
impl Screen {
    /// A terminal whose output does not depend on machine and moment.
    pub fn fixed(colour: bool) -> Screen {
        Screen { colour, zone: TimeZone::UTC, now_ms: 1_795_398_404_000 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(printable("db\u{1b}[31m\n数"), "db\\u{1b}[31m\\n数");
    }
}

//! How facts are put into words that people read, and into commands that they paste.

use std::fmt::Display;
use std::time::Duration;

/// A duration: `0.8 s`, `2 min 03 s`, `1 h 05 min`, `3 d 04 h`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{}.{} s", seconds, time.subsec_millis() / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// So many of something: `1 round`, `2 rounds`.
#[must_use]
pub fn counted<N: Display + From<u8> + PartialEq>(count: N, one: &str) -> String {
    let ending = if count == N::from(1) { "" } else { "s" };
    format!("{count} {one}{ending}")
}

/// `text` so that a shell reads it as one word.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.:@%+=/".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The same for the name of a VM as an argument of a command: one that looks like an option stands behind `--`.
#[must_use]
pub fn vm_argument(name: &str) -> String {
    let word = shell_word(name);
    if name.starts_with('-') { format!("-- {word}") } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_can_be_pasted_whatever_the_vm_is_called() {
        assert_eq!(shell_word("testVM01"), "testVM01");
        assert_eq!(shell_word("/srv/a.qcow2"), "/srv/a.qcow2");
        assert_eq!(shell_word("it's a/VM"), r"'it'\''s a/VM'");
        assert_eq!(shell_word("$(me)"), "'$(me)'");
        assert_eq!(shell_word("a-b_c.d:e@f%g+h=i"), "a-b_c.d:e@f%g+h=i");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("-rf"), "'-rf'");
        assert_eq!(shell_word("数据库"), "数据库");
        assert_eq!(vm_argument("-rf"), "-- '-rf'");
        assert_eq!(vm_argument("web 1"), "'web 1'");
    }

    #[test]
    fn one_is_no_many() {
        assert_eq!([0_usize, 1, 2].map(|count| counted(count, "round")), ["0 rounds", "1 round", "2 rounds"]);
    }

    #[test]
    fn a_duration_has_two_units_at_most() {
        let words = |millis| duration(Duration::from_millis(millis));
        assert_eq!(words(0), "0.0 s");
        assert_eq!(words(850), "0.8 s");
        assert_eq!(words(59_999), "59.9 s");
        assert_eq!(words(60_000), "1 min 00 s");
        assert_eq!(words(3_600_000), "1 h 00 min");
        assert_eq!(words(86_400_000), "1 d 00 h");
        assert_eq!(words(123_000), "2 min 03 s");
        assert_eq!(words(3_900_000), "1 h 05 min");
        assert_eq!(words(273_600_000), "3 d 04 h");
    }
}

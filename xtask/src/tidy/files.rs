//! What must not be in the files of the repository.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::output;

/// A file is one idea; nobody dares to cut a longer one.
const LINES_MAX: usize = 600;
/// Files that are long because a program wrote them.
const GENERATED: [&str; 3] = ["Cargo.lock", ".snap", ".json"];
/// Beginnings of paths that exist on one person's machine only. Put together here, so that this file does not offend.
const WORKPLACES: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Complaints about files that git knows or would take up.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let top = repository.to_str().context("path of the repository")?;
    let listing = output(&["git", "-C", top, "ls-files", "--cached", "--others", "--exclude-standard"])?;
    let mut complaints = Vec::new();
    for path in listing.lines() {
        // Binary files and files just removed have nothing to say.
        if let Ok(text) = fs::read_to_string(repository.join(path)) {
            complaints.extend(judge(path, &text));
        }
    }
    Ok(complaints)
}

fn judge(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX && !GENERATED.iter().any(|end| path.ends_with(end)) {
        complaints.push(format!("{path}: {lines} lines; cut it into ideas of at most {LINES_MAX}"));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(place) = WORKPLACES.iter().find(|place| begins_a_path(line, place)) {
            complaints.push(format!("{path}:{}: names a path of one machine ({place})", number + 1));
        }
    }
    complaints
}

/// True if the line names an absolute path that begins so, and not a longer path that merely contains it.
fn begins_a_path(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "_-.}/*>$)".contains(letter))
    })
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, WORKPLACES, judge};

    #[test]
    fn long_files_and_paths_of_one_machine_are_complaints() {
        let long = "x\n".repeat(LINES_MAX + 1);
        assert_eq!(judge("a.rs", &long).len(), 1);
        assert_eq!(judge("Cargo.lock", &long).len(), 0);
        let place = WORKPLACES[0];
        assert_eq!(judge("a.rs", &format!("open(\"{place}main\")")).len(), 1);
        assert_eq!(judge("a.rs", &format!("$FOLDER{place}upper and net{place}b")).len(), 0);
    }
}

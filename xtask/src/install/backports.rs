//! Debian 12's backports as a source of packages, from the mirror that this machine already uses.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Our own file among the sources; nobody else's is touched.
const OWN_FILE: &str = "/etc/apt/sources.list.d/virt-replica-backports.sources";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The suite from which newer packages must come on this release, if any.
pub(super) fn suite_if_needed(release: &str) -> Option<String> {
    // Debian 13 has libvirt 11 and QEMU 10 itself.
    (release == "bookworm").then(|| format!("{release}-backports"))
}

/// Makes the suite known to apt unless it is.
pub(super) fn ensure_source(suite: &str) -> Result<()> {
    let sources = read_sources();
    if sources.iter().any(|source| source.suites.iter().any(|known| known == suite)) {
        return Ok(());
    }
    let release = suite.trim_end_matches("-backports");
    let source = sources.into_iter().find(|source| source.suites.iter().any(|known| known == release));
    let source = source.with_context(|| format!("no apt source of this machine offers {release}"))?;
    eprintln!("adding {OWN_FILE}: libvirt and QEMU of {release} are too old");
    let keyring = source.signed_by.as_deref().unwrap_or(KEYRING);
    let text = format!(
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n",
        source.address
    );
    fs::write(OWN_FILE, text).with_context(|| format!("cannot write {OWN_FILE}"))
}

/// One place from which packages come.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    address: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

fn read_sources() -> Vec<Source> {
    let folder =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    let paths = folder.chain([Path::new("/etc/apt/sources.list").to_owned()]);
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => sources.extend(paragraphs(&text)),
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            _ => {}
        }
    }
    sources
}

/// The format of `.sources` files: paragraphs of `Key: value`.
fn paragraphs(text: &str) -> Vec<Source> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.split(|line| line.trim().is_empty()).filter_map(paragraph).collect()
}

fn paragraph(lines: &[&str]) -> Option<Source> {
    let value = |key: &str| {
        let pairs = lines.iter().filter_map(|line| line.split_once(':'));
        pairs
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value.trim().to_owned())
    };
    let off = value("Enabled").is_some_and(|word| word.eq_ignore_ascii_case("no"));
    if off || !value("Types")?.split_whitespace().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        address: value("URIs")?.split_whitespace().next()?.to_owned(),
        suites: value("Suites")?.split_whitespace().map(str::to_owned).collect(),
        // A key given in the file itself begins with a line end; Debian's own keyring is right then.
        signed_by: value("Signed-By").filter(|path| path.starts_with('/')),
    })
}

/// The format of `.list` files: `deb [options] address suite component...`.
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (address, suite) = (words.next()?, words.next()?);
    let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Source {
        address: address.to_owned(),
        suites: vec![suite.to_owned()],
        signed_by: signed_by.map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::{one_line, paragraphs};

    #[test]
    fn both_formats_of_sources_are_understood() {
        let new = "Types: deb\n# a note\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                   Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\nTypes: deb-src\nURIs: http://x/\nSuites: y\n";
        let found = paragraphs(new);
        assert_eq!(found.len(), 1, "sources of source packages do not count");
        assert_eq!(found[0].address, "http://mirror.example/debian");
        assert_eq!(found[0].suites, ["bookworm", "bookworm-updates"]);

        let old = one_line("deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main")
            .unwrap();
        assert_eq!(
            (old.address.as_str(), old.signed_by.as_deref()),
            ("https://mirror.example/debian", Some("/k.gpg"))
        );
        assert_eq!(one_line("# deb http://x y main"), None);
    }
}

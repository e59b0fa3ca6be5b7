//! Every crate that is built in has a licence that `deny.toml` allows, comes from where it may, and is none of those that it bans.
//!
//! NOT a second cargo-deny, which knows much more (`cargo xtask deny`): what every run can hold without another tool.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::program::output;

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

/// Where all crates come from that are not of this repository.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Licences {
    allow: Vec<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

impl Licences {
    fn allows(&self, name: &str, licence: &str) -> bool {
        let own = self.exceptions.iter().find(|exception| exception.name == name);
        let allowed = |id: &str| {
            let mut all = self.allow.iter().chain(own.iter().flat_map(|own| &own.allow));
            all.any(|allowed| allowed == id)
        };
        // Old manifests write a slash for "or".
        Expression::parse_mode(licence, ParseMode::LAX).is_ok_and(|expression| {
            expression.evaluate(|one| one.license.id().is_some_and(|id| allowed(id.name)))
        })
    }
}

/// Complaints about the crates that the lock file names.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(repository.join("deny.toml")).context("deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let metadata = output(&["cargo", "metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().filter_map(|package| complaint(&deny, package)).collect())
}

fn complaint(deny: &Deny, package: &Value) -> Option<String> {
    let name = package["name"].as_str()?;
    let licence = package["license"].as_str().unwrap_or("none");
    if !deny.licenses.allows(name, licence) {
        return Some(format!("crate {name}: deny.toml does not allow its licence, {licence}"));
    }
    if deny.bans.deny.iter().any(|banned| banned.name == name) {
        return Some(format!("crate {name}: deny.toml bans it"));
    }
    let source = package["source"].as_str().filter(|source| *source != REGISTRY)?;
    Some(format!("crate {name} comes from {source}, and not from crates.io"))
}

#[cfg(test)]
mod tests {
    use super::{Banned, Bans, Deny, Exception, Licences, REGISTRY, complaint};

    #[test]
    fn all_of_an_and_is_wanted_and_one_of_an_or_and_an_exception_is_for_one_crate() {
        let licences = Licences {
            allow: vec!["MIT".into()],
            exceptions: vec![Exception { name: "virt".into(), allow: vec!["LGPL-2.1".into()] }],
        };
        for (name, licence, allowed) in [
            ("one", "MIT", true),
            ("one", "MIT/Apache-2.0", true),
            ("one", "GPL-3.0-only OR MIT", true),
            ("one", "GPL-3.0-only AND MIT", false),
            ("one", "LGPL-2.1", false),
            ("virt", "LGPL-2.1", true),
            ("virt", "GPL-2.0", false),
            ("one", "none", false),
        ] {
            assert_eq!(licences.allows(name, licence), allowed, "{name}: {licence}");
        }
    }

    #[test]
    fn a_banned_crate_and_one_from_elsewhere_are_complaints() {
        let deny = Deny {
            licenses: Licences { allow: vec!["MIT".into()], exceptions: Vec::new() },
            bans: Bans { deny: vec![Banned { name: "openssl".into() }] },
        };
        let package = |name: &str, source: Option<&str>| {
            complaint(&deny, &serde_json::json!({ "name": name, "license": "MIT", "source": source }))
        };
        assert_eq!(package("ours", None), None);
        assert_eq!(package("theirs", Some(REGISTRY)), None);
        assert_eq!(package("openssl", Some(REGISTRY)), Some("crate openssl: deny.toml bans it".into()));
        let elsewhere = package("theirs", Some("git+https://example.org/theirs")).expect("a complaint");
        assert!(elsewhere.contains("not from crates.io"), "{elsewhere}");
    }
}

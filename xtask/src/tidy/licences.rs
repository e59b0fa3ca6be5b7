//! Every crate that is built in has a licence that `deny.toml` allows.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::program::output;

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
}

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

/// Complaints about licences of the crates that the lock file names.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(repository.join("deny.toml")).context("deny.toml")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let metadata = output(&["cargo", "metadata", "--format-version", "1", "--locked"])?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    Ok(packages.iter().filter_map(|package| complaint(&deny.licenses, package)).collect())
}

fn complaint(licences: &Licences, package: &Value) -> Option<String> {
    let name = package["name"].as_str()?;
    let licence = package["license"].as_str().unwrap_or("none");
    (!licences.allows(name, licence))
        .then(|| format!("crate {name}: deny.toml does not allow its licence, {licence}"))
}

#[cfg(test)]
mod tests {
    use super::{Exception, Licences};

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
}

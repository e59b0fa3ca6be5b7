//! Which crate may use which: dependencies point one way, against the input and output.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::program::output;

/// All edges that are allowed, tests included. A crate that is not named here is a complaint too.
const ALLOWED: [(&str, &[&str]); 24] = [
    // pure
    ("domain", &[]),
    ("extent", &[]),
    ("places", &[]),
    ("choreography", &["domain"]),
    ("wire", &["choreography", "domain", "extent"]),
    // one piece of input and output each
    ("filesystem", &[]),
    ("nbd", &["extent"]),
    ("layer", &["domain", "extent"]),
    ("hypervisor", &["domain"]),
    ("libvirt", &["domain", "hypervisor"]), // the only crate that links libvirt
    ("transport", &["domain", "places", "wire"]),
    ("store", &["choreography", "domain", "wire"]),
    ("api", &["domain"]),
    ("accounts", &[]), // the only crate that links PAM
    ("console", &["accounts", "api", "domain", "places"]),
    // all together, but never libvirt
    (
        "engine",
        &[
            "choreography",
            "domain",
            "extent",
            "filesystem",
            "hypervisor",
            "layer",
            "nbd",
            "store",
            "transport",
            "wire",
        ],
    ),
    // programs
    (
        "virtreplicad",
        &[
            "accounts",
            "api",
            "choreography",
            "console",
            "domain",
            "engine",
            "hypervisor",
            "layer",
            "libvirt",
            "store",
            "transport",
            "wire",
        ],
    ),
    ("virt-replica", &["api"]),
    ("virt-replica-hook", &["api", "domain", "store"]),
    // for people who work on it
    ("lab", &["api", "domain", "layer", "transport"]), // layer in its benchmark, transport in its cases only
    ("model", &["choreography", "domain"]),
    (
        "fuzz",
        &[
            "api",
            "choreography",
            "console",
            "domain",
            "extent",
            "filesystem",
            "hypervisor",
            "layer",
            "libvirt",
            "nbd",
            "transport",
            "wire",
        ],
    ),
    ("sim", &["choreography", "domain", "engine", "hypervisor", "layer", "nbd", "store", "transport"]),
    ("xtask", &["api", "domain", "lab", "model", "sim"]),
];

/// Complaints about edges of the workspace as cargo sees it.
pub(super) fn check(repository: &Path) -> Result<Vec<String>> {
    let manifest = repository.join("Cargo.toml");
    let manifest = manifest.to_str().context("path of the repository")?;
    let text =
        output(&["cargo", "metadata", "--format-version", "1", "--no-deps", "--manifest-path", manifest])?;
    Ok(judge(&edges(&text)?))
}

/// Each crate of the workspace with the crates of the workspace that it uses.
fn edges(metadata: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let metadata: serde_json::Value = serde_json::from_str(metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    let used = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|dependency| dependency["path"].is_string()).map(name).collect()
    };
    Ok(packages.iter().map(|package| (name(package), used(package))).collect())
}

fn judge(edges: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (user, used) in edges {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| name == user) else {
            complaints.push(format!("crate {user}: say in xtask/src/tidy/edges.rs what it may use"));
            continue;
        };
        for name in used.iter().filter(|name| !allowed.contains(&name.as_str())) {
            complaints.push(format!("crate {user} must not use {name} (see xtask/src/tidy/edges.rs)"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, edges, judge};

    #[test]
    fn an_edge_against_the_direction_and_an_unknown_crate_are_complaints() {
        let metadata = r#"{"packages": [
            {"name": "engine", "dependencies": [{"name": "libvirt", "path": "/x"}, {"name": "store", "path": "/y"}]},
            {"name": "newcomer", "dependencies": []},
            {"name": "domain", "dependencies": [{"name": "blake3"}]}
        ]}"#;
        let complaints = judge(&edges(metadata).unwrap());
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("engine must not use libvirt"));
        assert!(complaints[1].contains("newcomer"));
    }

    #[test]
    fn the_allowed_edges_have_no_circle() {
        let mut rest = ALLOWED.to_vec();
        while !rest.is_empty() {
            let open: Vec<&str> = rest.iter().map(|(name, _)| *name).collect();
            let before = rest.len();
            rest.retain(|(_, uses)| uses.iter().any(|name| open.contains(name)));
            assert!(rest.len() < before, "circle among {open:?}");
        }
    }
}

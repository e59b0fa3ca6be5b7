//! What the console's cases need: Chromium, a typeface so that pictures look alike everywhere, and two JavaScript packages that drive the
//! browser and judge accessibility. They lie below `target`, and nothing of them is in the product.

use anyhow::{Context, Result, ensure};

use super::ensure_installed;
use crate::program::{repository, run, succeeds};

const PACKAGES: [(&str, &str); 2] = [
    ("chromium", "the browser of the console's cases"),
    ("fonts-inter", "typeface of the console's pictures"),
];
/// Debian's, where no other Node is.
const NODE: [(&str, &str); 2] =
    [("nodejs", "runs the scripts that drive the browser"), ("npm", "fetches what drives the browser")];
/// In the versions that the cases were written with.
const SCRIPTS: [(&str, &str); 2] = [("playwright-core", "1.65.1"), ("axe-core", "4.14.1")];

/// Everything that is missing.
pub(crate) fn browser() -> Result<()> {
    ensure_installed(&PACKAGES)?;
    if !succeeds(&["npm", "--version"]) {
        ensure_installed(&NODE)?;
    }
    let folder = repository().join("target/console");
    let there = |(name, version): &(&str, &str)| {
        let about = std::fs::read_to_string(folder.join("node_modules").join(name).join("package.json"));
        about.is_ok_and(|about| about.contains(&format!("\"version\": \"{version}\"")))
    };
    if SCRIPTS.iter().all(there) {
        return Ok(());
    }
    let names: Vec<String> = SCRIPTS.iter().map(|(name, version)| format!("{name}@{version}")).collect();
    eprintln!("installing {}: drive the browser, and judge accessibility", names.join(" "));
    std::fs::create_dir_all(&folder)?;
    let folder = folder.to_str().context("path of the repository")?;
    let mut words = vec![
        "npm",
        "install",
        "--prefix",
        folder,
        "--no-save",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
    ];
    words.extend(names.iter().map(String::as_str));
    run(&words)?;
    ensure!(SCRIPTS.iter().all(there), "npm did not install {}", names.join(" "));
    Ok(())
}

//! Drivers of the guest's kernel, and the order in which they must be loaded.
//!
//! NOT `depmod`: each driver names what it depends on in its own `.modinfo` section, which is read here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// One driver file.
pub(super) struct Driver {
    pub name: String,
    pub content: Vec<u8>,
}

/// The kernel and the folder of its drivers in an unpacked kernel package.
pub(super) fn locate(tree: &Path) -> Result<(PathBuf, PathBuf)> {
    let drivers =
        fs::read_dir(tree.join("lib/modules"))?.next().context("the kernel package has no drivers")??;
    let version = drivers.file_name().into_string().ok().context("kernel version")?;
    Ok((tree.join(format!("boot/vmlinuz-{version}")), drivers.path()))
}

/// The wanted drivers and all that they need, each after what it needs.
pub(super) fn in_order(folder: &Path, wanted: &[&str]) -> Result<Vec<Driver>> {
    let mut files = BTreeMap::new();
    collect(&folder.join("kernel"), &mut files)?;
    let (mut done, mut order) = (BTreeSet::new(), Vec::new());
    for name in wanted {
        add(&plain(name), &files, &mut done, &mut order)?;
    }
    Ok(order)
}

/// The kernel treats `-` and `_` in names of drivers as one.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
            files.insert(plain(name), path);
        }
    }
    Ok(())
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    done: &mut BTreeSet<String>,
    order: &mut Vec<Driver>,
) -> Result<()> {
    if !done.insert(name.to_owned()) {
        return Ok(());
    }
    let Some(path) = files.get(name) else { bail!("the kernel package has no driver {name}") };
    let content = fs::read(path)?;
    for needed in depends(&content) {
        add(&needed, files, done, order)?;
    }
    order.push(Driver { name: name.to_owned(), content });
    Ok(())
}

/// The `depends=a,b` entry of a driver.
fn depends(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = content.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = &content[start + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let names = String::from_utf8_lossy(&rest[..end]);
    names.split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::{depends, in_order};
    use std::fs;

    #[test]
    fn a_driver_comes_after_what_it_needs_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel");
        fs::create_dir(&kernel).unwrap();
        fs::write(kernel.join("top-one.ko"), b"x\0depends=left,right\0y").unwrap();
        fs::write(kernel.join("left.ko"), b"x\0depends=base\0y").unwrap();
        fs::write(kernel.join("right.ko"), b"x\0depends=base\0y").unwrap();
        fs::write(kernel.join("base.ko"), b"x\0depends=\0y").unwrap();
        let order = in_order(folder.path(), &["top_one"]).unwrap();
        let names: Vec<&str> = order.iter().map(|driver| driver.name.as_str()).collect();
        assert_eq!(names, ["base", "left", "right", "top_one"]);
    }

    #[test]
    fn a_driver_without_the_entry_needs_nothing() {
        assert!(depends(b"nothing here").is_empty());
    }
}

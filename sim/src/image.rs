//! What a VM's disk holds: one version number for each cluster, and how it gets into a qcow2 file and out of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Clusters of a disk.
pub(crate) const CLUSTERS: usize = 16;
/// Bytes of a cluster.
pub(crate) const CLUSTER: usize = 64 * 1024;

/// Version of each cluster; 0: never written.
pub(crate) type Content = Vec<u64>;

/// A bitmap in a file: its name and the clusters that it marks.
pub(crate) type Bitmap = (String, BTreeSet<usize>);

/// The bytes of a cluster.
pub(crate) fn bytes_of(version: u64) -> Vec<u8> {
    version.to_le_bytes().repeat(CLUSTER / 8)
}

/// A new empty disk.
pub(crate) fn create(path: &Path) -> Result<()> {
    let size = (CLUSTERS * CLUSTER).to_string();
    tool("qemu-img", &["create", "-q", "-f", "qcow2", text(path), &size])
}

/// What a file and those below it read as.
pub(crate) fn read(path: &Path) -> Result<Content> {
    let raw = tempfile::NamedTempFile::new()?;
    tool("qemu-img", &["convert", "-U", "-f", "qcow2", "-O", "raw", text(path), text(raw.path())])?;
    let bytes = std::fs::read(raw.path())?;
    ensure!(bytes.len() == CLUSTERS * CLUSTER, "{} has {} bytes", path.display(), bytes.len());
    bytes
        .chunks(CLUSTER)
        .enumerate()
        .map(|(index, cluster)| {
            let version = u64::from_le_bytes(cluster[..8].try_into()?);
            ensure!(cluster == bytes_of(version), "{}: cluster {index} is torn", path.display());
            Ok(version)
        })
        .collect()
}

/// Brings what a VM wrote into its file: first what no bitmap marks, then what each marks. Bitmaps by the names `before` go.
pub(crate) fn write(
    path: &Path,
    content: &Content,
    unmarked: &BTreeSet<usize>,
    before: &BTreeSet<String>,
    bitmaps: &[Bitmap],
) -> Result<()> {
    for name in before {
        tool("qemu-img", &["bitmap", "--remove", "-f", "qcow2", text(path), name])?;
    }
    write_clusters(path, content, unmarked)?;
    for (index, (name, clusters)) in bitmaps.iter().enumerate() {
        tool("qemu-img", &["bitmap", "--add", "-f", "qcow2", text(path), name])?;
        write_clusters(path, content, clusters)?;
        if index + 1 < bitmaps.len() {
            tool("qemu-img", &["bitmap", "--disable", "-f", "qcow2", text(path), name])?;
        }
    }
    Ok(())
}

fn write_clusters(path: &Path, content: &Content, clusters: &BTreeSet<usize>) -> Result<()> {
    if clusters.is_empty() {
        return Ok(());
    }
    let patterns = tempfile::tempdir()?;
    let mut words = Vec::new();
    for cluster in clusters {
        let pattern = patterns.path().join(cluster.to_string());
        std::fs::write(&pattern, content[*cluster].to_le_bytes())?;
        words.push("-c".to_owned());
        words.push(format!("write -s {} {} {CLUSTER}", text(&pattern), cluster * CLUSTER));
    }
    words.push(text(path).to_owned());
    let words: Vec<&str> = ["-f", "qcow2"].into_iter().chain(words.iter().map(String::as_str)).collect();
    tool("qemu-io", &words)
}

/// Adds a bitmap to the file of a VM that is off.
pub(crate) fn add_bitmap(path: &Path, name: &str) -> Result<()> {
    tool("qemu-img", &["bitmap", "--add", "-f", "qcow2", text(path), name])
}

/// Removes a bitmap from the file of a VM that is off.
pub(crate) fn remove_bitmap(path: &Path, name: &str) -> Result<()> {
    tool("qemu-img", &["bitmap", "--remove", "-f", "qcow2", text(path), name])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn tool(program: &str, words: &[&str]) -> Result<()> {
    let done = Command::new(program).args(words).output().with_context(|| program.to_owned())?;
    if !done.status.success() {
        let said = [done.stdout, done.stderr].concat();
        bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}

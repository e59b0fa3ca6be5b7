//! What a VM's disk holds, and how it gets into a qcow2 file and out of it: as much of the format as `layer` writes, without a
//! process for each look. Reference counts are not kept: nothing here is read by QEMU but in the test below.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use layer::{CLUSTER_BYTES, FileName, LayerSpec};

/// Clusters of a disk.
pub(crate) const CLUSTERS: usize = 16;
/// Bytes of a cluster.
pub(crate) const CLUSTER: usize = CLUSTER_BYTES as usize;

/// Version of each cluster; 0: never written.
pub(crate) type Content = Vec<u64>;

const COPIED: u64 = 1 << 63;
const ZERO: u64 = 1;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// The bytes of a cluster.
pub(crate) fn bytes_of(version: u64) -> Vec<u8> {
    version.to_le_bytes().repeat(CLUSTER / 8)
}

/// A new empty disk.
pub(crate) fn create(path: &Path) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    let name = FileName::new(path.file_name().and_then(|name| name.to_str()).context("a name")?)?;
    let spec = LayerSpec { virtual_size: (CLUSTERS * CLUSTER) as u64, backing: None, owner: None };
    layer::create_overlay(folder, &name, spec)?;
    Ok(())
}

/// What a file and those below it read as.
pub(crate) fn read(path: &Path) -> Result<Content> {
    let mut content: Vec<Option<u64>> = vec![None; CLUSTERS];
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        let image = Image::open(&path, false)?;
        for (cluster, found) in content.iter_mut().enumerate().filter(|(_, found)| found.is_none()) {
            *found = image.own(cluster)?;
        }
        next = image.below()?;
    }
    Ok(content.into_iter().map(Option::unwrap_or_default).collect())
}

/// What a file says itself, cluster by cluster.
pub(crate) fn own(path: &Path) -> Result<Vec<Option<u64>>> {
    let image = Image::open(path, false)?;
    (0..CLUSTERS).map(|cluster| image.own(cluster)).collect()
}

/// Brings clusters of a content into a file.
pub(crate) fn write(path: &Path, content: &Content, clusters: &BTreeSet<usize>) -> Result<()> {
    let image = Image::open(path, true)?;
    clusters.iter().try_for_each(|cluster| image.put(*cluster, content[*cluster]))
}

/// Brings what a file says itself into the one below.
pub(crate) fn commit(path: &Path) -> Result<()> {
    let image = Image::open(path, false)?;
    let below = Image::open(&image.below()?.context("it stands on nothing")?, true)?;
    for cluster in 0..CLUSTERS {
        if let Some(version) = image.own(cluster)? {
            below.put(cluster, version)?;
        }
    }
    Ok(())
}

/// Brings what is between two files of the chain that begins at `active`, `top` with it, into `base`; gives the file that stands
/// on that now.
pub(crate) fn merge(active: &Path, top: &Path, base: &Path) -> Result<PathBuf> {
    let below = |path: &Path| Image::open(path, false)?.below()?.context("the chain ends before the base");
    let mut above = active.to_owned();
    loop {
        let next = below(&above)?;
        if next == top {
            break;
        }
        above = next;
    }
    let mut between = Vec::new();
    let mut next = top.to_owned();
    while next != base {
        between.push(next.clone());
        next = below(&next)?;
    }
    let into = Image::open(base, true)?;
    for path in between.iter().rev() {
        for (cluster, version) in own(path)?.into_iter().enumerate() {
            version.map_or(Ok(()), |version| into.put(cluster, version))?;
        }
    }
    // In another folder only its whole path finds it.
    let beside = base.file_name().filter(|_| base.parent() == above.parent()).map(Path::new);
    rebase(&above, beside.unwrap_or(base).to_str().context("a name")?)?;
    Ok(above)
}

/// Names another file below, and changes nothing else; an empty name: none.
pub(crate) fn rebase(path: &Path, below: &str) -> Result<()> {
    let image = Image::open(path, true)?;
    let place: u64 = if below.is_empty() { 0 } else { 1024 };
    image.file.write_all_at(below.as_bytes(), place.max(1024))?;
    image.file.write_all_at(&place.to_be_bytes(), 8)?;
    image.file.write_all_at(&u32::try_from(below.len())?.to_be_bytes(), 16)?;
    Ok(())
}

/// A file that is open.
struct Image {
    file: File,
    path: PathBuf,
    l1: u64,
}

impl Image {
    fn open(path: &Path, writable: bool) -> Result<Image> {
        let opened = OpenOptions::new().read(true).write(writable).open(path);
        let file = opened.with_context(|| path.display().to_string())?;
        let mut image = Image { file, path: path.to_owned(), l1: 0 };
        let mut magic = [0; 4];
        image.file.read_exact_at(&mut magic, 0).with_context(|| path.display().to_string())?;
        ensure!(magic == *b"QFI\xfb", "{} is no qcow2 file", path.display());
        ensure!(image.number(24)? == (CLUSTERS * CLUSTER) as u64, "{} has another size", path.display());
        image.l1 = image.number(40)?;
        Ok(image)
    }

    fn number(&self, at: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).with_context(|| self.path.display().to_string())?;
        Ok(u64::from_be_bytes(bytes))
    }

    fn below(&self) -> Result<Option<PathBuf>> {
        let (place, mut length) = (self.number(8)?, [0; 4]);
        self.file.read_exact_at(&mut length, 16)?;
        let mut name = vec![0; u32::from_be_bytes(length) as usize];
        if place == 0 || name.is_empty() {
            return Ok(None);
        }
        self.file.read_exact_at(&mut name, place)?;
        Ok(Some(self.path.with_file_name(String::from_utf8(name)?)))
    }

    /// Where the entry of a cluster is; none: it has no table.
    fn entry_at(&self, cluster: usize) -> Result<Option<u64>> {
        let table = self.number(self.l1)? & OFFSET;
        Ok((table > 0).then(|| table + cluster as u64 * 8))
    }

    fn own(&self, cluster: usize) -> Result<Option<u64>> {
        let Some(at) = self.entry_at(cluster)? else { return Ok(None) };
        let entry = self.number(at)?;
        if entry & ZERO > 0 {
            return Ok(Some(0));
        }
        if entry & OFFSET == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; CLUSTER];
        let found = self.file.read_exact_at(&mut bytes, entry & OFFSET);
        found.with_context(|| format!("{}: cluster {cluster} is cut", self.path.display()))?;
        let version = u64::from_le_bytes(bytes[..8].try_into()?);
        if bytes != bytes_of(version) {
            bail!("{}: cluster {cluster} is torn", self.path.display());
        }
        Ok(Some(version))
    }

    fn put(&self, cluster: usize, version: u64) -> Result<()> {
        let at = match self.entry_at(cluster)? {
            Some(at) => at,
            None => {
                let table = self.append(&vec![0; CLUSTER])?;
                self.file.write_all_at(&(table | COPIED).to_be_bytes(), self.l1)?;
                table + cluster as u64 * 8
            }
        };
        let entry = self.number(at)?;
        if version == 0 {
            return Ok(self.file.write_all_at(&ZERO.to_be_bytes(), at)?);
        }
        if entry & OFFSET > 0 && entry & ZERO == 0 {
            return Ok(self.file.write_all_at(&bytes_of(version), entry & OFFSET)?);
        }
        let place = self.append(&bytes_of(version))?;
        Ok(self.file.write_all_at(&(place | COPIED).to_be_bytes(), at)?)
    }

    fn append(&self, bytes: &[u8]) -> Result<u64> {
        let end = self.file.metadata()?.len().next_multiple_of(CLUSTER_BYTES);
        self.file.write_all_at(bytes, end)?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_written_here_reads_the_same_for_qemu() {
        let folder = tempfile::tempdir().expect("a folder");
        let (base, top) = (folder.path().join("base.qcow2"), folder.path().join("top.qcow2"));
        let mut chance = fastrand::Rng::with_seed(5);
        create(&base).expect("made");
        let spec = LayerSpec {
            virtual_size: (CLUSTERS * CLUSTER) as u64,
            backing: Some(layer::Backing::new("base.qcow2", layer::BackingFormat::Qcow2).expect("a name")),
            owner: None,
        };
        layer::create_overlay(folder.path(), &FileName::new("top.qcow2").expect("a name"), spec)
            .expect("made");
        let mut expected = vec![0; CLUSTERS];
        for version in 1..60 {
            let cluster = chance.usize(..CLUSTERS);
            expected[cluster] = if version % 7 == 0 { 0 } else { version };
            let path = if version < 20 { &base } else { &top };
            write(path, &expected, &BTreeSet::from([cluster])).expect("written");
            if version % 20 == 0 {
                commit(&top).expect("merged");
                assert_eq!(by_qemu(&base), expected);
            }
            assert_eq!(read(&top).expect("read"), expected);
            assert_eq!(by_qemu(&top), expected);
        }
    }

    fn by_qemu(path: &Path) -> Content {
        let raw = tempfile::NamedTempFile::new().expect("a file");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "qcow2", "-O", "raw"]).arg(path).arg(raw.path());
        assert!(convert.status().expect("qemu-img runs").success());
        let bytes = std::fs::read(raw.path()).expect("read");
        let version = |cluster: &[u8]| u64::from_le_bytes(cluster[..8].try_into().expect("eight bytes"));
        bytes.chunks(CLUSTER).map(version).collect()
    }
}

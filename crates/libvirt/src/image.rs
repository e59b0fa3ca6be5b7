//! Disk images through `qemu-img`: sizes, and dirty bitmaps while the VM is off.
//!
//! NOT the gate for images of a peer (that is `layer`): these are files of this host's own definitions.

use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use hypervisor::{HypervisorError, ImageSize, Result};
use serde_json::Value;

/// First bytes of a qcow2 file.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";
/// Shortest header of version 3.
const HEADER_BYTES: usize = 104;
/// Sizes of clusters that QEMU knows, as powers of two.
const CLUSTER_BITS: RangeInclusive<u32> = 9..=21;
/// Larger ones, which QEMU takes with large clusters only, are its own to judge: 64 TiB.
const VIRTUAL_BYTES_MAX: u64 = 64 << 40;
/// Of these, those with which the sizes stand where they always do: dirty, kind of compression, extended L2 entries.
const FEATURES_OF_ITS_OWN_DATA: u64 = 1 | 1 << 3 | 1 << 4;
/// Unit of the blocks of a file, whatever the file system's are.
const SECTOR: u64 = 512;
/// Longest complaint of `qemu-img` that is passed on, in characters.
const COMPLAINT_MAX: usize = 500;

/// Virtual size and allocated bytes, whoever has the image open: both stand in its header and its inode. Whoever shows a
/// VM asks for them, again and again: a process for each of its disks would be most of what that costs.
pub(crate) fn size(path: &Path, format: &str) -> Result<ImageSize> {
    let is_qcow2 = format == "qcow2";
    if let Some(size) = Some(path).filter(|_| is_qcow2).and_then(size_in_header) {
        return Ok(size);
    }
    let info = info(path, if is_qcow2 { "qcow2" } else { "raw" }, true)?;
    let number = |name: &str| info.get(name).and_then(Value::as_u64);
    match (number("virtual-size"), number("actual-size")) {
        (Some(virtual_bytes), Some(own)) => {
            let data = info.pointer("/format-specific/data/data-file").and_then(Value::as_str);
            let elsewhere = data.map_or(Ok(0), |data| data_bytes(Path::new(data), virtual_bytes))?;
            Ok(ImageSize { virtual_bytes, allocated_bytes: own + elsewhere })
        }
        _ => Err(unreadable(path, "qemu-img told no size")),
    }
}

/// Of a qcow2 file that holds its own data, as QEMU's `docs/interop/qcow2.rst` lays it out; none: whatever else it is, `qemu-img` is to
/// look, and to complain.
fn size_in_header(path: &Path) -> Option<ImageSize> {
    let mut file = File::open(path).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header).ok()?;
    let four = |at: usize| header[at..].first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let eight = |at: usize| header[at..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    let holds_its_data = four(4)? == 3 && eight(72)? & !FEATURES_OF_ITS_OWN_DATA == 0;
    let (cluster_bits, virtual_bytes) = (four(20)?, eight(24)?);
    let is_sound = CLUSTER_BITS.contains(&cluster_bits)
        && virtual_bytes % SECTOR == 0
        && virtual_bytes <= VIRTUAL_BYTES_MAX
        && four(100)? >= HEADER_BYTES as u32;
    let allocated_bytes = metadata.blocks() * SECTOR;
    (header.starts_with(&QCOW2_MAGIC) && holds_its_data && is_sound)
        .then_some(ImageSize { virtual_bytes, allocated_bytes })
}

/// Bytes that the raw disk behind a wrapper takes, which has none itself. A block device is full, as far as anybody knows.
fn data_bytes(data: &Path, virtual_bytes: u64) -> Result<u64> {
    let metadata = std::fs::metadata(data).map_err(|error| unreadable(data, &error.to_string()))?;
    let is_device = metadata.file_type().is_block_device();
    Ok(if is_device { virtual_bytes } else { metadata.blocks() * SECTOR })
}

/// Adds a persistent bitmap to a qcow2 file that nobody has open. It is there already: done.
pub(crate) fn add_bitmap(path: &Path, name: &str) -> Result<()> {
    if has_bitmap(path, name)? {
        return Ok(());
    }
    qemu_img(path, &["bitmap", "--add", "-f", "qcow2"], &[name]).map(drop)
}

/// Removes a bitmap from a qcow2 file that nobody has open. It is not there: done.
pub(crate) fn remove_bitmap(path: &Path, name: &str) -> Result<()> {
    if !has_bitmap(path, name)? {
        return Ok(());
    }
    qemu_img(path, &["bitmap", "--remove", "-f", "qcow2"], &[name]).map(drop)
}

fn has_bitmap(path: &Path, name: &str) -> Result<bool> {
    let info = info(path, "qcow2", false)?;
    let bitmaps = info.pointer("/format-specific/data/bitmaps").and_then(Value::as_array);
    let named = |bitmap: &Value| bitmap.get("name").and_then(Value::as_str) == Some(name);
    Ok(bitmaps.is_some_and(|bitmaps| bitmaps.iter().any(named)))
}

fn info(path: &Path, format: &str, in_use: bool) -> Result<Value> {
    // Never guessed by qemu-img: a guest can write any header into a raw disk.
    let mut arguments = vec!["info", "--output=json", "-f", format];
    arguments.extend(in_use.then_some("-U"));
    let said = qemu_img(path, &arguments, &[])?;
    serde_json::from_slice(&said).map_err(|error| unreadable(path, &error.to_string()))
}

fn qemu_img(path: &Path, arguments: &[&str], last: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("qemu-img").args(arguments).arg("--").arg(path).args(last).output();
    let output = output.map_err(|error| unreadable(path, &format!("qemu-img cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(unreadable(path, &complaint.trim().chars().take(COMPLAINT_MAX).collect::<String>()))
}

fn unreadable(path: &Path, detail: &str) -> HypervisorError {
    HypervisorError::Image { path: path.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_from_the_header_as_qemu_img_tells_it() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, options: &str, bytes: &str| {
            let path = folder.path().join(name);
            let made = Command::new("qemu-img")
                .current_dir(folder.path())
                .args(["create", "-q", "-f", "qcow2", "-o", options, name, bytes])
                .status();
            assert!(made.unwrap().success(), "{options}");
            path
        };
        for (name, options) in [("a", "compat=1.1"), ("b", "extended_l2=on"), ("c", "compression_type=zstd")]
        {
            let path = make(name, options, "5G");
            let told = info(&path, "qcow2", true).unwrap();
            let told = ["virtual-size", "actual-size"].map(|name| told[name].as_u64().unwrap());
            let ImageSize { virtual_bytes, allocated_bytes } = size_in_header(&path).unwrap();
            assert_eq!([virtual_bytes, allocated_bytes], told, "{options}");
        }
        let outside = format!("data_file={},data_file_raw=on", folder.path().join("raw").display());
        let others = [make("old", "compat=0.10", "1G"), make("out", &outside, "1G")];
        for path in others {
            assert!(size_in_header(&path).is_none());
            assert_eq!(size(&path, "qcow2").unwrap().virtual_bytes, 1 << 30);
        }
        // Cut in its header, and with a feature that nobody knows: the words are qemu-img's.
        let bytes = std::fs::read(folder.path().join("a")).unwrap();
        let with = |at: usize, other: u8| [&bytes[..at], &[other][..], &bytes[at + 1..]].concat();
        let path = folder.path().join("damaged");
        for damaged in [bytes[..HEADER_BYTES - 1].to_vec(), with(72, 0x80), with(23, 60), with(103, 80)] {
            std::fs::write(&path, damaged).unwrap();
            assert!(size_in_header(&path).is_none() && size(&path, "qcow2").is_err());
        }
        // A guest that writes such a header into its raw disk has a disk as large as before.
        std::fs::write(&path, &bytes[..4096]).unwrap();
        assert_eq!(size(&path, "raw").unwrap().virtual_bytes, 4096);
    }

    #[test]
    fn a_bitmap_is_added_once_and_removed_once_however_often_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("-it's a disk.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "--"])
            .arg(&disk)
            .arg("1M")
            .status();
        assert!(made.unwrap().success());
        for _ in 0..2 {
            add_bitmap(&disk, "vr-1").unwrap();
            assert!(has_bitmap(&disk, "vr-1").unwrap());
        }
        for _ in 0..2 {
            remove_bitmap(&disk, "vr-1").unwrap();
            assert!(!has_bitmap(&disk, "vr-1").unwrap());
        }
        assert_eq!(size(&disk, "qcow2").unwrap().virtual_bytes, 1 << 20);
        std::fs::write(&disk, vec![0; 4096]).unwrap();
        assert_eq!(size(&disk, "raw").unwrap().virtual_bytes, 4096);
        assert!(add_bitmap(&disk, "vr-1").is_err());
        assert!(size(&folder.path().join("missing"), "qcow2").is_err());
    }
}

//! The disk: an ext4 file system with real files, log text and noise.
//!
//! NOT the same bytes on every machine: the files are whatever programs, libraries and documents the machine has.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write, copy};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Benchmark;
use crate::run::run;

/// Of the content, one part in so many is noise (media, already compressed), and one in so many log text.
const NOISE_PART: u64 = 7;
const LOG_PART: u64 = 14;
/// A single file shall not be a large part of it all.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Makes the raw image in a folder.
pub(super) fn make(folder: &Path, options: &Benchmark) -> Result<PathBuf> {
    let (tree, raw) = (folder.join("content"), folder.join("content.raw"));
    fs::create_dir_all(&tree)?;
    let bytes = options.data_mib << 20;
    let (noise, log) = (bytes / NOISE_PART, bytes / LOG_PART);
    copy_files(&tree, bytes - noise - log)?;
    copy(&mut File::open("/dev/urandom")?.take(noise), &mut File::create(tree.join("media.bin"))?)?;
    write_log(&tree.join("app.log"), log)?;
    File::create(&raw)?.set_len(options.disk_mib << 20)?;
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0", "-d"]).arg(&tree).arg(&raw))?;
    fs::remove_dir_all(&tree)?;
    Ok(raw)
}

/// Converts raw images, one after the other on one disk, to a qcow2 image beside them.
pub(super) fn to_qcow2(raws: &[&Path]) -> Result<PathBuf> {
    let image = raws.first().context("an image")?.with_extension("qcow2");
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).args(raws).arg(&image))?;
    Ok(image)
}

/// Bytes that an image occupies.
pub(super) fn data_bytes(image: &Path) -> Result<u64> {
    Ok(fs::metadata(image)?.blocks() * 512)
}

/// Copies files of this machine until there are enough bytes, or no more files.
fn copy_files(tree: &Path, bytes: u64) -> Result<()> {
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sources = ["/usr/lib", "/usr/bin", "/usr/include", "/usr/share", sysroot.trim()];
    let mut left = bytes;
    for source in sources {
        let to = tree.join(source.trim_start_matches('/').replace('/', "-"));
        copy_folder(Path::new(source), &to, &mut left)?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path, left: &mut u64) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut entries: Vec<_> = fs::read_dir(from)?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if *left == 0 {
            break;
        }
        let (kind, path) = (entry.file_type()?, entry.path());
        if kind.is_dir() {
            copy_folder(&path, &to.join(entry.file_name()), left)?;
        } else if kind.is_file() && entry.metadata()?.len() <= FILE_BYTES_MAX {
            // A file that cannot be read, or goes away meanwhile, is not missed.
            let copied = fs::copy(&path, to.join(entry.file_name())).unwrap_or(0);
            *left = left.saturating_sub(copied);
        }
    }
    Ok(())
}

fn write_log(path: &Path, bytes: u64) -> Result<()> {
    const WORDS: [&str; 8] = ["GET", "POST", "error", "warn", "session", "kernel", "libvirt", "commit"];
    let mut log = BufWriter::new(File::create(path)?);
    let (mut written, mut random) = (0, Random::new(7));
    while written < bytes {
        let (word, id, host) = (WORDS[random.below(8) as usize], random.next(), random.below(9));
        let (seconds, took) = (1_700_000_000 + written / 512, random.below(900_000));
        let line = format!(
            "{seconds}.{:03} host{host} app[{}]: {word} /{id:016x} status=200 took={took}us\n",
            took % 1000,
            id % 9999
        );
        log.write_all(line.as_bytes())?;
        written += line.len() as u64;
    }
    log.flush().context("log text")
}

/// Numbers that look random and are the same in every run (xorshift).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

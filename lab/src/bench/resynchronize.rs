//! Two copies that differ in one hundredth, made equal without a bitmap: ours, and rsync over the same link; beside them BLAKE3 over
//! both copies, which is what comparing costs at least.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::content::Random;
use super::cycle::{BLOCK_BYTES, CHANGED_PART, next_cycle};
use super::{Bench, Subject, copy, dirty};
use crate::product::HOSTS;

const START_LIMIT: Duration = Duration::from_secs(10);
/// Where rsync's copies lie on both hosts: the file system of the replicas.
const FOLDER: &str = "/var/lib/virt-replica/rsync";
const RSYNCD: &str = "/run/rsyncd.conf";

/// One round, in seconds.
#[derive(Debug, Serialize)]
pub struct ResynchronizeFigure {
    /// Ours: the whole cycle, from begin to acknowledgement.
    pub ours: f64,
    /// Guest data that ours carried, bytes.
    pub bytes: u64,
    /// BLAKE3 over both copies of the whole disk, holes too, both at the same time, each by one thread.
    pub blake3: f64,
    /// The same over what of both copies holds data only, as we read them.
    pub blake3_data: f64,
    /// rsync of the same content as raw files, with `--fsync`.
    pub rsync: f64,
}

pub(super) fn measure(bench: &Bench, guest: &Subject) -> Result<Vec<ResynchronizeFigure>> {
    let run = |words: &[&str]| bench.product.run(&bench.lab, HOSTS[0], words);
    let (host, name) = (bench.lab.host(HOSTS[0]), guest.name());
    let count = guest.disk_bytes / BLOCK_BYTES / CHANGED_PART + 1;
    run(&["set", name, "--frequency", "5s", "--yes"])?;
    let mut figures = Vec::new();
    for round in 0..bench.options.rounds {
        run(&["pause", name, "--yes"])?;
        dirty::prepare(host, name, (guest.disk_bytes, BLOCK_BYTES), count, 4242 + round as u64)?.write()?;
        for checkpoint in host.virsh(["checkpoint-list", name, "--name"])?.split_whitespace() {
            host.virsh(["checkpoint-delete", name, checkpoint])?;
        }
        // All three find what they read in memory: they are compared, and not the disk below.
        blake3_of(&copies(bench, guest)?)?;
        let before = bench.cycles(HOSTS[0], guest)?;
        run(&["resume", name, "--yes"])?;
        let ours = next_cycle(bench, HOSTS[0], guest, &before)?;
        ensure!(ours.bytes < 2 * count * BLOCK_BYTES, "{} bytes travelled", ours.bytes);
        let blake3_data = blake3_of(&copies(bench, guest)?)?;
        let (blake3, rsync) = rsync(bench, guest, count, round as u64)?;
        let (ours, bytes) = (ours.seconds, ours.bytes);
        figures.push(ResynchronizeFigure { ours, bytes, blake3, blake3_data, rsync });
    }
    run(&["set", name, "--frequency", "1h", "--yes"])?;
    Ok(figures)
}

/// The largest file of either copy.
fn copies(bench: &Bench, guest: &Subject) -> Result<[PathBuf; 2]> {
    let shown = bench.product.json(&bench.lab, HOSTS[1], &["show", guest.name()])?;
    let directory = shown.get("directory").and_then(Value::as_str).context("a replica directory")?;
    let theirs = bench.lab.host(HOSTS[1]).path(format!("{directory}/sda/base.qcow2"))?;
    Ok([bench.lab.host(HOSTS[0]).path(copy::image(guest))?, theirs])
}

fn blake3_of(copies: &[PathBuf; 2]) -> Result<f64> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let hashing: Vec<_> = copies.iter().map(|copy| scope.spawn(|| hash(copy))).collect();
        let hashed = hashing.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("it panicked"))?);
        hashed.collect::<Result<Vec<_>>>()
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

fn hash(copy: &Path) -> Result<blake3::Hash> {
    let (mut file, mut piece, mut hasher) = (File::open(copy)?, vec![0; 1 << 20], blake3::Hasher::new());
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&piece[..length]),
        };
    }
}

/// The disk as a raw file on the first host, and on the second one that differs in as many blocks: how long BLAKE3 takes over
/// both, and rsync to make them equal.
fn rsync(bench: &Bench, guest: &Subject, count: u64, seed: u64) -> Result<(f64, f64)> {
    let (source, target) = (bench.lab.host(HOSTS[0]), bench.lab.host(HOSTS[1]));
    for host in [source, target] {
        host.exec(["mkdir", "-p", FOLDER])?;
    }
    let raw = format!("{FOLDER}/disk.raw");
    source.exec(["qemu-img", "convert", "-U", "-O", "raw", &copy::image(guest), &raw])?;
    let other = target.path(&raw)?;
    let words = [source.path(&raw)?.into_os_string(), other.clone().into_os_string()];
    crate::run::run(std::process::Command::new("cp").arg("--sparse=always").args(words))?;
    let (file, mut random) = (File::options().write(true).open(&other)?, Random::new(seed + 99));
    for _ in 0..count {
        let block: Vec<u8> = (0..BLOCK_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        file.write_all_at(&block, random.below(guest.disk_bytes / BLOCK_BYTES) * BLOCK_BYTES)?;
    }
    file.sync_all()?;
    // The first reads them into memory.
    let both = [source.path(&raw)?, other.clone()];
    let blake3 = blake3_of(&both)?.min(blake3_of(&both)?);
    let config =
        format!("use chroot = no\nuid = root\ngid = root\n[bench]\npath = {FOLDER}\nread only = false\n");
    std::fs::write(target.path(RSYNCD)?, config)?;
    let server =
        target.spawn("rsync", ["rsync", "--daemon", "--no-detach", &format!("--config={RSYNCD}")])?;
    let url = format!("rsync://{}/bench/", target.address());
    let begun = Instant::now();
    while !source.exec_raw(["rsync", &url])?.status.success() {
        ensure!(begun.elapsed() < START_LIMIT, "rsync does not answer: {}", target.log("rsync")?);
        std::thread::sleep(Duration::from_millis(50));
    }
    let begun = Instant::now();
    source.exec(["rsync", "--inplace", "--no-whole-file", "--ignore-times", "--fsync", &raw, &url])?;
    let seconds = begun.elapsed().as_secs_f64();
    server.kill()?;
    crate::run::run(std::process::Command::new("cmp").arg(source.path(&raw)?).arg(&other))?;
    for host in [source, target] {
        host.exec(["rm", "-r", FOLDER])?;
    }
    Ok((blake3, seconds))
}

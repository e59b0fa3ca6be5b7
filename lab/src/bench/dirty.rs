//! Changes blocks of a running guest's disk from outside, through the guest's own disk device in QEMU: tracking sees
//! them as it sees the guest's writes.

use std::io::Write;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use super::content::Random;
use crate::host::Host;

/// libvirt's alias of the first disk of the first SATA controller.
const DEVICE: &str = "sata0-0-0";
/// Blocks lie here on the host until they are written.
const FOLDER: &str = "/run/bench-blocks";

/// Blocks that are ready to be written by a `virsh` that is connected.
pub(super) struct Blocks {
    virsh: Child,
    commands: String,
}

/// Prepares `count` different blocks of `block_bytes` at random places: half of them noise, half program code.
pub(super) fn prepare(
    host: &Host,
    guest: &str,
    (disk_bytes, block_bytes): (u64, u64),
    count: u64,
    seed: u64,
) -> Result<Blocks> {
    let folder = host.path(FOLDER)?;
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder)?;
    let code = std::fs::read(std::env::current_exe()?)?;
    let (mut random, mut places) = (Random::new(seed), std::collections::BTreeSet::new());
    while (places.len() as u64) < count {
        places.insert(random.below(disk_bytes / block_bytes));
    }
    let mut commands = String::new();
    for (number, place) in places.into_iter().enumerate() {
        let block: Vec<u8> = if number % 2 == 0 {
            (0..block_bytes / 8).flat_map(|_| random.next().to_le_bytes()).collect()
        } else {
            let from = random.below(code.len() as u64 - block_bytes) as usize;
            code[from..from + block_bytes as usize].to_vec()
        };
        std::fs::write(folder.join(number.to_string()), block)?;
        let offset = place * block_bytes;
        commands += &format!(
            "qemu-monitor-command {guest} --hmp 'qemu-io -d {DEVICE} \"write -q -s {FOLDER}/{number} {offset} {block_bytes}\"'\n"
        );
    }
    let mut virsh = host.command("virsh")?;
    virsh.args(["-q", "-c", "qemu:///system"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let virsh = virsh.stderr(Stdio::piped()).spawn().context("virsh")?;
    Ok(Blocks { virsh, commands })
}

impl Blocks {
    /// Writes them; returns when all of them are on the disk.
    pub(super) fn write(mut self) -> Result<()> {
        let mut stdin = self.virsh.stdin.take().context("virsh takes commands")?;
        let commands = self.commands;
        // Beside reading what it says: neither side waits for the other with a full pipe.
        let fed = std::thread::spawn(move || stdin.write_all(commands.as_bytes()));
        let output = self.virsh.wait_with_output()?;
        fed.join().map_err(|_| anyhow::anyhow!("virsh was not fed"))??;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        // qemu-io tells a failure in words only.
        let good =
            output.status.success() && !["rror", "failed", "invalid"].iter().any(|it| said.contains(it));
        ensure!(good, "blocks could not be written: {}", said.lines().last().unwrap_or_default());
        Ok(())
    }
}

//! Guests of the lab: disk, definition, and where to reach what runs inside.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::host::{BOOT_FOLDER, Host};
use crate::lab::Lab;
use crate::network::PREFIX;
use crate::run::run;
use crate::workload::Client;

/// Where disks of guests lie on a host.
pub const IMAGE_FOLDER: &str = "/var/lib/libvirt/images";
/// TCP port of the workload in every guest.
const WORKLOAD_PORT: u16 = 7070;
/// Where a definition lies while libvirt reads it.
const DEFINITION: &str = "/run/guest.xml";
/// Block size of the data that a disk is filled with beforehand.
const MIB: usize = 1 << 20;

/// What a guest is made with.
#[derive(Debug, Clone)]
pub struct GuestOptions {
    /// Name of the domain.
    pub name: String,
    /// Last part of its address and of its hardware address.
    pub number: u8,
    /// Size of the first disk (`vda`), MiB.
    pub disk_mib: u64,
    /// Size of the second disk (`vdb`), MiB.
    pub second_disk_mib: Option<u64>,
    /// Incompressible data that is on the first disk from the start, MiB.
    pub data_mib: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// UEFI instead of a BIOS, and a TPM.
    pub uefi_and_tpm: bool,
    /// How long the guest takes to shut down beyond what it needs, seconds: like one whose services stop slowly.
    pub linger_seconds: u64,
    /// A qcow2 image, as seen from outside, that becomes the disk `sda`: the guest has no driver for its bus and never
    /// touches it, so that its content can be changed from outside while the guest runs. The file is moved.
    pub untouched_disk: Option<PathBuf>,
    /// Has no guest agent, and does not notice the power button.
    pub deaf: bool,
    /// Has a screen, on which the firmware writes.
    pub screen: bool,
}

impl Default for GuestOptions {
    fn default() -> Self {
        Self {
            name: "testVM01".to_owned(),
            number: 50,
            disk_mib: 256,
            second_disk_mib: None,
            data_mib: 0,
            memory_mib: 192,
            uefi_and_tpm: false,
            linger_seconds: 0,
            untouched_disk: None,
            deaf: false,
            screen: false,
        }
    }
}

/// A guest, whichever host it runs on.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Name of the domain.
    pub name: String,
    /// Address of the workload, reachable in [`Lab::outside`].
    pub workload: std::net::SocketAddr,
}

impl Guest {
    /// Waits until the workload answers from outside; gives how long it took.
    pub fn wait_workload(&self, lab: &Lab, limit: Duration) -> Result<Duration> {
        let (start, address) = (Instant::now(), self.workload);
        lab.outside(move || {
            loop {
                match Client::connect(address).and_then(|mut client| client.who()) {
                    Ok(_) => return Ok(start.elapsed()),
                    Err(error) if start.elapsed() > limit => {
                        return Err(error).with_context(|| format!("workload at {address} after {limit:?}"));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        })?
    }

    /// Calls a function with a connection to the workload, outside the hosts.
    pub fn ask<T: Send>(&self, lab: &Lab, call: impl FnOnce(&mut Client) -> Result<T> + Send) -> Result<T> {
        let address = self.workload;
        lab.outside(move || call(&mut Client::connect(address)?))?
    }
}

impl Lab {
    /// Makes the disks of a guest on a host and defines it there, shut off.
    pub fn define_guest(&self, host: &str, options: &GuestOptions) -> Result<Guest> {
        let host = self.host(host);
        make_disk(host, &options.name, "vda", options.disk_mib, options.data_mib)?;
        if let Some(size) = options.second_disk_mib {
            make_disk(host, &options.name, "vdb", size, 0)?;
        }
        if let Some(image) = &options.untouched_disk {
            let place = host.on_disk(&format!("{IMAGE_FOLDER}/{}-sda.qcow2", options.name));
            fs::rename(image, place).context("the image and the lab must lie on one file system")?;
        }
        let definition = host.path(DEFINITION)?;
        fs::write(&definition, xml(host, options))?;
        host.virsh(["define", DEFINITION])?;
        fs::remove_file(definition)?;
        let workload =
            format!("{}:{WORKLOAD_PORT}", address(options)).parse().context("address of the guest")?;
        Ok(Guest { name: options.name.clone(), workload })
    }
}

fn address(options: &GuestOptions) -> String {
    format!("10.77.0.{}", options.number)
}

/// A qcow2 disk with an ext4 file system, and data if wanted.
fn make_disk(host: &Host, guest: &str, target: &str, size_mib: u64, data_mib: usize) -> Result<()> {
    let aside = tempfile::tempdir()?;
    let (content, raw) = (aside.path().join("content"), aside.path().join("raw"));
    fs::create_dir(&content)?;
    if data_mib > 0 {
        use std::io::{Read, copy};
        let mut file = fs::File::create(content.join("data"))?;
        copy(&mut fs::File::open("/dev/urandom")?.take((data_mib * MIB) as u64), &mut file)?;
    }
    fs::File::create(&raw)?.set_len(size_mib * MIB as u64)?;
    run(Command::new("mkfs.ext4")
        .args(["-q", "-F", "-E", "lazy_itable_init=0", "-d"])
        .arg(&content)
        .arg(&raw))?;
    let place = host.path(format!("{IMAGE_FOLDER}/{guest}-{target}.qcow2"))?;
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&place))?;
    Ok(())
}

/// End of the tag `<os` with what follows it, machine type, and a device.
const UEFI_AND_TPM: (&str, &str, &str) = (
    " firmware='efi'><firmware><feature enabled='no' name='secure-boot'/></firmware>",
    "q35",
    "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>",
);

/// A text inside of XML.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;").replace('"', "&quot;")
}

fn xml(host: &Host, options: &GuestOptions) -> String {
    let GuestOptions { number, memory_mib, linger_seconds, .. } = options;
    let name = &text(&options.name);
    let hostname: String = options.name.chars().filter(char::is_ascii_alphanumeric).collect();
    let agent = "    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\n";
    let (agent, words) = if options.deaf { ("", " module_blacklist=button") } else { (agent, "") };
    let mut disks = disk_xml(name, "vda", "virtio");
    if options.second_disk_mib.is_some() {
        disks += &disk_xml(name, "vdb", "virtio");
    }
    if options.untouched_disk.is_some() {
        disks += &disk_xml(name, "sda", "sata");
    }
    let (firmware, machine, tpm) = if options.uefi_and_tpm { UEFI_AND_TPM } else { (">", "pc", "") };
    let screen = if options.screen { "<video><model type='vga'/></video>" } else { "" };
    format!(
        r#"<domain type='{accel}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os{firmware}
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <kernel>{BOOT_FOLDER}/vmlinuz</kernel>
    <initrd>{BOOT_FOLDER}/initramfs</initrd>
    <cmdline>console=ttyS0 loglevel=4 mitigations=off nokaslr panic=-1 vr.address={address}/{PREFIX} vr.name={hostname} vr.linger={linger_seconds}{words}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{disks}    <interface type='bridge'>
      <mac address='52:54:00:77:00:{number:02x}'/>
      <source bridge='br0'/>
      <model type='virtio'/>
    </interface>
{agent}    <serial type='file'><source path='/var/log/libvirt/qemu/{name}-console.log'/></serial>
    <memballoon model='none'/>{screen}{tpm}
  </devices>
</domain>
"#,
        accel = host.accel().domain_type(),
        address = address(options),
    )
}

fn disk_xml(guest: &str, target: &str, bus: &str) -> String {
    format!(
        "    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='{IMAGE_FOLDER}/{guest}-{target}.qcow2'/>
      <target dev='{target}' bus='{bus}'/>
    </disk>
"
    )
}

//! File tree and libvirt's configuration of a host.
//!
//! System folders are overlays on the real machine's, so that a host can write anywhere and the machine stays untouched;
//! what must behave like a real disk (images, replicas, state) is a plain folder mounted over it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::namespace::Namespace;
use crate::run::run;

pub(super) const LIBVIRTD_PID: &str = "/run/libvirtd.pid";

const MOUNT: &str = r#"
hostname "$NAME"
mount -t sysfs sysfs /sys          # shows the network of this machine; no cgroups on purpose
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock
for place in etc var/lib var/cache var/log; do
    mkdir -p "$FOLDER/overlay/$place/upper" "$FOLDER/overlay/$place/work"
    mount -t overlay -o "lowerdir=/$place,upperdir=$FOLDER/overlay/$place/upper,workdir=$FOLDER/overlay/$place/work" \
        overlay "/$place"
done
for place in var/lib/libvirt var/lib/virt-replica; do
    mkdir -p "/$place"
    [ -e "$FOLDER/disk/$place" ] || { mkdir -p "$FOLDER/disk/${place%/*}"; cp -a "/$place" "$FOLDER/disk/$place"; }
    mount --bind "$FOLDER/disk/$place" "/$place"
done
cat /proc/sys/kernel/random/uuid > /run/boot_id    # each power-on is a boot
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
chmod 711 /var/lib/virt-replica    # QEMU runs as libvirt-qemu and must reach the layers
mkdir -p /etc/virt-replica /run/virt-replica
# QEMU's user must be able to open what libvirtd as root can, or libvirtd distrusts its knowledge of QEMU and asks again
# (5 s) at every step; guests are emulated all the same unless their definition says kvm.
if [ -e /dev/kvm ]; then
    [ -e "$FOLDER/kvm" ] || mknod "$FOLDER/kvm" c 10 232
    chmod 666 "$FOLDER/kvm"
    mount --bind "$FOLDER/kvm" /dev/kvm
fi
"#;

const QEMU_CONF: &str = r#"# The lab has neither systemd, nor AppArmor, nor cgroups of its own, nor virtlogd.
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
user = "libvirt-qemu"
group = "libvirt-qemu"
dynamic_ownership = 1
"#;

const HOSTS: &str = "127.0.0.1 localhost
10.77.0.1 outside
10.77.0.11 hvhost01
10.77.0.12 hvhost02
";

/// Makes the mounts of a machine that has just started.
pub(super) fn mount(machine: &Namespace, folder: &Path) -> Result<()> {
    let name = folder.file_name().context("the folder of a host is named as the host")?;
    let mut command = machine.command("sh");
    command.env("NAME", name).env("FOLDER", folder);
    run(command.args(["-ec", MOUNT])).map(drop)
}

/// Writes the configuration; what a person changed in other files stays.
pub(super) fn write(machine: &Namespace, name: &str, number: u8) -> Result<()> {
    // Both hosts would take the same id from the real machine's firmware.
    let id = format!("7700000b-0000-4000-8000-0000000000{number:02}");
    let libvirtd =
        format!("auth_unix_rw = \"none\"\nhost_uuid = \"{id}\"\nlog_filters = \"3:util 2:qemu\"\n");
    let files = [
        ("/etc/hostname", format!("{name}\n")),
        ("/etc/hosts", HOSTS.to_owned()),
        ("/etc/machine-id", format!("{}\n", id.replace('-', ""))),
        ("/etc/libvirt/qemu.conf", QEMU_CONF.to_owned()),
        ("/etc/libvirt/libvirtd.conf", libvirtd),
    ];
    for (path, content) in files {
        fs::write(machine.path(path), content).with_context(|| format!("{path} of {name}"))?;
    }
    Ok(())
}

#!/bin/busybox sh
# First process of the lab's guest: load drivers, mount the disks, join the network, start agent and workload.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /lib/modules/order); do
    insmod "/lib/modules/$module" || echo "lab: $module did not load"
done

# vr.address=10.77.0.50/24 and vr.name=testVM01 come from the domain's kernel command line.
for word in $(cat /proc/cmdline); do
    case "$word" in
        vr.address=*) address=${word#vr.address=} ;;
        vr.name=*) hostname "${word#vr.name=}" ;;
    esac
done

wait_for() { # at most 5 s, in steps of 50 ms
    tries=100
    while [ ! -e "$1" ] && [ $tries -gt 0 ]; do usleep 50000; tries=$((tries - 1)); done
    [ -e "$1" ]
}

mount_disk() {
    if mount -t ext4 "$1" "$2"; then echo "lab: $1 on $2"; else echo "lab: $1 CANNOT BE MOUNTED"; fi
}
if wait_for /dev/vda; then mount_disk /dev/vda /data; fi
if [ -e /dev/vdb ]; then mount_disk /dev/vdb /data2; fi

ip link set lo up
if wait_for /sys/class/net/eth0; then
    ip link set eth0 up
    ip addr add "$address" dev eth0
    # The guest may have come to another host: the switch between must learn that at once.
    arping -q -U -c 2 -I eth0 "${address%/*}" &
fi

guest-workload /data $(grep -q ' /data2 ' /proc/mounts && echo /data2) &
echo $! > /run/workload.pid

acpid -c /etc/acpi -l /dev/null -p /run/acpid.pid

# What the hook of an application does: it brings its files to rest before the file systems are frozen, and goes on once they are thawed.
mkdir -p /etc/qemu
cat > /etc/qemu/fsfreeze-hook << 'HOOK'
#!/bin/busybox sh
export PATH=/bin
echo "$1" >> /run/hook.log
case "$1" in
    freeze) [ ! -e /run/hook-refuses ] && touch /data/at-rest ;;
    thaw) rm -f /data/at-rest ;;
esac
HOOK
chmod 755 /etc/qemu/fsfreeze-hook

start_agent() { # QEMU names a port in a message of its own, which may come later than the port
    while :; do
        for port in /sys/class/virtio-ports/*; do
            name=
            read -r name 2>/dev/null < "$port/name"
            if [ "$name" = org.qemu.guest_agent.0 ]; then
                qemu-ga -d --retry-path -m virtio-serial -p "/dev/${port##*/}" -t /run -f /run/qemu-ga.pid -F/etc/qemu/fsfreeze-hook
                echo "lab: guest agent on ${port##*/}"
                return
            fi
        done
        usleep 100000
    done
}
start_agent &
echo "lab: guest is up after $(cut -d' ' -f1 /proc/uptime) s"

# As process 1: collect what has ended, for ever.
while :; do wait; sleep 1; done

#!/bin/busybox sh
# Ordered end of the guest. Called by the power button (acpid) and by the guest agent (`shutdown -h|-P|-r ...`).
export PATH=/bin
action=poweroff
for word in "$@"; do [ "$word" = -r ] && action=reboot; done
echo "lab: going down ($action)" > /dev/console
# vr.linger=SECONDS comes from the domain's kernel command line: a guest with services that take their time to stop.
for word in $(cat /proc/cmdline); do
    case "$word" in vr.linger=*) sleep "${word#vr.linger=}" ;; esac
done
kill "$(cat /run/workload.pid)"
usleep 100000
sync
umount /data /data2 2>/dev/null || { sync; mount -o remount,ro /data; mount -o remount,ro /data2; } 2>/dev/null
$action -f

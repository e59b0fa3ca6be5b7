//! The script that libvirt runs before it starts a VM; the daemon installs it as `/etc/libvirt/hooks/qemu.d/virt-replica`.

use std::path::Path;

use domain::GUARD_PROBE;

/// What the hook program is told by the script.
#[derive(Clone, Copy, Debug)]
pub struct HookSettings<'a> {
    /// The hook program.
    pub binary: &'a Path,
    /// The database.
    pub state: &'a Path,
    /// The daemon's control socket.
    pub socket: &'a Path,
    /// Whether a VM starts when the host came back from a crash and the peer cannot be asked.
    pub start_when_peer_silent: bool,
}

/// The text of the script. It runs the hook program, which reads the database.
///
/// libvirt kills a running VM when a hook fails at `reconnect`, so that only questions about a start reach the program. A
/// program that is gone, because the package was removed, stops no VM; one that is there and fails does.
#[must_use]
pub fn hook_script(settings: HookSettings<'_>) -> String {
    let word = |path: &Path| quoted(&path.to_string_lossy());
    let (binary, state, socket) = (word(settings.binary), word(settings.state), word(settings.socket));
    let silent = if settings.start_when_peer_silent { "start" } else { "refuse" };
    format!(
        r#"#!/bin/sh
# Written by virtreplicad, again at each of its starts: changes here are lost.
# Asks whether a VM that is about to start may run on this host.
case "$2" in
prepare | start | migrate | restore) ;;
*) exit 0 ;;
esac
# A VM that is nothing: the daemon tries whether libvirt asks.
case "$1" in
{GUARD_PROBE}*) echo 'the start guard is asked' >&2; exit 1 ;;
esac
[ -e {binary} ] || exit 0
VIRT_REPLICA_STATE={state}
VIRT_REPLICA_SOCKET={socket}
VIRT_REPLICA_PEER_SILENT={silent}
export VIRT_REPLICA_STATE VIRT_REPLICA_SOCKET VIRT_REPLICA_PEER_SILENT
exec {binary} "$@"
"#
    )
}

/// One word for a shell, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

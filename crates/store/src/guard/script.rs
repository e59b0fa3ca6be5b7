//! The script that libvirt runs before it starts a VM; the daemon installs it as `/etc/libvirt/hooks/qemu.d/virt-replica`.

use std::path::Path;

/// The text of the script. It runs `binary`, the hook program, which reads the database `state`.
///
/// libvirt kills a running VM when a hook fails at `reconnect`, so that only questions about a start reach the program. A
/// program that is gone, because the package was removed, stops no VM; one that is there and fails does.
#[must_use]
pub fn hook_script(binary: &Path, state: &Path) -> String {
    let (binary, state) = (quoted(&binary.to_string_lossy()), quoted(&state.to_string_lossy()));
    format!(
        r#"#!/bin/sh
# Written by virtreplicad, again at each of its starts: changes here are lost.
# Asks whether a VM that is about to start may run on this host.
case "$2" in
prepare | start | migrate | restore) ;;
*) exit 0 ;;
esac
[ -e {binary} ] || exit 0
VIRT_REPLICA_STATE={state}
export VIRT_REPLICA_STATE
exec {binary} "$@"
"#
    )
}

/// One word for a shell, whatever is in it.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

//! The start guard: a script in libvirt's hook directory that asks `virt-replica-hook` before a VM starts.
//!
//! libvirt looks for hooks when it starts, so after the first installation libvirtd must be restarted once.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use store::HookSettings;

use crate::config::Config;

/// libvirt runs every program in this directory (hooks.html, "Script names").
pub(crate) const HOOK: &str = "/etc/libvirt/hooks/qemu.d/virt-replica";

/// Installs the script, or mends it when it is not ours any more. Gives its path.
pub(crate) fn install(path: &Path, config: &Config) -> Result<PathBuf> {
    let daemon = std::env::current_exe().context("path of this program")?;
    let program = daemon.with_file_name("virt-replica-hook");
    let script = store::hook_script(HookSettings {
        binary: &program,
        state: &config.state.join("state.db"),
        socket: &config.control_socket(),
        start_when_peer_silent: config.start_when_peer_silent,
    });
    let present = std::fs::read_to_string(path).ok();
    if present.as_deref() == Some(script.as_str()) {
        return Ok(path.to_owned());
    }
    let folder = path.parent().context("the hook has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("directory {}", folder.display()))?;
    let fresh = folder.join(".virt-replica.new");
    std::fs::write(&fresh, script).with_context(|| format!("the start guard {}", path.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&fresh, path)?;
    if present.is_none() {
        tracing::warn!(
            "the start guard was installed; restart libvirtd once so that it is asked: systemctl restart libvirtd"
        );
    }
    Ok(path.to_owned())
}

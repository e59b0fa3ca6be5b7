//! Keeps packages from starting their services while they are installed: the lab has its own libvirtds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Debian asks this file before it starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const FORBID: &str =
    "#!/bin/sh\n# Written by virt-replica's xtask for the time of one installation.\nexit 101\n";

/// While this lives, no package starts a service.
pub(super) struct NoServices {
    ours: bool,
}

/// Forbids it; a policy that the machine already has stays as it is.
pub(super) fn forbid_start() -> Result<NoServices> {
    let there = Path::new(POLICY).exists() && fs::read_to_string(POLICY).is_ok_and(|text| text != FORBID);
    if !there {
        fs::write(POLICY, FORBID).with_context(|| format!("cannot write {POLICY}"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
    }
    Ok(NoServices { ours: !there })
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            drop(fs::remove_file(POLICY));
        }
    }
}

//! Whether the start guard is in place: the script is there, and libvirt asks it. libvirt looks for hooks when it starts, so that a
//! guard which came later is asked by nobody, and nothing shows that. Hence it is tried: libvirt is told to start a VM that is
//! nothing, whose name the script refuses. *Not* here: what the guard answers (`store::Guard`, `confirm`).

use std::os::unix::fs::PermissionsExt;
use std::sync::{MutexGuard, PoisonError};

use domain::{Check, CheckName};

use crate::Engine;

/// What is known of whether libvirt asks; outside: nothing, for it was not tried since libvirt started. Inside, none: it could not be
/// found out.
pub(crate) type Tried = Option<Option<bool>>;

impl Engine {
    fn tried_guard(&self) -> MutexGuard<'_, Tried> {
        self.0.tried_guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// libvirt may have started anew: what was known of the one before is no word about this one.
    pub(crate) fn forget_tried_guard(&self) {
        *self.tried_guard() = None;
    }

    async fn try_guard(&self) -> Option<bool> {
        let asked = self.hypervisor(|it| it.asks_guard()).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "whether libvirt asks the start guard could not be tried");
            None
        });
        *self.tried_guard() = Some(asked);
        asked
    }

    /// Whether libvirt will ask us before it starts a replica. Before something is begun it is tried again where it was not so.
    pub(crate) async fn guard_check(&self) -> Check {
        let known = self.tried_guard().flatten();
        let asked = if known == Some(true) { known } else { self.try_guard().await };
        self.judge_guard(asked)
    }

    /// The same for whoever looks all the time: it is tried once for each libvirt.
    pub(crate) async fn guard_check_known(&self) -> Check {
        let known = *self.tried_guard();
        let asked = match known {
            Some(tried) => tried,
            None => self.try_guard().await,
        };
        self.judge_guard(asked)
    }

    fn judge_guard(&self, asked: Option<bool>) -> Check {
        let (path, here) = (&self.config().hook, &self.config().host_name);
        let name = CheckName::HookInPlace;
        let runs =
            std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
        if !runs {
            let path = path.display();
            let found =
                format!("{path} on {here} is missing or cannot be run: a replica could be started by hand");
            let cure = format!("on {here}: systemctl restart virtreplicad && systemctl restart libvirtd");
            return Check::fail(name, found, cure);
        }
        Check::when(name, asked != Some(false), || {
            let found = format!(
                "libvirt on {here} does not ask the start guard, for it looks for hooks only when it starts: a replica, or a stale \
                 copy, could be started by hand"
            );
            let cure = format!(
                "on {here}: systemctl restart libvirtd (with modular daemons: systemctl restart virtqemud); running VMs run on"
            );
            (found, cure)
        })
    }
}

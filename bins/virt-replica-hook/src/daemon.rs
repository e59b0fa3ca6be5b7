//! Telling the daemon over its control socket that a VM is about to start. It may be down.

use api::Client;
use api::dto::StartWord;

/// Where the daemon listens, unless the variable `VIRT_REPLICA_SOCKET` says otherwise.
const SOCKET: &str = "/run/virt-replica/control.sock";

/// What the daemon says about this VM, given by name or UUID, once it has let go of its disks; none when it says nothing.
pub(crate) fn about_to_start(vm: &str) -> Option<StartWord> {
    let socket = std::env::var_os("VIRT_REPLICA_SOCKET").unwrap_or_else(|| SOCKET.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(Client::new(socket).may_start(vm)).ok()
}

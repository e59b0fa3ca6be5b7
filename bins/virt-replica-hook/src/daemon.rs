//! Asking the daemon over its control socket. *Not* needed for any other answer: it may be down.

use api::Client;
use api::dto::StartWord;

/// Where the daemon listens, unless the variable `VIRT_REPLICA_SOCKET` says otherwise.
const SOCKET: &str = "/run/virt-replica/control.sock";

/// What the other host says about this VM, given by name or UUID; none when the daemon says nothing.
pub(crate) fn may_start(vm: &str) -> Option<StartWord> {
    let socket = std::env::var_os("VIRT_REPLICA_SOCKET").unwrap_or_else(|| SOCKET.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(Client::new(socket).may_start(vm)).ok()
}

//! The watchdog of a freeze: a process of its own that thaws a guest when the daemon that froze it dies or takes too long.
//!
//! It reads one pipe. "Thawed" sends it home; the end of the pipe without that, or too long a time, makes it thaw the guest, again
//! and again for a while: the freeze may have been on its way when the daemon died. What systemd sends to end the unit is not
//! heard meanwhile.

use std::time::{Duration, Instant};

use anyhow::Result;
use domain::VmId;
use engine::{DISMISSED, FROZEN_MAX};
use hypervisor::Hypervisor;
use libvirt::Libvirt;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// A freeze that was on its way when the daemon died is over by then, thawed or given up by libvirt.
const WATCHED: Duration = Duration::from_secs(15);
/// Pause between two thaws.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the agent is given for each.
const DEADLINE: Duration = Duration::from_secs(5);

/// Waits, and thaws if need be.
pub(crate) async fn when_orphaned(vm: VmId) -> Result<()> {
    // Registered, they end nothing.
    let _deaf =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut word = Vec::new();
    let mut pipe = tokio::io::stdin();
    let heard = tokio::time::timeout(FROZEN_MAX, pipe.read_to_end(&mut word)).await;
    if heard.is_ok() && word == DISMISSED {
        return Ok(());
    }
    let thaw = move || {
        let hypervisor = Libvirt::new(Libvirt::SYSTEM);
        let begun = Instant::now();
        while begun.elapsed() < WATCHED {
            // Whatever it says: the next one tries again.
            let _ = hypervisor.thaw(vm, DEADLINE);
            std::thread::sleep(PAUSE);
        }
    };
    Ok(tokio::task::spawn_blocking(thaw).await?)
}

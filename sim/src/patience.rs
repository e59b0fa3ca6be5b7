//! How long a blocking call may hold the clock of its daemon: as long as a thread works for it. One that sleeps waits for what the
//! other host sends, or for time itself, and for those the clock goes on. Whether a thread works is asked of the kernel: on a busy
//! machine one that gets no processor is not taken for one that waits.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::machine::Machine;

/// Pause between two looks at the threads, of the machine's time.
const LOOK: Duration = Duration::from_micros(100);
/// Looks in a row at which none works: what one of them did last is taken note of between two.
const LOOKS: u32 = 2;

pub(crate) struct Patience {
    timer: AsyncFd<OwnedFd>,
}

impl Patience {
    /// Within the daemon's runtime.
    #[expect(deprecated, reason = "unsound only where the descriptor may change; this one is owned")]
    pub(crate) fn new() -> io::Result<Patience> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Patience { timer: AsyncFd::new(timer)? })
    }

    /// Waits until no thread works for this machine.
    pub(crate) async fn ends(&self, machine: &Machine) {
        let mut idle = 0;
        while idle < LOOKS {
            self.pause().await;
            idle = if machine.works() { 0 } else { idle + 1 };
        }
    }

    async fn pause(&self) {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let limit = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
        let once = Itimerspec { it_interval: never, it_value: limit };
        if timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once).is_err() {
            return;
        }
        loop {
            let Ok(mut ready) = self.timer.readable().await else { return };
            let read = ready
                .try_io(|timer| rustix::io::read(timer.get_ref(), &mut [0_u8; 8]).map_err(io::Error::from));
            if read.is_ok() {
                return;
            }
        }
    }
}

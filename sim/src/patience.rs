//! How long a blocking call may hold the clock of its daemon, by the machine's clock: most are done at once, and some wait for
//! what the other host sends. For those the clock goes on.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Longer than any call takes that waits for nobody, on an idle machine. On a busy one time passes a little faster.
const LONG: Duration = Duration::from_millis(1);
/// For a call that was found to wait.
const SHORT: Duration = Duration::from_micros(50);

pub(crate) struct Patience {
    timer: AsyncFd<OwnedFd>,
    limit: Duration,
}

impl Patience {
    /// Within the daemon's runtime.
    #[expect(deprecated, reason = "unsound only where the descriptor may change; this one is owned")]
    pub(crate) fn new() -> io::Result<Patience> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Patience { timer: AsyncFd::new(timer)?, limit: LONG })
    }

    /// Waits until it ends, from now on.
    pub(crate) async fn ends(&self) {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let limit = Timespec { tv_sec: 0, tv_nsec: self.limit.subsec_nanos().into() };
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

    /// Whether it had to end.
    pub(crate) fn learn(&mut self, waits: bool) {
        self.limit = if waits { SHORT } else { LONG };
    }
}

//! A limit on bytes per second that several transfers share, one per VM and one per host.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Unused time that may be made up for: keeps the pace when the machine is busy and the sender is late for its turn.
const BURST: Duration = Duration::from_millis(500);
/// Pieces that a limited stream is cut into, in bytes, so that a slow limit makes short steps.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// Lowest limit, bytes per second; below it a frame would outlast every deadline.
pub const BYTES_PER_SECOND_MIN: u64 = 16 << 10;

/// Shared by clones.
#[derive(Clone, Debug)]
pub struct RateLimiter(Arc<Mutex<Pace>>);

#[derive(Debug)]
struct Pace {
    bytes_per_second: Option<u64>,
    /// When all bytes that passed will have used up their time.
    free_at: Instant,
}

impl RateLimiter {
    /// At most so many bytes per second, no less than [`BYTES_PER_SECOND_MIN`]; none means no limit.
    #[must_use]
    pub fn new(bytes_per_second: Option<u64>) -> RateLimiter {
        let limiter =
            RateLimiter(Arc::new(Mutex::new(Pace { bytes_per_second: None, free_at: Instant::now() })));
        limiter.set(bytes_per_second);
        limiter
    }

    /// Changes the limit, for transfers under way too.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.pace().bytes_per_second = bytes_per_second.map(|rate| rate.max(BYTES_PER_SECOND_MIN));
    }

    /// The limit, bytes per second; none: no limit.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<u64> {
        self.pace().bytes_per_second
    }

    /// Whether there is a limit now.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.pace().bytes_per_second.is_some()
    }

    /// Waits until so many bytes may pass. Callers that wait together share the limit in order.
    pub async fn pass(&self, bytes: u64) {
        if let Some(free_at) = self.reserve(bytes, Instant::now()) {
            sleep_until(free_at).await;
        }
    }

    fn reserve(&self, bytes: u64, now: Instant) -> Option<Instant> {
        let mut pace = self.pace();
        let rate = pace.bytes_per_second?;
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        pace.free_at = pace.free_at.max(earliest) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        Some(pace.free_at)
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_transfers_share_one_limit() {
        let limiter = RateLimiter::new(Some(1 << 20));
        let begin = Instant::now();
        let other = limiter.clone();
        let transfer = |limiter: RateLimiter| async move {
            for _ in 0..32 {
                limiter.pass(PIECE_BYTES as u64).await;
            }
        };
        tokio::join!(transfer(limiter), transfer(other));
        let seconds = begin.elapsed().as_secs_f64();
        assert!((3.9..=4.1).contains(&seconds), "4 MiB at 1 MiB/s took {seconds} s");
    }

    #[test]
    fn a_sender_that_is_late_now_and_then_keeps_the_pace() {
        let limiter = RateLimiter::new(Some(1 << 20));
        let begin = Instant::now();
        let mut now = begin;
        for piece in 0..64 {
            let free_at = limiter.reserve(PIECE_BYTES as u64, now).expect("a limit");
            let late = Duration::from_millis(if piece % 8 == 0 { 300 } else { 0 });
            now = now.max(free_at) + late;
        }
        let seconds = (now - begin).as_secs_f64();
        assert!((3.9..=4.1).contains(&seconds), "4 MiB at 1 MiB/s took {seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_waits_for_nothing() {
        let begin = Instant::now();
        RateLimiter::new(None).pass(u64::MAX).await;
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
}

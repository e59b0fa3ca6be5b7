//! What a person has chosen that becomes of a failover by itself, once its time is over.
//!
//! It is an operation like one that a person begins. What stands in its way is tried again; where that was found in the middle of the
//! operation more and more seldom, for each is a row in the history. Health says it all the time.

use std::time::Duration;

use choreography::{Options, fold};
use domain::{Health, Notice, OperationId, Phase, Settlement, Timestamp, vm_argument};
use store::Record;
use tokio::time::Instant;

use crate::error::CURE;
use crate::{Code, Engine, Refusal, clock, owner};

/// How long a guest may take to shut down when its failover is rolled back by itself.
const ROLL_BACK_SHUTDOWN: Duration = Duration::from_secs(60);
/// The longest pause after an operation that was undone; the first is as long as between two looks, and each is twice the one before.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The tries for one failover, as long as this daemon runs.
#[derive(Clone, Debug)]
pub(crate) struct Tries {
    /// The failover, by when it was.
    of: Timestamp,
    /// The one that was begun last, and whose end is not known yet.
    begun: Option<OperationId>,
    /// How many were begun and undone.
    undone: u32,
    /// When the last one was seen to come to nothing, and why.
    last: Option<(Instant, Refusal)>,
}

impl Tries {
    fn none(of: Timestamp) -> Tries {
        Tries { of, begun: None, undone: 0, last: None }
    }

    fn refused(&mut self, why: Refusal) {
        self.last = Some((Instant::now(), why));
    }

    fn undone(&mut self, why: Refusal) {
        self.undone += 1;
        self.refused(why);
    }

    /// What is left of the pause before the next try.
    fn pause(&self) -> Duration {
        let Some((at, _)) = &self.last else { return Duration::ZERO };
        let pause = (owner::LOOK * 2_u32.saturating_pow(self.undone.min(16).saturating_sub(1))).min(PAUSE_MAX);
        pause.saturating_sub(at.elapsed())
    }
}

impl Engine {
    /// Does what a person has chosen for a failover when its time is over; gives how long to wait before the next look.
    pub(crate) async fn settle_by_timer(
        &self,
        record: &Record,
        since: Timestamp,
        (what, at): (Settlement, Timestamp),
    ) -> Duration {
        let left = at.millis().saturating_sub(clock::now().millis());
        if left > 0 {
            return Duration::from_millis(left);
        }
        let slot = self.slot(record.relationship.id);
        let known = slot.tries().clone().filter(|tries| tries.of == since);
        let mut tries = known.unwrap_or_else(|| Tries::none(since));
        // It has ended, and the failover is what it was: it was undone.
        if let Some(undone) = tries.begun.take() {
            tries.undone(self.why_undone(undone));
        }
        let mut wait = tries.pause();
        if wait.is_zero() {
            match self.begin_by_timer(record, what).await {
                Ok(begun) => tries.begun = Some(begun),
                Err(why) => tries.refused(why),
            }
            wait = tries.pause();
        }
        *slot.tries() = Some(tries);
        wait
    }

    async fn begin_by_timer(&self, record: &Record, what: Settlement) -> crate::Result<OperationId> {
        let by = "the commit timer";
        match what {
            Settlement::Complete => self.begin_complete(record, by).await,
            Settlement::RollBack => {
                let options =
                    Options { destroy: true, shutdown_timeout: ROLL_BACK_SHUTDOWN, ..Options::default() };
                self.begin_cancel(record, options, by)
            }
        }
    }

    fn why_undone(&self, id: OperationId) -> Refusal {
        let found = self.store().operation(id).ok().flatten();
        let why = found.and_then(|(_, entries)| fold(&entries).cancelled).unwrap_or_default();
        let (detail, cure) = why.split_once(CURE).unwrap_or((&why, ""));
        Refusal::new(Code::Failed, format!("operation {id} was undone: {detail}"), cure)
    }
}

/// A time that a person has set for a failover is over, and what was chosen does not happen.
pub(crate) fn overdue(engine: &Engine, record: &Record) -> Option<Notice> {
    let relationship = &record.relationship;
    let Phase::FailedOver { since, timer: Some((what, _)), .. } = relationship.phase else { return None };
    let tries = engine.slot(relationship.id).tries().clone().filter(|tries| tries.of == since)?;
    let (_, why) = tries.last?;
    let (verb, command) = match what {
        Settlement::Complete => ("become final", "complete-failover"),
        Settlement::RollBack => ("be taken back", "cancel-failover"),
    };
    let cure = match why.cure.is_empty() {
        true => format!("virt-replica {command} {}", vm_argument(&relationship.vm_name)),
        false => why.cure,
    };
    let what = format!(
        "the failover was to {verb} by itself, its time is over, and it is tried again and again: {}",
        why.detail
    );
    Some(Notice { severity: Health::Warning, what, cure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_undone_is_tried_more_and_more_seldom() {
        let mut tries = Tries::none(Timestamp(1));
        assert_eq!(tries.pause(), Duration::ZERO, "the first at once");
        for _ in 0..3 {
            tries.refused(Refusal::failed("no"));
            assert_eq!(tries.pause(), owner::LOOK, "nothing began");
        }
        for seconds in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
            tries.undone(Refusal::failed("no"));
            assert_eq!(tries.pause(), Duration::from_secs(seconds));
        }
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(tries.pause(), Duration::from_secs(1));
    }
}

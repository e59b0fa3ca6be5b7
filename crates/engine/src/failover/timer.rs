//! What a person has chosen that becomes of a failover by itself, once its time is over.
//!
//! The time is counted while this daemon runs, and what is left of it is kept: a clock that is set does not end it, and a host that was off
//! gives a person the rest of the time when it is back.
//!
//! It is an operation like one that a person begins. What stands in its way is tried again; where that was found in the middle of the
//! operation more and more seldom, for each is a row in the history. Health says it all the time.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use choreography::{Options, Procedure, Step, fold};
use domain::{Health, Notice, OperationId, Phase, RelationshipId, Settlement, Timestamp, vm_argument};
use store::Record;
use tokio::time::Instant;

use crate::error::CURE;
use crate::operation::Run;
use crate::{Code, Engine, Refusal, Result, owner};

/// How long a guest may take to shut down when its failover is rolled back by itself.
const ROLL_BACK_SHUTDOWN: Duration = Duration::from_secs(60);
/// The longest pause after an operation that was undone; the first is as long as between two looks, and each is twice the one before.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The least that a VM has for its start, however short a time it was given to boot: QEMU and libvirt take some of it.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// What is left of a time is kept as often as this.
const KEPT_EVERY: Duration = Duration::from_secs(60);

/// The time of one failover, counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Countdown {
    /// When the failover was, and when by the clock of then it is to end: which time it is, not how much is left of it.
    of: (Timestamp, Timestamp),
    ends: Instant,
    /// What was left when that was kept; none: it never was.
    kept: Option<Duration>,
}

impl Countdown {
    /// `kept`: what was left when this daemon's last life ended.
    fn begin(of: (Timestamp, Timestamp), kept: Option<Duration>) -> Countdown {
        // Both were read from one clock at one moment, whatever that said.
        let left = kept.unwrap_or(of.1.since(of.0));
        Countdown { of, ends: Instant::now() + left, kept }
    }

    fn left(&self) -> Duration {
        self.ends.saturating_duration_since(Instant::now())
    }

    /// What is to be kept now, if so much has passed since that was done last.
    fn due_to_keep(&mut self) -> Option<Duration> {
        let left = self.left();
        let due = self.kept.is_none_or(|kept| kept - left.min(kept) >= KEPT_EVERY.min(kept) && left < kept);
        due.then(|| *self.kept.insert(left))
    }
}

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
        let pause =
            (owner::LOOK * 2_u32.saturating_pow(self.undone.min(16).saturating_sub(1))).min(PAUSE_MAX);
        pause.saturating_sub(at.elapsed())
    }
}

impl Run<'_> {
    /// A failover that hangs behind its point of no return is taken back by itself as well, where a person said so: when the VM has not
    /// started in the time that it was given to boot, and when the time of the failover is over.
    pub(crate) async fn watch_the_time(&self, step: Step) -> Infallible {
        let Phase::FailedOver { since, timer, .. } = self.record.relationship.phase else {
            return pending().await;
        };
        let options = &self.operation.options;
        let starts_within =
            options.roll_back_unless_boots.filter(|_| step == Step::Start).map(|it| it.max(STARTS_WITHIN));
        // Of two times the shorter: there is one count.
        let starts_within = match timer {
            Some((Settlement::RollBack, at)) => starts_within.filter(|within| *within < at.since(since)),
            _ => starts_within,
        };
        loop {
            match self.engine.store().open_operation(self.operation.relationship) {
                Ok(Some((open, _))) if open.id == self.operation.id => {}
                // Another has been begun instead, and whoever does this step hears of it.
                Ok(_) => return pending().await,
                Err(error) => {
                    tracing::warn!(%error, "the time of a failover cannot be looked at");
                    tokio::time::sleep(owner::LOOK).await;
                    continue;
                }
            }
            let wait = match (self.operation.procedure, starts_within, timer) {
                (Procedure::Failover, Some(limit), _) => self.give_up_after(since, limit),
                (Procedure::Failover, None, Some(timer @ (Settlement::RollBack, _))) => {
                    self.engine.settle_by_timer(&self.record, since, timer).await
                }
                _ => return pending().await,
            };
            tokio::time::sleep(wait.min(owner::LOOK)).await;
        }
    }

    /// Gives up a failover whose VM does not start; gives how long to wait before the next look.
    fn give_up_after(&self, since: Timestamp, limit: Duration) -> Duration {
        let left = self.engine.time_left(self.operation.relationship, (since, since.plus(limit)));
        let given_up = left.and_then(|left| match left {
            Duration::ZERO => {
                let found = format!("the VM did not start within {} s", limit.as_secs());
                self.give_up(&found).map(|()| owner::LOOK)
            }
            left => Ok(left),
        });
        given_up.unwrap_or_else(|error| {
            tracing::warn!(%error, "the time of a failover cannot be counted");
            owner::LOOK
        })
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
        match self.time_left(record.relationship.id, (since, at)) {
            Ok(Duration::ZERO) => {}
            Ok(left) => return left,
            Err(error) => {
                tracing::warn!(%error, "the time of a failover cannot be counted");
                return owner::LOOK;
            }
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

    fn time_left(&self, id: RelationshipId, of: (Timestamp, Timestamp)) -> Result<Duration> {
        let slot = self.slot(id);
        let known = slot.countdown().filter(|known| known.of == of);
        let mut countdown = match known {
            Some(known) => known,
            None => Countdown::begin(of, self.store().countdown(id, of).map_err(Refusal::failed)?),
        };
        if let Some(left) = countdown.due_to_keep() {
            self.store().keep_countdown(id, of, left).map_err(Refusal::failed)?;
        }
        *slot.countdown() = Some(countdown);
        Ok(countdown.left())
    }

    async fn begin_by_timer(&self, record: &Record, what: Settlement) -> Result<OperationId> {
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
        // Without the id: a notice that reads as before is no news.
        Refusal::new(Code::Failed, format!("it was undone: {detail}"), cure)
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
    async fn a_time_is_counted_by_no_clock_and_the_rest_of_it_outlives_the_daemon() {
        let seconds = Duration::from_secs;
        // The clock of then was years off.
        let of = (Timestamp(5_000), Timestamp(605_000));
        let mut countdown = Countdown::begin(of, None);
        assert_eq!(countdown.due_to_keep(), Some(seconds(600)), "a daemon that ends at once is no loss");
        tokio::time::advance(seconds(59)).await;
        assert_eq!((countdown.due_to_keep(), countdown.left()), (None, seconds(541)));
        tokio::time::advance(seconds(1)).await;
        assert_eq!(countdown.due_to_keep(), Some(seconds(540)));
        let mut again = Countdown::begin(of, Some(seconds(540)));
        assert_eq!(
            (again.due_to_keep(), again.left()),
            (None, seconds(540)),
            "the daemon was away for years"
        );
        tokio::time::advance(seconds(541)).await;
        assert_eq!((again.due_to_keep(), again.left()), (Some(Duration::ZERO), Duration::ZERO));
        assert_eq!(again.due_to_keep(), None, "it is over, and that is kept once");
        assert_eq!(Countdown::begin((of.0, of.0), None).left(), Duration::ZERO, "at once");
    }

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

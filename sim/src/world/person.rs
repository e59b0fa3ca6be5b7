//! What a person types, and waits for.

use std::time::Duration;

use anyhow::{Context, Result};
use choreography::{Entry, Options};
use domain::{Phase, PointId, RecoveryPoint, Role};
use engine::{Engine, Refusal, ReverseRequest};
use layer::ReplicaDirectory;
use store::Record;

use super::{LOOK, World, record};
use crate::hypervisor::checkpoint_of;
use crate::plan::After;

/// Longest until a VM that was failed over runs, or until a command of one host is done.
const DONE_WITHIN: Duration = Duration::from_secs(120);
/// Who typed it.
const PERSON: &str = "the simulation";

impl World {
    /// Asks the daemon of a host something about the only relationship; none: no daemon, no relationship, or no answer.
    fn command<T, F>(
        &mut self,
        host: usize,
        question: impl FnOnce(Engine, Record) -> F,
    ) -> Option<Result<T, Refusal>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let record = record(&self.hosts[host])?;
        self.ask(host, |engine| question(engine, record))
    }

    /// A planned failover, on whichever host may begin one. Refused as often as not.
    pub(super) fn hand_over(&mut self) -> String {
        let mut told = String::new();
        for host in 0..2 {
            let is_primary = |it: &Record| it.relationship.role() == Role::Primary;
            if !record(&self.hosts[host]).is_some_and(|it| is_primary(&it)) {
                continue;
            }
            let begun = self.command(host, |engine, record| async move {
                engine.begin_failover(&record, Options::default(), PERSON).await.map(drop)
            });
            told += &match begun {
                Some(Ok(())) => format!("on host {}", host + 1),
                Some(Err(refused)) => format!("on host {} refused: {refused}", host + 1),
                None => format!("on host {} without answer", host + 1),
            };
        }
        told
    }

    /// `operation cancel` on a host.
    pub(super) fn cancel(&mut self, host: usize) -> String {
        let Some((engine, record)) = self.hosts[host].engine().zip(record(&self.hosts[host])) else {
            return "no daemon".into();
        };
        let Ok(Some((operation, _))) = engine.store().open_operation(record.relationship.id) else {
            return "nothing is open".into();
        };
        let cancel =
            move |engine: Engine| async move { engine.cancel_operation(operation.id, PERSON, false) };
        format!("{:?}", self.ask(host, cancel))
    }

    /// `pause` on a host.
    pub(super) fn pause(&mut self, host: usize) -> String {
        format!("{:?}", self.command(host, |engine, record| async move { engine.pause(&record).await }))
    }

    /// Does what a host's state asks a person for.
    pub(super) fn tend(&mut self) {
        for host in 0..2 {
            let Some(record) = record(&self.hosts[host]).filter(|_| self.is_idle(host)) else { continue };
            let relationship = &record.relationship;
            let told = match relationship.phase {
                Phase::Replicating if !self.hosts[host].hypervisor.runs() => self.try_to_start(host),
                Phase::FailedOver { .. } | Phase::Unprotected { .. } => self.reverse_from(host),
                _ if relationship.paused_since.is_some() => {
                    format!(
                        "resume: {:?}",
                        self.command(host, |engine, record| async move { engine.resume(&record).await })
                    )
                }
                _ => continue,
            };
            // The same answer again says nothing new.
            if self.history.last().is_none_or(|last| !last.ends_with(&told)) {
                self.history.push(format!("{:8.2} s   {told}", self.now.as_secs_f32()));
            }
        }
    }

    /// No operation is open on a host.
    pub(super) fn is_idle(&self, host: usize) -> bool {
        let (engine, record) = (self.hosts[host].engine(), record(&self.hosts[host]));
        let open = engine.zip(record).map(|(engine, it)| engine.store().open_operation(it.relationship.id));
        open.is_some_and(|open| open.is_ok_and(|open| open.is_none()))
    }

    fn reverse_from(&mut self, host: usize) -> String {
        let request = ReverseRequest { peer: None, settings: None };
        let reversed =
            self.command(host, |engine, record| async move { engine.reverse(&record, &request).await });
        format!("reverse: {reversed:?}")
    }

    /// The points that the files of a host's replica tell of, the oldest first.
    pub(super) fn points_in_files(&self, host: usize) -> Result<Vec<RecoveryPoint>> {
        let files = record(&self.hosts[host]).and_then(|it| it.directory).context("a directory")?;
        let files = ReplicaDirectory::open(&files)?;
        Ok(files.manifest().points.iter().map(|listed| listed.point.clone()).collect())
    }

    /// The primary's host loses its power, the VM is failed over without it, and it comes back after a while. What is lost is
    /// what came after the recovery point that was chosen, and nothing else; after a cancel, nothing is.
    pub(super) fn disaster(&mut self, back: usize, after: After, time: Duration) -> Result<String> {
        let Some(old) = self.home() else { return Ok("nobody is at home".into()) };
        let new = 1 - old;
        self.lose_power(old)?;
        let told = self.fail_over(new, back)?;
        match (&told, after) {
            (Some(_), After::CancelAlone) => self.give_back(new, old),
            (Some(_), After::Complete) => self.complete(new),
            _ => {}
        }
        self.pass(time);
        self.hosts[old].start(self.now)?;
        // As libvirt's autostart does.
        let started = self.try_to_start(old);
        self.history.push(format!("{:8.2} s   start on host {}: {started}", self.now.as_secs_f32(), old + 1));
        self.right()?;
        let Some(told) = told else { return Ok("the failover was refused".into()) };
        if after == After::Cancel {
            self.give_back(new, old);
        }
        Ok(told)
    }

    /// `failover` on a host, and the wait until the VM runs; none: refused.
    fn fail_over(&mut self, host: usize, back: usize) -> Result<Option<String>> {
        let points = self.points_in_files(host)?;
        let options = Options { point: chosen(&points, back), ..Options::default() };
        let asked = options.clone();
        let plan = self
            .command(host, |engine, record| async move { engine.plan_failover_alone(&record, &asked).await });
        let Some(Ok(plan)) = plan else { return Ok(None) };
        let moment = self.witness.seen().moments.get(&checkpoint_of(plan.point.id)).cloned();
        let moment = moment.context("a point that was made of no moment is offered")?;
        if options.point.is_none() {
            self.witness.is_offered(plan.point.ordinal);
        }
        self.witness.is_failed_over(host, moment, plan.point.ordinal);
        let told = format!("to host {} from point {}", host + 1, plan.point.ordinal);
        let begun = self.command(host, |engine, record| async move {
            engine.begin_failover_alone(&record, &plan, options, PERSON).await
        });
        if !matches!(begun, Some(Ok(Some(_)))) {
            self.witness.is_not_failed_over();
            return Ok(None);
        }
        self.wait_until(|it| it.hosts[host].hypervisor.runs() && it.is_idle(host));
        if self.hosts[host].hypervisor.runs() {
            return Ok(Some(told));
        }
        if self.is_idle(host) {
            self.witness.is_not_failed_over();
        }
        Ok(Some(format!("{told}, which did not come: {:?}", self.newest_journal(host))))
    }

    /// What a host wrote down of its newest operation.
    fn newest_journal(&self, host: usize) -> Option<Vec<Entry>> {
        let (engine, record) = self.hosts[host].engine().zip(record(&self.hosts[host]))?;
        let mut newest = engine.store().operations(None, Some(&[record.relationship.id]), 1).ok()?;
        Some(newest.pop()?.1)
    }

    /// `cancel-failover` on the host where the VM runs, and the wait until it belongs to the other again.
    fn give_back(&mut self, host: usize, to: usize) {
        let begun = self.command(host, |engine, record| async move {
            engine.begin_cancel(&record, Options::default(), PERSON).map(drop)
        });
        self.history.push(format!("{:8.2} s   cancel-failover: {begun:?}", self.now.as_secs_f32()));
        let is_replica =
            |it: &Self| record(&it.hosts[host]).is_some_and(|it| it.relationship.role() == Role::Replica);
        self.wait_until(|it| is_replica(it) && it.is_idle(host));
        if is_replica(self) {
            self.witness.is_given_back(to);
        }
    }

    /// `complete-failover` on the host where the VM runs, and the wait until it is final.
    fn complete(&mut self, host: usize) {
        let begun = self.command(host, |engine, record| async move {
            engine.begin_complete(&record, PERSON).await.map(drop)
        });
        self.history.push(format!("{:8.2} s   complete-failover: {begun:?}", self.now.as_secs_f32()));
        self.wait_until(|it| it.is_idle(host));
    }

    fn wait_until(&mut self, good: impl Fn(&Self) -> bool) {
        let begun = self.now;
        while !good(self) && self.now - begun < DONE_WITHIN {
            self.pass(LOOK);
        }
    }

    /// The only host that replicates, while the other receives.
    pub(super) fn home(&self) -> Option<usize> {
        let phase = |host: usize| Some(record(&self.hosts[host])?.relationship.phase);
        match (phase(0)?, phase(1)?) {
            (Phase::Replicating, Phase::Receiving) => Some(0),
            (Phase::Receiving, Phase::Replicating) => Some(1),
            _ => None,
        }
    }
}

/// So many points back from the newest; none: the newest.
fn chosen(points: &[RecoveryPoint], back: usize) -> Option<PointId> {
    let place = points.len().checked_sub(1 + back.min(points.len().saturating_sub(1)))?;
    (back > 0).then(|| points[place].id)
}

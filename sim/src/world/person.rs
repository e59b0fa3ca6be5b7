//! What a person types, and waits for.

use std::time::Duration;

use anyhow::{Context, Result};
use choreography::Options;
use domain::{Phase, Role};
use engine::ReverseRequest;

use super::{HEALS, LOOK, World, record};
use crate::hypervisor::checkpoint_of;

/// Longest until a VM that was failed over runs.
const FAILS_OVER: Duration = Duration::from_secs(120);

impl World {
    /// A planned failover, on whichever host may begin one. Refused as often as not.
    pub(super) fn hand_over(&mut self) -> String {
        let mut told = String::new();
        for host in 0..2 {
            let record = record(&self.hosts[host]);
            let Some(record) = record.filter(|it| it.relationship.role() == Role::Primary) else { continue };
            let begun = self.ask(host, |engine| async move {
                engine.begin_failover(&record, Options::default(), "the simulation").await.map(drop)
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
        let cancel = move |engine: engine::Engine| async move {
            engine.cancel_operation(operation.id, "the simulation", false)
        };
        format!("{:?}", self.ask(host, cancel))
    }

    /// The primary's host loses its power, the VM is failed over without it, and it comes back after a while: then the direction
    /// is reversed. What is lost is what came after the newest recovery point, and nothing else.
    pub(super) fn disaster(&mut self, time: Duration) -> Result<String> {
        let Some(old) = self.home() else { return Ok("nobody is at home".into()) };
        let new = 1 - old;
        self.lose_power(old)?;
        let told = self.fail_over(new)?;
        self.pass(time);
        self.hosts[old].start(self.now)?;
        self.start_vm(old);
        self.right()?;
        let Some(told) = told else { return Ok("the failover was refused".into()) };
        let begun = self.now;
        let is_over =
            |it: &Self| record(&it.hosts[new]).is_some_and(|it| failed_over(&it.relationship.phase));
        while is_over(self) && self.now - begun < HEALS {
            let Some(record) = record(&self.hosts[new]) else { break };
            // Refused until the other host is back and knows.
            let request = ReverseRequest { peer: None, settings: None };
            let reversed = self.ask(new, |engine| async move { engine.reverse(&record, &request).await });
            self.history.push(format!("{:8.2} s   reverse: {reversed:?}", self.now.as_secs_f32()));
            self.pass(LOOK * 4);
        }
        Ok(told)
    }

    /// `failover` on a host, and the wait until the VM runs; none: refused.
    fn fail_over(&mut self, host: usize) -> Result<Option<String>> {
        let Some(record) = record(&self.hosts[host]) else { return Ok(None) };
        let asked = record.clone();
        let plan =
            self.ask(host, |engine| async move { engine.plan_failover_alone(&asked, None, false).await });
        let Some(Ok(plan)) = plan else { return Ok(None) };
        let moment = self.witness.seen().moments.get(&checkpoint_of(plan.point.id)).cloned();
        let moment = moment.context("a point that was made of no moment is offered")?;
        self.witness.is_failed_over(host, moment, plan.point.ordinal);
        let told = format!("to host {} from point {}", host + 1, plan.point.ordinal);
        let begun = self.ask(host, |engine| async move {
            engine.begin_failover_alone(&record, &plan, Options::default(), "the simulation").map(drop)
        });
        if !matches!(begun, Some(Ok(()))) {
            self.witness.is_not_failed_over();
            return Ok(None);
        }
        let begun = self.now;
        while !self.hosts[host].hypervisor.runs() && self.now - begun < FAILS_OVER {
            self.pass(LOOK);
        }
        Ok(Some(told))
    }
}

fn failed_over(phase: &Phase) -> bool {
    matches!(phase, Phase::FailedOver { .. })
}

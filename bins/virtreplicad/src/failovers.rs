//! Failovers that nobody planned, as the command line asks for them: what would be lost is said before anything happens.

use std::time::Duration;

use api::dto::{self, Answer, Done};
use api::{Caller, Problem, units};
use choreography::{Operation, Options, OtherHost};
use domain::{OperationId, Phase, PointId, Settlement, Timestamp, vm_argument};
use engine::{Code, FailoverPlan, Refusal};

use crate::problems::{checks_hold, failed, invalid, problem, shown};
use crate::service::Daemon;
use crate::views::host_name;

/// How often a failover is planned at most, anew because a newer recovery point has arrived meanwhile.
const PLANS_MAX: usize = 5;

impl Daemon {
    pub(crate) async fn begin_failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::FailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::OperationView>, Problem> {
        for _ in 0..PLANS_MAX {
            if let Some(answer) = self.try_failover(&who, &vm, &request, dry_run).await? {
                return Ok(answer);
            }
        }
        let record = self.find(&vm)?;
        let (peer, vm) = (host_name(&self.engine, record.relationship.peer), vm_argument(&vm));
        let found = format!("newer recovery points arrive from {peer} all the while");
        let cure = format!(
            "on {peer}: virt-replica pause {vm}; then again here; if it is taken back, on {peer}: virt-replica resume {vm}"
        );
        Err(problem(Refusal::new(Code::Busy, found, cure)))
    }

    /// None: what it was planned upon has changed meanwhile.
    async fn try_failover(
        &self,
        who: &Caller,
        vm: &str,
        request: &dto::FailoverRequest,
        dry_run: bool,
    ) -> Result<Option<Answer<dto::OperationView>>, Problem> {
        let record = self.find(vm)?;
        let point = self.point_wanted(&record, request.point.as_deref()).await?;
        let after = |what, seconds: Option<u64>| seconds.map(|it| (what, Duration::from_secs(it)));
        let options = Options {
            point,
            commit_timer: after(Settlement::Complete, request.complete_after_seconds)
                .or(after(Settlement::RollBack, request.roll_back_after_seconds)),
            roll_back_unless_boots: request.boots_within_seconds.map(Duration::from_secs),
            force: request.force,
            ..Options::default()
        };
        let open = self.engine.store().open_operation(record.relationship.id).map_err(failed)?;
        if let Some((open, _)) = open.filter(|(open, _)| open.procedure == choreography::Procedure::Failover)
        {
            expect_the_same_point(vm, &open, point).map_err(problem)?;
            return self.operation_view(&open.id.to_string()).map(|view| Some(Answer::Done(view)));
        }
        let plan = self.engine.plan_failover_alone(&record, &options).await.map_err(problem)?;
        let (vm, peer) = (&record.relationship.vm_name, host_name(&self.engine, record.relationship.peer));
        let lines = sentences(vm, &peer, &plan, &options);
        let shown = shown(lines, &plan.plan, false);
        if dry_run {
            return Ok(Some(Answer::Planned(shown)));
        }
        checks_hold(&shown)?;
        let asker = format!("{who} on {}", self.own.name);
        let begun = self.engine.begin_failover_alone(&record, &plan, options, &asker).await.transpose();
        begun.map(|begun| self.begun(begun)).transpose()
    }

    pub(crate) fn begin_cancel_failover(
        &self,
        who: Caller,
        vm: String,
        request: dto::CancelFailoverRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::OperationView>, Problem> {
        let record = self.find(&vm)?;
        if let Some(refusal) = self.engine.cancel_obstacle(&record).map_err(problem)? {
            return Err(problem(refusal));
        }
        if dry_run {
            let (vm, peer) =
                (&record.relationship.vm_name, host_name(&self.engine, record.relationship.peer));
            return Ok(Answer::Planned(dto::Plan::of([
                match request.turn_off {
                    true => format!("{vm} is shut down here, and turned off if it does not obey."),
                    false => format!("{vm} is shut down here."),
                },
                "What it wrote since the failover is set aside: virt-replica diverged list.".into(),
                format!(
                    "This host is the replica again, with all its recovery points; the VM belongs to {peer}."
                ),
            ])));
        }
        let options = Options {
            destroy: request.turn_off,
            shutdown_timeout: Duration::from_secs(request.shutdown_timeout_seconds),
            ..Options::default()
        };
        let asker = format!("{who} on {}", self.own.name);
        self.begun(self.engine.begin_cancel(&record, options, &asker))
    }

    pub(crate) async fn begin_complete_failover(
        &self,
        who: Caller,
        vm: String,
        dry_run: bool,
    ) -> Result<Answer<dto::OperationView>, Problem> {
        let record = self.find_idle(&vm)?;
        if let Some(refusal) = self.engine.complete_obstacle(&record).await.map_err(problem)? {
            return Err(problem(refusal));
        }
        if dry_run {
            let mut lines =
                vec!["All recovery points but the one that the VM started from are given up.".to_owned()];
            if let Phase::FailedOver { point, .. } = record.relationship.phase {
                lines.push(format!(
                    "The files below the VM are merged while it runs, up to recovery point {point}."
                ));
            }
            lines.push(
                "It cannot be taken back afterwards. The VM stays unprotected until `virt-replica reverse`."
                    .into(),
            );
            return Ok(Answer::Planned(dto::Plan::of(lines)));
        }
        let asker = format!("{who} on {}", self.own.name);
        self.begun(self.engine.begin_complete(&record, &asker).await)
    }

    fn begun(&self, begun: engine::Result<OperationId>) -> Result<Answer<dto::OperationView>, Problem> {
        self.operation_view(&begun.map_err(problem)?.to_string()).map(Answer::Done)
    }

    pub(crate) async fn all_diverged(&self, vm: &str) -> Result<Vec<dto::DivergedView>, Problem> {
        let mut views: Vec<dto::DivergedView> = Vec::new();
        for one in self.engine.diverged(&self.find(vm)?).await.map_err(problem)? {
            let file_systems = one.files.map(|all| all.into_iter().map(file_system).collect());
            let one = one.aside;
            let disk = dto::DivergedDisk {
                file_systems,
                target: one.target.to_string(),
                path: one.path.display().to_string(),
                bytes: one.bytes,
                pieces: one.pieces as u64,
            };
            match views.last_mut() {
                Some(view) if view.at_ms == one.at.millis() => view.disks.push(disk),
                _ => views.push(dto::DivergedView {
                    id: one.at.millis().to_string(),
                    at_ms: one.at.millis(),
                    disks: vec![disk],
                }),
            }
        }
        Ok(views)
    }

    pub(crate) async fn remove_diverged(
        &self,
        vm: &str,
        id: &str,
        dry_run: bool,
    ) -> Result<Answer<Done>, Problem> {
        let record = self.find(vm)?;
        let at = id.parse().map(Timestamp).map_err(|_| invalid("what was set aside is named by a number"))?;
        if dry_run {
            let line = "What only this host has of that time is deleted for good.";
            return Ok(Answer::Planned(dto::Plan::of([line])));
        }
        self.engine.remove_diverged(&record, at).await.map_err(problem)?;
        Ok(Answer::Done(Done::saying("it is deleted")))
    }
}

/// Who asks for a point, and finds a failover under way, must not be left to believe that the VM starts from that point.
fn expect_the_same_point(vm: &str, open: &Operation, asked: Option<PointId>) -> Result<(), Refusal> {
    let (Some(asked), Some(point)) = (asked, open.options.point) else { return Ok(()) };
    if asked == point {
        return Ok(());
    }
    let found =
        format!("failover {} is under way, from recovery point {point} and not from {asked}", open.id);
    let vm = domain::vm_argument(vm);
    Err(Refusal::new(
        Code::Busy,
        found,
        format!("to start from the other: virt-replica cancel-failover {vm}, then again"),
    ))
}

fn sentences(vm: &str, peer: &str, plan: &FailoverPlan, options: &Options) -> Vec<String> {
    let at = units::instant_utc(plan.point.instant.millis());
    let lost = plan.lost.map_or_else(
        || format!("for a time that is not known: the clock of {peer} was ahead of this host's"),
        |lost| format!("{} until now", domain::words::duration(lost)),
    );
    let bytes = match plan.pending {
        Some(pending) => format!(
            "{} waited on {peer} when it was heard last, at {}.",
            units::size(pending.bytes),
            units::instant_utc(pending.at.millis())
        ),
        None => "how many bytes that are is not known here.".to_owned(),
    };
    let mut lines = vec![
        format!("{vm} starts on this host from the recovery point of {at}."),
        format!("LOST: everything that it wrote after that, {lost}; {bytes}"),
    ];
    if let Some(doubted) = &plan.doubted {
        lines.push(format!(
            "DOUBTED: this recovery point, or one after it, differed from the VM's disks: {doubted}"
        ));
    }
    for check in &plan.unfit {
        if let domain::Verdict::Fail { found, cure } = &check.verdict {
            lines.push(format!("WARNING: {}: no. {found}. {cure}", check.name.words()));
        }
    }
    if plan.newer > 0 {
        let newer = domain::counted(plan.newer, "newer recovery point");
        lines.push(format!("Kept until the failover is complete: {newer}."));
    }
    lines.push(match &plan.other {
        OtherHost::Silent => format!(
            "{peer} does not answer: it is NOT KNOWN whether the VM runs there. Make sure by other means; two running copies \
             cannot be united again."
        ),
        OtherHost::Off => format!("{peer} answers, and the VM does not run there."),
        OtherHost::Runs => format!("{peer} answers, and the VM RUNS there."),
        OtherHost::Forgot => format!(
            "{peer} answers, and knows the relationship NO MORE: the VM may run there, and nothing keeps it from being started."
        ),
        OtherHost::Unsure(why) => {
            format!("{peer} answers, and it is NOT KNOWN whether the VM runs there: {why}.")
        }
    });
    lines.push(match options.commit_timer {
        None => "Afterwards: reverse, complete-failover or cancel-failover.".to_owned(),
        Some((what, after)) => {
            let verb = if what == Settlement::Complete { "becomes final" } else { "is taken back" };
            format!("It {verb} by itself after {}.", domain::words::duration(after))
        }
    });
    if let Some(within) = options.roll_back_unless_boots {
        let within = domain::words::duration(within);
        lines.push(format!(
            "It is taken back by itself when the VM does not start, or its guest agent does not answer, within {within}."
        ));
    }
    lines
}

fn file_system(found: engine::GuestFiles) -> dto::DivergedFileSystem {
    let file = |file: engine::GuestFile| dto::DivergedFile {
        path: file.path,
        bytes: file.bytes,
        changed_at_ms: u64::try_from(file.changed).unwrap_or(0).saturating_mul(1000),
        is_new: file.is_new,
    };
    dto::DivergedFileSystem {
        place: found.place,
        files: found.files.into_iter().map(file).collect(),
        incomplete: found.incomplete,
    }
}

#[cfg(test)]
mod tests {
    use choreography::{Procedure, Side};
    use domain::{Epoch, HostId, RelationshipId};

    use super::*;

    #[test]
    fn whoever_asks_for_another_point_than_the_one_under_way_is_told() {
        let [one, other] = [1_u128, 2].map(|id| PointId(uuid::Uuid::from_u128(id)));
        let open = Operation {
            id: OperationId(uuid::Uuid::from_u128(7)),
            procedure: Procedure::Failover,
            relationship: RelationshipId(uuid::Uuid::from_u128(1)),
            old_primary: HostId(uuid::Uuid::from_u128(2)),
            side: Side::NewPrimary,
            proposed_epoch: Epoch::FIRST.next(),
            options: Options { point: Some(one), ..Options::default() },
            requested_by: "root".into(),
            begun: Timestamp(0),
        };
        for same in [None, Some(one)] {
            assert_eq!(
                expect_the_same_point("vm", &open, same),
                Ok(()),
                "a command that is repeated attaches"
            );
        }
        let told = expect_the_same_point("vm", &open, Some(other)).expect_err("told").to_string();
        assert!(told.contains(&one.to_string()) && told.contains("cancel-failover vm"), "{told}");
    }
}

//! Protecting a VM, its settings, and the end of it, as they are asked for.

use api::dto::{self, Answer, Done};
use api::{Caller, Problem};
use store::StaleCopy;

use crate::choices::changed;
use crate::problems::{checks_hold, problem, shown};
use crate::service::Daemon;
use crate::views;

impl Daemon {
    pub(crate) async fn protect(
        &self,
        request: dto::EnableRequest,
        dry_run: bool,
    ) -> Result<Answer<dto::RelationshipSummary>, Problem> {
        let wanted = self.enable_request(&request).await?;
        if let Some(record) = self.engine.enabled_already(&wanted) {
            return Ok(Answer::Done(views::summary(&self.engine, &record).map_err(problem)?));
        }
        let plan = self.engine.plan_enable(&wanted).await.map_err(problem)?;
        let summary = vec![
            format!("VM {} will be replicated to {}.", request.vm, request.peer),
            format!(
                "A cycle runs every {} s; the VM runs on meanwhile.",
                wanted.settings.frequency.seconds()
            ),
        ];
        let shown = shown(summary, &plan, false);
        if dry_run {
            return Ok(Answer::Planned(shown));
        }
        checks_hold(&shown)?;
        let id = self.engine.enable(wanted).await.map_err(problem)?;
        let record = self.engine.record(id).map_err(problem)?;
        Ok(Answer::Done(views::summary(&self.engine, &record).map_err(problem)?))
    }

    pub(crate) async fn set(
        &self,
        vm: String,
        change: dto::SettingsChange,
        dry_run: bool,
    ) -> Result<Answer<dto::RelationshipDetail>, Problem> {
        let record = self.find_idle(&vm)?;
        let settings = changed(&record.relationship.settings, &change)?;
        let settings = self.engine.with_disks(&record, settings, &change.add_disks).await.map_err(problem)?;
        if dry_run {
            self.engine.expect_changeable(&record, &settings).await.map_err(problem)?;
            let disks = change.add_disks.iter().map(|disk| {
                format!("Disk {disk} will be replicated as it is now; the next recovery point has it.")
            });
            let settings = "Both hosts will use the new settings from the next cycle on.".to_owned();
            return Ok(Answer::Planned(dto::Plan::of(disks.chain([settings]))));
        }
        self.engine.change(&record, settings).await.map_err(problem)?;
        self.engine.accept_disks(&record, &change.add_disks).await.map_err(problem)?;
        let record = self.find(&vm)?;
        let sizes = self.engine.disk_sizes(&record).await;
        Ok(Answer::Done(views::detail(&self.engine, &record, &sizes).map_err(problem)?))
    }

    pub(crate) async fn hold(&self, vm: String, dry_run: bool) -> Result<Answer<Done>, Problem> {
        let record = self.find_idle(&vm)?;
        if dry_run {
            return Ok(Answer::Planned(dto::Plan::of([
                "No cycle will begin until `resume`; changes are still tracked.",
            ])));
        }
        self.engine.pause(&record).await.map_err(problem)?;
        Ok(Answer::Done(Done::saying("replication is paused")))
    }

    pub(crate) async fn go_on(&self, vm: String, dry_run: bool) -> Result<Answer<Done>, Problem> {
        let record = self.find_idle(&vm)?;
        if dry_run {
            self.engine.expect_agreement(&record).await.map_err(problem)?;
            return Ok(Answer::Planned(dto::Plan::of([
                "Cycles will go on; the first carries what changed meanwhile.",
            ])));
        }
        let said = self.engine.resume(&record).await.map_err(problem)?;
        Ok(Answer::Done(Done::saying(format!("replication goes on; {said}"))))
    }

    pub(crate) async fn end(
        &self,
        who: Caller,
        vm: String,
        request: dto::RemoveRequest,
        dry_run: bool,
    ) -> Result<Answer<Done>, Problem> {
        if let Some(copy) = self.left_over(&vm, &request)? {
            return self.free(who, &copy, dry_run);
        }
        let record = self.find_idle(&vm)?;
        let delete = request.replica == dto::ReplicaFate::Delete;
        let hosts = if request.this_host_only { "this host only" } else { "both hosts" };
        if dry_run {
            self.engine.expect_removable(&record, request.this_host_only, delete).await.map_err(problem)?;
            let mut said = vec![format!("The relationship ends on {hosts}.")];
            said.extend(self.engine.fate_of_files(&record, delete));
            said.extend(self.engine.plan_removal(&record, request.this_host_only).await.map_err(problem)?);
            return Ok(Answer::Planned(dto::Plan::of(said)));
        }
        let removed = match request.this_host_only {
            true => self.engine.remove_alone(&record, delete).await,
            false => self.engine.remove(&record, delete).await,
        };
        removed.map_err(problem)?;
        Ok(Answer::Done(Done::saying(format!("the relationship has ended on {hosts}"))))
    }
    /// A stale copy whose relationship has ended here before.
    fn left_over(&self, vm: &str, request: &dto::RemoveRequest) -> Result<Option<StaleCopy>, Problem> {
        match request.this_host_only && self.find(vm).is_err() {
            true => self.engine.stale_copy(vm).map_err(problem),
            false => Ok(None),
        }
    }

    fn free(&self, who: Caller, copy: &StaleCopy, dry_run: bool) -> Result<Answer<Done>, Problem> {
        let (name, peer) = (&copy.vm_name, &copy.peer);
        if dry_run {
            return Ok(Answer::Planned(dto::Plan::of([
                format!("What is here of {name} is an old copy: {peer} took the VM over."),
                "From then on NOTHING keeps it from starting; when the VM still runs there, there will be two writers."
                    .to_owned(),
            ])));
        }
        let asker = format!("{who} on {}", self.own.name);
        self.engine.free_stale_copy(copy, &asker).map_err(problem)?;
        Ok(Answer::Done(Done::saying(format!("the VM {name} may start on this host"))))
    }
}

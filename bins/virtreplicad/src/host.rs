//! This host as it is asked for and shown.

use api::Problem;
use api::dto::{self, Answer};

use crate::problems::problem;
use crate::service::Daemon;

impl Daemon {
    pub(crate) async fn show_host(&self) -> Result<dto::HostView, Problem> {
        let facts = self.engine.hypervisor(|it| it.host_facts()).await.ok();
        let hypervisor = facts.map(|it| format!("libvirt {}, QEMU {}", it.libvirt_version, it.qemu_version));
        Ok(dto::HostView { hypervisor, ..self.host_view()? })
    }

    pub(crate) async fn set_host(
        &self,
        change: dto::HostChange,
        dry_run: bool,
    ) -> Result<Answer<dto::HostView>, Problem> {
        if dry_run {
            return Ok(Answer::Planned(dto::Plan::of([
                "The host's rate limit will change now, also for transfers under way, and stays after a restart.",
            ])));
        }
        if let Some(limit) = change.rate_limit {
            self.engine.limit(limit.bytes_per_second()).map_err(problem)?;
        }
        Ok(Answer::Done(self.host_view()?))
    }
}

//! Comparing both sides, and first copies that were carried here, as the command line asks for them.

use api::Problem;
use api::dto::{Answer, Done, Importing, Plan};

use crate::problems::problem;
use crate::service::Daemon;

impl Daemon {
    pub(crate) fn begin_resynchronization(
        &self,
        who: &str,
        vm: &str,
        dry_run: bool,
    ) -> Result<Answer<Done>, Problem> {
        let record = self.find_idle(vm)?;
        self.engine.expect_comparable(&record, "resynchronize").map_err(problem)?;
        if dry_run {
            return Ok(Answer::Planned(Plan::of([
                "Both hosts digest every block of the disks while the VM runs on; what differs travels as a new recovery point.",
            ])));
        }
        self.engine.resynchronize(&record, who).map_err(problem)?;
        Ok(Answer::Done(Done::saying("the resynchronization begins")))
    }

    pub(crate) fn begin_verification(&self, vm: &str, dry_run: bool) -> Result<Answer<Done>, Problem> {
        let record = self.find_idle(vm)?;
        self.engine.expect_comparable(&record, "verify").map_err(problem)?;
        if dry_run {
            return Ok(Answer::Planned(Plan::of([
                "A cycle begins; then both hosts digest every block of its recovery point while the VM runs on.",
                "A difference is kept as evidence, and repaired by a resynchronization.",
            ])));
        }
        self.engine.verify(&record).map_err(problem)?;
        Ok(Answer::Done(Done::saying("the verification begins")))
    }

    pub(crate) async fn begin_import(
        &self,
        directory: String,
        dry_run: bool,
    ) -> Result<Answer<Importing>, Problem> {
        let vms = self.engine.import(directory.into(), dry_run).await.map_err(problem)?;
        Ok(match dry_run {
            true => {
                Answer::Planned(Plan::of([format!("The initial copy of {} will be taken.", vms.join(", "))]))
            }
            false => Answer::Done(Importing { vms }),
        })
    }
}

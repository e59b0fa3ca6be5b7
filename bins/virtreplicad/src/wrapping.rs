//! Raw disks behind wrappers and out of them, as the command line asks for it.

use api::Problem;
use api::dto::{Answer, Done, Plan};

use crate::problems::problem;
use crate::service::Daemon;

impl Daemon {
    pub(crate) async fn move_raw_disks(
        &self,
        vm: String,
        wrap: bool,
        dry_run: bool,
    ) -> Result<Answer<Done>, Problem> {
        let disks = match wrap {
            true => self.engine.disks_to_wrap(&vm).await,
            false => self.engine.disks_to_unwrap(&vm).await,
        };
        let disks = disks.map_err(problem)?;
        if dry_run {
            let one = |(target, data, file): (_, &std::path::PathBuf, &std::path::PathBuf)| match wrap {
                true => format!("Disk {target}: {} gets the wrapper {}.", data.display(), file.display()),
                false => format!("Disk {target} is {} again; {} is deleted.", data.display(), file.display()),
            };
            let mut words: Vec<String> = disks.iter().map(one).collect();
            words.push(format!("The definition of {} changes; no data is copied or written.", disks.vm()));
            return Ok(Answer::Planned(Plan::of(words)));
        }
        let name = disks.vm().to_owned();
        match wrap {
            true => self.engine.wrap(disks).await,
            false => self.engine.unwrap(disks).await,
        }
        .map_err(problem)?;
        Ok(Answer::Done(Done::saying(match wrap {
            true => format!("the raw disks of {name} can be replicated: start it, then virt-replica enable"),
            false => format!("the disks of {name} are its raw ones again"),
        })))
    }
}

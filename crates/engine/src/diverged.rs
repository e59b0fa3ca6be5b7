//! What only one host has of a VM's disks since a failover: listed, and removed when a person says so.

use domain::{Timestamp, vm_argument};
use layer::Diverged;
use store::Record;

use crate::guest_files::{self, GuestFiles};
use crate::{Code, Engine, Refusal, Result, blocking, replica};

/// What was set aside of one disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DivergedDisk {
    /// The blocks.
    pub aside: Diverged,
    /// The files in them, for each file system; none: they were not listed.
    pub files: Option<Vec<GuestFiles>>,
}

impl Engine {
    /// Everything that was set aside, the oldest first.
    pub async fn diverged(&self, record: &Record) -> Result<Vec<DivergedDisk>> {
        if record.directory.is_none() {
            return Ok(Vec::new());
        }
        let directory = replica::directory(record)?;
        let with_files = move |aside: Diverged| {
            let list = aside.path.with_file_name(layer::diverged_list_name(aside.at).as_str());
            DivergedDisk { files: guest_files::read(&list), aside }
        };
        blocking(move || {
            Ok(directory.diverged().map_err(Refusal::failed)?.into_iter().map(with_files).collect())
        })
        .await
    }

    /// Deletes what was set aside at that time, for good.
    pub async fn remove_diverged(&self, record: &Record, at: Timestamp) -> Result<()> {
        let removed = match record.directory {
            Some(_) => {
                let directory = replica::directory(record)?;
                // By its name alone: also one that cannot be read goes.
                blocking(move || directory.remove_diverged(at).map_err(Refusal::failed)).await?
            }
            None => 0,
        };
        if removed > 0 {
            return Ok(());
        }
        let found = format!("nothing was set aside under {}", at.millis());
        let cure = format!("virt-replica diverged list {}", vm_argument(&record.relationship.vm_name));
        Err(Refusal::new(Code::NotFound, found, cure))
    }
}

//! What only one host has of a VM's disks since a failover: listed, and removed when a person says so.

use domain::{Timestamp, vm_argument};
use layer::Diverged;
use store::Record;

use crate::{Code, Engine, Refusal, Result, blocking, replica};

impl Engine {
    /// Everything that was set aside, the oldest first.
    pub async fn diverged(&self, record: &Record) -> Result<Vec<Diverged>> {
        if record.directory.is_none() {
            return Ok(Vec::new());
        }
        let directory = replica::directory(record)?;
        blocking(move || directory.diverged().map_err(Refusal::failed)).await
    }

    /// Deletes what was set aside at that time, for good.
    pub async fn remove_diverged(&self, record: &Record, at: Timestamp) -> Result<()> {
        if !self.diverged(record).await?.iter().any(|one| one.at == at) {
            let found = format!("nothing was set aside under {}", at.millis());
            let cure = format!("virt-replica diverged list {}", vm_argument(&record.relationship.vm_name));
            return Err(Refusal::new(Code::NotFound, found, cure));
        }
        let directory = replica::directory(record)?;
        blocking(move || directory.remove_diverged(at).map(drop).map_err(Refusal::failed)).await
    }
}

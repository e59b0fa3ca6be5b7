//! Wrappers around raw disks: written here before a definition names one, so that none is trusted that this host did not make.

use std::path::PathBuf;

use domain::{DiskTarget, VmId};
use rusqlite::{Row, params};

use crate::cached::Cached;
use crate::error::row;
use crate::{Result, Store};

/// A wrapper that was made, or begun to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrappedDisk {
    /// Of which VM.
    pub vm: VmId,
    /// Which disk.
    pub target: DiskTarget,
    /// The qcow2 file.
    pub file: PathBuf,
    /// The raw file or block device.
    pub data: PathBuf,
    /// Whether that is a block device.
    pub is_device: bool,
}

impl Store {
    /// A disk is wrapped from now on.
    pub fn keep_wrapper(&self, disk: &WrappedDisk) -> Result<()> {
        self.write(|transaction| {
            let put = "INSERT OR REPLACE INTO wrapper (vm, target, file, data, is_device)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            let (file, data) = (disk.file.to_string_lossy(), disk.data.to_string_lossy());
            let values = params![disk.vm.to_string(), disk.target.as_str(), file, data, disk.is_device];
            transaction.execute_cached(put, values)?;
            Ok(())
        })
    }

    /// A disk is not wrapped any more.
    pub fn forget_wrapper(&self, vm: VmId, target: &DiskTarget) -> Result<()> {
        self.write(|transaction| {
            let delete = "DELETE FROM wrapper WHERE vm = ?1 AND target = ?2";
            transaction.execute_cached(delete, [vm.to_string().as_str(), target.as_str()])?;
            Ok(())
        })
    }

    /// All wrappers of this host.
    pub fn wrappers(&self) -> Result<Vec<WrappedDisk>> {
        let connection = self.connection();
        let query = "SELECT * FROM wrapper ORDER BY vm, target";
        let mut statement = connection.prepare_cached(query)?;
        let found = statement.query_map([], |columns| Ok(wrapped(columns)))?;
        found.map(|disk| disk?).collect()
    }
}

fn wrapped(columns: &Row<'_>) -> Result<WrappedDisk> {
    let text = |name: &str| -> Result<String> { Ok(columns.get(name)?) };
    Ok(WrappedDisk {
        vm: text("vm")?.parse().map_err(row)?,
        target: DiskTarget::new(&text("target")?).map_err(row)?,
        file: PathBuf::from(text("file")?),
        data: PathBuf::from(text("data")?),
        is_device: columns.get("is_device")?,
    })
}

//! What stays on disk when a relationship ends, in words for whoever is about to end it. *Not* the end itself (`protect`).

use choreography::authority::Denied;
use domain::{Role, counted, shell_word, vm_argument};
use store::{Record, StoreError};

use crate::{Code, Engine, Refusal, Result, replica};

const DIVERGED: &str =
    "what the VM wrote as the old primary is not set aside yet, and these files are all there is of it";

/// Where the VM was at home first and is a replica now, its own disk files lie below the layers: neither is complete without the other.
fn is_at_home(record: &Record) -> bool {
    match record.relationship.role() {
        Role::Replica => record.home_definition.is_some(),
        Role::Primary => record.directory.is_some() && record.home_definition.is_none(),
    }
}

impl Engine {
    /// Whether the replica's files on this host go with the relationship; refused while they hold what lies nowhere else.
    pub(crate) fn deletes_files(&self, record: &Record, asked: bool) -> Result<bool> {
        let vm = vm_argument(&record.relationship.vm_name);
        let (found, cure) = match self.store().deletes_files(record.relationship.id, asked) {
            Ok(true) if record.directory.is_some() => match replica::expect_untouched(record) {
                Ok(()) => return Ok(true),
                Err(touched) => (touched.detail, touched.cure),
            },
            Err(StoreError::Denied(Denied::Diverged)) => (
                DIVERGED.to_owned(),
                format!("wait until it is, after the next cycle: virt-replica show {vm}"),
            ),
            other => return other.map_err(Refusal::failed),
        };
        Err(Refusal::new(
            Code::Refused,
            format!("on {}, {found}", self.config().host_name),
            format!("there: {cure}; or leave the files: the same command with --keep-replica"),
        ))
    }

    /// What a removal does to the replica's files, and what of them is left for a person.
    #[must_use]
    pub fn fate_of_files(&self, record: &Record, delete_replica: bool) -> Vec<String> {
        let mut said = vec![fate(record, delete_replica, &self.peer_name(record))];
        let Ok(directory) = replica::directory(record) else { return said };
        let aside = directory.diverged().map_or(0, |aside| aside.len());
        if aside > 0 {
            let folder = shell_word(&directory.path().to_string_lossy());
            said.push(format!(
                "What was set aside on this host stays, and diverged list shows it no more: {}, {folder}/*/diverged-*.qcow2.",
                counted(aside, "file")
            ));
        }
        said
    }
}

fn fate(record: &Record, delete_replica: bool, peer: &str) -> String {
    if !delete_replica {
        return "The replica's files stay.".to_owned();
    }
    if !is_at_home(record) {
        return "The replica's files are deleted.".to_owned();
    }
    let place = match record.relationship.role() {
        Role::Replica => "this host",
        Role::Primary => peer,
    };
    format!(
        "The replica's files stay although their deletion is asked for: the VM lived on {place} before, and its own disk files there are \
         whole only with the layers over them. Delete both by hand when nothing of them is needed."
    )
}

#[cfg(test)]
mod tests {
    use domain::{Phase, fixture};

    use super::*;

    fn record(phase: Phase, at_home: bool, has_directory: bool) -> Record {
        Record {
            home_definition: at_home.then(|| "<domain/>".to_owned()),
            directory: has_directory.then(|| "/replicas/vm".into()),
            ..Record::new(fixture::relationship(phase))
        }
    }

    #[test]
    fn files_are_said_to_be_deleted_only_where_they_are() {
        let said = |record: &Record| fate(record, true, "hvhost01");
        let deleted = "The replica's files are deleted.";
        // Never moved; and moved, with the replica on the host that it came from, as either side sees it.
        assert_eq!(said(&record(Phase::Replicating, false, false)), deleted);
        assert_eq!(said(&record(Phase::Receiving, false, true)), deleted);
        assert!(said(&record(Phase::Replicating, false, true)).contains("lived on hvhost01"));
        assert!(said(&record(Phase::Receiving, true, true)).contains("lived on this host"));
        // Back at home: the replica is on the replica server again.
        assert_eq!(said(&record(Phase::Replicating, true, true)), deleted);
        assert_eq!(fate(&record(Phase::Receiving, true, true), false, "x"), "The replica's files stay.");
    }
}

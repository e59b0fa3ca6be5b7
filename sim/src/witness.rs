//! Who sees both hosts: what both hypervisors did, judged as it happens. Knows nothing of roles and operations.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::Epoch;

use crate::image::Content;

/// What was seen.
#[derive(Default)]
pub(crate) struct Witness(Mutex<Seen>);

/// Everything of one VM; a simulation has one.
#[derive(Default)]
pub(crate) struct Seen {
    /// On which hosts it runs.
    pub(crate) runs: [bool; 2],
    /// The disk when the VM stopped last.
    pub(crate) stopped_with: Option<Content>,
    /// The same on each host, and the newest recovery point that was acknowledged then.
    pub(crate) left: [Option<(Content, u64)>; 2],
    /// The disk at each moment that a checkpoint was made for, by its name.
    pub(crate) moments: HashMap<String, Content>,
    /// The disk whenever the VM stopped. What a handover carries last has no checkpoint: the new primary makes one when it starts the
    /// VM, unless somebody else starts it.
    pub(crate) stops: Vec<Content>,
    /// Versions given so far.
    pub(crate) versions: u64,
    /// How often the VM started on another host than before.
    pub(crate) moves: usize,
    pub(crate) last_host: Option<usize>,
    /// Where the VM starts next because somebody failed it over, and with what: a point of this ordinal.
    pub(crate) failed_over: Option<(usize, Content, u64)>,
    /// The newest epoch that each host believed in.
    pub(crate) epochs: [Option<Epoch>; 2],
    /// The ordinal of the newest recovery point that a primary listed.
    pub(crate) acknowledged: u64,
    /// What must not happen and did.
    pub(crate) wrong: Vec<String>,
}

impl Witness {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The VM starts with this disk.
    pub(crate) fn starts(&self, host: usize, content: &Content) {
        let mut seen = self.seen();
        if seen.runs[1 - host] {
            seen.wrong.push(format!("the VM starts on host {} while it runs on the other", host + 1));
        }
        if let Some((_, point, ordinal)) = seen.failed_over.take_if(|(to, ..)| *to == host) {
            // What came after it is given up.
            (seen.stopped_with, seen.acknowledged) = (Some(point), ordinal);
        }
        if let Some(stopped) = seen.stopped_with.clone().filter(|stopped| stopped != content) {
            seen.wrong.push(format!(
                "the VM starts on host {} with {content:?}, and it stopped with {stopped:?}",
                host + 1
            ));
        }
        seen.runs[host] = true;
        seen.moves += usize::from(seen.last_host.is_some_and(|last| last != host));
        seen.last_host = Some(host);
    }

    /// The VM stopped with this disk.
    pub(crate) fn stopped(&self, host: usize, content: Content) {
        let mut seen = self.seen();
        seen.runs[host] = false;
        seen.left[host] = Some((content.clone(), seen.acknowledged));
        seen.stops.push(content.clone());
        seen.stopped_with = Some(content);
    }

    /// The newest point that a host offers to somebody who fails over.
    pub(crate) fn is_offered(&self, ordinal: u64) {
        let mut seen = self.seen();
        if ordinal < seen.acknowledged {
            let acknowledged = seen.acknowledged;
            seen.wrong.push(format!(
                "point {acknowledged} was acknowledged, {ordinal} is the newest to start from"
            ));
        }
    }

    /// Somebody fails the VM over to this host, from the point of this moment: the only time that anything may be lost.
    pub(crate) fn is_failed_over(&self, host: usize, moment: Content, ordinal: u64) {
        self.seen().failed_over = Some((host, moment, ordinal));
    }

    /// A failover was cancelled: the VM starts on this host next, as it was there, and what it wrote on the other is given up.
    pub(crate) fn is_given_back(&self, host: usize) {
        let mut seen = self.seen();
        if let Some((content, acknowledged)) = seen.left[host].clone() {
            seen.failed_over = Some((host, content, acknowledged));
        }
    }

    /// That was refused.
    pub(crate) fn is_not_failed_over(&self) {
        self.seen().failed_over = None;
    }

    /// A host is in this epoch.
    pub(crate) fn is_in(&self, host: usize, epoch: Epoch) {
        let mut seen = self.seen();
        if let Some(before) = seen.epochs[host].filter(|before| *before > epoch) {
            seen.wrong.push(format!("host {} went from epoch {before} back to {epoch}", host + 1));
        }
        seen.epochs[host] = Some(epoch);
    }

    /// A primary of this epoch lists this recovery point as safe. What one that was overtaken lists was given up by whoever took
    /// over.
    pub(crate) fn is_acknowledged(&self, epoch: Epoch, ordinal: u64) {
        let mut seen = self.seen();
        if seen.epochs.iter().flatten().all(|other| *other <= epoch) {
            seen.acknowledged = seen.acknowledged.max(ordinal);
        }
    }
}

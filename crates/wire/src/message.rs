//! The control messages between two daemons: one request, one answer, as JSON.
//!
//! Every request about a relationship carries its epoch; a host that knows a higher one refuses it. Every request is
//! idempotent: repeated, it is answered as the first time. The forms here are the wire's own (see [`form`]); the types
//! of `domain` and `choreography` never meet JSON. Unknown fields are refused: a newer daemon must negotiate first.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub mod form;

use crate::digests::DigestsForm;
use form::{CheckForm, DivergenceForm, EntryForm, OperationForm, OptionsForm, PointForm, SettingsForm};

/// What one daemon asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Who are you, and what time is it?
    Hello {},
    /// Could you run this VM? Nothing is changed.
    Survey {
        /// What the VM needs.
        requirements: Requirements,
    },
    /// Become the replica of this VM.
    Enable {
        /// Id of the new relationship.
        relationship: Uuid,
        /// The epoch in which it is born.
        epoch: u64,
        /// What the operator chose.
        settings: SettingsForm,
        /// What the VM needs.
        requirements: Requirements,
        /// Existing copies of disks on the asked host, as (target, file).
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        seeds: Vec<(String, String)>,
    },
    /// What do you believe about this relationship? Asked before any byte moves.
    Beliefs {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// A delta that broke and could go on: how far is it? Asking ends a transfer of it that still hangs.
        unfinished: Option<Unfinished>,
        /// The asking side is primary in its epoch: a primary in a lower one learns that it was overtaken.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_primary: bool,
    },
    /// The primary's settings and pause state changed.
    Settings {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// All settings.
        settings: SettingsForm,
    },
    /// Cycles are held (or no longer held) on the asking side.
    Paused {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// Held or not.
        paused: bool,
    },
    /// Relayed from the replica's command line: begin a planned failover.
    PlanFailover {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// What the operator chose.
        options: OptionsForm,
        /// Who asked.
        requested_by: String,
        /// Only show the plan.
        dry_run: bool,
    },
    /// A handover begins; other operations wait.
    Announce {
        /// The operation.
        operation: OperationForm,
        /// Its journal so far.
        entries: Vec<EntryForm>,
    },
    /// Promise to refuse a late hand over of this operation, or say that it happened.
    Abandon {
        /// Which operation.
        operation: Uuid,
        /// Of which relationship.
        relationship: Uuid,
    },
    /// Take the VM over: the point of no return.
    HandOver {
        /// The operation.
        operation: OperationForm,
        /// Its journal so far.
        entries: Vec<EntryForm>,
        /// The head that both sides must have.
        head: PointForm,
    },
    /// Become the replica of the VM that you handed over.
    Reverse {
        /// Which relationship.
        relationship: Uuid,
        /// The new primary's epoch.
        epoch: u64,
        /// The common base.
        head: PointForm,
        /// All settings; must equal the original ones.
        settings: SettingsForm,
        /// Only say whether you would.
        #[serde(default)]
        dry_run: bool,
    },
    /// My journal of this operation; what does yours say?
    News {
        /// Which operation.
        operation: Uuid,
        /// Lines that the asked side may not have.
        entries: Vec<EntryForm>,
    },
    /// The relationship ends.
    Remove {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// Delete the replica's files too.
        delete_replica: bool,
    },
    /// Which recovery points do you hold?
    Points {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
    },
    /// Relayed from the primary's command line: drop a recovery point.
    RemovePoint {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// Which point.
        point: Uuid,
        /// Only say whether it could be dropped.
        dry_run: bool,
    },
    /// How much have you to merge before the VM can come home to its own disk?
    LeftToMerge {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
    },
    /// Digests of what your head holds in a range of a disk, block by block.
    Digests {
        /// Which relationship.
        relationship: Uuid,
        /// The asking side's epoch.
        epoch: u64,
        /// The newest recovery point that is meant; none: there is only a base.
        point: Option<Uuid>,
        /// Target of the disk.
        disk: String,
        /// First byte; a multiple of the length of a block.
        offset: u64,
        /// Bytes; whole blocks, except at the end of the disk.
        length: u64,
    },
    /// I have verified your copy, and it differs: your points up to this one are not known to be right.
    Doubt {
        /// Which relationship.
        relationship: Uuid,
        /// The primary's epoch.
        epoch: u64,
        /// Place in the order of points of the newest that is meant.
        ordinal: u64,
        /// What was found, for people.
        what: String,
    },
    /// So many bytes wait here to be replicated.
    Pending {
        /// Which relationship.
        relationship: Uuid,
        /// The primary's epoch.
        epoch: u64,
        /// Bytes of guest data that changed since the newest recovery point.
        bytes: u64,
    },
    /// Show me a part of your host, for the screen of a person here.
    View(View),
}

/// What a host asks to be shown of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Which part.
    pub of: ViewOf,
    /// Of a list: the page behind this one, in the words of the host that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Of a list: at most so many entries.
    pub limit: u32,
    /// Of events and operations: those of this VM, by its name, UUID or relationship.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// Of events: those after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// The parts of a host that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewOf {
    /// The host itself.
    Host,
    /// Its VMs, as far as they are replicated with the asking side.
    Vms,
    /// The relationships with the asking side.
    Relationships,
    /// The operations of those.
    Operations,
    /// The events of those.
    Events,
}

/// What the asked daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// To `Hello`.
    Hello {
        /// The host's id.
        host: Uuid,
        /// Its name.
        name: String,
        /// Version of its daemon.
        version: String,
        /// Its clock, milliseconds since 1970.
        clock_ms: u64,
    },
    /// To `Survey`.
    Survey {
        /// Every prerequisite that only the asked host can judge.
        checks: Vec<CheckForm>,
    },
    /// To `Beliefs`.
    Beliefs(Box<Beliefs>),
    /// To `PlanFailover` and `View`: the local API's own JSON.
    Relayed {
        /// JSON text.
        json: String,
    },
    /// To `Abandon`.
    Abandon {
        /// The hand over happened before; the promise cannot be given.
        already_handed_over: bool,
    },
    /// To `HandOver`.
    HandOver {
        /// The asked side's journal, with the hand over in it.
        entries: Vec<EntryForm>,
    },
    /// To `News`.
    News {
        /// The asked side's journal.
        entries: Vec<EntryForm>,
    },
    /// To everything else.
    Done {},
    /// To `LeftToMerge`.
    LeftToMerge {
        /// Layers that are to be merged yet.
        layers: usize,
        /// Why that does not go on.
        failure: Option<String>,
    },
    /// To `Digests`.
    Digests(DigestsForm),
}

/// What a side believes about a relationship.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beliefs {
    /// Its epoch.
    pub epoch: u64,
    /// Its phase, in words for people.
    pub phase: String,
    /// Whether it would receive a delta now.
    pub receives: bool,
    /// Cycles are held by an operator on this side.
    pub paused: bool,
    /// The newest recovery point.
    pub head: Option<PointForm>,
    /// A delta that was begun and broke: where it goes on.
    pub partial: Option<Partial>,
    /// It is primary in its epoch. A host of before does not say, and is believed only when it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_primary: Option<bool>,
    /// Whether the VM runs there; none: it did not look, or libvirt did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_runs: Option<bool>,
    /// Where its disks differ from its newest recovery point: the next delta covers that too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<DivergenceForm>,
    /// It has no recovery point, but a base: an existing copy of the disks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seeded: bool,
    /// Replicated disks that its newest recovery point does not have: they travel whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    /// The relationship has ended there: this is what it was last. A host of before answers `not-found` instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// A delta that the primary could go on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    /// The point that it would become.
    pub point: Uuid,
    /// Its place in the order of points.
    pub ordinal: u64,
}

/// A delta that the replica holds in part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partial {
    /// The point that it would become.
    pub point: Uuid,
    /// Index of the disk that is being written, in the order of the delta's header.
    pub disk: u16,
    /// Everything of that disk before this offset has arrived.
    pub offset: u64,
    /// Digest over the frames that have arrived, hexadecimal.
    pub digest: String,
    /// Bytes of disk content that have arrived in data frames.
    pub data_bytes: u64,
}

/// What a VM needs of a host that is to run it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    /// The VM's UUID.
    pub vm: Uuid,
    /// Its name.
    pub name: String,
    /// Its inactive definition.
    pub domain_xml: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Every disk with its virtual size in bytes and the bytes that its file takes.
    pub disks: Vec<DiskRequirement>,
    /// Names of bridges, already mapped for the asked host.
    pub bridges: Vec<String>,
    /// Names of libvirt networks, already mapped for the asked host.
    pub networks: Vec<String>,
    /// The relationship that the asked host already has for this VM, if any.
    pub relationship: Option<Uuid>,
}

/// One disk of a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskRequirement {
    /// Target name.
    pub target: String,
    /// Size that the guest sees, bytes.
    pub virtual_size: u64,
    /// Bytes that will be copied at first; unknown before the map is read.
    pub allocated_bytes: Option<u64>,
    /// Copied, or present and empty.
    pub replicated: bool,
}

#[cfg(test)]
mod tests {
    use super::Beliefs;

    #[test]
    fn beliefs_of_a_daemon_of_before_are_read_and_those_of_a_living_relationship_are_read_by_it() {
        let before =
            r#"{"epoch":3,"phase":"Receiving","receives":true,"paused":false,"head":null,"partial":null}"#;
        let read: Beliefs = serde_json::from_str(before).expect("the fields of before");
        assert!(!read.ended && read.is_primary.is_none());
        assert_eq!(
            serde_json::to_string(&read).expect("text"),
            before,
            "a field that it does not know is refused"
        );
        let ended = serde_json::to_string(&Beliefs { ended: true, ..read.clone() }).expect("text");
        assert_eq!(serde_json::from_str::<Beliefs>(&ended).expect("read"), Beliefs { ended: true, ..read });
    }
}

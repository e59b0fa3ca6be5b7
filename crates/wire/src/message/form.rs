//! How the words of `domain` and `choreography` look on the wire, and the way back, which distrusts every value.

use std::collections::BTreeSet;
use std::time::Duration;

use choreography::{Entry, Mark, Operation, Options, Outcome, Procedure, Side, Step};
use domain::divergence::Pieces;
use domain::retention::TAG_CHARS_MAX;
use domain::{
    Check, CheckName, Comparing, Compression, Consistency, DiskChoice, DiskTarget, Divergence, Epoch,
    Frequency, HostId, Lineage, NewDisks, OperationId, PointId, RecoveryPoint, RelationshipId, Resynchronize,
    Retention, Settings, Settlement, Thresholds, Timestamp, Verdict,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Most disks of a VM that a peer may name; libvirt's buses allow more, and nobody has them.
pub const DISKS_MAX: usize = 64;
/// Most pairs of a map of networks that a peer may send.
pub const NETWORKS_MAX: usize = 64;

/// Counting reaches no higher place in the order of points, and a database holds none.
pub const ORDINAL_MAX: u64 = i64::MAX as u64;

/// A value from the other host that makes no sense here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the other host sent {field} = {value:?}, which this daemon does not understand; compare `virt-replica --version` on both hosts"
)]
pub struct Nonsense {
    /// Which field.
    pub field: &'static str,
    /// What it held.
    pub value: String,
}

fn nonsense(field: &'static str, value: impl ToString) -> Nonsense {
    Nonsense { field, value: value.to_string().chars().take(200).collect() }
}

/// [`Settings`] on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsForm {
    /// Seconds between cycles.
    pub frequency_s: u64,
    /// `on`, `off` or `adaptive`.
    pub compression: String,
    /// Target and whether it is replicated, in order.
    pub disks: Vec<(String, bool)>,
    /// Bytes per second.
    pub rate_limit_bytes_per_second: Option<u64>,
    /// Pairs of names.
    pub network_map: Vec<(String, String)>,
    /// Percent.
    pub missed_cycles_percent_max: u8,
    /// Seconds.
    pub last_synchronized_age_max_s: u64,
    /// Seconds.
    pub average_latency_max_s: u64,
    /// Seconds.
    pub monitoring_interval_s: u64,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill_every_s: Option<u64>,
    /// As an operator writes it; none: latest only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_consistent_every_s: Option<u64>,
    /// When a resynchronization begins, in words; none: automatic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resynchronize: Option<String>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_every_s: Option<u64>,
    /// A disk that is added to the VM waits for a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_disks_wait: bool,
}

impl From<&Settings> for SettingsForm {
    fn from(settings: &Settings) -> Self {
        let compression = match settings.compression {
            Compression::On => "on",
            Compression::Off => "off",
            Compression::Adaptive => "adaptive",
        };
        let replicated = |(target, choice): &(DiskTarget, DiskChoice)| {
            (target.as_str().to_owned(), *choice == DiskChoice::Replicated)
        };
        SettingsForm {
            frequency_s: settings.frequency.seconds(),
            compression: compression.to_owned(),
            disks: settings.disks.iter().map(replicated).collect(),
            rate_limit_bytes_per_second: settings.rate_limit_bytes_per_second,
            network_map: settings.network_map.clone(),
            missed_cycles_percent_max: settings.thresholds.missed_cycles_percent_max,
            last_synchronized_age_max_s: settings.thresholds.last_synchronized_age_max.as_secs(),
            average_latency_max_s: settings.thresholds.average_latency_max.as_secs(),
            monitoring_interval_s: settings.thresholds.monitoring_interval.as_secs(),
            drill_every_s: settings.drill_every.map(|every| every.as_secs()),
            retention: (settings.retention != Retention::default()).then(|| settings.retention.to_string()),
            application_consistent_every_s: settings
                .application_consistent_every
                .map(|every| every.as_secs()),
            resynchronize: (settings.comparing.resynchronize != Resynchronize::Automatic)
                .then(|| settings.comparing.resynchronize.to_string()),
            verify_every_s: settings.comparing.verify_every.map(|every| every.as_secs()),
            new_disks_wait: settings.new_disks == NewDisks::Warn,
        }
    }
}

/// Refuses what a peer names of disks when it is too much, or one of them comes twice.
pub fn expect_few_disks<'a>(targets: impl IntoIterator<Item = &'a str>) -> Result<(), Nonsense> {
    let mut seen = BTreeSet::new();
    for target in targets {
        if !seen.insert(target) {
            return Err(nonsense("disks", format!("{target} twice")));
        }
        if seen.len() > DISKS_MAX {
            return Err(nonsense("disks", format!("more than {DISKS_MAX}")));
        }
    }
    Ok(())
}

impl SettingsForm {
    /// The settings that a peer sends. What this host keeps itself is read without these limits: it was judged when it came.
    pub fn from_peer(self) -> Result<Settings, Nonsense> {
        expect_few_disks(self.disks.iter().map(|(target, _)| target.as_str()))?;
        if self.network_map.len() > NETWORKS_MAX {
            return Err(nonsense("network_map", format!("{} pairs", self.network_map.len())));
        }
        Settings::try_from(self)
    }
}

impl TryFrom<SettingsForm> for Settings {
    type Error = Nonsense;
    fn try_from(form: SettingsForm) -> Result<Self, Nonsense> {
        let compression = match form.compression.as_str() {
            "on" => Compression::On,
            "off" => Compression::Off,
            "adaptive" => Compression::Adaptive,
            other => return Err(nonsense("compression", other)),
        };
        let disk = |(target, replicated): (String, bool)| {
            let choice = if replicated { DiskChoice::Replicated } else { DiskChoice::Excluded };
            DiskTarget::new(&target).map(|target| (target, choice)).map_err(|_| nonsense("disk", target))
        };
        Ok(Settings {
            frequency: Frequency::from_seconds(form.frequency_s)
                .map_err(|_| nonsense("frequency_s", form.frequency_s))?,
            compression,
            disks: form.disks.into_iter().map(disk).collect::<Result<_, _>>()?,
            rate_limit_bytes_per_second: form.rate_limit_bytes_per_second,
            network_map: form.network_map,
            thresholds: Thresholds {
                missed_cycles_percent_max: form.missed_cycles_percent_max,
                last_synchronized_age_max: Duration::from_secs(form.last_synchronized_age_max_s),
                average_latency_max: Duration::from_secs(form.average_latency_max_s),
                monitoring_interval: Duration::from_secs(form.monitoring_interval_s),
            },
            drill_every: form.drill_every_s.map(Duration::from_secs),
            retention: match form.retention {
                Some(text) => text.parse().map_err(|_| nonsense("retention", text))?,
                None => Retention::default(),
            },
            application_consistent_every: form.application_consistent_every_s.map(Duration::from_secs),
            comparing: Comparing {
                resynchronize: form.resynchronize.map_or(Ok(Resynchronize::Automatic), |text| {
                    text.parse().map_err(|_| nonsense("resynchronize", text))
                })?,
                verify_every: form.verify_every_s.map(Duration::from_secs),
            },
            new_disks: if form.new_disks_wait { NewDisks::Warn } else { NewDisks::Replicate },
        })
    }
}

/// [`Divergence`] on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DivergenceForm {
    /// The common recovery point.
    pub since: Uuid,
    /// When the old primary stepped down, by its own clock.
    pub at_ms: u64,
    /// Target and pieces as (offset, length) in bytes; no pieces: not known.
    pub disks: Vec<(String, Option<Pieces>)>,
    /// The point whose delta has covered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Uuid>,
}

impl DivergenceForm {
    /// Most pieces that are told of one disk.
    pub const PIECES_MAX: usize = 16_384;
}

impl From<&Divergence> for DivergenceForm {
    fn from(divergence: &Divergence) -> Self {
        let disks = divergence.disks.iter().map(|(target, pieces)| (target.to_string(), pieces.clone()));
        DivergenceForm {
            since: divergence.since.0,
            at_ms: divergence.at.millis(),
            disks: disks.collect(),
            covered_by: divergence.covered_by.map(|point| point.0),
        }
    }
}

impl TryFrom<DivergenceForm> for Divergence {
    type Error = Nonsense;
    fn try_from(form: DivergenceForm) -> Result<Self, Nonsense> {
        let disk = |(target, pieces): (String, Option<Pieces>)| {
            let orderly = |pieces: &Pieces| {
                let ends = |(offset, length): &(u64, u64)| offset.checked_add(*length);
                pieces.iter().all(|piece| piece.1 > 0 && ends(piece).is_some())
                    && pieces.windows(2).all(|pair| ends(&pair[0]) <= Some(pair[1].0))
            };
            if pieces.as_ref().is_some_and(|pieces| !orderly(pieces)) {
                return Err(nonsense("divergence", target));
            }
            Ok((DiskTarget::new(&target).map_err(|_| nonsense("disk", target))?, pieces))
        };
        Ok(Divergence {
            since: PointId(form.since),
            at: Timestamp(form.at_ms),
            disks: form.disks.into_iter().map(disk).collect::<Result<_, _>>()?,
            covered_by: form.covered_by.map(PointId),
        })
    }
}

/// [`RecoveryPoint`] on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // field by field the same as RecoveryPoint
pub struct PointForm {
    pub id: Uuid,
    pub parent: Option<Uuid>,
    pub ordinal: u64,
    pub epoch: u64,
    pub instant_ms: u64,
    pub consistency: String,
    pub lineage: String,
    pub delta_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// A tag from outside: short, and one line.
#[must_use]
pub fn tag_from(tag: Option<String>) -> Option<String> {
    tag.map(|tag| tag.chars().filter(|it| !it.is_control()).take(TAG_CHARS_MAX).collect())
}

/// The name of a consistency on the wire and in manifests.
#[must_use]
pub fn consistency_name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Crash => "crash",
        Consistency::FileSystem => "file-system",
        Consistency::Application => "application",
        Consistency::PoweredOff => "powered-off",
    }
}

/// Reads what [`consistency_name`] wrote.
pub fn consistency_from_name(name: &str) -> Result<Consistency, Nonsense> {
    match name {
        "crash" => Ok(Consistency::Crash),
        "file-system" => Ok(Consistency::FileSystem),
        "application" => Ok(Consistency::Application),
        "powered-off" => Ok(Consistency::PoweredOff),
        other => Err(nonsense("consistency", other)),
    }
}

impl From<&RecoveryPoint> for PointForm {
    fn from(point: &RecoveryPoint) -> Self {
        PointForm {
            id: point.id.0,
            parent: point.parent.map(|id| id.0),
            ordinal: point.ordinal,
            epoch: point.epoch.number(),
            instant_ms: point.instant.millis(),
            consistency: consistency_name(point.consistency).to_owned(),
            lineage: point.lineage.to_hex(),
            delta_bytes: point.delta_bytes,
            tag: point.tag.clone(),
        }
    }
}

impl TryFrom<PointForm> for RecoveryPoint {
    type Error = Nonsense;
    fn try_from(form: PointForm) -> Result<Self, Nonsense> {
        if form.ordinal >= ORDINAL_MAX {
            return Err(nonsense("ordinal", form.ordinal));
        }
        Ok(RecoveryPoint {
            id: PointId(form.id),
            parent: form.parent.map(PointId),
            ordinal: form.ordinal,
            epoch: Epoch::new(form.epoch).ok_or_else(|| nonsense("epoch", form.epoch))?,
            instant: Timestamp(form.instant_ms),
            consistency: consistency_from_name(&form.consistency)?,
            lineage: Lineage::from_hex(&form.lineage).ok_or_else(|| nonsense("lineage", &form.lineage))?,
            delta_bytes: form.delta_bytes,
            tag: tag_from(form.tag),
        })
    }
}

/// [`Options`] on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // field by field the same as Options
pub struct OptionsForm {
    pub reverse: bool,
    pub start: bool,
    pub shutdown_timeout_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Uuid>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_after_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_back_after_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boots_within_s: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl From<&Options> for OptionsForm {
    fn from(options: &Options) -> Self {
        let after = |wanted| {
            options
                .commit_timer
                .filter(|(settlement, _)| *settlement == wanted)
                .map(|(_, after)| after.as_secs())
        };
        OptionsForm {
            reverse: options.reverse,
            start: options.start,
            shutdown_timeout_s: options.shutdown_timeout.as_secs(),
            point: options.point.map(|point| point.0),
            destroy: options.destroy,
            complete_after_s: after(Settlement::Complete),
            roll_back_after_s: after(Settlement::RollBack),
            boots_within_s: options.roll_back_unless_boots.map(|within| within.as_secs()),
            force: options.force,
        }
    }
}

impl From<OptionsForm> for Options {
    fn from(form: OptionsForm) -> Self {
        let after = |settlement, after: Option<u64>| after.map(|it| (settlement, Duration::from_secs(it)));
        Options {
            reverse: form.reverse,
            start: form.start,
            shutdown_timeout: Duration::from_secs(form.shutdown_timeout_s),
            point: form.point.map(PointId),
            destroy: form.destroy,
            commit_timer: after(Settlement::Complete, form.complete_after_s)
                .or(after(Settlement::RollBack, form.roll_back_after_s)),
            roll_back_unless_boots: form.boots_within_s.map(Duration::from_secs),
            force: form.force,
        }
    }
}

/// [`Operation`] on the wire; the reader's side is always the new primary's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // field by field the same as Operation
pub struct OperationForm {
    pub id: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub procedure: Option<String>,
    pub relationship: Uuid,
    pub old_primary: Uuid,
    pub proposed_epoch: u64,
    pub options: OptionsForm,
    pub requested_by: String,
    pub begun_ms: u64,
}

impl From<&Operation> for OperationForm {
    fn from(operation: &Operation) -> Self {
        OperationForm {
            id: operation.id.0,
            procedure: operation.procedure.is_solitary().then(|| operation.procedure.name().to_owned()),
            relationship: operation.relationship.0,
            old_primary: operation.old_primary.0,
            proposed_epoch: operation.proposed_epoch.number(),
            options: OptionsForm::from(&operation.options),
            requested_by: operation.requested_by.clone(),
            begun_ms: operation.begun.millis(),
        }
    }
}

impl OperationForm {
    /// The operation that the old primary announces or hands over. What one host does alone is begun there by a person, never by the
    /// other host, and of the options only those of a planned failover count.
    pub fn from_old_primary(self, peer: HostId) -> Result<Operation, Nonsense> {
        let operation = self.into_new_primary()?;
        if operation.procedure.is_solitary() {
            return Err(nonsense("procedure", operation.procedure.name()));
        }
        if operation.old_primary != peer {
            return Err(nonsense("old_primary", operation.old_primary));
        }
        Ok(Operation { options: operation.options.of_both_hosts(), ..operation })
    }

    /// The operation as the new primary keeps it; as this host wrote it.
    pub fn into_new_primary(self) -> Result<Operation, Nonsense> {
        let procedure = match self.procedure.as_deref() {
            None => Procedure::PlannedFailover,
            Some(name) => Procedure::from_name(name).ok_or_else(|| nonsense("procedure", name))?,
        };
        Ok(Operation {
            id: OperationId(self.id),
            procedure,
            relationship: RelationshipId(self.relationship),
            old_primary: HostId(self.old_primary),
            side: Side::NewPrimary,
            proposed_epoch: Epoch::new(self.proposed_epoch)
                .ok_or_else(|| nonsense("proposed_epoch", self.proposed_epoch))?,
            options: Options::from(self.options),
            requested_by: self.requested_by.chars().take(200).collect(),
            begun: Timestamp(self.begun_ms),
        })
    }
}

/// One line of a journal on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryForm {
    /// Milliseconds since 1970, by the writer's clock.
    pub at_ms: u64,
    /// Who wrote it.
    pub host: Uuid,
    /// `intent`, `done`, `skipped`, `failed`, `cancel`, `undone`, `completed`, `all-undone`, `given-up`, `all-given-up`.
    pub mark: String,
    /// The step's name, for marks of steps.
    pub step: Option<String>,
    /// Evidence or reason.
    pub text: String,
}

impl From<&Entry> for EntryForm {
    fn from(entry: &Entry) -> Self {
        let (mark, step, text) = match &entry.mark {
            Mark::Intent(step) => ("intent", Some(step), ""),
            Mark::Done(step, text) => ("done", Some(step), text.as_str()),
            Mark::Skipped(step, text) => ("skipped", Some(step), text.as_str()),
            Mark::Failed(step, text) => ("failed", Some(step), text.as_str()),
            Mark::Cancel(text) => ("cancel", None, text.as_str()),
            Mark::Undone(step) => ("undone", Some(step), ""),
            Mark::Ended(Outcome::Completed) => ("completed", None, ""),
            Mark::Ended(Outcome::Undone) => ("all-undone", None, ""),
            Mark::GivenUp(text) => ("given-up", None, text.as_str()),
            Mark::Ended(Outcome::GivenUp) => ("all-given-up", None, ""),
        };
        EntryForm {
            at_ms: entry.at.millis(),
            host: entry.host.0,
            mark: mark.to_owned(),
            step: step.map(|step| step.name().to_owned()),
            text: text.to_owned(),
        }
    }
}

impl TryFrom<EntryForm> for Entry {
    type Error = Nonsense;
    fn try_from(form: EntryForm) -> Result<Self, Nonsense> {
        let step = || {
            let name = form.step.as_deref().unwrap_or_default();
            Step::from_name(name).ok_or_else(|| nonsense("step", name))
        };
        let text: String = form.text.chars().take(4096).collect();
        let mark = match form.mark.as_str() {
            "intent" => Mark::Intent(step()?),
            "done" => Mark::Done(step()?, text),
            "skipped" => Mark::Skipped(step()?, text),
            "failed" => Mark::Failed(step()?, text),
            "cancel" => Mark::Cancel(text),
            "undone" => Mark::Undone(step()?),
            "completed" => Mark::Ended(Outcome::Completed),
            "all-undone" => Mark::Ended(Outcome::Undone),
            "given-up" => Mark::GivenUp(text),
            "all-given-up" => Mark::Ended(Outcome::GivenUp),
            other => return Err(nonsense("mark", other)),
        };
        Ok(Entry { at: Timestamp(form.at_ms), host: HostId(form.host), mark })
    }
}

/// [`Check`] on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckForm {
    /// The check's words: its name between daemons of different versions.
    pub name: String,
    /// What was found and what cures it; none: it holds.
    pub failure: Option<(String, String)>,
}

impl From<&Check> for CheckForm {
    fn from(check: &Check) -> Self {
        let failure = match &check.verdict {
            Verdict::Pass => None,
            Verdict::Fail { found, cure } => Some((found.clone(), cure.clone())),
        };
        CheckForm { name: check.name.words().to_owned(), failure }
    }
}

impl TryFrom<CheckForm> for Check {
    type Error = Nonsense;
    fn try_from(form: CheckForm) -> Result<Self, Nonsense> {
        let name = CheckName::ALL
            .into_iter()
            .find(|name| name.words() == form.name)
            .ok_or_else(|| nonsense("check", &form.name))?;
        Ok(match form.failure {
            None => Check::pass(name),
            Some((found, cure)) => Check::fail(name, found, cure),
        })
    }
}

#[cfg(test)]
mod tests;

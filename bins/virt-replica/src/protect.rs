//! `enable`, `set`, `pause`, `resume`, `remove`: the life of a relationship but for its handovers.

use std::path::PathBuf;

use api::dto::{
    Compression, DiskSelection, Drills, EnableRequest, FreezeEvery, NewDisks, RateLimit, RemoveRequest,
    ReplicaFate, SettingsChange, ThresholdsChange,
};
use api::{Code, Problem};
use clap::{Args, ValueEnum};

use crate::change::{Consent, carry_out, finish};
use crate::parse::{self, Start};
use crate::render;
use crate::session::{Ending, Session};

/// Compression as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CompressionWord {
    /// Always
    On,
    /// Never
    Off,
    /// When the link is slower than the compressor
    Adaptive,
}

impl From<CompressionWord> for Compression {
    fn from(word: CompressionWord) -> Compression {
        match word {
            CompressionWord::On => Compression::On,
            CompressionWord::Off => Compression::Off,
            CompressionWord::Adaptive => Compression::Adaptive,
        }
    }
}

/// What becomes of a disk that is added to the VM, as it is typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum NewDisksWord {
    /// It is replicated by itself
    Replicate,
    /// Health warns until a person decides
    Warn,
}

impl From<NewDisksWord> for NewDisks {
    fn from(word: NewDisksWord) -> NewDisks {
        match word {
            NewDisksWord::Replicate => NewDisks::Replicate,
            NewDisksWord::Warn => NewDisks::Warn,
        }
    }
}

/// A verb with nothing but a VM.
#[derive(Args)]
pub struct OneVm {
    /// The VM's name, its UUID, or the relationship's id
    pub vm: String,
    #[command(flatten)]
    consent: Consent,
}

/// `enable`
#[derive(Args)]
pub struct Enable {
    /// The VM's name or UUID
    vm: String,
    /// The replica server: a peer's name or id
    #[arg(long, value_name = "HOST")]
    peer: String,
    /// Time between cycles: 30s, 5m, 15m, or any from 5s to 24h [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    frequency: Option<u64>,
    /// Replicate only these disks, by their target names, for example vda,vdb
    #[arg(long, value_name = "DISK", value_delimiter = ',', conflicts_with = "exclude_disk")]
    disks: Vec<String>,
    /// Do not replicate this disk: it will be empty on the replica server
    #[arg(long, value_name = "DISK", value_delimiter = ',')]
    exclude_disk: Vec<String>,
    /// When the first copy begins: now, 22:00, or "2026-11-30 22:00"
    #[arg(long, value_name = "WHEN", default_value = "now", value_parser = parse::start)]
    initial: Start,
    /// Compression on the wire [default: adaptive]
    #[arg(long, value_name = "HOW")]
    compression: Option<CompressionWord>,
    /// Upper limit of this VM's traffic, for example 50MiB/s
    #[arg(long, value_name = "SIZE/s", value_parser = parse::rate_limit)]
    rate_limit: Option<RateLimit>,
    /// A bridge or network that is called otherwise on the replica server; can be given several times
    #[arg(long, value_name = "HERE=THERE", value_parser = parse::pair)]
    network: Vec<(String, String)>,
    /// Which recovery points stay: latest, a number of hourly ones, or a grid such as 24x1h,7x1d [default: latest]
    #[arg(long, value_name = "POINTS", value_parser = parse::recovery_points)]
    recovery_points: Option<String>,
    /// Freeze the guest's file systems for a recovery point every so often, or never [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse::freeze_every)]
    application_consistent_every: Option<FreezeEvery>,
    /// Begin from an existing copy in the folder seeds of the replica server's storage: only what differs travels
    #[arg(long, value_name = "DISK=FILE", value_parser = parse::pair)]
    seed_from: Vec<(String, String)>,
    /// Write the first copy into this directory instead of sending it: it is carried by hand
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "seed_from")]
    export: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

impl Enable {
    fn request(&self) -> EnableRequest {
        let disks = match (self.disks.is_empty(), self.exclude_disk.is_empty()) {
            (false, _) => DiskSelection::Only(self.disks.clone()),
            (true, false) => DiskSelection::AllBut(self.exclude_disk.clone()),
            (true, true) => DiskSelection::All,
        };
        EnableRequest {
            vm: self.vm.clone(),
            peer: self.peer.clone(),
            frequency_seconds: self.frequency,
            disks,
            initial_at_ms: self.initial.at_ms(&jiff::Zoned::now()),
            compression: self.compression.map(Into::into),
            rate_limit_bytes_per_second: self.rate_limit.and_then(RateLimit::bytes_per_second),
            networks: self.network.clone(),
            recovery_points: self.recovery_points.clone(),
            application_consistent_every: self.application_consistent_every,
            seeds: self.seed_from.clone(),
            export: self.export.as_deref().map(parse::absolute),
        }
    }
}

/// Protects a VM.
pub async fn enable(session: &Session, args: Enable) -> Ending {
    let request = args.request();
    let question = format!("Replicate {} to {}?", args.vm, args.peer);
    let call = async |dry| session.client.enable(&request, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::enabled)
}

/// `set`
#[derive(Args)]
pub struct Set {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// Time between cycles: any from 5s to 24h
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    frequency: Option<u64>,
    /// Compression on the wire
    #[arg(long, value_name = "HOW")]
    compression: Option<CompressionWord>,
    /// Upper limit of this VM's traffic, for example 50MiB/s, or none
    #[arg(long, value_name = "SIZE/s", value_parser = parse::rate_limit)]
    rate_limit: Option<RateLimit>,
    /// Replace the map of bridges and networks; can be given several times
    #[arg(long, value_name = "HERE=THERE", value_parser = parse::pair)]
    network: Vec<(String, String)>,
    /// Warning above this share of missed cycles, percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    missed_cycles_max: Option<u8>,
    /// Warning when nothing was synchronized for this long
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    synchronized_age_max: Option<u64>,
    /// Warning above this average latency
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    latency_max: Option<u64>,
    /// The window over which cycles are counted
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    monitoring_interval: Option<u64>,
    /// Let the replica server make a test failover by itself every so often, or never
    #[arg(long, value_name = "TIME", value_parser = parse::drills)]
    drill_every: Option<Drills>,
    /// Which recovery points stay: latest, a number of hourly ones, or a grid such as 24x1h,7x1d
    #[arg(long, value_name = "POINTS", value_parser = parse::recovery_points)]
    recovery_points: Option<String>,
    /// Freeze the guest's file systems for a recovery point every so often, or never
    #[arg(long, value_name = "TIME", value_parser = parse::freeze_every)]
    application_consistent_every: Option<FreezeEvery>,
    /// When a resynchronization begins that is needed: automatic, manual, or "window 22:00-06:00"
    #[arg(long, value_name = "WHEN")]
    resynchronize: Option<String>,
    /// Prove every so often that the replica equals the VM's disks, or never
    #[arg(long, value_name = "TIME", value_parser = parse::drills)]
    verify_every: Option<Drills>,
    /// What becomes of a disk that is added to the VM
    #[arg(long, value_name = "HOW")]
    new_disks: Option<NewDisksWord>,
    /// Replicate this disk of the VM from now on, as it is now; can be given several times
    #[arg(long, value_name = "DISK")]
    add_disk: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

impl Set {
    fn change(&self) -> SettingsChange {
        SettingsChange {
            frequency_seconds: self.frequency,
            compression: self.compression.map(Into::into),
            rate_limit: self.rate_limit,
            networks: (!self.network.is_empty()).then(|| self.network.clone()),
            thresholds: ThresholdsChange {
                missed_cycles_percent_max: self.missed_cycles_max,
                last_synchronized_age_max_seconds: self.synchronized_age_max,
                average_latency_max_seconds: self.latency_max,
                monitoring_interval_seconds: self.monitoring_interval,
            },
            drills: self.drill_every,
            recovery_points: self.recovery_points.clone(),
            application_consistent_every: self.application_consistent_every,
            resynchronize: self.resynchronize.clone(),
            verifications: self.verify_every,
            new_disks: self.new_disks.map(Into::into),
            add_disks: self.add_disk.clone(),
        }
    }
}

/// Changes the settings of a relationship.
pub async fn set(session: &Session, args: Set) -> Ending {
    let change = args.change();
    if change == SettingsChange::default() {
        return Err(Problem::new(Code::Invalid, "Nothing to set", "no setting was given")
            .with_cure("virt-replica set --help"));
    }
    let question = format!("Change the settings of {}?", args.vm);
    let call = async |dry| session.client.change(&args.vm, &change, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::detail)
}

/// Holds replication.
pub async fn pause(session: &Session, args: OneVm) -> Ending {
    let question = format!("Pause replication of {}?", args.vm);
    let call = async |dry| session.client.pause(&args.vm, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::done)
}

/// Lets replication go on.
pub async fn resume(session: &Session, args: OneVm) -> Ending {
    let question = format!("Resume replication of {}?", args.vm);
    let call = async |dry| session.client.resume(&args.vm, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::done)
}

/// Puts raw disks behind wrappers.
pub async fn wrap(session: &Session, args: OneVm) -> Ending {
    let question = format!("Put the raw disks of {} behind wrappers?", args.vm);
    let call = async |dry| session.client.wrap_raw_disks(&args.vm, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::done)
}

/// Takes raw disks out of their wrappers.
pub async fn unwrap(session: &Session, args: OneVm) -> Ending {
    let question = format!("Put {} back on its raw disks?", args.vm);
    let call = async |dry| session.client.unwrap_raw_disks(&args.vm, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::done)
}

/// `remove`
#[derive(Args)]
pub struct Remove {
    /// The VM's name, its UUID, or the relationship's id
    vm: String,
    /// Keep the replica's files: they can be started by hand (this is the default)
    #[arg(long, conflicts_with = "delete_replica")]
    keep_replica: bool,
    /// Delete the replica's files and its definition
    #[arg(long)]
    delete_replica: bool,
    /// End it on this host only, because the other is lost for good; refused while the other answers
    #[arg(long)]
    this_host_only: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Remove {
    /// What the user owns is deleted only when asked for.
    fn request(&self) -> RemoveRequest {
        let replica = if self.delete_replica { ReplicaFate::Delete } else { ReplicaFate::Keep };
        RemoveRequest { replica, this_host_only: self.this_host_only }
    }
}

/// Ends a relationship.
pub async fn remove(session: &Session, args: Remove) -> Ending {
    let request = args.request();
    let question = format!("End the replication of {}?", args.vm);
    let call = async |dry| session.client.remove(&args.vm, &request, dry).await;
    finish(session, carry_out(session, args.consent, &question, call).await?, render::done)
}

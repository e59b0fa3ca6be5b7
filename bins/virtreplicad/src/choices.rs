//! From what an operator typed to the settings of a relationship.

use std::time::Duration;

use api::Problem;
use api::dto;
use domain::{Comparing, DiskChoice, DiskTarget, Frequency, Settings};

use crate::problems::invalid;

/// What happens to each disk of the VM; a disk that it does not have is named.
pub(crate) fn choose_disks(
    all: impl Iterator<Item = DiskTarget>,
    selection: &dto::DiskSelection,
) -> Result<Vec<(DiskTarget, DiskChoice)>, Problem> {
    let all: Vec<DiskTarget> = all.collect();
    let named = match selection {
        dto::DiskSelection::All => &Vec::new(),
        dto::DiskSelection::Only(named) | dto::DiskSelection::AllBut(named) => named,
    };
    if let Some(unknown) =
        named.iter().find(|name| !all.iter().any(|target| target.as_str() == name.as_str()))
    {
        let known: Vec<&str> = all.iter().map(DiskTarget::as_str).collect();
        return Err(invalid(format!("the VM has no disk {unknown:?}; it has {}", known.join(", "))));
    }
    let replicated = |target: &DiskTarget| {
        let is_named = named.iter().any(|name| name == target.as_str());
        match selection {
            dto::DiskSelection::All => true,
            dto::DiskSelection::Only(_) => is_named,
            dto::DiskSelection::AllBut(_) => !is_named,
        }
    };
    let choices: Vec<_> = all
        .into_iter()
        .map(|target| {
            let choice = if replicated(&target) { DiskChoice::Replicated } else { DiskChoice::Excluded };
            (target, choice)
        })
        .collect();
    if choices.iter().all(|(_, choice)| *choice == DiskChoice::Excluded) {
        return Err(invalid("no disk would be replicated"));
    }
    Ok(choices)
}

/// The settings with what the operator changed.
pub(crate) fn changed(settings: &Settings, change: &dto::SettingsChange) -> Result<Settings, Problem> {
    let mut settings = settings.clone();
    if let Some(seconds) = change.frequency_seconds {
        settings.frequency = Frequency::from_seconds(seconds).map_err(invalid)?;
    }
    if let Some(compression) = change.compression {
        settings.compression = compression.into();
    }
    if let Some(limit) = change.rate_limit {
        settings.rate_limit_bytes_per_second = limit.bytes_per_second();
    }
    if let Some(networks) = &change.networks {
        settings.network_map.clone_from(networks);
    }
    let thresholds = &mut settings.thresholds;
    if let Some(percent) = change.thresholds.missed_cycles_percent_max {
        thresholds.missed_cycles_percent_max = percent;
    }
    let seconds = |slot: &mut Duration, asked: Option<u64>| {
        if let Some(asked) = asked {
            *slot = Duration::from_secs(asked);
        }
    };
    seconds(&mut thresholds.last_synchronized_age_max, change.thresholds.last_synchronized_age_max_seconds);
    seconds(&mut thresholds.average_latency_max, change.thresholds.average_latency_max_seconds);
    seconds(&mut thresholds.monitoring_interval, change.thresholds.monitoring_interval_seconds);
    match change.drills {
        None => {}
        Some(dto::Drills::Never) => settings.drill_every = None,
        Some(dto::Drills::EverySeconds(asked)) => {
            let (every, least) = (Duration::from_secs(asked), Settings::DRILL_EVERY_MIN);
            if every < least {
                return Err(invalid(format!(
                    "a drill every {asked} s is not accepted: at least {} s",
                    least.as_secs()
                )));
            }
            settings.drill_every = Some(every);
        }
    }
    if let Some(text) = &change.recovery_points {
        settings.retention = text.parse().map_err(invalid)?;
    }
    if let Some(every) = change.application_consistent_every {
        settings.application_consistent_every = freeze_every(every)?;
    }
    if let Some(way) = &change.resynchronize {
        settings.comparing.resynchronize = way.parse().map_err(invalid)?;
    }
    match change.verifications {
        None => {}
        Some(dto::Drills::Never) => settings.comparing.verify_every = None,
        Some(dto::Drills::EverySeconds(asked)) => {
            let (every, least) = (Duration::from_secs(asked), Comparing::VERIFY_EVERY_MIN);
            if every < least {
                let least = least.as_secs();
                return Err(invalid(format!(
                    "a verification every {asked} s is not accepted: at least {least} s"
                )));
            }
            settings.comparing.verify_every = Some(every);
        }
    }
    if let Some(asked) = change.new_disks {
        settings.new_disks = asked.into();
    }
    Ok(settings)
}

/// Time between two application-consistent points; none: never.
pub(crate) fn freeze_every(asked: dto::FreezeEvery) -> Result<Option<Duration>, Problem> {
    let least = Settings::APPLICATION_CONSISTENT_EVERY_MIN;
    match asked {
        dto::FreezeEvery::Never => Ok(None),
        dto::FreezeEvery::Seconds(asked) if Duration::from_secs(asked) >= least => {
            Ok(Some(Duration::from_secs(asked)))
        }
        dto::FreezeEvery::Seconds(asked) => Err(invalid(format!(
            "an application-consistent recovery point every {asked} s is not accepted: at least {} s",
            least.as_secs()
        ))),
    }
}

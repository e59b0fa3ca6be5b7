//! `list` and `show`: View Replication Health.

use api::dto::{ComparisonView, InitialCopy, NewDisks, RelationshipDetail, RelationshipSummary, Statistics};
use api::units;

use super::table::{Cell, labelled, table};
use crate::screen::{Screen, printable};

/// The table of `list`.
pub fn relationships(screen: &Screen, relationships: &[RelationshipSummary]) -> String {
    if relationships.is_empty() {
        return "No VM is replicated. To protect one: virt-replica enable VM --peer HOST".to_owned();
    }
    let head = ["VM", "MODE", "STATE", "HEALTH", "PRIMARY", "REPLICA", "FREQUENCY", "LAST SYNCHRONIZED"];
    let rows = relationships.iter().map(|one| {
        [
            Cell::plain(&one.vm),
            Cell::plain(one.mode.words()),
            Cell::plain(state(one)),
            Cell::dressed(one.health.words(), |text| screen.by_health(one.health, text)),
            Cell::plain(&one.primary_server),
            Cell::plain(&one.replica_server),
            Cell::plain(units::interval(one.frequency_seconds)),
            Cell::plain(ago(screen, one.last_synchronized_at_ms)),
        ]
    });
    table(screen, head, rows.collect())
}

fn state(summary: &RelationshipSummary) -> String {
    if summary.paused { format!("{} (paused)", summary.state) } else { summary.state.clone() }
}

fn ago(screen: &Screen, at_ms: Option<u64>) -> String {
    match at_ms {
        Some(at) if at <= screen.now_ms => format!("{} ago", units::duration(screen.now_ms - at)),
        Some(at) => units::instant(at, &screen.zone),
        None => "never".to_owned(),
    }
}

/// The page of `show`.
pub fn detail(screen: &Screen, detail: &RelationshipDetail) -> String {
    let mut page = labelled(screen, &standing(screen, detail));
    for reason in &detail.reasons {
        let mark = screen.by_health(reason.severity, reason.severity.words());
        page.push_str(&format!("  {mark}: {}\n", printable(&reason.text)));
        if let Some(cure) = &reason.cure {
            page.push_str(&format!("      Fix: {}\n", printable(cure)));
        }
    }
    if let Some(copy) = &detail.initial_copy {
        page.push_str(&format!("\n{}\n  {}\n", screen.bold("Copy under way"), progress(copy)));
    }
    if let Some(comparison) = &detail.comparison {
        let title = if comparison.cause.is_some() { "Resynchronization" } else { "Verification" };
        page.push_str(&format!("\n{}\n{}", screen.bold(title), labelled(screen, &compared(comparison))));
    }
    page.push_str(&format!("\n{}\n{}", screen.bold("Cycles"), labelled(screen, &cycles(screen, detail))));
    page.push_str(&format!("\n{}\n{}", screen.bold("Settings"), labelled(screen, &settings(screen, detail))));
    page
}

fn compared(comparison: &ComparisonView) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if let Some(cause) = &comparison.cause {
        lines.push(("Cause", printable(cause)));
    }
    match (&comparison.waiting, comparison.total_bytes) {
        (Some(waiting), _) => lines.push(("Waiting", printable(waiting))),
        (None, Some(total)) => {
            let (done, differ) =
                (units::size(comparison.compared_bytes), units::size(comparison.differing_bytes));
            lines.push(("Compared", format!("{done} of {}, {differ} differ", units::size(total))));
        }
        (None, None) => {}
    }
    lines
}

fn standing(screen: &Screen, detail: &RelationshipDetail) -> Vec<(&'static str, String)> {
    let summary = &detail.summary;
    let mut lines = vec![
        ("VM", printable(&summary.vm)),
        ("Mode", summary.mode.words().to_owned()),
        ("State", printable(&state(summary))),
        ("Health", screen.by_health(summary.health, summary.health.words())),
        ("Primary server", printable(&summary.primary_server)),
        ("Replica server", printable(&summary.replica_server)),
        ("Frequency", units::interval(summary.frequency_seconds)),
        ("Last synchronized", last_synchronized(screen, summary)),
    ];
    if let Some(since) = detail.unprotected_since_ms {
        lines.push(("Unprotected since", screen.warn(&units::instant(since, &screen.zone))));
    }
    if let Some(id) = &summary.operation {
        lines.push(("Operation", format!("{id}  (virt-replica operation show {id})")));
    }
    lines
}

fn last_synchronized(screen: &Screen, summary: &RelationshipSummary) -> String {
    match summary.last_synchronized_at_ms {
        Some(at) => format!("{} ({})", units::instant(at, &screen.zone), ago(screen, Some(at))),
        None => "never".to_owned(),
    }
}

fn cycles(screen: &Screen, detail: &RelationshipDetail) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let sum: &Statistics = &detail.statistics;
    let average_of = |average: Option<String>, maximum: Option<String>| {
        format!("{} / {}", average.unwrap_or_else(unknown), maximum.unwrap_or_else(unknown))
    };
    let window = units::interval(detail.thresholds.monitoring_interval_seconds);
    vec![
        ("Successful", format!("{} of {} in the last {window}", sum.cycles_acknowledged, sum.cycles_due)),
        ("Missed", sum.cycles_missed.to_string()),
        (
            "Average / maximum size",
            average_of(sum.average_bytes.map(units::size), sum.maximum_bytes.map(units::size)),
        ),
        ("Average sent", sum.average_sent_bytes.map_or_else(unknown, units::size)),
        (
            "Average / maximum latency",
            average_of(
                sum.average_latency_ms.map(units::duration),
                sum.maximum_latency_ms.map(units::duration),
            ),
        ),
        ("Pending", detail.pending_bytes.map_or_else(unknown, units::size)),
        ("Next due", detail.next_due_at_ms.map_or_else(|| "none is due".to_owned(), |at| ahead(screen, at))),
    ]
}

fn ahead(screen: &Screen, at_ms: u64) -> String {
    let wait = match at_ms.checked_sub(screen.now_ms) {
        Some(millis) => format!("in {}", units::duration(millis)),
        None => "now".to_owned(),
    };
    format!("{} ({wait})", units::instant(at_ms, &screen.zone))
}

fn settings(screen: &Screen, detail: &RelationshipDetail) -> Vec<(&'static str, String)> {
    let disk = |replicated: bool| -> String {
        let disks = detail.disks.iter().filter(|disk| disk.replicated == replicated);
        let words: Vec<String> = disks
            .map(|disk| match disk.size_bytes {
                Some(size) => format!("{} ({})", printable(&disk.target), units::size(size)),
                None => printable(&disk.target),
            })
            .collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    };
    let limit = detail.rate_limit_bytes_per_second;
    let mut lines = vec![
        ("Disks", disk(true)),
        ("Excluded disks", disk(false)),
        ("Compression", detail.compression.words().to_owned()),
        ("Rate limit", limit.map_or_else(|| "none".to_owned(), |bytes| format!("{}/s", units::size(bytes)))),
    ];
    if let Some(every) = detail.drill_every_seconds {
        lines.push(("Drills", format!("every {}", units::interval(every))));
    }
    if let Some(way) = &detail.resynchronize {
        lines.push(("Resynchronization", printable(way)));
    }
    if let Some(every) = detail.verify_every_seconds {
        lines.push(("Verifications", format!("every {}", units::interval(every))));
    }
    if let Some(at) = detail.verified_at_ms {
        lines.push(("Verified", units::instant(at, &screen.zone)));
    }
    if !detail.networks.is_empty() {
        let pairs: Vec<String> = detail.networks.iter().map(|(a, b)| format!("{a}={b}")).collect();
        lines.push(("Networks", printable(&pairs.join(", "))));
    }
    lines.push(("Recovery points", printable(&recovery_points(&detail.recovery_points))));
    if let Some(every) = detail.application_consistent_every_seconds {
        lines.push(("Application-consistent", format!("every {}", units::interval(every))));
    }
    if detail.new_disks == NewDisks::Warn {
        lines.push(("Added disks", "wait for a person".to_owned()));
    }
    lines.extend(detail.chain.as_ref().map(|chain| ("Chain", super::chain(chain))));
    if let Some(head) = &detail.head {
        let at = units::instant(head.at_ms, &screen.zone);
        lines.push(("Recovery point", format!("{at}, {} ({})", printable(&head.consistency), head.id)));
    }
    if let Some(directory) = &detail.directory {
        lines.push(("Replica directory", printable(directory)));
    }
    lines.extend([
        ("VM UUID", detail.summary.vm_uuid.clone()),
        ("Relationship", format!("{}, epoch {}", detail.summary.id, detail.epoch)),
    ]);
    lines
}

/// Which recovery points stay, for people: a bare number means hourly ones.
fn recovery_points(text: &str) -> String {
    match text.parse::<u64>() {
        Ok(hours) => format!("the newest, and {hours} hourly ones"),
        Err(_) if text == "latest" => "the newest only".to_owned(),
        Err(_) => format!("the newest, and {text}"),
    }
}

/// How far a copy is: done, total, share, speed, time left.
fn progress(copy: &InitialCopy) -> String {
    let done = units::size(copy.bytes_done);
    let far = match copy.bytes_total {
        Some(total) if total > 0 => {
            let percent = u128::from(copy.bytes_done) * 100 / u128::from(total);
            format!("{done} of {} ({percent} %)", units::size(total))
        }
        _ => format!("{done}, total unknown"),
    };
    format!("{far}, {}", speed(copy))
}

/// Speed and time left of a copy.
pub fn speed(copy: &InitialCopy) -> String {
    let speed = copy
        .bytes_per_second
        .map_or_else(|| "speed unknown".to_owned(), |it| format!("{}/s", units::size(it)));
    let left = copy
        .time_left_ms()
        .map_or_else(|| "time left unknown".to_owned(), |it| format!("{} left", units::duration(it)));
    format!("{speed}, {left}")
}

/// After `enable` and `reverse`.
pub fn enabled(_: &Screen, summary: &RelationshipSummary) -> String {
    let word = api::vm_argument(&summary.vm);
    format!(
        "{} replicates from {} to {} every {}: {}.\nTo wait until it is protected: virt-replica wait {word}",
        printable(&summary.vm),
        printable(&summary.primary_server),
        printable(&summary.replica_server),
        units::interval(summary.frequency_seconds),
        printable(&summary.state),
    )
}

/// After `wait`.
pub fn protected(screen: &Screen, detail: &RelationshipDetail) -> String {
    format!(
        "{} is protected: health {}, last synchronized {}.",
        printable(&detail.summary.vm),
        screen.by_health(detail.summary.health, detail.summary.health.words()),
        ago(screen, detail.summary.last_synchronized_at_ms)
    )
}

//! From figures to rows: what was measured, the target, and whether it is met.

use lab::{FailoverFigures, Figures, MergeFigure, ReverseFigure};
use serde_json::{Value, json};

const INITIAL_COPY_RATIO_MAX: f64 = 1.3;
const CYCLE_SECONDS_MAX: f64 = 0.7;
const RESYNCHRONIZE_BLAKE3_RATIO_MAX: f64 = 1.5;
const RESYNCHRONIZE_RSYNC_RATIO_MAX: f64 = 0.7;
const FAILOVER_SECONDS_MAX: f64 = 2.0;
const READS_RATIO_MAX: f64 = 1.25;
const MERGE_RATIO_MAX: f64 = 1.0;
const REVERSE_RATIO_MAX: f64 = 2.0;
const HANDOVER_SECONDS_MAX: f64 = 2.5;
const MEMORY_MIB_MAX: f64 = 150.0;

const MIB: f64 = (1 << 20) as f64;

/// One row as JSON: `what`, `measured`, `target` (none: for comparison only), `unit`, `met`.
pub(super) fn rows(figures: &Figures) -> Vec<Value> {
    let copies = &figures.copies;
    let (ours, theirs) = (median(&copies.ours), median(&copies.nbdcopy));
    let speed = |seconds: f64| figures.data_bytes as f64 / MIB / seconds;
    let mut rows = vec![
        row(&format!("nbdcopy --flush, {:.0} MiB/s", speed(theirs)), theirs, None, "s"),
        row(&format!("initial copy, enable to acknowledged, {:.0} MiB/s", speed(ours)), ours, None, "s"),
        row("initial copy, the cycle alone", median(&copies.ours_cycle), None, "s"),
        row("initial copy against nbdcopy", ours / theirs, Some(INITIAL_COPY_RATIO_MAX), "×"),
    ];
    let cycles: Vec<f64> = figures.cycles.iter().map(|cycle| cycle.seconds).collect();
    let processor: Vec<f64> = figures
        .usage
        .iter()
        .filter(|it| it.disk_bytes == figures.disk_bytes)
        .map(|it| it.primary_cpu_seconds + it.replica_cpu_seconds + it.qemu_cpu_seconds)
        .collect();
    rows.push(row("initial copy, processor time of both daemons and QEMU", median(&processor), None, "s"));
    rows.push(row("nbdcopy, processor time with qemu-nbd", median(&copies.nbdcopy_cpu), None, "s"));
    if !cycles.is_empty() {
        rows.push(row("cycle with 1 % dirty", median(&cycles), Some(CYCLE_SECONDS_MAX), "s"));
    }
    if !figures.resynchronizations.is_empty() {
        let of = |figure: fn(&lab::ResynchronizeFigure) -> f64| {
            median(&figures.resynchronizations.iter().map(figure).collect::<Vec<_>>())
        };
        let (ours, rsync) = (of(|it| it.ours), of(|it| it.rsync));
        let (blake3, data) = (of(|it| it.blake3), of(|it| it.blake3_data));
        let against = |other: f64, max: f64, what: &str| row(what, ours / other, Some(max), "×");
        rows.push(row("resynchronization with 1 % different", ours, None, "s"));
        rows.push(row("BLAKE3 over both copies, at once", blake3, None, "s"));
        rows.push(row("BLAKE3 over the data of both copies, at once", data, None, "s"));
        rows.push(row("rsync --inplace --fsync of the same", rsync, None, "s"));
        rows.push(against(blake3, RESYNCHRONIZE_BLAKE3_RATIO_MAX, "resynchronization against BLAKE3"));
        rows.push(row("resynchronization against BLAKE3 over the data alone", ours / data, None, "×"));
        rows.push(against(rsync, RESYNCHRONIZE_RSYNC_RATIO_MAX, "resynchronization against rsync"));
    }
    rows.extend(of_merges(&figures.merges));
    rows.extend(figures.failover.iter().flat_map(of_failover));
    rows.extend(figures.reverse.iter().flat_map(of_reverse));
    for handover in &figures.handovers {
        let what = format!(
            "guest off to resumed, disk {:.0} GiB, {:.0} MiB left, from {}",
            handover.disk_bytes as f64 / MIB / 1024.0,
            handover.final_sync_bytes as f64 / MIB,
            handover.from
        );
        rows.push(row(&what, handover.seconds, Some(HANDOVER_SECONDS_MAX), "s"));
    }
    let mut disks: Vec<u64> = figures.usage.iter().map(|it| it.disk_bytes).collect();
    disks.dedup();
    for disk in disks {
        let copies = figures.usage.iter().filter(|it| it.disk_bytes == disk);
        let most =
            copies.fold((0, 0), |most, it| (most.0.max(it.primary_bytes), most.1.max(it.replica_bytes)));
        for (side, bytes) in [("primary", most.0), ("replica", most.1)] {
            let what = format!("memory of the {side}'s daemon, disk {:.0} GiB", disk as f64 / MIB / 1024.0);
            rows.push(row(&what, bytes as f64 / MIB, Some(MEMORY_MIB_MAX), "MiB"));
        }
    }
    rows.extend(figures.failures.iter().map(|it| failed(&it.part, &it.error)));
    rows
}

fn of_merges(merges: &[MergeFigure]) -> Vec<Value> {
    let of = |figure: fn(&MergeFigure) -> f64| median(&merges.iter().map(figure).collect::<Vec<_>>());
    let Some(first) = merges.first() else { return Vec::new() };
    let (ours, theirs) = (of(|it| it.ours), of(|it| it.qemu_img));
    let what = format!("merge of a layer of {:.0} MiB, with all its records", first.layer_bytes as f64 / MIB);
    vec![
        row(&what, ours, None, "s"),
        row("of it, the data", of(|it| it.ours_commit), None, "s"),
        row("qemu-img commit of the same", theirs, None, "s"),
        row("merge against qemu-img commit", ours / theirs, Some(MERGE_RATIO_MAX), "×"),
    ]
}

fn of_failover(figures: &FailoverFigures) -> Vec<Value> {
    let what = format!("failover, command to resumed, {} points", figures.points);
    let mut rows = vec![row(&what, figures.command_to_resumed, Some(FAILOVER_SECONDS_MAX), "s")];
    for (pattern, chain, flat) in &figures.reads {
        let what = format!("reads {pattern}, {} points against a flat image", figures.points);
        // As time: a speed of 0.8 takes 1.25 of the time.
        rows.push(row(&what, chain / flat, Some(READS_RATIO_MAX), "×"));
    }
    rows
}

fn of_reverse(figures: &ReverseFigure) -> Vec<Value> {
    let carried = |bytes: u64| bytes as f64 / MIB;
    let what =
        format!("reverse after a failover, 1 % on each side, {:.0} MiB", carried(figures.reverse_bytes));
    let reverse = row(&what, figures.reverse, None, "s");
    let what = format!("a cycle of as many blocks, {:.0} MiB", carried(figures.cycle_bytes));
    let cycle = row(&what, figures.cycle, None, "s");
    let ratio = figures.reverse / figures.cycle;
    vec![reverse, cycle, row("reverse against the cycle", ratio, Some(REVERSE_RATIO_MAX), "×")]
}

fn row(what: &str, measured: f64, target: Option<f64>, unit: &str) -> Value {
    let measured = (measured * 1000.0).round() / 1000.0;
    json!({ "what": what, "measured": measured, "target": target, "unit": unit, "met": target.map(|it| measured <= it) })
}

/// A part that gave no figure.
fn failed(part: &str, error: &str) -> Value {
    let error = error.lines().next().unwrap_or_default();
    json!({ "what": format!("FAILED: {part}: {error}"), "measured": null, "target": null, "unit": "", "met": false })
}

/// The middle one; of an even number the worse of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rows as a table that Markdown understands too.
pub(super) fn render(rows: &[Value]) -> String {
    let mut lines =
        vec![line(["what", "measured", "target", "met"]), line([&"-".repeat(68), "---:", "---:", "---"])];
    for row in rows {
        let number = |name: &str| {
            row[name].as_f64().map(|it| format!("{it:.2} {}", row["unit"].as_str().unwrap_or("")))
        };
        let met = row["met"].as_bool().map_or("", |met| if met { "yes" } else { "NO" });
        let cells = (number("measured").unwrap_or_default(), number("target").unwrap_or_default());
        lines.push(line([row["what"].as_str().unwrap_or_default(), &cells.0, &cells.1, met]));
    }
    lines.join("\n")
}

fn line([what, measured, target, met]: [&str; 4]) -> String {
    format!("| {what:<68} | {measured:>10} | {target:>10} | {met:<3} |")
}

#[cfg(test)]
mod tests {
    use super::{failed, median, render, row};

    #[test]
    fn the_median_of_an_even_number_is_not_flattering_and_a_missed_target_is_shown() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0]), 2.0);
        let shown = render(&[
            row("a", 1.31, Some(1.3), "×"),
            row("b", 1.3, Some(1.3), "×"),
            row("c", 9.0, None, "s"),
            failed("d", "no such VM\nat all"),
        ]);
        let met: Vec<&str> =
            shown.lines().skip(2).filter_map(|line| line.rsplit('|').nth(1)).map(str::trim).collect();
        assert_eq!(met, ["NO", "yes", "", "NO"]);
        assert!(shown.contains("FAILED: d: no such VM "), "{shown}");
    }
}

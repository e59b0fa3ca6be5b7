//! Plans, checks and problems.

use api::dto::{Check, Done, Plan};
use api::{Problem, units};

use crate::screen::{Screen, printable};

/// What a change would do: its steps, its checks with the cure of each failure, its cost.
pub fn plan(screen: &Screen, plan: &Plan) -> String {
    let mut text: String = plan.summary.iter().map(|line| format!("{}\n", printable(line))).collect();
    if !plan.checks.is_empty() {
        text.push_str(&format!("\n{}\n{}", screen.bold("Checks"), checks(screen, &plan.checks)));
    }
    let cost = cost(plan);
    if !cost.is_empty() {
        text.push_str(&format!("\n{cost}"));
    }
    text
}

/// Bytes and downtime: what is known, and where the guest is turned off also that something is not known.
fn cost(plan: &Plan) -> String {
    let unknown = || plan.touches_guest.then(|| "unknown".to_owned());
    let bytes = plan.expected_bytes.map(units::size).or_else(unknown);
    let downtime = plan.expected_downtime_ms.map(|millis| format!("about {}", units::duration(millis)));
    let bytes = bytes.map(|bytes| format!("Expected to travel: {bytes}\n"));
    let downtime = downtime.or_else(unknown).map(|downtime| format!("Expected downtime:  {downtime}\n"));
    [bytes, downtime].into_iter().flatten().collect()
}

/// Every check with a tick or a cross, and under a cross what was found and what cures it.
pub fn checks(screen: &Screen, checks: &[Check]) -> String {
    checks.iter().map(|check| one_check(screen, check)).collect()
}

fn one_check(screen: &Screen, check: &Check) -> String {
    if check.ok {
        let detail = match check.detail.as_str() {
            "" => String::new(),
            detail => screen.dim(&format!("  {}", printable(detail))),
        };
        return format!("  {} {}{detail}\n", screen.good("✓"), printable(&check.name));
    }
    let mut text = format!("  {} {}\n", screen.bad("✗"), printable(&check.name));
    if !check.detail.is_empty() {
        text.push_str(&format!("      {}\n", printable(&check.detail)));
    }
    if let Some(cure) = &check.cure {
        text.push_str(&format!("      Fix: {}\n", printable(cure)));
    }
    text
}

/// A problem: what, why, and the cure.
pub fn problem(problem: &Problem) -> String {
    let mut text = format!("virt-replica: {}", printable(&problem.title));
    if !problem.detail.is_empty() {
        text.push_str(&format!("\n  {}", printable(&problem.detail)));
    }
    let plain = Screen { colour: false, zone: jiff::tz::TimeZone::UTC, now_ms: 0 };
    let failed: Vec<Check> = problem.checks.iter().filter(|check| !check.ok).cloned().collect();
    if !failed.is_empty() {
        text.push_str(&format!("\n{}", checks(&plain, &failed).trim_end()));
    }
    if let Some(cure) = &problem.cure {
        text.push_str(&format!("\n  Fix: {}", printable(cure)));
    }
    text
}

/// A change that has nothing more to tell than a sentence.
pub fn done(_: &Screen, done: &Done) -> String {
    printable(&done.message)
}

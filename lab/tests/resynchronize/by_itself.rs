//! What comparing does by the clock: a resynchronization waits for its window, and a verification comes by its schedule.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FIRST, LITTLE, MIB, SECOND, VM, World};

/// The shortest schedule.
const VERIFY_EVERY: Duration = Duration::from_secs(60);
/// How long the window that is closed is looked at: more than two cycles.
const LOOKED_AT: Duration = Duration::from_secs(11);
/// More than may travel while a resynchronization waits, and less than what that would carry.
const WAITING_MIB: u64 = 4;

fn verified_at_ms(shown: &Value) -> u64 {
    shown["verified_at_ms"].as_u64().unwrap_or(0)
}

/// The first one is overdue at once.
pub(super) fn a_schedule_verifies(world: &mut World) {
    let before = verified_at_ms(&world.show(FIRST));
    let (code, said) = world.attempt(&["set", VM, "--verify-every", "59s", "--yes"]);
    assert!(code != Some(0) && said.contains("at least 60 s"), "{code:?} {said}");
    let every = format!("{}s", VERIFY_EVERY.as_secs());
    world.say(&["set", VM, "--verify-every", &every, "--yes"]);
    world.event(1402, "is equal to the VM's disks");
    world.verified_at_ms = verified_at_ms(&world.show(FIRST));
    assert!(world.verified_at_ms > before);
}

/// Not before its time, also after a restart of the daemon, and whatever was done meanwhile.
pub(super) fn the_schedule_verifies_again(world: &mut World) {
    let shown = world.wait(|shown| verified_at_ms(shown) > world.verified_at_ms);
    let between = verified_at_ms(&shown) - world.verified_at_ms;
    assert!(between >= VERIFY_EVERY.as_millis() as u64, "{between} ms between them");
    world.say(&["set", VM, "--verify-every", "never", "--yes"]);
    assert!(world.show(FIRST)["verify_every_seconds"].is_null());
}

/// A window that opens in two hours: the state and its cause are seen, nothing travels, and a person begins it.
pub(super) fn the_window_is_closed(world: &mut World) {
    let window = world.lab.host(FIRST).sh("date -d '+2 hours' +%H:%M; date -d '+3 hours' +%H:%M").unwrap();
    let window = format!("window {}", window.split_whitespace().collect::<Vec<_>>().join("-"));
    world.say(&["set", VM, "--resynchronize", &window, "--yes"]);
    world.say(&["pause", VM, "--yes"]);
    world.lose_the_bitmap();
    world.fill("windowed", WAITING_MIB);
    world.say(&["resume", VM, "--yes"]);
    let waits = |shown: &Value| {
        let cause = shown["comparison"]["cause"].as_str().unwrap_or_default();
        let waiting = shown["comparison"]["waiting"].as_str().unwrap_or_default();
        shown["state"] == "Resynchronizing" && !cause.is_empty() && waiting.contains(&window)
    };
    // What waits is known a moment before it is told as the reason.
    let is_told =
        |shown: &Value| shown["reasons"].to_string().contains("virt-replica resynchronize testVM01");
    let shown = world.wait(|shown| waits(shown) && is_told(shown));
    println!("{:#}", shown["comparison"]);
    assert_eq!(shown["health"], "critical", "{shown:#}");
    let head = world.manifest().1["points"].as_array().unwrap().last().unwrap().clone();
    let (before, begun) = (world.sent(), Instant::now());
    while begun.elapsed() < LOOKED_AT {
        let shown = world.show(FIRST);
        assert!(waits(&shown), "{shown:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
    let sent = world.sent() - before;
    assert!(sent < WAITING_MIB * MIB / 2, "{sent} bytes left the host");
    assert_eq!(world.manifest().1["points"].as_array().unwrap().last(), Some(&head), "no point was made");
    assert_eq!(world.show(SECOND)["state"], "Receiving", "the other host only waits");

    let said = world.say(&["resynchronize", VM, "--yes"]);
    assert!(said.contains("differed and travelled"), "{said}");
    world.event(1401, "differed and travelled");
    let sent = world.sent() - before;
    assert!((WAITING_MIB * MIB..LITTLE).contains(&sent), "{sent} bytes left the host");
    world.say(&["set", VM, "--resynchronize", "automatic", "--yes"]);
    world.normal();
}

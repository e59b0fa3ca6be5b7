//! The power of a host fails at any moment of what `life.rs` lives through: its layers and its store are cut at the same moment. What
//! somebody was told is true afterwards, the store never knows of a point that the layers do not hold, and the life goes on to its end.
//! See `disk_log.rs` of the crate `layer` for what a power cut is here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use domain::Phase;

use crate::common::disk_log::{DiskLog, Moment, record};
use crate::common::text;
use crate::host::{Host, disk, with_host_alone};
use crate::life::{Deed, RECEIVED, completed, it_ended_well, live, points_are_whole};

const FOLDER_VARIABLE: &str = "ENGINE_TEST_POWER_FOLDER";

/// What somebody was told: the newest point that was acknowledged, and how many procedures are through.
#[derive(Hash, Debug)]
struct Promise {
    newest: u64,
    procedures: usize,
    stepped_down: bool,
}

fn mark(base: &Path, what: &str) -> PathBuf {
    disk(base).join(format!("acknowledged-{what}"))
}

impl Promise {
    fn at(moment: &Moment, base: &Path) -> Promise {
        let sees = |what: String| moment.sees(&mark(base, &what));
        Promise {
            newest: (1..=RECEIVED + 1).rev().find(|it| sees(format!("point-{it}"))).unwrap_or(0),
            procedures: (1..=4).rev().find(|it| sees(format!("procedure-{it}"))).unwrap_or(0),
            stepped_down: sees("step-down".into()),
        }
    }
}

/// Tells the recorder what somebody was told.
fn acknowledge(host: &Host, deed: Deed) {
    let what = match deed {
        Deed::Receive => format!("point-{}", host.head().expect("a point").ordinal),
        Deed::Do(_) => format!("procedure-{}", completed(host)),
        Deed::StepDown => "step-down".to_owned(),
        Deed::SetAside => return,
    };
    std::fs::create_dir(mark(host.base(), &what)).expect("a mark");
}

#[test]
#[ignore = "the victim of the tests below"]
fn victim_of_a_power_cut() {
    let Some(base) = std::env::var_os(FOLDER_VARIABLE) else { return };
    let lived = with_host_alone(Path::new(&base), async |host: &Host| live(host, acknowledge).await);
    assert!(lived.ended, "{:?}", lived.told);
}

fn recorded(base: &Path) -> Option<DiskLog> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: install the package strace to run this test");
        return None;
    }
    let this = std::env::current_exe().expect("this binary");
    let command = [text(&this), "--exact", "power::victim_of_a_power_cut", "--ignored", "--test-threads=1"];
    // These are there before anything happens.
    std::fs::create_dir_all(disk(base).join("storage")).expect("a folder");
    Some(record(&command, (FOLDER_VARIABLE, base), &disk(base)))
}

/// Leaves on the disk of the host what a power cut left, where it was, for the store names it.
fn put(state: &BTreeMap<PathBuf, Option<Vec<u8>>>, base: &Path) {
    std::fs::remove_dir_all(disk(base)).expect("removed");
    std::fs::create_dir_all(disk(base).join("storage")).expect("a folder");
    for (path, content) in state {
        match content {
            None => std::fs::create_dir_all(path).expect("a folder"),
            Some(content) => std::fs::write(path, content).expect("a file"),
        }
    }
}

/// What the host's own start finds: nothing that somebody was told is missing, and no point is without its files.
fn it_is_true(host: &Host, promised: &Promise) {
    let whole = points_are_whole(host);
    let known = host.engine.store().points(host.record().relationship.id).expect("readable");
    // A host that was primary since remembers older ones than it has.
    let counts = if completed(host) == 0 { &known[..] } else { &known[known.len() - 1..] };
    for point in counts {
        assert!(whole.contains(&point.ordinal), "the store knows {point:?}, the files hold {whole:?}");
    }
    let newest = known.last().map_or(0, |point| point.ordinal);
    assert!(newest >= promised.newest, "{promised:?}, and the newest point is {newest}");
    assert!(completed(host) >= promised.procedures, "{promised:?}, and {} are through", completed(host));
    let receives = host.record().relationship.phase == Phase::Receiving;
    assert!(receives || !promised.stepped_down, "{promised:?}: {:?}", host.record().relationship.phase);
}

/// Each different state that a power cut leaves, by the moments that `chosen` wants.
fn cut_the_power(base: &Path, log: &DiskLog, chosen: impl Fn(usize) -> bool) -> usize {
    // Before the relationship is made there is nothing to lose.
    let promised_at = |number, moment: &Moment| {
        (chosen(number) && moment.sees(&mark(base, "point-1"))).then(|| Promise::at(moment, base))
    };
    log.power_cuts(promised_at, |state, promised| {
        put(state, base);
        with_host_alone(base, async |host: &Host| {
            it_is_true(host, promised);
            let lived = live(host, |_, _| ()).await;
            assert!(lived.ended, "{:?}", lived.told);
            it_ended_well(host);
        });
    })
}

#[test]
fn layers_and_store_tell_the_same_after_a_power_cut() {
    let base = tempfile::tempdir().expect("a folder");
    let Some(log) = recorded(base.path()) else { return };
    let states = cut_the_power(base.path(), &log, |number| number % 48 < 2);
    assert!(states > 10, "only {states} states");
}

#[test]
#[ignore = "minutes: cargo xtask test --long"]
fn layers_and_store_tell_the_same_after_a_power_cut_at_every_moment() {
    let base = tempfile::tempdir().expect("a folder");
    let Some(log) = recorded(base.path()) else { return };
    println!("{} states", cut_the_power(base.path(), &log, |_| true));
}

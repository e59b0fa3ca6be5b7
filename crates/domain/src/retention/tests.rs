use proptest::prelude::*;

use super::*;
use crate::fixture;
use crate::time::Timestamp;

fn point(ordinal: u64, second: u64, consistency: Consistency) -> RecoveryPoint {
    RecoveryPoint { instant: Timestamp(second * 1000), consistency, ..fixture::point(ordinal) }
}

/// `5` is a point at second 5; `5f` one with frozen file systems; `5t` one with a tag; `5p` one that is pinned.
fn check(retention: &str, points: &str, kept: &str) {
    let retention: Retention = retention.parse().expect("a retention");
    let words: Vec<&str> = points.split_whitespace().collect();
    let mut pinned = HashSet::new();
    let points = words.iter().zip(1..).map(|(word, ordinal)| {
        let (digits, mark) = word.split_at(word.trim_end_matches(char::is_alphabetic).len());
        let consistency = if mark == "f" { Consistency::FileSystem } else { Consistency::Crash };
        let mut point = point(ordinal, digits.parse().expect("a second"), consistency);
        point.tag = (mark == "t").then(|| "a tag".to_owned());
        if mark == "p" {
            pinned.insert(point.id);
        }
        point
    });
    let points: Vec<RecoveryPoint> = points.collect();
    let keep = retention.keep(&points, &pinned);
    let found: Vec<&str> = words
        .iter()
        .zip(&points)
        .filter(|(_, point)| keep.contains(&point.id))
        .map(|(word, _)| *word)
        .collect();
    assert_eq!(found.join(" "), kept);
}

#[test]
fn the_head_and_one_mark_a_period_stay() {
    check("latest", "1 2 3", "3");
    check("latest", "", "");
    check("2x10s", "1 5 11 12 21 25 27", "11 21 27");
    check("3x10s,2x1m", "1 5 61 65 71 81 85", "1 61 71 81 85");
    check("3xall", "1 2 3 4 5", "3 4 5");
}

#[test]
fn a_silence_ages_nothing() {
    check("2x10s", "1 11 100000", "11 100000");
}

#[test]
fn the_most_consistent_point_of_a_period_is_its_mark() {
    check("2x10s", "1 3f 5 7f 11 12", "3f 11 12");
}

#[test]
fn what_is_tagged_or_pinned_stays() {
    check("latest", "1t 2 3p 4 5", "1t 3p 5");
    check("2x10s", "1t 2 11 21 22", "1t 11 21 22");
}

#[test]
fn a_choice_survives_its_text() {
    for text in ["latest", "24", "24x1h,7x1d", "3x10s", "12xall", "12xall,24x1h", "7x36h"] {
        let retention: Retention = text.parse().expect(text);
        assert_eq!(retention.to_string(), text);
    }
    for (text, same) in [("0", "latest"), ("24x1h", "24"), ("24x60m", "24"), ("2x90m, 1x24h", "2x90m,1x1d")] {
        assert_eq!(text.parse::<Retention>().expect(text).to_string(), same);
    }
    for broken in
        ["", "x", "24x", "x1h", "0x1h", "24x0h", "24x1w", "-1", "1x367d", "24x1h,", "1.5x1h", "24h", "0xall"]
    {
        assert!(matches!(broken.parse::<Retention>(), Err(BadRetention::Text(_))), "{broken:?} was accepted");
    }
    assert_eq!("117".parse::<Retention>().expect("the most").points_max(), 118);
    for much in ["118", "100x1h,20x1d", "118xall,1x1h", "65535"] {
        assert!(
            matches!(much.parse::<Retention>(), Err(BadRetention::TooMany { .. })),
            "{much} was accepted"
        );
    }
}

fn consistencies() -> impl Strategy<Value = Consistency> {
    prop_oneof![4 => Just(Consistency::Crash), 1 => Just(Consistency::FileSystem), 1 => Just(Consistency::PoweredOff)]
}

/// Points whose clock only goes on, as gaps in seconds.
fn histories() -> impl Strategy<Value = Vec<RecoveryPoint>> {
    prop::collection::vec((0_u64..40, consistencies(), prop::bool::weighted(0.05)), 1..80).prop_map(|gaps| {
        let mut second = 1_000_000;
        let made = gaps.into_iter().zip(1..).map(|((gap, consistency, tagged), ordinal)| {
            second += gap;
            RecoveryPoint { tag: tagged.then(|| "kept".into()), ..point(ordinal, second, consistency) }
        });
        made.collect()
    })
}

fn retentions() -> impl Strategy<Value = Retention> {
    let tier = (1_u16..6, prop_oneof![Just(10_u64), Just(15), Just(60), Just(300)]);
    let tier = tier.prop_map(|(count, seconds)| Tier { count, every: Duration::from_secs(seconds) });
    (1_u16..4, prop::collection::vec(tier, 0..3))
        .prop_map(|(recent, grid)| Retention::new(recent, grid).expect("small"))
}

proptest! {
    /// Dropped after each cycle or once at the end: the same points are left.
    #[test]
    fn it_does_not_matter_when_one_looks(history in histories(), retention in retentions()) {
        let none = HashSet::new();
        let mut left: Vec<RecoveryPoint> = Vec::new();
        for point in &history {
            left.push(point.clone());
            let keep = retention.keep(&left, &none);
            left.retain(|point| keep.contains(&point.id));
        }
        let stepwise: BTreeSet<PointId> = left.iter().map(|point| point.id).collect();
        prop_assert_eq!(stepwise, retention.keep(&history, &none));
    }

    #[test]
    fn the_head_stays_and_the_number_is_bounded(history in histories(), retention in retentions()) {
        let keep = retention.keep(&history, &HashSet::new());
        prop_assert!(keep.contains(&history.last().expect("a head").id));
        let tagged = history.iter().filter(|point| point.tag.is_some()).count();
        prop_assert!(keep.len() <= retention.points_max() + tagged);
    }

    /// As long as the history reaches back, each tier has as many marks as it says.
    #[test]
    fn no_mark_is_missing(history in histories(), count in 1_u16..6, seconds in 1_u64..60) {
        let tier = Tier { count, every: Duration::from_secs(seconds) };
        let keep = Retention::new(1, vec![tier]).expect("small").keep(&history, &HashSet::new());
        let periods = |points: &mut dyn Iterator<Item = &RecoveryPoint>| -> BTreeSet<u64> {
            points.map(|point| point.instant.millis() / 1000 / seconds).collect()
        };
        let all = periods(&mut history.iter());
        let kept = periods(&mut history.iter().filter(|point| keep.contains(&point.id)));
        let newest: BTreeSet<u64> = all.into_iter().rev().take(usize::from(count)).collect();
        prop_assert!(kept.is_superset(&newest));
    }
}

//! Whatever is said arrives as it was meant, and what makes no sense does not arrive.

use domain::fixture;

use super::*;

/// There and back.
fn journey<T, F>(value: &T) -> Result<T, Nonsense>
where
    F: for<'a> From<&'a T> + TryInto<T> + Serialize + serde::de::DeserializeOwned,
    Nonsense: From<F::Error>,
{
    let json = serde_json::to_string(&F::from(value)).expect("plain data becomes JSON");
    Ok(serde_json::from_str::<F>(&json).expect(&json).try_into()?)
}

impl From<std::convert::Infallible> for Nonsense {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nothing is as it is by default.
fn settings() -> Settings {
    let target = |name: &str| DiskTarget::new(name).expect("a target");
    Settings {
        frequency: Frequency::from_seconds(30).expect("a frequency"),
        compression: Compression::On,
        disks: vec![(target("vda"), DiskChoice::Replicated), (target("vdb"), DiskChoice::Excluded)],
        rate_limit_bytes_per_second: Some(1),
        network_map: vec![("br0".into(), "br1".into())],
        thresholds: Thresholds {
            missed_cycles_percent_max: 2,
            last_synchronized_age_max: seconds(3),
            average_latency_max: seconds(4),
            monitoring_interval: seconds(5),
        },
        drill_every: Some(seconds(6)),
        retention: "12xall,24x1h".parse().expect("a retention"),
        application_consistent_every: Some(seconds(7)),
        comparing: Comparing { resynchronize: Resynchronize::Manual, verify_every: Some(seconds(8)) },
        new_disks: NewDisks::Warn,
    }
}

#[test]
fn settings_survive_the_wire_and_what_is_not_chosen_is_not_said() {
    let usual = Settings::of(vec![(fixture::vda(), DiskChoice::Replicated)]);
    for compression in [Compression::On, Compression::Off, Compression::Adaptive] {
        for settings in [Settings { compression, ..settings() }, Settings { compression, ..usual.clone() }] {
            assert_eq!(journey::<_, SettingsForm>(&settings), Ok(settings));
        }
    }
    let said = |settings| serde_json::to_string(&SettingsForm::from(&settings)).expect("JSON");
    let may_be_silent = ["drill", "retention", "application", "resynchronize", "verify", "new_disks"];
    for word in may_be_silent {
        assert!(said(settings()).contains(word), "{word}");
        assert!(!said(usual.clone()).contains(word), "{word}: a daemon of before does not know it");
    }
}

#[test]
fn the_options_of_an_operation_survive_the_wire() {
    let least = Options {
        reverse: false,
        start: false,
        shutdown_timeout: seconds(1),
        point: None,
        destroy: false,
        commit_timer: None,
        roll_back_unless_boots: None,
        force: false,
    };
    let all = [
        Options { reverse: true, ..least.clone() },
        Options { start: true, ..least.clone() },
        Options { point: Some(fixture::point_id(2)), ..least.clone() },
        Options { destroy: true, ..least.clone() },
        Options { commit_timer: Some((Settlement::Complete, seconds(3))), ..least.clone() },
        Options { commit_timer: Some((Settlement::RollBack, seconds(4))), ..least.clone() },
        Options { roll_back_unless_boots: Some(seconds(5)), ..least.clone() },
        Options { force: true, ..least.clone() },
        least,
    ];
    for options in all {
        assert_eq!(journey::<_, OptionsForm>(&options), Ok(options));
    }
}

#[test]
fn an_operation_arrives_as_that_of_the_new_primary() {
    for procedure in Procedure::ALL {
        let operation = Operation {
            id: OperationId(Uuid::from_u128(1)),
            procedure,
            relationship: RelationshipId(Uuid::from_u128(2)),
            old_primary: HostId(Uuid::from_u128(3)),
            side: Side::NewPrimary,
            proposed_epoch: Epoch::FIRST.next(),
            options: Options::default(),
            requested_by: "root".into(),
            begun: Timestamp(4),
        };
        let form = OperationForm::from(&operation);
        // A daemon of before knows one procedure, and does not know the word.
        assert_eq!(form.procedure.is_none(), procedure == Procedure::PlannedFailover, "{procedure:?}");
        assert_eq!(form.clone().into_new_primary(), Ok(operation));
        let wrong = OperationForm { procedure: Some("reboot".into()), ..form.clone() };
        assert_eq!(wrong.into_new_primary(), Err(nonsense("procedure", "reboot")));
        let wrong = OperationForm { proposed_epoch: 0, ..form.clone() };
        assert_eq!(wrong.into_new_primary(), Err(nonsense("proposed_epoch", 0)));
        let long = OperationForm { requested_by: "x".repeat(1000), ..form };
        assert_eq!(long.into_new_primary().expect("cut").requested_by.len(), 200);
    }
}

#[test]
fn of_a_peer_an_operation_of_one_host_and_one_of_another_old_primary_are_refused_and_its_force_counts_for_nothing()
 {
    let peer = HostId(Uuid::from_u128(3));
    let form = |procedure| {
        OperationForm::from(&Operation {
            id: OperationId(Uuid::from_u128(1)),
            procedure,
            relationship: RelationshipId(Uuid::from_u128(2)),
            old_primary: peer,
            side: Side::NewPrimary,
            proposed_epoch: Epoch::FIRST.next(),
            options: Options {
                reverse: false,
                start: false,
                shutdown_timeout: seconds(7),
                point: Some(fixture::point_id(2)),
                destroy: true,
                commit_timer: Some((Settlement::Complete, seconds(3))),
                roll_back_unless_boots: Some(seconds(5)),
                force: true,
            },
            requested_by: "root".into(),
            begun: Timestamp(4),
        })
    };
    for procedure in Procedure::ALL.into_iter().filter(|it| it.is_solitary()) {
        let refused = form(procedure).from_old_primary(peer).expect_err("refused");
        assert_eq!(refused.field, "procedure", "{procedure:?}");
    }
    let planned = form(Procedure::PlannedFailover);
    let refused = planned.clone().from_old_primary(HostId(Uuid::from_u128(4))).expect_err("refused");
    assert_eq!(refused.field, "old_primary");
    let kept = Options { reverse: false, start: false, shutdown_timeout: seconds(7), ..Options::default() };
    assert_eq!(planned.from_old_primary(peer).expect("of both hosts").options, kept);
}

#[test]
fn of_a_peer_too_many_disks_one_that_comes_twice_and_too_many_networks_are_refused() {
    let form = |disks: usize, networks: usize| SettingsForm {
        disks: (0..disks).map(|number| (format!("vd{number}"), true)).collect(),
        network_map: (0..networks).map(|number| (format!("a{number}"), "b".into())).collect(),
        ..SettingsForm::from(&settings())
    };
    assert!(form(DISKS_MAX, NETWORKS_MAX).from_peer().is_ok());
    let refused = |form: SettingsForm| form.from_peer().expect_err("refused").field;
    assert_eq!(refused(form(DISKS_MAX + 1, 0)), "disks");
    assert_eq!(refused(form(1, NETWORKS_MAX + 1)), "network_map");
    let twice = SettingsForm { disks: vec![("vda".into(), true), ("vda".into(), false)], ..form(1, 0) };
    assert_eq!(refused(twice), "disks");
    // What this host has kept is read whatever it holds.
    assert!(Settings::try_from(form(DISKS_MAX + 1, NETWORKS_MAX + 1)).is_ok());
}

#[test]
fn a_recovery_point_survives_the_wire_and_one_that_cannot_be_is_refused() {
    let consistencies =
        [Consistency::Crash, Consistency::FileSystem, Consistency::Application, Consistency::PoweredOff];
    for consistency in consistencies {
        let point =
            RecoveryPoint { consistency, tag: Some("before the upgrade".into()), ..fixture::point(7) };
        assert_eq!(journey::<_, PointForm>(&point), Ok(point));
    }
    let form = PointForm::from(&fixture::point(7));
    let refused = |form: PointForm| RecoveryPoint::try_from(form).expect_err("refused").field;
    assert_eq!(refused(PointForm { epoch: 0, ..form.clone() }), "epoch");
    assert_eq!(refused(PointForm { consistency: "well".into(), ..form.clone() }), "consistency");
    assert_eq!(refused(PointForm { lineage: "0".into(), ..form.clone() }), "lineage");
    for ordinal in [ORDINAL_MAX, u64::MAX] {
        assert_eq!(refused(PointForm { ordinal, ..form.clone() }), "ordinal");
    }
    let last = RecoveryPoint::try_from(PointForm { ordinal: ORDINAL_MAX - 1, ..form.clone() });
    assert_eq!(last.expect("counted to").ordinal, ORDINAL_MAX - 1);
    let long = PointForm { tag: Some("a\u{1b}[31m\n".repeat(1000)), ..form };
    let tag = RecoveryPoint::try_from(long).expect("cut").tag.expect("a tag");
    assert!(tag.chars().count() == TAG_CHARS_MAX && !tag.chars().any(char::is_control), "{tag:?}");
}

#[test]
fn a_divergence_survives_the_wire_and_pieces_that_overlap_or_overflow_are_refused() {
    let of = |pieces: Option<Pieces>| Divergence {
        since: fixture::point_id(1),
        at: Timestamp(2),
        disks: vec![(fixture::vda(), pieces)],
        covered_by: Some(fixture::point_id(3)),
    };
    for pieces in [None, Some(vec![]), Some(vec![(0, 512), (512, 512), (4096, u64::MAX - 4096)])] {
        assert_eq!(journey::<_, DivergenceForm>(&of(pieces.clone())), Ok(of(pieces)));
    }
    for wrong in [vec![(0, 0)], vec![(0, 513), (512, 1)], vec![(512, 1), (0, 1)], vec![(1, u64::MAX)]] {
        assert_eq!(journey::<_, DivergenceForm>(&of(Some(wrong))).map_err(|it| it.field), Err("divergence"));
    }
    let form = DivergenceForm { disks: vec![("../a".into(), None)], ..DivergenceForm::from(&of(None)) };
    assert_eq!(Divergence::try_from(form).map_err(|it| it.field), Err("disk"));
}

#[test]
fn every_mark_survives_the_wire() {
    let step = Step::FinalSync;
    let marks = [
        Mark::Intent(step),
        Mark::Done(step, "64 MiB".into()),
        Mark::Skipped(step, "no".into()),
        Mark::Failed(step, "link".into()),
        Mark::Cancel("operator".into()),
        Mark::Undone(step),
        Mark::Ended(Outcome::Completed),
        Mark::Ended(Outcome::Undone),
        Mark::GivenUp("no".into()),
        Mark::Ended(Outcome::GivenUp),
    ];
    for mark in marks {
        let entry = Entry { at: Timestamp(5), host: HostId(Uuid::from_u128(9)), mark };
        assert_eq!(journey::<_, EntryForm>(&entry), Ok(entry));
    }
}

#[test]
fn every_check_survives_the_wire() {
    for name in CheckName::ALL {
        for check in [Check::fail(name, "found", "cure"), Check::pass(name)] {
            assert_eq!(journey::<_, CheckForm>(&check), Ok(check));
        }
    }
}

#[test]
fn a_word_that_nobody_knows_is_shown_shortly_and_said_to_be_unknown() {
    let settings = SettingsForm::from(&settings());
    let refused = |form: SettingsForm| Settings::try_from(form).expect_err("refused").field;
    assert_eq!(refused(SettingsForm { compression: "lzma".into(), ..settings.clone() }), "compression");
    assert_eq!(refused(SettingsForm { frequency_s: 0, ..settings.clone() }), "frequency_s");
    assert_eq!(refused(SettingsForm { disks: vec![("..".into(), true)], ..settings.clone() }), "disk");
    assert_eq!(refused(SettingsForm { retention: Some("x".into()), ..settings.clone() }), "retention");
    assert_eq!(refused(SettingsForm { resynchronize: Some("x".into()), ..settings }), "resynchronize");
    let entry = |mark: &str, step: Option<&str>| {
        let (mark, step) = (mark.to_owned(), step.map(str::to_owned));
        Entry::try_from(EntryForm { at_ms: 0, host: Uuid::nil(), mark, step, text: "t".repeat(9999) })
    };
    assert_eq!(entry("finished", None), Err(nonsense("mark", "finished")));
    assert_eq!(entry("intent", None), Err(nonsense("step", "")));
    assert_eq!(entry("done", Some("reboot")), Err(nonsense("step", "reboot")));
    assert_eq!(entry("cancel", None).expect("read").mark, Mark::Cancel("t".repeat(4096)));
    assert_eq!(nonsense("mark", "x".repeat(10_000)).value.len(), 200);
    let check = CheckForm { name: "Moon is full".into(), failure: None };
    assert_eq!(Check::try_from(check), Err(nonsense("check", "Moon is full")));
}

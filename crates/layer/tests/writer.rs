//! A layer reads as the writes that made it, in QEMU's eyes; and it exists whole or not at all.

mod common;

use std::fs;
use std::path::Path;

use common::{CLUSTER, assert_reads_as, foreign_base, name, pattern, run, spec, text};
use layer::{Backing, BackingFormat, Gate, LayerError, LayerSpec, LayerWriter, discard, inspect};
use proptest::prelude::*;

const LAYER: &str = "1-test.qcow2";

/// One thing that happens to a range of the disk.
#[derive(Clone, Debug)]
enum Range {
    Skip(u64),
    Data(u64, u8),
    Zero(u64),
}

fn ranges() -> impl Strategy<Value = Vec<Range>> {
    let clusters = prop_oneof![4 => 1..5u64, 1 => 5..40u64];
    let range = (clusters, any::<u8>(), 0..3).prop_map(|(clusters, seed, kind)| match kind {
        0 => Range::Skip(clusters),
        1 => Range::Data(clusters, seed),
        _ => Range::Zero(clusters),
    });
    prop::collection::vec(range, 1..24)
}

/// Plays ranges from the beginning of the disk to a sink until the disk is full.
fn play(ranges: &[Range], size: u64, mut sink: impl FnMut(u64, u64, Option<Vec<u8>>)) {
    let mut at = 0;
    for range in ranges {
        let (Range::Skip(clusters) | Range::Data(clusters, _) | Range::Zero(clusters)) = range;
        let length = (clusters * CLUSTER).min(size - at);
        if length == 0 {
            return;
        }
        match range {
            Range::Skip(_) => {}
            Range::Data(_, seed) => sink(at, length, Some(pattern(*seed, length))),
            Range::Zero(_) => sink(at, length, None),
        }
        at += length;
    }
}

fn apply(writer: &mut LayerWriter, at: u64, length: u64, data: Option<&[u8]>) {
    match data {
        Some(data) => writer.write(at, data).expect("a write in order"),
        None => writer.zero(at, length).expect("a zero in order"),
    }
}

fn apply_to_oracle(oracle: &mut [u8], at: u64, length: u64, data: Option<&[u8]>) {
    let range = &mut oracle[at as usize..(at + length) as usize];
    match data {
        Some(data) => range.copy_from_slice(data),
        None => range.fill(0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_layer_reads_as_its_writes_over_its_base(ranges in ranges(), sectors in 1..20_000u64, over_base: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let size = sectors * 512;
        let mut oracle = if over_base { pattern(9, size) } else { vec![0; size as usize] };
        if over_base {
            foreign_base(folder.path(), "base.qcow2", &oracle);
        }
        let spec = spec(size, over_base.then_some("base.qcow2"));
        let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec).expect("a writer");
        play(&ranges, size, |at, length, data| {
            apply(&mut writer, at, length, data.as_deref());
            apply_to_oracle(&mut oracle, at, length, data.as_deref());
        });
        let sealed = writer.seal().expect("sealed");
        prop_assert_eq!(fs::metadata(&sealed.path).expect("the layer").len(), sealed.file_bytes);
        assert_reads_as(&sealed.path, &oracle);
    }

    #[test]
    fn a_file_on_nothing_that_keeps_its_zeroes_reads_as_its_writes_over_any_other(ranges in ranges(), sectors in 1..20_000u64) {
        let folder = tempfile::tempdir().expect("a folder");
        let size = sectors * 512;
        let mut oracle = pattern(9, size);
        let base = foreign_base(folder.path(), "base.qcow2", &oracle);
        let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec(size, None)).expect("a writer");
        play(&ranges, size, |at, length, data| {
            match &data {
                Some(data) => writer.write(at, data).expect("a write in order"),
                None => writer.zero_over_anything(at, length).expect("a zero in order"),
            }
            apply_to_oracle(&mut oracle, at, length, data.as_deref());
        });
        let sealed = writer.seal().expect("sealed");
        run(&["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", text(&base), text(&sealed.path)]);
        assert_reads_as(&sealed.path, &oracle);
    }

    #[test]
    fn a_crash_at_any_moment_resumes_to_the_same_layer(ranges in ranges(), crash in 0..24usize, over_base: bool) {
        let folder = tempfile::tempdir().expect("a folder");
        let size = 6 << 20;
        let mut oracle = if over_base { pattern(9, size) } else { vec![0; size as usize] };
        if over_base {
            foreign_base(folder.path(), "base.qcow2", &oracle);
        }
        let spec = spec(size, over_base.then_some("base.qcow2"));
        let mut steps = Vec::new();
        play(&ranges, size, |at, length, data| steps.push((at, length, data)));
        // The crash comes after `crash` steps; every second step was made durable.
        let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec.clone()).expect("a writer");
        writer.make_durable(&[0]).expect("durable");
        for (index, (at, length, data)) in steps.iter().enumerate().take(crash) {
            apply(&mut writer, *at, *length, data.as_deref());
            if index % 2 == 1 {
                writer.make_durable(&[index as u8 + 1]).expect("durable");
            }
        }
        drop(writer);
        let resumed = LayerWriter::resume(folder.path(), &name(LAYER), &spec).expect("resumed");
        let done = usize::from(resumed.caller_state[0]);
        let mut writer = resumed.writer;
        for (index, (at, length, data)) in steps.iter().enumerate() {
            apply_to_oracle(&mut oracle, *at, *length, data.as_deref());
            if index >= done {
                apply(&mut writer, *at, *length, data.as_deref());
            }
        }
        assert_reads_as(&writer.seal().expect("sealed").path, &oracle);
    }
}

#[test]
fn tables_beyond_the_first_map_their_own_half_gigabyte() {
    let folder = tempfile::tempdir().expect("a folder");
    let size = (3u64 << 30) + 512;
    let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec(size, None)).expect("a writer");
    let border = 1u64 << 29;
    let wide = pattern(3, 4 * CLUSTER);
    writer.write(border - 2 * CLUSTER, &wide).expect("across two tables");
    writer.write(3 << 30, &pattern(4, 512)).expect("the short last cluster");
    let sealed = writer.seal().expect("sealed");
    common::run(&["qemu-img", "check", "-q", "-f", "qcow2", common::text(&sealed.path)]);
    let raw = folder.path().join("out.raw");
    common::run(&["qemu-img", "convert", "-O", "raw", common::text(&sealed.path), common::text(&raw)]);
    use std::os::unix::fs::FileExt;
    let file = fs::File::open(raw).expect("the raw disk");
    let mut read = vec![0; wide.len()];
    file.read_exact_at(&mut read, border - 2 * CLUSTER).expect("read");
    assert!(read == wide, "the bytes around the border differ");
    let mut tail = vec![0; 512];
    file.read_exact_at(&mut tail, 3 << 30).expect("read");
    assert!(tail == pattern(4, 512), "the last sector differs");
}

#[test]
fn a_partial_layer_is_no_image_and_is_invisible_under_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec(1 << 20, None)).expect("a writer");
    writer.write(0, &pattern(1, 1 << 20)).expect("a write");
    writer.make_durable(b"").expect("durable");
    let partial = folder.path().join("1-test.qcow2.partial");
    assert!(matches!(inspect(&partial, Gate::Foreign), Err(LayerError::Gate { .. })));
    assert!(!folder.path().join(LAYER).exists());
    drop(writer);
    discard(folder.path(), &name(LAYER)).expect("discarded");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn a_seal_that_is_cut_is_finished_by_a_resume_or_done() {
    // The tables of the seal.
    cov_mark::check!(a_resumed_layer_loses_what_was_not_durable);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |suffix: &str| folder.path().join(format!("{LAYER}{suffix}"));
    let spec = spec(1 << 20, None);
    let oracle = pattern(1, 1 << 20);
    let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec.clone()).expect("a writer");
    writer.write(0, &oracle).expect("a write");
    writer.make_durable(b"all of it").expect("durable");
    let progress = fs::read(file(".progress")).expect("the progress");
    writer.seal().expect("sealed");

    // Cut between the header and the rename: a complete image, still under its partial name.
    fs::rename(file(""), file(".partial")).expect("renamed");
    fs::write(file(".progress"), &progress).expect("written");
    let resumed = LayerWriter::resume(folder.path(), &name(LAYER), &spec).expect("resumed");
    assert_eq!(
        (resumed.caller_state.as_slice(), resumed.writer.position()),
        (b"all of it".as_slice(), 1 << 20)
    );
    assert!(inspect(&file(".partial"), Gate::Foreign).is_err(), "an image again only when it is sealed");
    resumed.writer.seal().expect("sealed");
    assert_reads_as(&file(""), &oracle);

    // Cut between the rename and the removal of the progress: the layer is there, its progress is litter.
    fs::write(file(".progress"), &progress).expect("written");
    let resumed = LayerWriter::resume(folder.path(), &name(LAYER), &spec);
    assert!(matches!(resumed, Err(LayerError::Exists(_))));
    discard(folder.path(), &name(LAYER)).expect("discarded");
    assert!(!file(".progress").exists());
    assert_reads_as(&file(""), &oracle);
}

#[test]
fn abandon_leaves_nothing_and_seal_leaves_the_layer_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let create = || LayerWriter::create(folder.path(), &name(LAYER), spec(1 << 20, None)).expect("a writer");
    let mut writer = create();
    writer.make_durable(b"x").expect("durable");
    writer.abandon().expect("abandoned");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    let mut writer = create();
    writer.make_durable(b"x").expect("durable");
    writer.seal().expect("sealed");
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("the folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, [LAYER]);
}

#[test]
fn ranges_out_of_order_off_the_border_or_outside_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let size = 3 * CLUSTER + 512;
    let mut writer = LayerWriter::create(folder.path(), &name(LAYER), spec(size, None)).expect("a writer");
    writer.write(CLUSTER, &pattern(1, CLUSTER)).expect("in order");
    for (offset, length) in [
        (0, CLUSTER),
        (CLUSTER, CLUSTER),
        (2 * CLUSTER + 1, 511),
        (2 * CLUSTER, 512),
        (2 * CLUSTER, 0),
        (2 * CLUSTER, 2 * CLUSTER),
        (u64::MAX - CLUSTER + 1, CLUSTER),
    ] {
        assert!(matches!(writer.zero(offset, length), Err(LayerError::Range { .. })), "{offset}+{length}");
    }
    writer.write(2 * CLUSTER, &pattern(1, CLUSTER + 512)).expect("up to the end of the disk");
    writer.seal().expect("sealed");
}

#[test]
fn an_existing_layer_or_partial_is_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let create = || LayerWriter::create(folder.path(), &name(LAYER), spec(1 << 20, None));
    let writer = create().expect("a writer");
    assert!(matches!(create(), Err(LayerError::Exists(_))));
    writer.seal().expect("sealed");
    assert!(matches!(create(), Err(LayerError::Exists(_))));
    let resumed = LayerWriter::resume(folder.path(), &name(LAYER), &spec(1 << 20, None));
    assert!(matches!(resumed, Err(LayerError::Exists(_))));
}

#[test]
fn progress_of_another_layer_damaged_or_missing_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = spec(1 << 20, Some("base.qcow2"));
    let resume = |spec: &LayerSpec| LayerWriter::resume(folder.path(), &name(LAYER), spec).map(|_| ());
    assert!(matches!(resume(&base), Err(LayerError::NothingToResume(_))));
    let mut writer = LayerWriter::create(folder.path(), &name(LAYER), base.clone()).expect("a writer");
    writer.write(0, &pattern(1, CLUSTER)).expect("a write");
    writer.make_durable(b"").expect("durable");
    drop(writer);
    assert!(matches!(resume(&spec(2 << 20, Some("base.qcow2"))), Err(LayerError::Progress { .. })));
    assert!(matches!(resume(&spec(1 << 20, Some("other.qcow2"))), Err(LayerError::Progress { .. })));
    resume(&base).expect("its own progress fits");
    let partial = folder.path().join("1-test.qcow2.partial");
    fs::File::options().write(true).open(&partial).expect("open").set_len(CLUSTER).expect("cut");
    assert!(matches!(resume(&base), Err(LayerError::Progress { .. })));
    fs::write(folder.path().join("1-test.qcow2.progress"), b"nonsense").expect("write");
    assert!(matches!(resume(&base), Err(LayerError::Progress { .. })));
}

#[test]
fn sizes_and_backing_names_that_cannot_be_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for size in [0, 511, 513, (64 << 40) + 512, u64::MAX] {
        let refused = LayerWriter::create(folder.path(), &name(LAYER), spec(size, None));
        assert!(matches!(refused, Err(LayerError::VirtualSize { .. })), "{size}");
    }
    for hostile in ["", "nbd://host/x", "json:{}", "../x", "a/b", "/a\0b", &format!("/{}", "x".repeat(1023))]
    {
        assert!(Backing::new(hostile, BackingFormat::Qcow2).is_err(), "{hostile:?} was accepted");
    }
    assert!(Backing::new("/srv/a disk: \"one\"", BackingFormat::Raw).is_ok());
}

#[test]
fn a_symlink_in_the_way_is_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let victim = folder.path().join("victim");
    fs::write(&victim, b"precious").expect("write");
    std::os::unix::fs::symlink(&victim, folder.path().join("1-test.qcow2.partial")).expect("symlink");
    let refused = LayerWriter::create(folder.path(), &name(LAYER), spec(1 << 20, None));
    assert!(matches!(refused, Err(LayerError::Exists(_))));
    assert_eq!(fs::read(victim).expect("read"), b"precious");
    assert!(LayerWriter::create(Path::new("/nonexistent"), &name(LAYER), spec(512, None)).is_err());
}

#[test]
fn a_moment_that_is_made_durable_soon_can_be_gone_on_from_once_the_writer_is_gone() {
    let root = tempfile::tempdir().expect("a folder");
    let spec = LayerSpec { virtual_size: 64 * CLUSTER, backing: None, owner: None };
    let mut writer = LayerWriter::create(root.path(), &name("soon"), spec.clone()).expect("begun");
    for cluster in 0..32_u64 {
        writer.write(cluster * CLUSTER, &vec![cluster as u8 + 1; CLUSTER as usize]).expect("written");
        writer.make_durable_soon(&cluster.to_le_bytes()).expect("begun");
    }
    // Dropping waits for the moment that is on its way: nothing of it appears later.
    drop(writer);
    let resumed = LayerWriter::resume(root.path(), &name("soon"), &spec).expect("it goes on");
    let state: [u8; 8] = resumed.caller_state.as_slice().try_into().expect("eight bytes");
    assert_eq!(resumed.writer.position(), (u64::from_le_bytes(state) + 1) * CLUSTER);
    resumed.writer.abandon().expect("removed");
    assert_eq!(std::fs::read_dir(root.path()).expect("listed").count(), 0);
}

//! Real file systems, made by mkfs, and ones that were damaged.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use filesystem::{Disk, FileSystem, Limits, changed_files, partitions};

const MIB: usize = 1 << 20;
const LIMITS: Limits = Limits { time: Duration::from_secs(10), entries: 10_000, files: 100 };

struct Bytes(Vec<u8>);

impl Disk for Bytes {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..bytes.len()));
        bytes.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file system with what is in a folder.
fn made(folder: &Path, options: &[&str]) -> Vec<u8> {
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(8 * MIB as u64).expect("a size");
    let mut made = Command::new("mkfs.ext4");
    made.args(["-q", "-F"]).args(options).arg("-d").arg(folder).arg(image.path());
    let done = made.output().expect("mkfs.ext4 starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read(image.path()).expect("read")
}

fn write(folder: &Path, path: &str, text: &str, seconds: u64) {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(&path, text).expect("written");
    let file = std::fs::File::options().write(true).open(&path).expect("open");
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).expect("a time");
}

fn find(disk: &[u8], other: &[u8], since: i64, limits: Limits) -> Vec<FileSystem> {
    changed_files(Arc::new(Bytes(disk.to_vec())), Arc::new(Bytes(other.to_vec())), since, limits)
}

/// Two versions: one file is as it was, one was changed, two are new, one was changed before the time that is asked for.
fn versions(options: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "etc/same", "same", 500);
    write(folder.path(), "etc/changed", "before", 500);
    write(folder.path(), "etc/early", "before", 500);
    let other = made(folder.path(), options);
    write(folder.path(), "etc/changed", "after it", 2_000_000_000);
    write(folder.path(), "etc/early", "before too", 900);
    write(folder.path(), "var/lib/new file", "new", 2_000_000_001);
    write(folder.path(), "var/lib/\u{1b}[31mred", "", 2_000_000_002);
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).expect("a link");
    (made(folder.path(), options), other)
}

/// mkfs stamps births with the present, which is before this.
const SINCE: i64 = 1_900_000_000;

#[test]
fn what_is_new_or_changed_since_is_named_and_the_rest_is_not() {
    for options in [&["-t", "ext4"][..], &["-O", "^has_journal,^64bit"], &["-b", "1024"]] {
        let (disk, other) = versions(options);
        let found = find(&disk, &other, SINCE, LIMITS);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].place.as_str(), &found[0].incomplete), ("whole disk", &None), "{options:?}");
        let files: Vec<_> = found[0].files.iter().map(|it| (it.path.as_str(), it.bytes, it.is_new)).collect();
        let expected =
            [("/etc/changed", 8, false), ("/var/lib/\u{1b}[31mred", 0, true), ("/var/lib/new file", 3, true)];
        assert_eq!(files, expected, "{options:?}");
        assert_eq!(find(&disk, &disk, SINCE, LIMITS)[0].files, []);
    }
}

#[test]
fn partitions_of_both_kinds_are_found_and_what_lies_outside_is_not() {
    let (disk, other) = versions(&[]);
    for script in [
        "label: dos\nstart=2048, size=16384, type=83\nstart=20480, size=2048, type=8e\n",
        "label: gpt\nstart=2048, size=16384\nstart=20480, size=2048\n",
    ] {
        let on_partition = |content: &[u8]| {
            let image = tempfile::NamedTempFile::new().expect("a file");
            image.as_file().set_len(16 * MIB as u64).expect("a size");
            let mut table = Command::new("sfdisk");
            table.arg("-q").arg(image.path()).stdin(std::process::Stdio::piped());
            let mut child = table.spawn().expect("sfdisk starts");
            io::Write::write_all(&mut child.stdin.take().expect("its input"), script.as_bytes())
                .expect("told");
            assert!(child.wait().expect("ended").success());
            let mut bytes = std::fs::read(image.path()).expect("read");
            bytes[MIB..MIB + content.len()].copy_from_slice(content);
            bytes
        };
        let (disk, other) = (on_partition(&disk), on_partition(&other));
        let found = find(&disk, &other, SINCE, LIMITS);
        let told: Vec<_> =
            found.iter().map(|it| (it.place.as_str(), it.files.len(), it.incomplete.as_deref())).collect();
        let nothing = Some("no ext2, ext3 or ext4 file system is there");
        assert_eq!(told, [("partition 1", 3, None), ("partition 2", 0, nothing)], "{script}");
        // A disk that ends before its partitions do.
        assert!(
            partitions(&Bytes(disk[..3 * MIB].to_vec())).expect("read").iter().all(|it| it.number.is_none())
        );
    }
    let whole = partitions(&Bytes(vec![0; 100])).expect("tiny");
    assert_eq!((whole.len(), whole[0].bytes), (1, 100));
}

#[test]
fn whatever_is_not_whole_is_said() {
    let (disk, other) = versions(&[]);
    let said = |limits| find(&disk, &other, SINCE, limits)[0].clone();
    let few = said(Limits { files: 1, ..LIMITS });
    assert_eq!(
        (few.files.len(), few.incomplete.as_deref()),
        (1, Some("more files were changed than are listed"))
    );
    let short = said(Limits { entries: 2, ..LIMITS });
    assert_eq!(short.incomplete.as_deref(), Some("it has too many files to look at all"));
    let late = said(Limits { time: Duration::ZERO, ..LIMITS });
    assert!(late.incomplete.expect("said").contains("the time for it was over"));
    // Without the other version everything of that time is new.
    let alone = find(&disk, &vec![0; disk.len()], SINCE, LIMITS);
    assert!(alone[0].files.iter().all(|it| it.is_new) && alone[0].files.len() == 3);
}

/// Every byte of a guest's disk is the guest's choice. Whatever it chooses, there is an answer, soon.
#[test]
fn a_damaged_file_system_is_answered_without_panic_and_within_its_time() {
    let (disk, other) = versions(&["-O", "^metadata_csum"]);
    let used: Vec<usize> = (0..disk.len()).filter(|at| disk[*at] != 0).collect();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    let limits = Limits { time: Duration::from_secs(2), ..LIMITS };
    let begun = std::time::Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let mut hurt = disk.clone();
        for _ in 0..1 + random() % 8 {
            let at = used[random() % used.len()];
            hurt[at] = [random() as u8, 0, 0xff, hurt[at] ^ (1 << (random() % 8))][random() % 4];
        }
        for found in find(&hurt, &other, SINCE, limits) {
            assert!(found.files.len() <= limits.files);
        }
        rounds += 1;
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "one answer took too long");
    assert!(rounds > 20, "{rounds} rounds");
}

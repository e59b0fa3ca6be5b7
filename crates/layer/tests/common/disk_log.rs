//! What a program did to the files below a folder, and what of it a power cut at any moment may leave.
//!
//! The log comes from `strace`. A power cut keeps what was synced. Of the rest anything may be kept or lost: names that were
//! made without a sync of their folder, bytes that were written without a sync of their file, each on its own. The states made
//! here are the corners of that: nothing of it, only the names, only the bytes, and the names with some of the bytes.
//! It is NOT a file system's exact behaviour: real ones lose less.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Calls that change files or make changes durable.
const CALLS: &str = "openat,write,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,\
                     mkdir,mkdirat,rmdir,copy_file_range,writev";

/// One change, by paths.
#[derive(Clone, Debug)]
enum Change {
    Make { path: PathBuf, empties: bool },
    MakeFolder(PathBuf),
    Write { path: PathBuf, offset: Option<usize>, bytes: Vec<u8> },
    Resize { path: PathBuf, length: usize },
    Sync(PathBuf),
    Rename { from: PathBuf, to: PathBuf },
    Remove(PathBuf),
}

/// Runs a program under `strace` and gives its changes below `root` in their order.
pub fn record(command: &[&str], environment: (&str, &Path), root: &Path) -> DiskLog {
    let traces = tempfile::tempdir().expect("a folder");
    let status = Command::new("strace")
        .args([
            "-ff",
            "--seccomp-bpf",
            "-ttt",
            "-T",
            "-y",
            "-xx",
            "-qq",
            "-s",
            "16777216",
            "-e",
            &format!("trace={CALLS}"),
            "-o",
        ])
        .arg(traces.path().join("trace"))
        .arg("--")
        .args(command)
        .env(environment.0, environment.1)
        .stdout(Stdio::null())
        .status()
        .expect("strace runs");
    assert!(status.success(), "the program that is recorded fails");
    let mut changes = Vec::new();
    for file in std::fs::read_dir(traces.path()).expect("listed") {
        let text = std::fs::read_to_string(file.expect("an entry").path()).expect("a trace is text");
        changes.extend(text.lines().filter_map(|line| parse(line, root)));
    }
    changes.sort_by(|one: &(f64, Change), other| one.0.total_cmp(&other.0));
    DiskLog { root: root.to_owned(), changes: changes.into_iter().map(|(_, change)| change).collect() }
}

/// A line such as `1700000000.5 pwrite64(5<\x2f…>, "\x00…", 4096, 0) = 4096 <0.0001>`; the moment is the call's end.
fn parse(line: &str, root: &Path) -> Option<(f64, Change)> {
    let (begun, call) = line.split_once(' ')?;
    let (call, result) = call.rsplit_once(") = ")?;
    let (result, took) = result.rsplit_once(" <")?;
    if result.starts_with('-') {
        return None;
    }
    let end = begun.parse::<f64>().ok()? + took.trim_end_matches('>').parse::<f64>().ok()?;
    let (name, words) = call.split_once('(')?;
    let words: Vec<&str> = words.split(", ").collect();
    let at = |folder: &str, name: &str| opened(folder).map(|folder| folder.join(quoted(name)));
    let change = match name {
        "openat" if words[2].contains("O_CREAT") => {
            Change::Make { path: at(words[0], words[1])?, empties: words[2].contains("O_TRUNC") }
        }
        "mkdir" => Change::MakeFolder(quoted(words[0])),
        "mkdirat" => Change::MakeFolder(at(words[0], words[1])?),
        "write" => Change::Write { path: opened(words[0])?, offset: None, bytes: bytes_of(words[1]) },
        "pwrite64" => {
            let offset = words[3].parse().ok();
            Change::Write { path: opened(words[0])?, offset, bytes: bytes_of(words[1]) }
        }
        "pwritev" => {
            let pieces = words.iter().filter_map(|word| Some(bytes_of(word.split_once("iov_base=")?.1)));
            let offset = words.last()?.parse().ok();
            Change::Write { path: opened(words[0])?, offset, bytes: pieces.flatten().collect() }
        }
        "ftruncate" => Change::Resize { path: opened(words[0])?, length: words[1].parse().ok()? },
        "fallocate" => {
            let (offset, length): (usize, usize) = (words[2].parse().ok()?, words[3].parse().ok()?);
            if words[1].contains("PUNCH_HOLE") || words[1].contains("ZERO_RANGE") {
                Change::Write { path: opened(words[0])?, offset: Some(offset), bytes: vec![0; length] }
            } else {
                return None;
            }
        }
        "fsync" | "fdatasync" => Change::Sync(opened(words[0])?),
        "rename" => Change::Rename { from: quoted(words[0]), to: quoted(words[1]) },
        "renameat" | "renameat2" => {
            Change::Rename { from: at(words[0], words[1])?, to: at(words[2], words[3])? }
        }
        "unlink" | "rmdir" => Change::Remove(quoted(words[0])),
        "unlinkat" => Change::Remove(at(words[0], words[1])?),
        "copy_file_range" | "writev" if opened(words[0])?.starts_with(root) => {
            panic!("{name} is not understood here")
        }
        _ => return None,
    };
    change.path().starts_with(root).then_some((end, change))
}

/// `5<\x2f\x74>`: the path behind a descriptor.
fn opened(word: &str) -> Option<PathBuf> {
    let (_, path) = word.split_once('<')?;
    Some(text(path.split_once('>')?.0))
}

fn quoted(word: &str) -> PathBuf {
    text(word.trim_matches('"'))
}

fn text(escaped: &str) -> PathBuf {
    PathBuf::from(String::from_utf8(bytes_of(escaped)).expect("paths of tests are text"))
}

fn bytes_of(escaped: &str) -> Vec<u8> {
    let escaped = escaped.split('"').find(|part| part.starts_with("\\x")).unwrap_or_default();
    escaped
        .split("\\x")
        .skip(1)
        .map(|digits| u8::from_str_radix(&digits[..2], 16).expect("hexadecimal"))
        .collect()
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Change::Make { path, .. }
            | Change::MakeFolder(path)
            | Change::Write { path, .. }
            | Change::Resize { path, .. }
            | Change::Sync(path)
            | Change::Rename { to: path, .. }
            | Change::Remove(path) => path,
        }
    }

    /// After these the set of what may be lost is largest, or has just changed.
    fn is_a_moment(&self) -> bool {
        !matches!(self, Change::Write { .. } | Change::Resize { .. })
    }
}

/// The changes of a program.
pub struct DiskLog {
    root: PathBuf,
    changes: Vec<Change>,
}

/// What of the unsynced survives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Survives {
    Nothing,
    Names,
    Bytes,
    NamesAndSomeBytes,
}

const CORNERS: [Survives; 4] =
    [Survives::Nothing, Survives::Names, Survives::Bytes, Survives::NamesAndSomeBytes];

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// Since the last sync, in order.
    pending: Vec<Change>,
    /// Where `write` goes on.
    cursor: usize,
}

/// All files at one moment.
#[derive(Clone, Default)]
pub struct Moment {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    files: Vec<File>,
}

impl DiskLog {
    /// Calls `visit` with each moment at which a power cut may leave something new, and its number.
    pub fn moments(&self, mut visit: impl FnMut(usize, &Moment)) {
        let mut now = Moment::default();
        for (number, change) in self.changes.iter().enumerate() {
            // Before a sync the most can be lost; after it the least.
            if change.is_a_moment() {
                visit(2 * number, &now);
            }
            now.apply(change);
            if change.is_a_moment() {
                visit(2 * number + 1, &now);
            }
        }
    }

    /// Each different state that a power cut leaves, without the marks `acknowledged-…` by which the program said what it had promised:
    /// at the moments of which `promised_at` knows what was promised. Gives how many there are.
    pub fn power_cuts<P: Hash + Debug>(
        &self,
        promised_at: impl Fn(usize, &Moment) -> Option<P>,
        mut visit: impl FnMut(&BTreeMap<PathBuf, Option<Vec<u8>>>, &P),
    ) -> usize {
        let mut seen = HashSet::new();
        self.moments(|number, moment| {
            let Some(promised) = promised_at(number, moment) else { return };
            for survives in CORNERS {
                let mut state = moment.after_power_cut(survives, number);
                state.retain(|path, _| !super::text(path).contains("acknowledged-"));
                let mut hasher = DefaultHasher::new();
                (&state, &promised).hash(&mut hasher);
                if seen.insert(hasher.finish()) {
                    println!("moment {number}, {survives:?} survives, {promised:?} is promised");
                    visit(&state, &promised);
                }
            }
        });
        seen.len()
    }

    /// Where the program worked; states are made with the same names elsewhere.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Moment {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Make { path, empties } => {
                if let (Some(Node::File(id)), true) = (self.names.get(path).copied(), *empties) {
                    self.files[id].pending.push(Change::Resize { path: path.clone(), length: 0 });
                }
                if !self.names.contains_key(path) {
                    self.files.push(File::default());
                    self.names.insert(path.clone(), Node::File(self.files.len() - 1));
                }
                self.file(path).cursor = 0;
            }
            Change::MakeFolder(path) => drop(self.names.insert(path.clone(), Node::Folder)),
            Change::Write { path, offset, bytes } => {
                let file = self.file(path);
                let offset = offset.unwrap_or(file.cursor);
                file.cursor = offset + bytes.len();
                let (path, bytes) = (path.clone(), bytes.clone());
                file.pending.push(Change::Write { path, offset: Some(offset), bytes });
            }
            Change::Resize { path, .. } => self.file(path).pending.push(change.clone()),
            Change::Sync(path) => match self.names.get(path) {
                Some(Node::File(id)) => {
                    let file = &mut self.files[*id];
                    file.synced = file.content(|_| true);
                    file.pending.clear();
                }
                _ => {
                    let inside = |name: &PathBuf| name.parent() == Some(path);
                    // With a folder goes what was in it, whether its own removal was synced or not.
                    let is_gone = |name: &PathBuf| inside(name) && !self.names.contains_key(name);
                    let gone: Vec<PathBuf> =
                        self.durable_names.keys().filter(|name| is_gone(name)).cloned().collect();
                    self.durable_names.retain(|name, _| !gone.iter().any(|gone| name.starts_with(gone)));
                    self.durable_names.retain(|name, _| !inside(name));
                    let now = self.names.iter().filter(|(name, _)| inside(name));
                    self.durable_names.extend(now.map(|(name, node)| (name.clone(), *node)));
                }
            },
            Change::Rename { from, to } => {
                let node = self.names.remove(from).expect("what is renamed is there");
                self.names.insert(to.clone(), node);
            }
            Change::Remove(path) => drop(self.names.remove(path)),
        }
    }

    fn file(&mut self, path: &Path) -> &mut File {
        match self.names.get(path) {
            Some(Node::File(id)) => &mut self.files[*id],
            _ => panic!("{} is written to and was never made", path.display()),
        }
    }

    /// Whether this name is there for a program that runs.
    pub fn sees(&self, path: &Path) -> bool {
        self.names.contains_key(path)
    }

    /// The files after a power cut: their paths and contents, folders without one.
    pub fn after_power_cut(&self, survives: Survives, seed: usize) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let names_survive = matches!(survives, Survives::Names | Survives::NamesAndSomeBytes);
        let names = if names_survive { &self.names } else { &self.durable_names };
        let reachable = |path: &Path| {
            let above = path.ancestors().skip(1).find(|above| self.names.contains_key(*above));
            above.is_none_or(|above| names.contains_key(above))
        };
        let content = |id: usize| {
            let keeps = |index: usize| match survives {
                Survives::Nothing | Survives::Names => false,
                Survives::Bytes => true,
                // Any half will do, as long as it is another one each time and the same in each run.
                Survives::NamesAndSomeBytes => (seed.wrapping_mul(31) ^ ((id * 7 + index) * 13)) % 5 < 3,
            };
            self.files[id].content(keeps)
        };
        let left = names.iter().filter(|(path, _)| reachable(path)).map(|(path, node)| match node {
            Node::Folder => (path.clone(), None),
            Node::File(id) => (path.clone(), Some(content(*id))),
        });
        left.collect()
    }
}

impl File {
    fn content(&self, keeps: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut content = self.synced.clone();
        for (index, change) in self.pending.iter().enumerate().filter(|(index, _)| keeps(*index)) {
            match change {
                Change::Write { offset: Some(offset), bytes, .. } => {
                    let end = offset + bytes.len();
                    content.resize(content.len().max(end), 0);
                    content[*offset..end].copy_from_slice(bytes);
                }
                Change::Resize { length, .. } => content.resize(*length, 0),
                other => unreachable!("{other:?} at {index} is no change of bytes"),
            }
        }
        content
    }
}

//! The programs of a host that send the users to the right place: a DNS record, a pool of a load balancer.
//!
//! They are run by `operation` after the VM has come to this host, and after it has gone. NOT a plug-in interface: a program that fails is
//! said to have failed, and changes nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::VmId;

/// How long one of them may take.
const RUNS_MAX: Duration = Duration::from_secs(30);

/// Where the users are to be sent, as seen from this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// The VM runs here now.
    Here,
    /// It belongs to the other host again.
    Away,
}

impl Direction {
    fn word(self) -> &'static str {
        match self {
            Direction::Here => "here",
            Direction::Away => "away",
        }
    }
}

/// Runs all programs of a directory in the order of their names; gives what became of each, in words.
pub(crate) async fn run(directory: &Path, vm: VmId, vm_name: &str, direction: Direction) -> String {
    let mut results = Vec::new();
    for program in programs(directory) {
        let mut command = tokio::process::Command::new(&program);
        command.env("VM_NAME", vm_name).env("VM_UUID", vm.to_string()).env("DIRECTION", direction.word());
        command.kill_on_drop(true);
        let word = match tokio::time::timeout(RUNS_MAX, command.status()).await {
            Ok(Ok(status)) if status.success() => "done".to_owned(),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("not done within {} s", RUNS_MAX.as_secs()),
        };
        results.push(format!("{}: {word}", program.display()));
    }
    if results.is_empty() { "no redirect hooks are configured".into() } else { results.join("; ") }
}

/// As `run-parts` chooses them: a copy that an editor or a package left beside a program is none.
fn programs(directory: &Path) -> Vec<PathBuf> {
    let plain = |name: &str| name.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    let runs = |path: &PathBuf| {
        let named = path.file_name().and_then(|name| name.to_str()).is_some_and(plain);
        named && path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut programs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(runs).collect();
    programs.sort();
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(directory: &Path, name: &str, mode: u32, text: &str) {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }

    #[tokio::test]
    async fn programs_are_told_where_the_vm_is_and_what_lies_beside_them_is_not_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let told = dir.path().join("told.txt");
        let tell = format!("#!/bin/sh\necho \"$0 $VM_NAME $DIRECTION\" >>{}\n", told.display());
        for (name, mode) in [("20-dns", 0o755), ("10_pool", 0o755)] {
            put(dir.path(), name, mode, &tell);
        }
        for (name, mode) in [("20-dns.bak", 0o755), ("20-dns~", 0o755), ("README", 0o644)] {
            put(dir.path(), name, mode, &tell);
        }
        put(dir.path(), "30-fails", 0o755, "#!/bin/sh\nexit 3\n");
        std::fs::create_dir(dir.path().join("40-more")).expect("a directory");
        let vm = VmId(uuid::Uuid::from_u128(1));
        for (direction, word) in [(Direction::Here, "here"), (Direction::Away, "away")] {
            let said = run(dir.path(), vm, "my VM", direction).await;
            let heard = std::fs::read_to_string(&told).expect("told");
            let names: Vec<String> = ["10_pool", "20-dns"]
                .map(|name| format!("{} my VM {word}", dir.path().join(name).display()))
                .to_vec();
            assert_eq!(heard.lines().collect::<Vec<_>>(), names);
            assert!(said.contains("30-fails: exit status: 3") && !said.contains("40-more"), "{said}");
            std::fs::remove_file(&told).expect("removed");
        }
        assert_eq!(
            run(&dir.path().join("none"), vm, "vm", Direction::Here).await,
            "no redirect hooks are configured"
        );
    }
}

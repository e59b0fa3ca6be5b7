//! What libvirt's `qemu` hook calls: refuses to start a VM that is a replica on this host.
//!
//! It reads the database, never talks to libvirt (that would dead-lock) and never waits for the daemon. Only the moments
//! before a start can be refused; everywhere else, `reconnect` above all, a failure would make libvirt kill a running VM.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use store::{Guard, GuardVerdict};

/// Longest definition that is read; libvirt's own limit is larger, real ones are far smaller.
const DEFINITION_BYTES_MAX: u64 = 4 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let moment = arguments.get(2).map(String::as_str).unwrap_or_default();
    if !matches!(moment, "prepare" | "start" | "migrate" | "restore") {
        return ExitCode::SUCCESS;
    }
    // Nothing below may hold a start up: a watchdog ends a look that hangs, and lets the VM start.
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_secs(2));
        eprintln!("virt-replica: the state database did not answer in time; the start is allowed");
        std::process::exit(0);
    });
    let database = std::env::var_os("VIRT_REPLICA_STATE")
        .map_or_else(|| PathBuf::from("/var/lib/virt-replica/state.db"), PathBuf::from);
    let mut definition = String::new();
    let _ = std::io::stdin().take(DEFINITION_BYTES_MAX).read_to_string(&mut definition);
    let Some(vm) = uuid_in(&definition) else { return ExitCode::SUCCESS };
    match Guard::open(&database).and_then(|guard| guard.verdict(vm)) {
        Ok(GuardVerdict::Refused(line)) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
        Ok(GuardVerdict::NotProtected | GuardVerdict::Allowed) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virt-replica: {error}; the start is allowed");
            ExitCode::SUCCESS
        }
    }
}

/// The first UUID of a definition: libvirt writes it directly after the name.
fn uuid_in(definition: &str) -> Option<&str> {
    let (_, rest) = definition.split_once("<uuid>")?;
    let (uuid, _) = rest.split_once("</uuid>")?;
    Some(uuid.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uuid_is_found_where_libvirt_writes_it() {
        assert_eq!(uuid_in("<domain><name>x</name>\n  <uuid>11-22</uuid>"), Some("11-22"));
        assert_eq!(uuid_in("<domain>"), None);
        assert_eq!(uuid_in(""), None);
    }
}

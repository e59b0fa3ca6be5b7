//! Hosts with a thousand VMs: definitions that nobody starts, and replicas that are rows of the store.
//!
//! NOT for what a VM does: these have no disk, and their files are not looked at by any list.

use anyhow::Result;

use crate::host::Host;

/// The first of a crowd; the others count on. The script below writes the same.
fn uuid(number: usize) -> String {
    format!("6a1c0de0-0000-4000-8000-{number:012}")
}

/// Defines so many VMs, `copy0001` and so on.
pub fn define_crowd(host: &Host, count: usize) -> Result<()> {
    let folder = host.path("/run/crowd")?;
    std::fs::create_dir_all(&folder)?;
    let mut script = String::new();
    for number in 1..=count {
        let definition = format!(
            "<domain type='qemu'><name>copy{number:04}</name><uuid>{}</uuid><memory unit='MiB'>64</memory>\
             <os><type arch='x86_64'>hvm</type></os></domain>",
            uuid(number)
        );
        std::fs::write(folder.join(format!("{number}.xml")), definition)?;
        script += &format!("define /run/crowd/{number}.xml\n");
    }
    std::fs::write(folder.join("script"), script)?;
    host.sh("virsh -q -c qemu:///system < /run/crowd/script").map(drop)
}

/// Rows like that of the one replica that there is.
const MULTIPLY: &str = r#"
import sqlite3, sys, uuid
replicas = int(sys.argv[1])
state = sqlite3.connect("/var/lib/virt-replica/state.db")
state.row_factory = sqlite3.Row
row = dict(state.execute("SELECT * FROM relationship").fetchone())
for number in range(1, replicas):
    vm = "6a1c0de0-0000-4000-8000-%012d" % number
    copy = dict(row, id=str(uuid.uuid4()), vm=vm, vm_name="copy%04d" % number, directory=None)
    names = ", ".join(copy)
    state.execute("INSERT INTO relationship (%s) VALUES (%s)" % (names, ", ".join("?" * len(copy))), list(copy.values()))
state.commit()
"#;

/// Cycles that were acknowledged, one every five minutes until now, of each relationship.
const REMEMBER: &str = r#"
import sqlite3, sys, time
cycles = int(sys.argv[1])
state = sqlite3.connect("/var/lib/virt-replica/state.db")
ids = [id for id, in state.execute("SELECT id FROM relationship")]
now = int(time.time() * 1000)
insert = "INSERT INTO cycle (relationship, begun_ms, latency_ms, bytes, outcome) VALUES (?, ?, 900, 1048576, 'acknowledged')"
state.executemany(insert, ((id, now - number * 300000) for id in ids for number in range(cycles)))
state.commit()
"#;

/// Makes the one relationship of a host whose daemon is down as many, of the VMs of [`define_crowd`].
pub fn multiply_relationships(host: &Host, count: usize) -> Result<()> {
    host.exec(["python3", "-c", MULTIPLY, &count.to_string()]).map(drop)
}

/// Gives each relationship of a host whose daemon is down a history of so many cycles.
pub fn remember_cycles(host: &Host, cycles: usize) -> Result<()> {
    host.exec(["python3", "-c", REMEMBER, &cycles.to_string()]).map(drop)
}

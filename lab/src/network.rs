//! The wire between the hosts and the outside.
//!
//! ```text
//!          lan machine: bridge lan0, 10.77.0.1 ── the judge and other clients sit here
//!             │ to-hvhost01              │ to-hvhost02
//!             │                          │
//!    hvhost01: uplink ┐         hvhost02: uplink ┐
//!              br0 10.77.0.11            br0 10.77.0.12
//!               └ guests                  └ guests       same network on both: a guest keeps its address
//! ```
//! NOT a model of a slow or lossy line: the link is whole or cut.

use std::process::Command;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::namespace::Namespace;
use crate::run::run;

/// Address of the outside, and length of the network's prefix.
pub(crate) const LAN_ADDRESS: &str = "10.77.0.1";
pub(crate) const PREFIX: u8 = 24;
/// Address of the machine that the lab runs on, once it is joined.
const REAL_MACHINE_ADDRESS: &str = "10.77.0.2";

const LAN: &str = "
ip link set lo up
ip link add lan0 type bridge forward_delay 0
ip addr add ADDRESS dev lan0
ip link set lan0 up
";

const PORT: &str = "
ip link del to-HOST 2>/dev/null || true
ip link add to-HOST type veth peer name uplink netns PID
ip link set to-HOST master lan0 up
";

/// From the real machine to the switch: its browser reaches the hosts. Goes with the machine in the middle.
const MACHINE: &str = "
ip link del vr-lab 2>/dev/null || true
ip link add vr-lab type veth peer name to-machine netns PID
ip addr add ADDRESS dev vr-lab
ip link set vr-lab up
";
const MACHINE_PORT: &str = "ip link set to-machine master lan0 up";

const HOST_SIDE: &str = "
ip link set lo up
ip link add br0 address MAC type bridge forward_delay 0
ip link set uplink master br0 up
ip addr add ADDRESS dev br0
ip link set br0 up
";

/// Makes the switch in the middle.
pub(crate) fn make_lan(lan: &Namespace) -> Result<()> {
    script(lan, &LAN.replace("ADDRESS", &format!("{LAN_ADDRESS}/{PREFIX}")))
        .context("network between the hosts")
}

/// Joins the machine that the lab runs on to the switch.
pub(crate) fn join_real_machine(lan: &Namespace) -> Result<()> {
    let address = format!("{REAL_MACHINE_ADDRESS}/{PREFIX}");
    let script_here = MACHINE.replace("PID", &lan.pid().to_string()).replace("ADDRESS", &address);
    run(Command::new("sh").args(["-ec", &script_here])).context("a way from this machine into the lab")?;
    script(lan, MACHINE_PORT)
}

/// Joins a machine to the switch; a port that an earlier life of the machine left is replaced.
pub(crate) fn join(
    lan: &Namespace,
    machine: &Namespace,
    name: &str,
    address: &str,
    number: u8,
) -> Result<()> {
    let port = PORT.replace("HOST", name).replace("PID", &machine.pid().to_string());
    script(lan, &port).with_context(|| format!("port of {name}"))?;
    let mac = format!("52:54:00:77:01:{number:02x}");
    let side = HOST_SIDE.replace("MAC", &mac).replace("ADDRESS", &format!("{address}/{PREFIX}"));
    script(machine, &side).with_context(|| format!("network of {name}"))
}

/// Drops, on `host`, whatever comes from or goes to `other`. Guests are bridged, not routed, hence untouched.
pub(crate) fn cut(host: &Host, other: &Host) -> Result<()> {
    heal(host)?;
    let rules = format!(
        "table ip vrcut {{
            chain arriving {{ type filter hook input priority 0; ip saddr {address} drop; }}
            chain leaving {{ type filter hook output priority 0; ip daddr {address} drop; }}
        }}",
        address = other.address()
    );
    host.exec(["nft", &rules]).map(drop)
}

/// Drops, on `host`, whatever comes from `other`; what goes there arrives.
pub(crate) fn deafen(host: &Host, other: &Host) -> Result<()> {
    heal(host)?;
    let rules = format!(
        "table ip vrcut {{ chain arriving {{ type filter hook input priority 0; ip saddr {} drop; }}; }}",
        other.address()
    );
    host.exec(["nft", &rules]).map(drop)
}

/// Takes the cut away; no cut is no error.
pub(crate) fn heal(host: &Host) -> Result<()> {
    host.exec(["nft", "add table ip vrcut; delete table ip vrcut"]).map(drop)
}

fn script(machine: &Namespace, text: &str) -> Result<()> {
    run(machine.network_command("sh").args(["-ec", text])).map(drop)
}
